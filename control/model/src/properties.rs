//! What holds for any input: parsers return, names have one spelling, tables agree with a naive search.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::testing::{cluster, dns, export, route};
use crate::{
    AddressSource, ClusterName, DNS_NAME_MAX_BYTES, DnsName, Endpoint, Export, ExportTable, Label,
    Locality, PortNumber, Protocol, Reason, Route, RouteName, RouteTable, Scope, SniName, SpiffeId,
    Target, TrustDomain, diff,
};

const CLUSTERS: [&str; 4] = ["east", "west", "north", "south"];

/// Text made of what names are made of, so that it often is nearly one.
fn near_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z0-9-]{0,64}",
        "[0-9]{0,6}",
        Just("svc.clusterset.local".to_owned()),
        Just("xn--a".to_owned()),
        Just("corinth/gateway".to_owned()),
        Just("spiffe://west/".to_owned()),
        "\\PC{0,3}",
        Just("\0".to_owned()),
    ];
    (vec(part, 0..8), prop_oneof![Just("."), Just("/"), Just("")])
        .prop_map(|(parts, separator)| parts.join(separator))
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_filter("masked", |label| !label.starts_with("xn--"))
}

fn front() -> impl Strategy<Value = String> {
    (1..=u16::MAX, vec(label(), 2..=4))
        .prop_map(|(port, labels)| format!("{port}.{}", labels.join(".")))
}

/// Routes of few names, ports and scopes, so that they meet.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    let name = (
        0..3_u16,
        option::of(0..CLUSTERS.len()),
        0..3_u8,
        any::<bool>(),
    );
    let targets = btree_set(0..CLUSTERS.len() + 2, 0..4);
    let one =
        (name, targets, any::<bool>()).prop_map(|((port, pin, service, is_udp), targets, tls)| {
            let pin = pin
                .map(|index| format!("{}.", CLUSTERS[index]))
                .unwrap_or_default();
            let targets = targets.into_iter().map(|index| match CLUSTERS.get(index) {
                Some(cluster) => (*cluster).to_owned(),
                None => format!("10.0.0.{index}:443"),
            });
            let targets: Vec<_> = targets.collect();
            let targets: Vec<_> = targets.iter().map(String::as_str).collect();
            let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
            let front = format!("{}.{pin}service-{service}.shop", 442 + port);
            Route {
                protocol,
                tls,
                ..route(&front, &targets)
            }
        });
    vec(one, 0..12).prop_map(|routes| {
        let mut seen = BTreeSet::new();
        let is_new = |route: &Route| seen.insert((route.name.clone(), route.protocol));
        routes.into_iter().filter(is_new).collect()
    })
}

/// The same with import ports and server names, of which several may want one.
fn contending_routes() -> impl Strategy<Value = Vec<Route>> {
    let wants = vec((option::of(20_000..20_012_u16), option::of(0..8_u8)), 12);
    (routes(), wants).prop_map(|(mut routes, wants)| {
        for (route, (import_port, name)) in routes.iter_mut().zip(wants) {
            route.import_port = import_port.and_then(PortNumber::new);
            if route.protocol == Protocol::Tcp {
                let names = name.map(|name| dns(&format!("name-{name}.example")));
                route.sni_names = names.into_iter().collect();
            }
        }
        routes
    })
}

/// Everything a table finds: by name, import port and server name.
fn found(table: &RouteTable) -> Vec<Option<String>> {
    let ports = (20_000..20_012).filter_map(PortNumber::new);
    let protocols = [Protocol::Tcp, Protocol::Udp];
    let by_port = ports.flat_map(|port| protocols.map(|of| table.by_import_port(port, of)));
    let by_port: Vec<_> = by_port
        .map(|found| found.map(|route| route.name.to_string()))
        .collect();
    let names = (0..8).map(|name| format!("name-{name}.example"));
    let services = (0..3).flat_map(|service| {
        let pins = CLUSTERS.iter().map(|cluster| format!("{cluster}."));
        let fronts = std::iter::once(String::new()).chain(pins);
        fronts.map(move |pin| format!("{pin}service-{service}.shop.svc.clusterset.local"))
    });
    let by_sni = names.chain(services).map(|name| {
        let found = table.by_sni(&SniName::parse(&name).unwrap());
        Some(found.map_or_else(|no| format!("{no:?}"), |route| route.name.to_string()))
    });
    by_port.into_iter().chain(by_sni).collect()
}

fn exports() -> impl Strategy<Value = Vec<Export>> {
    let audience = btree_set(0..CLUSTERS.len(), 0..4);
    let one = (0..3_u16, 0..3_u8, audience).prop_map(|(port, service, audience)| {
        let audience: Vec<_> = audience.into_iter().map(|index| CLUSTERS[index]).collect();
        export(&format!("{}.service-{service}.shop", 442 + port), &audience)
    });
    vec(one, 0..10).prop_map(|exports| {
        let mut seen = BTreeSet::new();
        exports
            .into_iter()
            .filter(|export| seen.insert(export.key()))
            .collect()
    })
}

