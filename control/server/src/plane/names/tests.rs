use super::*;

fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn claim(standing: Standing) -> BTreeMap<DnsName, Standing> {
    BTreeMap::from([(name("www.example.com"), standing)])
}

const fn offered(exported_at_ms: u64) -> Standing {
    Standing::Offered { exported_at_ms }
}

const fn own(exported_at_ms: u64) -> Standing {
    Standing::Own { exported_at_ms }
}

#[test]
fn the_owner_of_a_name_does_not_depend_on_the_order_of_the_claims() {
    let claims = [
        ("web.shop", offered(9)),
        ("api.shop", offered(9)),
        ("new.shop", offered(10)),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut names = Names::default();
        for (service, standing) in order.map(|at: usize| claims[at]) {
            names.set(&id(service), claim(standing));
        }
        assert_eq!(
            names.owner(&name("www.example.com")),
            Some(&id("api.shop")),
            "{order:?}"
        );
    }
}

#[test]
fn no_peer_takes_a_name_from_a_service_or_an_import_declared_here() {
    let mut names = Names::default();
    names.set(&id("a.shop"), claim(offered(0)));
    names.set(&id("own.shop"), claim(own(7)));
    assert_eq!(names.owner(&name("www.example.com")), Some(&id("own.shop")));
    names.set(&id("web.shop"), claim(Standing::Asked));
    let refused: Vec<_> = names.refused(&id("own.shop")).collect();
    assert_eq!(refused, [(&name("www.example.com"), &id("web.shop"))]);
}

#[test]
fn who_gains_or_loses_a_name_is_told() {
    let mut names = Names::default();
    assert_eq!(names.set(&id("a.shop"), claim(offered(5))), [].into());
    let lost = names.set(&id("b.shop"), claim(offered(4)));
    assert_eq!(lost, [id("a.shop")].into());
    assert_eq!(names.refused(&id("b.shop")).count(), 0);
    let gained = names.set(&id("b.shop"), BTreeMap::new());
    assert_eq!(gained, [id("a.shop")].into());
    assert_eq!(names.refused(&id("a.shop")).count(), 0);
    names.set(&id("a.shop"), BTreeMap::new());
    assert!(names.by_name.is_empty() && names.by_service.is_empty());
}
