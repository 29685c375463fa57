//! What stands between two gateways decides by the port where packets go: how connections get around what it decided.

use std::{sync::Arc, time::Duration};

use corinth_transport::{LinkState, Transport, quic::QuicSettings};

use crate::{pair::settled, quic::Dialled, run, talk::Talk};

fn hasty(settings: &mut QuicSettings) {
    settings.timeouts.probe_interval = Duration::from_millis(100);
}

#[test]
fn each_dial_comes_from_a_port_of_its_own() {
    run::to_its_end(|| async {
        let dialled = Dialled::new().await;
        assert_eq!(dialled.proxy.clients(), 1);
        let again = dialled.near.dial(&dialled.target).await.unwrap();
        assert!(Arc::ptr_eq(&again, &dialled.link));
        assert_eq!(dialled.proxy.clients(), 2);
    });
}

#[test]
fn a_port_whose_packets_are_lost_is_left_for_another_one_before_the_peer_counts_as_dead() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(hasty).await;
        let (_stranded, _) = dialled.stream().await;
        let mut state = dialled.link.state();
        state.mark_unchanged();
        dialled.proxy.strand();
        let link = Arc::clone(&dialled.link);
        run::eventually(|| link.stats().dialled == 2).await;
        let (mut near, mut far) = dialled.stream().await;
        near.write(b"another way").await.unwrap();
        assert_eq!(far.read(11).await.unwrap(), b"another way");
        // The old connection is given up meanwhile, and nothing is heard of it.
        run::eventually(|| link.stats().connections == 1).await;
        assert!(!state.has_changed().unwrap(), "{:?}", *state.borrow());
        assert!(!link.stats().is_overdue);
    });
}

#[test]
fn a_peer_that_answers_on_no_port_is_dead_within_a_second() {
    run::to_its_end(|| async {
        let dialled = Dialled::with(hasty).await;
        dialled.proxy.cut();
        let dead = settled(&dialled.link, LinkState::Dead);
        let in_time = tokio::time::timeout(Duration::from_secs(1), dead).await;
        assert!(in_time.is_ok());
    });
}
