//! What a plan contains and in which order.

use std::collections::BTreeMap;

use corinth_model::{PortNumber, Refusal, SniName};

use super::lab::{name, world};
use crate::{AttemptLimit, By, LinkState, Settings};

#[test]
fn a_near_candidate_is_tried_before_a_far_one() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route("80.pay.shop")
        .in_zone("c", "9")
        .in_zone("b", "1")
        .to("10.0.0.3:80")
        .in_zone("10.0.0.2:80", "2")
        .in_zone("10.0.0.1:80", "1")
        .lab();

    assert_eq!(
        lab.route("80.pay.shop"),
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "b", "c"]
    );
}

#[test]
fn priority_comes_before_proximity() {
    let mut lab = world()
        .peer("b")
        .route("80.pay.shop")
        .prioritised("10.0.0.1:80", 1)
        .prioritised("b", 0)
        .lab();

    assert_eq!(lab.route("80.pay.shop"), ["b", "10.0.0.1:80"]);
}

#[test]
fn within_a_tier_each_is_first_as_often_as_its_weight_says() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route("80.pay.shop")
        .weighted("b", 1)
        .weighted("c", 3)
        .lab();

    let mut firsts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..4000 {
        *firsts.entry(lab.first("80.pay.shop")).or_default() += 1;
    }

    assert!((900..1100).contains(&firsts["b"]), "{firsts:?}");
    assert_eq!(firsts["b"] + firsts["c"], 4000);
}

#[test]
fn a_candidate_of_weight_zero_is_tried_only_after_all_others() {
    let mut lab = world()
        .peer("b")
        .route("80.pay.shop")
        .weighted("10.0.0.1:80", 0)
        .to("b")
        .lab();
    lab.link("b", LinkState::Down);

    assert_eq!(lab.route("80.pay.shop"), ["b", "10.0.0.1:80"]);
}

#[test]
fn a_cluster_whose_link_is_not_up_is_tried_last_but_tried() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route("80.pay.shop")
        .prioritised("b", 0)
        .prioritised("c", 1)
        .lab();

    for state in [LinkState::Down, LinkState::Draining] {
        lab.link("b", state);
        assert_eq!(lab.route("80.pay.shop"), ["c", "b"]);
    }
    lab.link("b", LinkState::Up);
    assert_eq!(lab.route("80.pay.shop"), ["b", "c"]);
}

#[test]
fn a_cluster_that_was_never_linked_is_tried_last() {
    let mut lab = world()
        .peer("c")
        .route("80.pay.shop")
        .prioritised("b", 0)
        .prioritised("c", 1)
        .lab();

    assert_eq!(lab.route("80.pay.shop"), ["c", "b"]);
}

#[test]
fn a_plan_names_no_more_attempts_than_allowed() {
    let settings = Settings {
        attempts: AttemptLimit::new(2).unwrap(),
        ..Settings::default()
    };
    let mut lab = world()
        .route("80.pay.shop")
        .to("10.0.0.1:80")
        .to("10.0.0.2:80")
        .to("10.0.0.3:80")
        .lab_with(settings, 7);

    assert_eq!(lab.route("80.pay.shop").len(), 2);
}

#[test]
fn a_service_is_found_by_import_port_by_server_name_and_by_name() {
    let mut lab = world()
        .route("443.pay.shop")
        .import_port(20_000)
        .to("10.0.0.1:443")
        .lab();
    let sni = |text| By::Sni(SniName::parse(text).unwrap());

    for intake in [
        By::ImportPort(PortNumber::new(20_000).unwrap()),
        By::Name(name("443.pay.shop")),
        sni("443.pay.shop.svc.clusterset.local"),
        sni("pay.shop.svc.clusterset.local"),
    ] {
        assert_eq!(lab.plan(intake).unwrap().route.name, name("443.pay.shop"));
    }
}

#[test]
fn a_name_pinned_to_a_cluster_tries_that_cluster_only() {
    let mut lab = world()
        .peer("b")
        .peer("c")
        .route("80.pay.shop")
        .to("10.0.0.1:80")
        .to("b")
        .to("c")
        .lab();

    assert_eq!(lab.route("80.c.pay.shop"), ["c"]);
    assert_eq!(lab.route("80.a.pay.shop"), ["10.0.0.1:80"]);
}

#[test]
fn what_no_route_answers_is_refused_with_its_reason() {
    let mut lab = world()
        .route("443.pay.shop")
        .to("10.0.0.1:443")
        .route("80.empty.shop")
        .route("443.two.shop")
        .route("8443.two.shop")
        .import_port(20_000)
        .lab();
    let port = |port| By::ImportPort(PortNumber::new(port).unwrap());
    let sni = |text| By::Sni(SniName::parse(text).unwrap());

    assert_eq!(lab.refusal(port(20_001)), Refusal::UnknownRoute);
    assert_eq!(
        lab.refusal(By::Name(name("80.pay.shop"))),
        Refusal::UnknownRoute
    );
    assert_eq!(lab.refusal(sni("www.example.com")), Refusal::UnknownRoute);
    assert_eq!(
        lab.refusal(By::Name(name("80.empty.shop"))),
        Refusal::NoEndpoint
    );
    assert_eq!(
        lab.refusal(sni("empty.shop.svc.clusterset.local")),
        Refusal::AmbiguousName
    );
}

#[test]
fn a_closed_core_refuses_everything_new_as_draining() {
    let mut lab = world()
        .peer("b")
        .route("80.pay.shop")
        .to("10.0.0.1:80")
        .export("pay.shop", 80)
        .for_peer("b")
        .at("10.0.0.1:80")
        .lab();
    let open = lab.admit("b", "80.pay.shop").unwrap();

    lab.core.close(lab.now);

    assert_eq!(
        lab.refusal(By::Name(name("80.pay.shop"))),
        Refusal::Draining
    );
    assert_eq!(
        lab.admit("b", "80.pay.shop").unwrap_err(),
        Refusal::Draining
    );
    lab.core.release(open.permit, lab.now);
    lab.core.check();
}

#[test]
fn the_same_seed_and_calls_give_the_same_plans() {
    let plans = |seed| {
        let world = world().route("80.pay.shop");
        let world = (1..9).fold(world, |world, i| world.to(&format!("10.0.0.{i}:80")));
        let mut lab = world.lab_with(Settings::default(), seed);
        (0..50)
            .map(|_| lab.route("80.pay.shop"))
            .collect::<Vec<_>>()
    };

    assert_eq!(plans(42), plans(42));
    assert_ne!(plans(42), plans(43));
}
