use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

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

/// The book, where there is room for all.
fn room(assigned: Assigned) -> PortBook {
    assert_eq!(assigned.without, [""; 0]);
    assigned.book
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
    let book = room(allocator.assign(&PortBook::default(), &wanted(&["b", "c"]), 0));
    assert_eq!(ports(&book), [("b", 20), ("c", 21)]);
    let book = room(allocator.assign(&book, &wanted(&["a", "c", "b"]), 1));
    assert_eq!(ports(&book), [("a", 22), ("b", 20), ("c", 21)]);
}

#[test]
fn a_freed_port_waits_an_hour_except_for_its_own_service() {
    let allocator = allocator(20, 21);
    let first = room(allocator.assign(&PortBook::default(), &wanted(&["a"]), 0));
    let freed = room(allocator.assign(&first, &wanted(&[]), 10));
    let other = room(allocator.assign(&freed, &wanted(&["b"]), 11));
    assert_eq!(ports(&other), [("b", 21)]);
    let full = allocator.assign(&other, &wanted(&["b", "c"]), 9 + HOUR);
    assert_eq!(full.without, ["c"]);
    assert_eq!(ports(&full.book), [("b", 21)]);
    let back = room(allocator.assign(&other, &wanted(&["a", "b"]), 12));
    assert_eq!(ports(&back), [("a", 20), ("b", 21)]);
    let later = room(allocator.assign(&other, &wanted(&["b", "c"]), 10 + HOUR));
    assert_eq!(ports(&later), [("b", 21), ("c", 20)]);
}

#[test]
fn a_service_that_leaves_while_another_comes_does_not_hand_over() {
    let allocator = allocator(20, 21);
    let book = room(allocator.assign(&PortBook::default(), &wanted(&["a"]), 0));
    let book = room(allocator.assign(&book, &wanted(&["b"]), 1));
    assert_eq!(ports(&book), [("b", 21)]);
}

#[test]
fn a_port_written_down_wins_and_is_not_given_to_others() {
    let allocator = allocator(20, 22);
    let book = room(allocator.assign(&PortBook::default(), &wanted(&["a", "b"]), 0));
    let mut wants = wanted(&["a", "b", "c"]);
    wants[2].fixed = Some(port(20));
    let book = room(allocator.assign(&book, &wants, 1));
    assert_eq!(ports(&book), [("a", 22), ("b", 21), ("c", 20)]);
}

#[test]
fn taken_ports_and_ports_outside_the_range_are_left() {
    let mut allocator = allocator(20, 23);
    let book = room(allocator.assign(&PortBook::default(), &wanted(&["a", "b"]), 0));
    allocator.taken.insert(20);
    let book = room(allocator.assign(&book, &wanted(&["a", "b"]), 1));
    assert_eq!(ports(&book), [("a", 22), ("b", 21)]);
    allocator.range.first = port(22);
    let book = room(allocator.assign(&book, &wanted(&["a", "b"]), 2));
    assert_eq!(ports(&book), [("a", 22), ("b", 23)]);
}

#[test]
fn a_clock_set_back_does_not_hold_ports_for_ever() {
    let allocator = allocator(20, 20);
    let book = room(allocator.assign(&PortBook::default(), &wanted(&["a"]), 100 * HOUR));
    let book = room(allocator.assign(&book, &wanted(&[]), 100 * HOUR));
    let book = room(allocator.assign(&book, &wanted(&[]), 0));
    let book = room(allocator.assign(&book, &wanted(&["b"]), HOUR));
    assert_eq!(ports(&book), [("b", 20)]);
}

#[test]
fn no_two_services_ever_share_a_port_even_from_a_damaged_book() {
    let book: PortBook = serde_json::from_str(
        r#"{"given": {"a": 20, "b": 20}, "freed": {"20": {"service": "c", "at": 0}}}"#,
    )
    .expect("well formed");
    let book = room(allocator(20, 29).assign(&book, &wanted(&["a", "b", "c"]), 0));
    let distinct: BTreeSet<_> = book.given.values().collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn eight_thousand_services_get_a_port_each() {
    let names: Vec<_> = (0..8000).map(|n| format!("s{n}.ns:80/tcp")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let allocator = allocator(20_000, 27_999);
    let book = room(allocator.assign(&PortBook::default(), &wanted(&names), 0));
    let again = room(allocator.assign(&book, &wanted(&names), 1));
    assert_eq!(again, book);
}

proptest! {
    #[test]
    fn a_book_that_is_adjusted_is_the_one_that_would_be_assigned(
        steps in vec((btree_set(0..9_u8, 0..9), 0..HOUR), 1..20),
    ) {
        let allocator = allocator(20, 27);
        let names = |services: &BTreeSet<u8>| -> Vec<String> {
            services.iter().map(|service| format!("s{service}.ns:80/tcp")).collect()
        };
        let (mut before, mut now) = (BTreeSet::new(), 0);
        let mut book = PortBook::default();
        for (services, later) in steps {
            now += later;
            let names_of_all = names(&services);
            let all: Vec<_> = names_of_all.iter().map(String::as_str).collect();
            let assigned = allocator.assign(&book, &wanted(&all), now);
            let gone = names(&before.difference(&services).copied().collect());
            let came = names(&services.difference(&before).copied().collect());
            let mut adjusted = book.clone();
            let has_all = allocator.adjust(&mut adjusted, &gone, &came, now);
            prop_assert_eq!(has_all, assigned.without.is_empty());
            if !has_all {
                return Ok(());
            }
            prop_assert_eq!(&adjusted, &assigned.book);
            (before, book) = (services, adjusted);
        }
    }
}
