//! Two control planes, joined by gateways that only hand streams over.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod lab;

use std::collections::BTreeMap;

use corinth_api::wire::admin::{rotate_root_response::Phase, status_request::Kind};
use corinth_api::{Entry, EntryKey};
use corinth_control::cluster::{Audience, Cluster, LinkMode, Write};
use corinth_model::{
    Carriage, Condition, CongestionChoice, Protocol, RouteName, RouteTable, Target, TransportChoice,
};
use serde_json::json;

use crate::lab::{Lab, Step, export, key, port, service};

#[tokio::test]
async fn an_export_becomes_a_route_of_the_peer_that_accepts_it() {
    let lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    let entry = lab.east.route("web.shop", 80).await;
    let Entry::Route(route) = &*entry else {
        panic!("{entry:?}");
    };
    let west = Target::Cluster("west".parse().unwrap());
    assert_eq!(route.candidates[0].target, west);
    assert!(route.import_port.is_some());
}

#[tokio::test]
async fn what_is_not_accepted_becomes_no_route_but_a_condition() {
    let lab = Lab::linked().await;
    lab.west.export("secret.vault", Audience::All);
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.east.condition(Condition::NotAccepted).await;
    assert!(!lab.east.has_route("secret.vault", 80));
}

#[tokio::test]
async fn an_export_taken_back_is_gone_at_the_peer() {
    let lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.west
        .objects
        .write(Write::Export(service("web.shop"), None))
        .unwrap();
    lab.east.no_route("web.shop", 80).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_loses_nothing() {
    let mut lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.west.kill().await;
    lab.east.silent("west").await;
    assert!(lab.east.has_route("web.shop", 80));
}

#[tokio::test]
async fn what_vanished_while_a_control_plane_was_dead_is_gone_after_its_start() {
    let mut lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.west.export("pay.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.east.route("pay.shop", 80).await;
    lab.west.kept("east", "pay.shop").await;
    lab.west.kill().await;
    lab.west
        .objects
        .write(Write::Export(service("web.shop"), None))
        .unwrap();
    lab.west.start();
    lab.east.no_route("web.shop", 80).await;
    assert!(lab.east.has_route("pay.shop", 80));
}

#[tokio::test]
async fn what_was_told_before_an_orderly_stop_is_kept() {
    let mut lab = Lab::linked().await;
    for number in 0..10 {
        let name = format!("web-{number}.shop");
        lab.west.export(&name, Audience::All);
        lab.east.route(&name, 80).await;
        lab.west.stop().await;
        let kept = std::fs::read_to_string(lab.west.file_of("east")).unwrap();
        assert!(kept.contains(&name), "{kept}");
        lab.west.start();
        lab.west.up_to_date("east").await;
    }
}

#[tokio::test]
async fn a_control_plane_starts_with_the_routes_it_had() {
    let mut lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.east.kept("west", "web.shop").await;
    lab.west.kill().await;
    lab.east.kill().await;
    lab.east.start();
    lab.east.route("web.shop", 80).await;
}

#[tokio::test]
async fn a_paused_link_carries_nothing_and_a_resumed_one_all_again() {
    let lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.east.set_mode("west", LinkMode::Paused);
    lab.east.no_route("web.shop", 80).await;
    let peer = EntryKey::Peer("west".parse().unwrap());
    assert_eq!(lab.east.entry(&peer), None);
    lab.east.set_mode("west", LinkMode::Active);
    lab.east.route("web.shop", 80).await;
}

#[tokio::test]
async fn both_clusters_with_a_service_are_candidates_the_own_endpoints_first() {
    let lab = Lab::linked().await;
    lab.east.export("web.shop", Audience::All);
    lab.west.export("web.shop", Audience::All);
    let name = RouteName::new(service("web.shop"), port(80));
    let key = EntryKey::Route(name, Protocol::Tcp);
    let both = |entry: &Entry| matches!(entry, Entry::Route(route) if route.candidates.len() == 2);
    lab.east
        .until(|entries| entries.get(&key).is_some_and(&both))
        .await;
}

#[tokio::test]
async fn a_server_name_that_two_services_want_is_that_of_one_and_all_routes_stand() {
    let lab = Lab::linked().await;
    for name in ["web.shop", "api.shop"] {
        let names = ["www.example.com"];
        lab.west.export_as(name, Audience::All, &names);
        lab.east.route(name, 80).await;
    }
    lab.east.condition(Condition::ExportConflict).await;
    let names = |name: &str| match lab.east.entry(&key(name, 80)) {
        Some(Entry::Route(route)) => route.sni_names,
        other => panic!("{other:?}"),
    };
    lab.east
        .until(|entries| entries.values().any(|entry| has_names(entry, "api.shop")))
        .await;
    assert_eq!(names("web.shop"), []);
    let routes = lab.east.routes();
    RouteTable::build(&"east".parse().unwrap(), routes).expect("they fit into one table");
}

fn has_names(entry: &Entry, name: &str) -> bool {
    matches!(entry, Entry::Route(route)
        if route.name.service == service(name) && !route.sni_names.is_empty())
}

#[tokio::test]
async fn a_root_is_changed_in_steps_and_none_is_taken_before_its_time() {
    let mut lab = Lab::linked().await;
    let single = lab.east.rotate(Step::Look).await.unwrap();
    assert_eq!(single.phase(), Phase::Single);
    lab.west.kill().await;
    let begun = lab.east.rotate(Step::Begin).await.unwrap();
    assert_eq!(
        (begun.phase(), begun.sequence, &begun.lacking[..]),
        (Phase::Announced, 1, &["west".to_owned()][..])
    );
    let refused = lab.east.rotate(Step::Switch).await.unwrap_err();
    assert!(refused.message().contains("west"), "{refused:?}");
    assert_eq!(code(&refused), Condition::RootInUse.code());

    lab.west.start();
    lab.east.roots_are_held().await;
    let has_both = |entries: &BTreeMap<EntryKey, Entry>| {
        entries.values().any(|entry| {
            matches!(entry, Entry::Peer(_, peer) if peer.bundle_sequence == 1 && peer.roots.len() == 2)
        })
    };
    lab.west.until(has_both).await;
    let mut issuers = lab.east.follow_issuer().await;
    let old = issuers.message().await.unwrap().expect("it tells at once");
    let switched = lab.east.rotate(Step::Switch).await.unwrap();
    assert_eq!(switched.phase(), Phase::Issuing);
    let new = issuers.message().await.unwrap().expect("it has changed");
    assert_ne!(old.root, new.root);
    let refused = lab.east.rotate(Step::Finish).await.unwrap_err();
    assert!(refused.message().contains("certificates"), "{refused:?}");
    assert_eq!(code(&refused), Condition::RootInUse.code());

    // What was told outlives both.
    lab.west.kill().await;
    lab.west.start();
    lab.west.until(has_both).await;
}

#[tokio::test]
async fn what_carries_streams_to_a_peer_is_told_to_gateways_kept_and_shown() {
    let mut lab = Lab::linked().await;
    let carried = |carriage: Carriage| {
        move |entries: &BTreeMap<EntryKey, Entry>| {
            let mut entries = entries.values();
            entries.any(|entry| matches!(entry, Entry::Peer(_, peer) if peer.carriage == carriage))
        }
    };
    lab.east.until(carried(Carriage::default())).await;
    lab.east.carry("auto", "").await.unwrap();
    lab.east.carry("", "bbr").await.unwrap();
    let asked = Carriage {
        transport: TransportChoice::Auto,
        congestion: Some(CongestionChoice::Bbr),
    };
    lab.east.until(carried(asked)).await;
    lab.east.kill().await;
    lab.east.start();
    lab.east.until(carried(asked)).await;
    let links = lab.east.status(Kind::Links).await;
    let shown = (&links[0]["transport"], &links[0]["congestion"]);
    assert_eq!(shown, (&json!("auto"), &json!("bbr")));
    lab.east.carry("tls", "default").await.unwrap();
    lab.east.until(carried(Carriage::default())).await;

    for (transport, congestion) in [("tcp", ""), ("", "reno")] {
        let refused = lab.east.carry(transport, congestion).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    }
}

fn code(refused: &tonic::Status) -> &str {
    refused
        .metadata()
        .get("corinth-code")
        .unwrap()
        .to_str()
        .unwrap()
}

#[tokio::test]
async fn what_a_crash_lost_of_what_was_told_costs_that_peer_a_new_instance() {
    let mut lab = Lab::linked().await;
    lab.west.export("web.shop", Audience::All);
    lab.east.route("web.shop", 80).await;
    lab.west.kept("east", "web.shop").await;
    let file = lab.west.file_of("east");
    let before = std::fs::read(&file).unwrap();
    lab.west.export("pay.shop", Audience::All);
    lab.east.route("pay.shop", 80).await;
    lab.west.up_to_date("east").await;
    lab.west.kill().await;
    std::fs::write(&file, before).unwrap();
    lab.west.start();
    lab.west.condition(Condition::StateLost).await;
    lab.west.export("new.shop", Audience::All);
    lab.east.route("new.shop", 80).await;
    assert!(lab.east.has_route("pay.shop", 80));
    lab.west.kept("east", "new.shop").await;

    // The instance that was begun for this peer alone goes on after the next start.
    lab.west.kill().await;
    lab.west.start();
    lab.west.up_to_date("east").await;
    lab.west.no_condition(Condition::StateLost).await;
}

#[tokio::test]
async fn a_message_without_meaning_is_shown_to_the_operator() {
    let mut lab = Lab::linked().await;
    lab.east.kill().await;
    lab.west.silent("east").await;
    lab.west.hear("east", Default::default()).await;
    lab.west.condition(Condition::EntryInvalid).await;
}

#[tokio::test]
async fn a_stream_that_does_not_come_about_is_asked_for_less_and_less() {
    let mut lab = Lab::linked().await;
    lab.west.kill().await;
    lab.east.kill().await;
    let mut asks = lab.east.start_refusing();
    let mut at = Vec::new();
    while at.len() < 4 {
        at.push(asks.recv().await.unwrap());
    }
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[2] > gaps[0] * 2, "{gaps:?}");
}

#[tokio::test]
async fn roots_are_shown_with_whose_they_are_as_the_command_line_reads_it() {
    let lab = Lab::linked().await;
    let certificates = lab.east.status(Kind::Certificates).await;
    let shown = certificates.as_array().unwrap().iter();
    let shown: Vec<_> = shown.map(|one| (&one["holder"], one.get("peer"))).collect();
    let (root, peer_root) = (json!("root"), json!("peer root"));
    assert_eq!(shown, [(&root, None), (&peer_root, Some(&json!("west")))]);
}

#[tokio::test]
async fn a_reconnect_with_nothing_changed_is_small() {
    let lab = Lab::linked().await;
    for number in 0..50 {
        lab.west.export(&format!("s{number}.shop"), Audience::All);
    }
    for number in [0, 49] {
        lab.east.route(&format!("s{number}.shop"), 80).await;
    }
    lab.east.up_to_date("west").await;
    let before = lab.handed_over_bytes();
    lab.cut_peering();
    lab.east.up_to_date("west").await;
    let moved = lab.handed_over_bytes() - before;
    assert!(moved < 10_000, "{moved} bytes");
}

#[test]
fn exports_of_the_lab_have_an_endpoint() {
    assert_eq!(export("web.shop").0.ports.len(), 1);
}
