use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use corinth_wan::{Direction, Step, Wan, within};

use crate::lab::{QUIET, connect, forward, impairment, sockets, spec, survivors, turn, wan};

#[test]
fn blocked_udp_leaves_tcp_alone() {
    let Some(_turn) = turn("blocked_udp_leaves_tcp_alone") else {
        return;
    };
    let wan = forward("udp blocked");
    assert!(survivors(&sockets(&wan, 0), 10).is_empty());
    assert!(survivors(&sockets(&wan, 1), 10).is_empty());
    let [mut caller, mut called] = connect(&wan, wan.addresses(1)[1]);
    caller.write_all(b"tcp").unwrap();
    called.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(wan.counters()[0].dropped.udp_blocked, 20);
}

#[test]
fn duplicates_and_corruption_are_seen_by_the_receiver() {
    let Some(_turn) = turn("duplicates_and_corruption_are_seen_by_the_receiver") else {
        return;
    };
    let twice = forward("duplicate 100%");
    let numbers = survivors(&sockets(&twice, 0), 5);
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    drop(twice);
    // Every packet has a flipped bit, which the checksum of UDP finds.
    let broken = forward("corrupt 100%");
    assert!(survivors(&sockets(&broken, 1), 50).is_empty());
    assert_eq!(broken.counters()[0].corrupted, 50);
}

#[test]
fn a_change_counts_from_now_on() {
    let Some(_turn) = turn("a_change_counts_from_now_on") else {
        return;
    };
    let wan = wan("");
    let sockets = sockets(&wan, 0);
    assert_eq!(survivors(&sockets, 3), [0, 1, 2]);
    wan.set(Direction::Forward, &impairment("blackout"))
        .unwrap();
    assert!(survivors(&sockets, 3).is_empty());
    wan.set(Direction::Forward, &impairment("")).unwrap();
    assert_eq!(survivors(&sockets, 3), [0, 1, 2]);
    assert_eq!(wan.counters()[0].dropped.blackout, 3);
    assert_eq!(wan.impairments()[0], impairment(""));
    assert!(wan.set(Direction::Back, &impairment("loss 200%")).is_err());
}

#[test]
fn a_shorter_queue_wakes_whoever_waits_for_the_old_one() {
    let Some(_turn) = turn("a_shorter_queue_wakes_whoever_waits_for_the_old_one") else {
        return;
    };
    let wan = forward("rate 8kbit queue 1m");
    let [near, far] = sockets(&wan, 0);
    // The first takes 50 ms, the others a second each.
    near.send(&[0; 22]).unwrap();
    near.send(&[0; 972]).unwrap();
    near.send(&[0; 972]).unwrap();
    far.recv(&mut [0; 64]).unwrap();
    wan.set(Direction::Forward, &impairment("")).unwrap();
    far.set_read_timeout(Some(Duration::from_millis(1_500)))
        .unwrap();
    far.recv(&mut [0; 64]).unwrap();
    far.recv(&mut [0; 64]).unwrap();
}

#[test]
fn a_timeline_happens_by_itself() {
    let Some(_turn) = turn("a_timeline_happens_by_itself") else {
        return;
    };
    let mut spec = spec("delay 1ms");
    spec.timeline = vec![
        Step::parse("400ms", "forward blackout", 1).unwrap(),
        Step::parse("800ms", "clear", 2).unwrap(),
    ];
    let wan = Wan::start(&spec).unwrap();
    let [near, far] = sockets(&wan, 0);
    far.set_read_timeout(Some(QUIET)).unwrap();
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let mut packet = [0; 8];
    while wan.age() < Duration::from_millis(1_200) {
        sent.push(wan.age());
        near.send(&(sent.len() as u64).to_be_bytes()).unwrap();
        far.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        while far.recv(&mut packet).is_ok() {
            got.push(u64::from_be_bytes(packet) as usize - 1);
        }
    }
    // A busy machine takes a step late, but never a tenth of a second.
    let dark = |at: &Duration| (500..790).contains(&at.as_millis());
    let light = |at: &Duration| at.as_millis() < 390 || (900..1_100).contains(&at.as_millis());
    for (number, at) in sent.iter().enumerate() {
        assert!(
            !dark(at) || !got.contains(&number),
            "{number} was sent at {at:?}"
        );
        assert!(
            !light(at) || got.contains(&number),
            "{number} was sent at {at:?}"
        );
    }
}

/// Writes until the other side has `bytes`; whether it got them in time.
fn moves(caller: &mut TcpStream, called: &mut TcpStream, bytes: usize) -> bool {
    called
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut got = vec![0; bytes];
    let sent = vec![1; bytes];
    thread::scope(|scope| {
        scope.spawn(|| caller.write_all(&sent).unwrap());
        called.read_exact(&mut got).is_ok()
    })
}

#[test]
fn a_sender_that_is_told_sends_smaller_packets() {
    let Some(_turn) = turn("a_sender_that_is_told_sends_smaller_packets") else {
        return;
    };
    let wan = wan("delay 2ms");
    for target in wan.addresses(1) {
        wan.set(Direction::Forward, &impairment("delay 2ms"))
            .unwrap();
        let [mut caller, mut called] = connect(&wan, target);
        assert!(moves(&mut caller, &mut called, 100_000));
        let told = wan.counters()[0].too_big_told;
        wan.set(Direction::Forward, &impairment("delay 2ms mtu 1280"))
            .unwrap();
        assert!(moves(&mut caller, &mut called, 100_000), "to {target}");
        assert!(wan.counters()[0].too_big_told > told, "to {target}");
    }
}

#[test]
fn a_sender_that_is_not_told_stalls() {
    let Some(_turn) = turn("a_sender_that_is_not_told_stalls") else {
        return;
    };
    let wan = wan("delay 2ms");
    let no_probing = || fs::write("/proc/sys/net/ipv4/tcp_mtu_probing", "0").unwrap();
    within(&wan.sides()[0].namespace, no_probing).unwrap();
    let [mut caller, mut called] = connect(&wan, wan.addresses(1)[0]);
    let hole = impairment("delay 2ms mtu 1280 oversize vanishes");
    wan.set(Direction::Forward, &hole).unwrap();
    assert!(moves(&mut caller, &mut called, 1_000));
    assert!(!moves(&mut caller, &mut called, 5_000));
    assert!(wan.counters()[0].dropped.oversize > 1);
    assert_eq!(wan.counters()[0].too_big_told, 0);
}

#[test]
fn a_device_has_the_mtu_it_was_given() {
    let Some(_turn) = turn("a_device_has_the_mtu_it_was_given") else {
        return;
    };
    let mut spec = spec("");
    spec.mtu_bytes = 1_300;
    let wan = Wan::start(&spec).unwrap();
    let [near, far] = sockets(&wan, 0);
    // Larger than the MTU: the kernel fragments it, or refuses. The network sees no packet beyond 1300.
    let _ = near.send(&[0; 1_400]);
    near.send(&[0; 1_200]).unwrap();
    far.recv(&mut [0; 2_000]).unwrap();
    let [forward, _] = wan.counters();
    assert!(forward.arrived_bytes <= 1_300 * forward.arrived_packets);
}
