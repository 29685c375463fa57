//! The order of tiers, and what is not known.

use crate::{Locality, LocalityError, Proximity, proximity};

/// `at("eu/eu-1/node-1")`; `-` is unknown.
fn at(text: &str) -> Locality {
    let mut parts = text.split('/').map(|part| (part != "-").then_some(part));
    let mut next = || parts.next().flatten();
    Locality::new(next(), next(), next()).unwrap()
}

#[test]
fn nearness_is_judged_by_what_both_sides_know() {
    let here = at("eu/eu-1/node-1");
    let cases = [
        ("eu/eu-1/node-1", true, Proximity::SameNode),
        ("-/-/node-1", true, Proximity::SameNode),
        ("eu/eu-1/node-2", true, Proximity::SameZone),
        ("-/eu-1/-", true, Proximity::SameZone),
        ("eu/eu-2/node-2", true, Proximity::SameRegion),
        ("eu/-/-", true, Proximity::SameRegion),
        ("us/eu-1/node-2", true, Proximity::SameCluster),
        ("-/-/-", true, Proximity::SameCluster),
        ("eu/eu-1/node-1", false, Proximity::RemoteZone),
        ("-/eu-1/node-1", false, Proximity::RemoteZone),
        ("eu/eu-2/-", false, Proximity::RemoteRegion),
        ("us/eu-1/node-1", false, Proximity::Remote),
        ("-/-/node-1", false, Proximity::Remote),
    ];
    for (there, same_cluster, expected) in cases {
        assert_eq!(
            proximity(&here, &at(there), same_cluster),
            expected,
            "{there} {same_cluster}"
        );
    }
    let unknown = Locality::default();
    assert_eq!(proximity(&unknown, &unknown, true), Proximity::SameCluster);
    assert_eq!(proximity(&unknown, &unknown, false), Proximity::Remote);
}

#[test]
fn any_place_in_the_own_cluster_is_nearer_than_another_cluster() {
    assert!(Proximity::SameNode < Proximity::SameZone);
    assert!(Proximity::SameZone < Proximity::SameRegion);
    assert!(Proximity::SameRegion < Proximity::SameCluster);
    assert!(Proximity::SameCluster < Proximity::RemoteZone);
    assert!(Proximity::RemoteZone < Proximity::RemoteRegion);
    assert!(Proximity::RemoteRegion < Proximity::Remote);
}

#[test]
fn places_no_cluster_could_have_are_refused() {
    let long = "z".repeat(64);
    let error = Locality::new(None, Some(&long), None);
    assert_eq!(
        error,
        Err(LocalityError::TooLong {
            part: "zone",
            bytes: 64,
            limit: 63
        })
    );
    assert!(Locality::new(None, None, Some(&"n".repeat(253))).is_ok());
    assert!(Locality::new(None, None, Some(&"n".repeat(254))).is_err());
    assert_eq!(
        Locality::new(Some(""), None, None),
        Err(LocalityError::Empty { part: "region" })
    );
    let error = Locality::new(Some("a\nb"), None, None);
    assert_eq!(
        error,
        Err(LocalityError::Character {
            part: "region",
            found: '\n'
        })
    );
}

#[test]
fn a_locality_is_checked_while_it_is_read() {
    let read = serde_json::from_str::<Locality>(r#"{"region":"eu","zone":"eu-1"}"#).unwrap();
    assert_eq!(read, at("eu/eu-1/-"));
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"region":"eu","zone":"eu-1"}"#
    );
    assert!(serde_json::from_str::<Locality>(r#"{"zone":"a b"}"#).is_err());
    assert!(serde_json::from_str::<Locality>(r#"{"zome":"eu-1"}"#).is_err());
}
