use super::*;

fn service(text: &str) -> ServiceId {
    text.parse().unwrap()
}

#[test]
fn nothing_is_accepted_until_told() {
    assert!(!Accepted::default().accepts(&service("web.shop")));
}

#[test]
fn selectors_pick_all_a_namespace_or_one_service() {
    for (selector, picks, leaves) in [
        ("*", "web.shop", None),
        ("shop/*", "web.shop", Some("web.shops")),
        ("web.shop", "web.shop", Some("web2.shop")),
    ] {
        let accepted = Accepted(vec![selector.parse().unwrap()]);
        assert!(accepted.accepts(&service(picks)), "{selector}");
        if let Some(leaves) = leaves {
            assert!(!accepted.accepts(&service(leaves)), "{selector}");
        }
        assert_eq!(accepted.0[0].to_string(), selector);
    }
}

#[test]
fn namespaces_of_kubernetes_are_never_accepted() {
    for selector in ["*", "kube-system/*", "dns.kube-system"] {
        let accepted = Accepted(vec![selector.parse().unwrap()]);
        assert!(!accepted.accepts(&service("dns.kube-system")), "{selector}");
    }
}

#[test]
fn malformed_selectors_are_refused() {
    for text in ["", "/*", "*/*", "shop/web", "sh op/*", "*.shop", "web"] {
        assert!(text.parse::<Selector>().is_err(), "{text:?}");
    }
}

#[test]
fn a_later_epoch_is_above_every_revision_of_an_earlier_one() {
    let version = |epoch, revision| Version { epoch, revision };
    assert!(version(2, 0) > version(1, 99));
    assert!(version(2, 1) > version(2, 0));
}

#[test]
fn an_instance_returns_from_its_text() {
    let instance = Instance(*b"0123456789abcde\xff");
    assert_eq!(instance.to_string().parse(), Ok(instance));
    for text in [
        "",
        "00",
        "+0000000000000000000000000000000",
        "é000000000000000000000000000000",
    ] {
        assert_eq!(text.parse::<Instance>(), Err(NotAnInstance), "{text:?}");
    }
}
