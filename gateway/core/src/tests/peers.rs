//! Which links are wanted.

use super::lab::{cluster, gateway_of, world};
use crate::{Action, Event, LinkState};

fn dial(peer: &str, domain: &str) -> Action {
    Action::Dial {
        peer: cluster(peer),
        trust_domain: gateway_of(domain).trust_domain,
    }
}

fn drain(peer: &str, domain: &str) -> Action {
    Action::Drain {
        peer: cluster(peer),
        trust_domain: gateway_of(domain).trust_domain,
    }
}

#[test]
fn new_peers_are_dialled_before_old_ones_are_drained() {
    let mut lab = world().peer("b").peer("c").lab();

    lab.apply(world().peer("c").peer("d"));

    assert_eq!(lab.actions(), [dial("d", "d"), drain("b", "b")]);
}

#[test]
fn a_peer_under_a_new_trust_domain_is_drained_and_dialled_anew() {
    let mut lab = world().peer("b").lab();

    lab.apply(world().peer_under("b", "other", 10));

    assert_eq!(lab.actions(), [drain("b", "b"), dial("b", "other")]);
    assert_eq!(
        lab.core.links().collect::<Vec<_>>(),
        [(&cluster("b"), LinkState::Down)]
    );
}

#[test]
fn the_same_peers_again_change_nothing() {
    let mut lab = world().peer("b").lab();

    lab.apply(world().peer_with("b", 3));

    assert_eq!(lab.actions(), []);
    assert_eq!(
        lab.core.links().collect::<Vec<_>>(),
        [(&cluster("b"), LinkState::Up)]
    );
}

#[test]
fn a_link_is_announced_when_it_changes_and_only_then() {
    let mut lab = world().peer("b").lab();

    lab.link("b", LinkState::Up);
    lab.link("b", LinkState::Down);
    lab.link("b", LinkState::Down);
    lab.link("stranger", LinkState::Up);

    let peer = cluster("b");
    let state = LinkState::Down;
    assert_eq!(lab.events(), [Event::LinkChanged { peer, state }]);
}
