//! How reports move traffic away and back.

use std::time::Duration;

use corinth_model::{Failure, Protocol, Refusal};

use super::lab::{Lab, World, name, target, world};
use crate::{Event, LinkState, Outcome, RouteKey, Standing};

const PAY: &str = "80.pay.shop";
const NEAR: &str = "10.0.0.1:80";

/// One endpoint here and the cluster `b` behind it.
fn near_and_far() -> World {
    world().peer("b").route(PAY).to(NEAR).to("b")
}

fn key() -> RouteKey {
    RouteKey::new(&name(PAY), Protocol::Tcp)
}

fn ejected_for(lab: &Lab, text: &str) -> Option<Duration> {
    match lab.standing(PAY, text) {
        Standing::Ejected { until, .. } => Some(until - lab.now),
        Standing::Serving { .. } | Standing::Probation { .. } => None,
    }
}

#[test]
fn five_failures_in_a_row_eject_a_candidate() {
    let mut lab = near_and_far().lab();

    lab.fail(PAY, NEAR, 4);
    assert_eq!(lab.route(PAY), [NEAR, "b"]);
    lab.fail(PAY, NEAR, 1);

    assert_eq!(lab.route(PAY), ["b", NEAR]);
    let until = lab.now + Duration::from_secs(5);
    assert_eq!(
        lab.events(),
        [Event::Ejected {
            route: key(),
            target: target(NEAR),
            until,
            strikes: 1,
        }]
    );
}

#[test]
fn a_success_in_between_starts_the_count_again() {
    let mut lab = near_and_far().lab();

    lab.fail(PAY, NEAR, 4);
    lab.succeed(PAY, NEAR);
    lab.fail(PAY, NEAR, 4);

    assert_eq!(lab.first(PAY), NEAR);
    lab.succeed(PAY, NEAR);
    assert_eq!(lab.core.standings().count(), 0);
}

#[test]
fn an_ejected_candidate_returns_after_one_good_trial() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);
    lab.events();

    lab.wait(Duration::from_millis(4999));
    assert_eq!(lab.first(PAY), "b");
    lab.wait(Duration::from_millis(1));
    assert_eq!(lab.first(PAY), NEAR);
    lab.succeed(PAY, NEAR);

    assert_eq!(lab.first(PAY), NEAR);
    let (route, target) = (key(), target(NEAR));
    assert_eq!(
        lab.events(),
        [
            Event::OnProbation {
                route: route.clone(),
                target: target.clone(),
            },
            Event::Returned { route, target },
        ]
    );
}

#[test]
fn on_probation_only_one_plan_per_gap_risks_the_candidate() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);
    lab.wait(Duration::from_secs(5));

    let first = |lab: &mut Lab| lab.first(PAY);
    assert_eq!(
        [first(&mut lab), first(&mut lab), first(&mut lab)],
        [NEAR, "b", "b"]
    );
    lab.wait(Duration::from_secs(1));
    assert_eq!([first(&mut lab), first(&mut lab)], [NEAR, "b"]);
}

#[test]
fn each_failed_trial_ejects_for_longer_up_to_the_limit() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);

    for strikes in 2..=70 {
        let pause = ejected_for(&lab, NEAR).unwrap();
        lab.wait(pause);
        assert_eq!(lab.first(PAY), NEAR);
        lab.fail(PAY, NEAR, 1);
        let expected = Duration::from_secs(5 * strikes).min(Duration::from_secs(300));
        assert_eq!(ejected_for(&lab, NEAR), Some(expected));
    }
    assert!(lab.clock(lab.now) > Duration::from_secs(3600));
}

#[test]
fn failures_that_arrive_after_the_ejection_do_not_prolong_it() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);
    let before = lab.standing(PAY, NEAR);

    lab.wait(Duration::from_secs(2));
    lab.fail(PAY, NEAR, 100);

    assert_eq!(lab.standing(PAY, NEAR), before);
}

#[test]
fn a_success_while_ejected_returns_the_candidate_at_once() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);

    lab.succeed(PAY, NEAR);

    assert_eq!(lab.first(PAY), NEAR);
    assert_eq!(lab.core.poll_timeout(), None);
}

#[test]
fn while_some_of_a_tier_work_at_most_half_of_it_is_ejected() {
    let mut lab = world()
        .route(PAY)
        .to("10.0.0.1:80")
        .to("10.0.0.2:80")
        .to("10.0.0.3:80")
        .to("10.0.0.4:80")
        .to("10.0.0.5:80")
        .lab();

    for text in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"] {
        lab.fail(PAY, text, 9);
    }

    assert!(ejected_for(&lab, "10.0.0.2:80").is_some());
    assert_eq!(
        lab.standing(PAY, "10.0.0.3:80"),
        Standing::Serving { failures: 9 }
    );
    assert_eq!(
        lab.core
            .standings()
            .filter(|(_, _, standing)| standing.is_out())
            .count(),
        2
    );
}

#[test]
fn a_tier_in_which_nothing_works_is_ejected_whole_and_the_next_takes_over() {
    let mut lab = near_and_far().to("10.0.0.2:80").to("10.0.0.3:80").lab();

    // One failure each in turn; whom the others kept in service goes with its sixth.
    for _ in 0..6 {
        for text in [NEAR, "10.0.0.2:80", "10.0.0.3:80"] {
            lab.fail(PAY, text, 1);
        }
    }

    assert_eq!(lab.first(PAY), "b");
    assert_eq!(lab.route(PAY).len(), 4);
}

