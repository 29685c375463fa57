//! One line per change.

use crate::testing::{cluster, dns, port, route};
use crate::{Locality, Replay, Route, RouteTable, TableDiff, diff};

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(&cluster("east"), routes).unwrap()
}

#[test]
fn equal_tables_do_not_differ() {
    let routes = vec![
        route("443.payments.shop", &["west"]),
        route("80.web.shop", &["west"]),
    ];
    let diff = diff(&table(routes.clone()), &table(routes));
    assert_eq!(diff, TableDiff::default());
    assert!(diff.is_empty());
    assert_eq!(diff.to_string(), "");
}

#[test]
fn every_change_has_its_line() {
    let same = route("22.same.shop", &["west"]);
    let before = route("443.payments.shop", &["west", "north"]);
    let mut after = route("443.payments.shop", &["west", "10.0.0.1:443"]);
    after.import_port = Some(port(20_001));
    after.sni_names = vec![dns("pay.example.com")];
    after.tls = true;
    after.replay = Replay::Idempotent;
    after.candidates[0].weight = 5;
    after.candidates[0].priority = 1;
    after.candidates[0].locality = Locality::new(Some("eu"), None, None).unwrap();

    let old = table(vec![same.clone(), before, route("80.gone.shop", &["west"])]);
    let new = table(vec![same, after, route("80.new.shop", &["west", "north"])]);
    let diff = diff(&old, &new);
    let expected = "\
+ 80.new.shop.svc.clusterset.local/tcp candidates: 2
- 80.gone.shop.svc.clusterset.local/tcp
~ 443.payments.shop.svc.clusterset.local/tcp import port: none -> 20001, tls: false -> true, \
replay: never -> idempotent, +pay.example.com, west weight: 1 -> 5, west priority: 0 -> 1, west moved, \
+10.0.0.1:443, -north";
    assert_eq!(diff.to_string(), expected);
    assert!(!diff.is_empty());
}

#[test]
fn another_order_of_candidates_is_a_change_with_a_line() {
    let old = table(vec![route("443.payments.shop", &["west", "north"])]);
    let new = table(vec![route("443.payments.shop", &["north", "west"])]);
    let expected =
        "~ 443.payments.shop.svc.clusterset.local/tcp order of candidates or server names";
    assert_eq!(diff(&old, &new).to_string(), expected);
}
