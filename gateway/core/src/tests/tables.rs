//! What new tables change, and how much work that is.

use std::sync::Arc;

use corinth_model::{Direct, IpNet};

use super::lab::{World, cluster, name, world};
use crate::{Action, DirectClient, Event, RouteKey, Standing};

const PAY: &str = "80.pay.shop";

fn withdraw(peer: Option<&str>, text: &str) -> Action {
    Action::Withdraw {
        peer: peer.map(cluster),
        route: RouteKey::new(&name(text), corinth_model::Protocol::Tcp),
    }
}

fn routes(count: usize, endpoint: &str) -> World {
    (0..count).fold(world(), |world, i| {
        let world = world.route(&format!("80.s{i}.shop"));
        world.to(endpoint).to("10.0.0.2:80")
    })
}

#[test]
fn a_standing_is_kept_while_its_candidate_exists() {
    let mut lab = routes(2, "10.0.0.1:80").lab();
    lab.fail("80.s0.shop", "10.0.0.1:80", 5);
    lab.fail("80.s0.shop", "10.0.0.2:80", 1);
    lab.fail("80.s1.shop", "10.0.0.1:80", 5);

    lab.apply(
        world()
            .route("80.s0.shop")
            .to("10.0.0.1:80")
            .to("10.0.0.3:80")
            .revision(2),
    );

    assert!(matches!(
        lab.standing("80.s0.shop", "10.0.0.1:80"),
        Standing::Ejected { .. }
    ));
    assert_eq!(lab.core.standings().count(), 1);
    assert_eq!(
        lab.events().pop(),
        Some(Event::TableApplied {
            revision: 2,
            lookups: 2,
            forgotten: 2,
        })
    );
}

#[test]
fn the_work_of_new_tables_grows_with_what_is_remembered_not_with_the_tables() {
    let remembered = 3;
    for size in [10, 10_000] {
        let mut lab = routes(size, "10.0.0.1:80").lab();
        for i in 0..remembered {
            lab.fail(&format!("80.s{i}.shop"), "10.0.0.1:80", 5);
        }
        lab.events();

        // Every route changes.
        lab.apply(routes(size, "10.0.0.9:80").revision(1));

        assert_eq!(
            lab.events(),
            [Event::TableApplied {
                revision: 1,
                lookups: remembered,
                forgotten: remembered,
            }]
        );
    }
}

#[test]
fn the_old_tables_are_handed_back_to_be_freed_outside_the_lock() {
    let mut lab = world().lab();
    let first = world().route(PAY).tables();
    drop(lab.core.apply(Arc::clone(&first), lab.now));

    let old = lab.core.apply(world().tables(), lab.now);

    assert!(Arc::ptr_eq(&old, &first));
    drop(old);
    assert_eq!(Arc::strong_count(&first), 1);
}

#[test]
fn an_export_taken_from_a_peer_ends_its_streams_and_nobody_elses() {
    let shared = || {
        let world = world().peer("b").peer("c").export("pay.shop", 80);
        world.at("10.0.0.1:80").for_peer("c")
    };
    let mut lab = shared().for_peer("b").lab();
    let open = lab.admit("b", PAY).unwrap();
    lab.admit("c", PAY).unwrap();

    lab.apply(shared());

    assert_eq!(lab.actions(), [withdraw(Some("b"), PAY)]);
    lab.core.release(open.permit, lab.now);
    lab.apply(shared());
    assert_eq!(lab.actions(), []);
}

#[test]
fn streams_that_had_ended_are_not_withdrawn() {
    let mut lab = world()
        .peer("b")
        .export("pay.shop", 80)
        .for_peer("b")
        .at("10.0.0.1:80")
        .lab();
    let open = lab.admit("b", PAY).unwrap();
    lab.core.release(open.permit, lab.now);

    lab.apply(world().peer("b"));

    assert_eq!(lab.actions(), []);
}

#[test]
fn an_unlinked_peer_loses_its_link_and_its_streams() {
    let export = |world: World| world.export("pay.shop", 80).for_peer("b").at("10.0.0.1:80");
    let mut lab = export(world().peer("b")).lab();
    lab.admit("b", PAY).unwrap();

    lab.apply(export(world()));

    let actions = lab.actions();
    assert!(matches!(&actions[0], Action::Drain { peer, .. } if *peer == cluster("b")));
    assert_eq!(actions[1..], [withdraw(Some("b"), PAY)]);
}

#[test]
fn narrowing_a_direct_route_ends_its_streams_and_widening_does_not() {
    let open_to = |sources: &[&str]| {
        let sources = sources.iter().map(|text| text.parse::<IpNet>().unwrap());
        let sources = sources.collect();
        let world = world().export("pay.shop", 443).at("10.0.0.1:443");
        world.direct(Direct::Passthrough { sources })
    };
    let mut lab = open_to(&["192.0.2.0/24"]).lab();
    let client = DirectClient::Anonymous("192.0.2.1".parse().unwrap());
    lab.admit_direct("pay.shop.svc.clusterset.local", &client)
        .unwrap();

    lab.apply(open_to(&["192.0.0.0/16", "198.51.100.0/24"]));
    assert_eq!(lab.actions(), []);
    lab.apply(open_to(&["192.0.0.0/16"]));
    assert_eq!(lab.actions(), [withdraw(None, "443.pay.shop")]);
    lab.apply(world());
    assert_eq!(lab.actions(), [withdraw(None, "443.pay.shop")]);
}

#[test]
fn a_core_without_tables_refuses_everything() {
    let mut lab = world().lab();

    let intake = crate::By::Name(name(PAY));
    assert_eq!(lab.refusal(intake), corinth_model::Refusal::UnknownRoute);
    assert_eq!(
        lab.admit("b", PAY).unwrap_err(),
        corinth_model::Refusal::Unlinked
    );
}
