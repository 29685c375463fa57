use super::*;

const HOUR: u64 = 3600;

fn allocator(first: u16, last: u16) -> PortAllocator {
    PortAllocator {
        range: PortRange {
            first: port(first),
            last: port(last),
        },
        taken: BTreeSet::new(),
    }
}

fn port(number: u16) -> PortNumber {
    PortNumber::new(number).expect("not zero")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn wanted(services: &[&str]) -> Vec<Wanted> {
    let free = |service: &&str| Wanted {
        service: (*service).to_owned(),
        fixed: None,
    };
    services.iter().map(free).collect()
}

fn ports(book: &PortBook) -> Vec<(&str, u16)> {
    book.given
        .iter()
        .map(|(service, port)| (service.as_str(), port.get()))
        .collect()
}

#[test]
fn services_keep_their_ports() {
    let allocator = allocator(20, 29);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["b", "c"]), at(0))
        .expect("room");
    assert_eq!(ports(&book), [("b", 20), ("c", 21)]);
    let book = allocator
        .assign(&book, &wanted(&["a", "c", "b"]), at(1))
        .expect("room");
    assert_eq!(ports(&book), [("a", 22), ("b", 20), ("c", 21)]);
}

#[test]
fn a_freed_port_waits_an_hour_except_for_its_own_service() {
    let allocator = allocator(20, 21);
    let first = allocator
        .assign(&PortBook::default(), &wanted(&["a"]), at(0))
        .expect("room");
    let freed = allocator
        .assign(&first, &wanted(&[]), at(10))
        .expect("room");
    let other = allocator
        .assign(&freed, &wanted(&["b"]), at(11))
        .expect("room");
    assert_eq!(ports(&other), [("b", 21)]);
    let full = allocator.assign(&other, &wanted(&["b", "c"]), at(9 + HOUR));
    assert_eq!(
        full,
        Err(NoPortLeft {
            service: "c".to_owned()
        })
    );
    let back = allocator
        .assign(&other, &wanted(&["a", "b"]), at(12))
        .expect("its own");
    assert_eq!(ports(&back), [("a", 20), ("b", 21)]);
    let later = allocator
        .assign(&other, &wanted(&["b", "c"]), at(10 + HOUR))
        .expect("an hour later");
    assert_eq!(ports(&later), [("b", 21), ("c", 20)]);
}

#[test]
fn a_service_that_leaves_while_another_comes_does_not_hand_over() {
    let allocator = allocator(20, 21);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["a"]), at(0))
        .expect("room");
    let book = allocator
        .assign(&book, &wanted(&["b"]), at(1))
        .expect("room");
    assert_eq!(ports(&book), [("b", 21)]);
}

#[test]
fn a_port_written_down_wins_and_is_not_given_to_others() {
    let allocator = allocator(20, 22);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["a", "b"]), at(0))
        .expect("room");
    let mut wants = wanted(&["a", "b", "c"]);
    wants[2].fixed = Some(port(20));
    let book = allocator.assign(&book, &wants, at(1)).expect("room");
    assert_eq!(ports(&book), [("a", 22), ("b", 21), ("c", 20)]);
}

#[test]
fn taken_ports_and_ports_outside_the_range_are_left() {
    let mut allocator = allocator(20, 23);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["a", "b"]), at(0))
        .expect("room");
    allocator.taken.insert(20);
    let book = allocator
        .assign(&book, &wanted(&["a", "b"]), at(1))
        .expect("room");
    assert_eq!(ports(&book), [("a", 22), ("b", 21)]);
    allocator.range.first = port(22);
    let book = allocator
        .assign(&book, &wanted(&["a", "b"]), at(2))
        .expect("room");
    assert_eq!(ports(&book), [("a", 22), ("b", 23)]);
}

#[test]
fn a_clock_set_back_does_not_hold_ports_for_ever() {
    let allocator = allocator(20, 20);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["a"]), at(100 * HOUR))
        .expect("room");
    let book = allocator
        .assign(&book, &wanted(&[]), at(100 * HOUR))
        .expect("room");
    let book = allocator.assign(&book, &wanted(&[]), at(0)).expect("room");
    let book = allocator
        .assign(&book, &wanted(&["b"]), at(HOUR))
        .expect("an hour by this clock");
    assert_eq!(ports(&book), [("b", 20)]);
}

#[test]
fn no_two_services_ever_share_a_port_even_from_a_damaged_book() {
    let book: PortBook = serde_json::from_str(
        r#"{"given": {"a": 20, "b": 20}, "freed": {"20": {"service": "c", "at": 0}}}"#,
    )
    .expect("well formed");
    let book = allocator(20, 29)
        .assign(&book, &wanted(&["a", "b", "c"]), at(0))
        .expect("room");
    let distinct: BTreeSet<_> = book.given.values().collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn eight_thousand_services_get_a_port_each() {
    let names: Vec<_> = (0..8000).map(|n| format!("s{n}.ns:80/tcp")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let allocator = allocator(20_000, 27_999);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&names), at(0))
        .expect("room for all");
    let again = allocator
        .assign(&book, &wanted(&names), at(1))
        .expect("room for all");
    assert_eq!(again, book);
}

#[test]
fn the_book_survives_the_disk_and_damage_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(
        PortBook::load(directory.path()).expect("none yet"),
        PortBook::default()
    );
    let allocator = allocator(20, 29);
    let book = allocator
        .assign(&PortBook::default(), &wanted(&["a"]), at(5))
        .expect("room");
    let book = allocator
        .assign(&book, &wanted(&["b"]), at(6))
        .expect("room");
    book.store(directory.path()).expect("stored");
    assert_eq!(PortBook::load(directory.path()).expect("stored"), book);
    std::fs::write(directory.path().join(FILE), "{").expect("written");
    assert!(matches!(
        PortBook::load(directory.path()),
        Err(PortBookError::Damaged { .. })
    ));
}