/// The targets a name leads to, found by searching.
fn naive_targets(routes: &[Route], name: &RouteName, protocol: Protocol) -> Option<Vec<Target>> {
    let of = |wanted: &RouteName| {
        let mut found = routes
            .iter()
            .filter(|route| route.name == *wanted && route.protocol == protocol);
        found
            .next()
            .map(|route| route.candidates.iter().map(|one| one.target.clone()))
    };
    if let Some(targets) = of(name) {
        return Some(targets.collect());
    }
    let Scope::Cluster(pin) = &name.scope else {
        return None;
    };
    let is_there = |target: &Target| match target {
        Target::Endpoint(_) => *pin == cluster("east"),
        Target::Cluster(other) => other == pin,
    };
    let targets: Vec<_> = of(&name.with_scope(Scope::Any))?.filter(is_there).collect();
    (!targets.is_empty()).then_some(targets)
}

fn scopes() -> Vec<Scope> {
    let pins = CLUSTERS.iter().map(|name| Scope::Cluster(cluster(name)));
    std::iter::once(Scope::Any).chain(pins).collect()
}

proptest! {
    #[test]
    fn parsers_answer_anything(text in prop_oneof![near_name(), any::<String>()]) {
        let _ = Label::parse(&text);
        let _ = Reason::from_code(&text);
        let _ = Locality::new(Some(&text), None, Some(&text));
        if let Ok(name) = SniName::parse(&text) {
            prop_assert!(name.to_string().len() <= DNS_NAME_MAX_BYTES);
            prop_assert_eq!(SniName::parse(&name.to_string()), Ok(name));
        }
        if let Ok(name) = RouteName::parse(&text) {
            prop_assert_eq!(RouteName::parse(&name.to_string()), Ok(name.clone()));
            prop_assert_eq!(SniName::parse(&text), Ok(SniName::Route(name)));
        }
        if let Ok(name) = DnsName::parse(&text) {
            prop_assert_eq!(DnsName::parse(name.as_str()), Ok(name));
        }
        // An identity has one spelling: what is accepted is what is written back.
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.to_string(), text.clone());
        }
        if let Ok(domain) = TrustDomain::parse(&text) {
            prop_assert_eq!(domain.as_str(), text);
        }
    }

    #[test]
    fn an_error_shows_nothing_of_its_input_unescaped(text in any::<String>()) {
        for shown in [
            SniName::parse(&text).err().map(|error| error.to_string()),
            SpiffeId::parse(&text).err().map(|error| error.to_string()),
            Locality::new(Some(&text), None, None).err().map(|error| error.to_string()),
        ] {
            let is_plain = |c: char| c.is_ascii_graphic() || c == ' ';
            prop_assert!(shown.is_none_or(|shown| shown.chars().all(is_plain)));
        }
    }

    #[test]
    fn names_are_equal_whatever_their_case_and_root_dot(front in front()) {
        let text = format!("{front}.svc.clusterset.local");
        let name = RouteName::parse(&text);
        prop_assert!(name.is_ok(), "{text}: {name:?}");
        prop_assert_eq!(&RouteName::parse(&text.to_uppercase()), &name);
        prop_assert_eq!(&RouteName::parse(&format!("{text}.")), &name);
        prop_assert_eq!(name.map(|name| name.to_string()), Ok(text));
    }

    #[test]
    fn an_endpoint_survives_being_checked_again(ip in any::<std::net::IpAddr>(), port: u16) {
        let again = |endpoint: &Endpoint| {
            Endpoint::new(endpoint.address(), Locality::default(), AddressSource::Learned)
        };
        let endpoint = Endpoint::new((ip, port).into(), Locality::default(), AddressSource::Learned);
        if let Ok(endpoint) = endpoint {
            prop_assert_eq!(again(&endpoint), Ok(endpoint));
        }
    }

    #[test]
    fn a_table_finds_what_a_search_finds(routes in routes()) {
        let table = RouteTable::build(&cluster("east"), routes.clone()).unwrap();
        for (port, service) in (442..445).flat_map(|port| (0..3).map(move |service| (port, service))) {
            let any = route(&format!("{port}.service-{service}.shop"), &[]).name;
            for scope in scopes() {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let name = any.with_scope(scope.clone());
                    let found = table.resolve(&name, protocol).ok();
                    let targets = found.as_ref().map(|route| {
                        route.candidates.iter().map(|one| one.target.clone()).collect()
                    });
                    prop_assert_eq!(targets, naive_targets(&routes, &name, protocol));
                    prop_assert!(found.is_none_or(|route| route.name == name));
                }
            }
        }
    }

    #[test]
    fn a_table_does_not_depend_on_the_order_of_its_routes(
        (routes, shuffled) in routes().prop_flat_map(|routes| (Just(routes.clone()), Just(routes).prop_shuffle())),
    ) {
        let (table, other) = (
            RouteTable::build(&cluster("east"), routes).unwrap(),
            RouteTable::build(&cluster("east"), shuffled).unwrap(),
        );
        prop_assert!(table.iter().eq(other.iter()));
        prop_assert!(diff(&table, &other).is_empty());
    }

    #[test]
    fn a_table_that_is_changed_finds_what_one_built_anew_finds(
        states in vec(contending_routes(), 1..5),
    ) {
        let own = cluster("east");
        let mut table = RouteTable::empty(&own);
        for routes in states {
            let gone = table.iter().map(|route| ((route.name.clone(), route.protocol), None));
            let put = routes.iter().map(|route| {
                let key = (route.name.clone(), route.protocol);
                (key, Some(Arc::new(route.clone())))
            });
            let changed = table.changed(gone.chain(put).collect());
            let built = RouteTable::build(&own, routes);
            prop_assert_eq!(&changed, &built);
            if let Ok(changed) = changed {
                let built = built.unwrap();
                prop_assert_eq!(found(&changed), found(&built));
                prop_assert_eq!(changed.len(), built.len());
                prop_assert!(changed.iter().eq(built.iter()));
                table = changed;
            }
        }
    }

    #[test]
    fn a_change_of_some_routes_leaves_the_others(
        (before, after, kept) in (contending_routes(), contending_routes(), vec(any::<bool>(), 12)),
    ) {
        let own = cluster("east");
        let Ok(table) = RouteTable::build(&own, before.clone()) else {
            return Ok(());
        };
        let key = |route: &Route| (route.name.clone(), route.protocol);
        // Some go, some come, some are replaced; the rest is not spoken of.
        let gone = before.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let changes: BTreeMap<_, _> = gone
            .map(|(route, _)| (key(route), None))
            .chain(after.iter().map(|route| (key(route), Some(Arc::new(route.clone())))))
            .collect();
        let staying = before.iter().filter(|route| !changes.contains_key(&key(route)));
        let whole: Vec<_> = staying.cloned().chain(after).collect();
        let (changed, built) = (table.changed(changes), RouteTable::build(&own, whole));
        prop_assert_eq!(changed.is_ok(), built.is_ok());
        if let (Ok(changed), Ok(built)) = (changed, built) {
            prop_assert_eq!(found(&changed), found(&built));
            prop_assert_eq!(changed, built);
        }
    }

    #[test]
    fn a_diff_leads_from_one_table_to_the_other(before in routes(), after in routes()) {
        let own = cluster("east");
        let before = RouteTable::build(&own, before).unwrap();
        let after = RouteTable::build(&own, after).unwrap();
        let diff = diff(&before, &after);
        let is_removed = |route: &Route| diff.removed.iter().any(|gone| **gone == *route);
        let kept = before.iter().filter(|route| !is_removed(route));
        let mut routes: Vec<Route> = kept
            .map(|route| {
                let change = diff.changed.iter().find(|change| change.before == *route);
                Route::clone(change.map_or(route, |change| &change.after))
            })
            .collect();
        routes.extend(diff.added.iter().map(|route| Route::clone(route)));
        prop_assert_eq!(RouteTable::build(&own, routes).unwrap(), after);
        let lines = diff.added.len() + diff.removed.len() + diff.changed.len();
        prop_assert_eq!(diff.to_string().lines().count(), lines);
    }

    #[test]
    fn a_view_holds_exactly_what_was_exported_to_the_peer(exports in exports()) {
        let table = ExportTable::build(&cluster("east"), exports.clone()).unwrap();
        for peer in CLUSTERS.map(cluster) {
            for (port, service) in (442..445).flat_map(|port| (0..3).map(move |service| (port, service))) {
                let name = route(&format!("{port}.service-{service}.shop"), &[]).name;
                let is_meant = |export: &Export| export.route_name() == name;
                let allows = |export: &Export| is_meant(export) && export.audience.contains(&peer);
                let expected = exports.iter().any(allows);
                for scope in scopes() {
                    let is_here = scope.cluster().is_none_or(|pin| *pin == cluster("east"));
                    prop_assert_eq!(sees(&table, &peer, &name.with_scope(scope)), expected && is_here);
                }
            }
        }
    }
}

fn sees(table: &ExportTable, peer: &ClusterName, name: &RouteName) -> bool {
    let view = table.view(peer);
    view.is_some_and(|view| view.lookup(name, Protocol::Tcp).is_some())
}