#[test]
fn when_everything_is_ejected_everything_is_still_tried() {
    let mut lab = near_and_far().lab();
    lab.fail(PAY, NEAR, 5);
    lab.fail(PAY, "b", 5);

    assert_eq!(lab.route(PAY), [NEAR, "b"]);
}

#[test]
fn a_cluster_that_fails_one_service_still_serves_the_others() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route(PAY)
        .prioritised("b", 0)
        .prioritised("c", 1)
        .route("80.cart.shop")
        .prioritised("b", 0)
        .prioritised("c", 1)
        .lab();

    lab.fail(PAY, "b", 5);

    assert_eq!(lab.first(PAY), "c");
    assert_eq!(lab.first("80.cart.shop"), "b");
}

#[test]
fn what_is_learned_through_a_pinned_name_holds_for_the_service() {
    let mut lab = near_and_far().peer("c").prioritised("c", 1).lab();

    lab.fail("80.a.pay.shop", NEAR, 5);

    assert_eq!(lab.first(PAY), "b");
}

#[test]
fn what_local_clients_learn_of_an_endpoint_peers_benefit_from() {
    let mut lab = near_and_far()
        .export("pay.shop", 80)
        .for_peer("b")
        .at(NEAR)
        .at("10.0.0.2:80")
        .lab();

    lab.fail(PAY, NEAR, 5);

    let admission = lab.admit("b", PAY).unwrap();
    let expected = ["10.0.0.2:80", NEAR].map(|text| text.parse().unwrap());
    assert_eq!(admission.endpoints, expected);
}

#[test]
fn what_is_not_the_candidates_fault_is_not_held_against_it() {
    let mut lab = near_and_far().lab();

    for outcome in [
        Outcome::Failed(Failure::ClientGone),
        Outcome::Failed(Failure::ClientReset),
        Outcome::Failed(Failure::IdleTimeout),
        Outcome::Failed(Failure::Internal),
        Outcome::Refused(Refusal::OverLimit),
        Outcome::Refused(Refusal::Overloaded),
        Outcome::Refused(Refusal::Draining),
    ] {
        for _ in 0..10 {
            lab.report(PAY, "b", outcome);
        }
    }

    assert_eq!(lab.standing(PAY, "b"), Standing::GOOD);
}

#[test]
fn a_cluster_that_keeps_refusing_a_route_leaves_it() {
    let mut lab = world().peer("b").peer("c").route(PAY).to("b").to("c").lab();

    for _ in 0..5 {
        lab.report(PAY, "b", Outcome::Refused(Refusal::NoEndpoint));
    }

    assert_eq!(lab.route(PAY), ["c", "b"]);
}

#[test]
fn a_link_that_comes_back_puts_its_cluster_on_probation() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route(PAY)
        .prioritised("b", 0)
        .prioritised("c", 1)
        .lab();
    for _ in 0..5 {
        lab.report(PAY, "b", Outcome::Failed(Failure::PathDead));
    }
    lab.link("b", LinkState::Down);
    assert_eq!(lab.first(PAY), "c");

    lab.link("b", LinkState::Up);

    assert_eq!(lab.first(PAY), "b");
    lab.succeed(PAY, "b");
    assert_eq!(lab.core.standings().count(), 0);
}

#[test]
fn while_a_link_is_down_failures_of_its_cluster_are_known_from_the_link() {
    let mut lab = near_and_far().lab();
    lab.link("b", LinkState::Down);

    lab.fail(PAY, "b", 50);
    lab.link("b", LinkState::Up);

    assert_eq!(lab.standing(PAY, "b"), Standing::GOOD);
}

#[test]
fn reports_of_candidates_that_do_not_exist_are_not_remembered() {
    let mut lab = near_and_far().lab();

    lab.fail(PAY, "10.9.9.9:80", 50);
    lab.fail("81.pay.shop", NEAR, 50);

    assert_eq!(lab.core.standings().count(), 0);
}

#[test]
fn the_core_asks_to_be_woken_for_the_earliest_return() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route(PAY)
        .to(NEAR)
        .in_zone("b", "1")
        .to("c")
        .lab();
    lab.fail(PAY, NEAR, 5);
    lab.wait(Duration::from_secs(2));
    lab.fail(PAY, "b", 5);

    let wakes = |lab: &Lab| lab.core.poll_timeout().map(|(at, _)| lab.clock(at));
    assert_eq!(wakes(&lab), Some(Duration::from_secs(5)));
    lab.wait(Duration::from_secs(3));
    assert_eq!(wakes(&lab), Some(Duration::from_secs(7)));
    lab.wait(Duration::from_secs(2));
    assert_eq!(wakes(&lab), None);
}

#[test]
fn events_nobody_polls_are_bounded() {
    let mut lab = near_and_far().lab();

    for _ in 0..crate::EVENTS_MAX {
        lab.fail(PAY, NEAR, 5);
        lab.succeed(PAY, NEAR);
    }

    assert_eq!(lab.events().len(), crate::EVENTS_MAX);
}
