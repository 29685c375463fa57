use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use super::*;

const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1C83 00000000:0000 0A 00000000:00000000
   1: 0100007F:1C84 0100007F:9999 01 00000000:00000000
";

#[test]
fn only_listeners_count_as_listening() {
    assert!(lists_listener(TABLE, 0x1C83));
    assert!(!lists_listener(TABLE, 0x1C84));
    assert!(!lists_listener(TABLE, 0x9999));
}

#[test]
fn what_a_living_process_made_is_not_left_behind() {
    let own = std::process::id();
    assert!(!is_left_behind(&format!("{PREFIX}{own}-a"), PREFIX));
    assert!(!is_left_behind("somebody-elses", PREFIX));
    // Larger than any process number.
    assert!(is_left_behind(&format!("{PREFIX}999999999-a"), PREFIX));
}

/// Bytes pass from the first to the last namespace, with the congestion control that was asked for; nothing stays.
#[test]
fn path_is_laid_and_taken_away() {
    if !geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED path_is_laid_and_taken_away: namespaces need root"
        );
        return;
    }
    let left = Command::new("ip")
        .args(["netns", "add", &format!("{PREFIX}999999998-a")])
        .status();
    assert!(left.is_ok_and(|status| status.success()));
    let lab =
        Lab::lay(Middle::Wire(LinkMtu::ETHERNET), &Interrupt::default()).expect("we are root");
    let listener = lab
        .within(Side::Server, || TcpListener::bind((SERVER, 7000)))
        .expect("it is there")
        .expect("nobody else is");
    assert!(lab.is_listening(Side::Server, 7000) && !lab.is_listening(Side::Server, 7001));
    let mut near = lab
        .within(Side::Client, || TcpStream::connect((SERVER, 7000)))
        .expect("it is there")
        .expect("the kernels forward");
    let (mut far, from) = listener.accept().expect("it came");
    assert_eq!(from.ip(), CLIENT);
    near.write_all(b"hello").expect("it is open");
    let mut got = [0; 5];
    far.read_exact(&mut got).expect("it arrives");
    assert_eq!(&got, b"hello");
    assert_eq!(lab.congestion_controls(Side::Client), [CONGESTION]);
    let own = Side::ALL.map(|side| lab.namespace(side));
    drop(lab);
    let names = names_in("/run/netns");
    let stayed = |name: &String| own.contains(name) || name.contains("999999998");
    assert!(!names.iter().any(stayed), "{names:?}");
}

#[test]
fn every_link_carries_packets_of_the_size_that_is_asked_for() {
    if !geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED every_link_carries_packets_of_the_size_that_is_asked_for: namespaces need root"
        );
        return;
    }
    let lab = Lab::lay(Middle::Wire(LinkMtu(9_000)), &Interrupt::default()).expect("we are root");
    for side in Side::ALL {
        let links = lab
            .ip_in(side, "-oneline link show type veth")
            .expect("they are there");
        assert!(
            links.lines().all(|link| link.contains(" mtu 9000 ")),
            "{links}"
        );
    }
}
