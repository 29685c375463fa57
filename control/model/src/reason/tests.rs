//! Codes are stable, unique and complete.

use std::collections::BTreeSet;

use crate::{Culprit, Failure, Reason, Refusal};

/// What has been given out. Only ever grows at the end of a range; a line never changes.
const GIVEN_OUT: &[(&str, &str)] = &[
    ("CRN000", "completed"),
    ("CRN001", "unknown_route"),
    ("CRN002", "forbidden"),
    ("CRN003", "no_endpoint"),
    ("CRN004", "over_limit"),
    ("CRN005", "overloaded"),
    ("CRN006", "draining"),
    ("CRN007", "ambiguous_name"),
    ("CRN008", "invalid_name"),
    ("CRN009", "too_many_hops"),
    ("CRN010", "source_not_allowed"),
    ("CRN011", "unlinked"),
    ("CRN012", "flow_limit"),
    ("CRN020", "endpoint_refused"),
    ("CRN021", "endpoint_timeout"),
    ("CRN022", "endpoint_unreachable"),
    ("CRN023", "peer_unreachable"),
    ("CRN024", "peer_timeout"),
    ("CRN025", "path_dead"),
    ("CRN026", "tunnel_cut"),
    ("CRN027", "peer_reset"),
    ("CRN028", "client_reset"),
    ("CRN029", "client_gone"),
    ("CRN030", "endpoint_reset"),
    ("CRN031", "idle_timeout"),
    ("CRN032", "drain_limit"),
    ("CRN033", "withdrawn"),
    ("CRN034", "terminated"),
    ("CRN035", "tls_failed"),
    ("CRN036", "tls_timeout"),
    ("CRN037", "not_tls"),
    ("CRN038", "no_sni"),
    ("CRN039", "alpn_refused"),
    ("CRN040", "untrusted"),
    ("CRN041", "certificate_expired"),
    ("CRN042", "wrong_role"),
    ("CRN043", "wrong_peer"),
    ("CRN044", "protocol_violation"),
    ("CRN045", "header_invalid"),
    ("CRN046", "first_frame_timeout"),
    ("CRN047", "too_many_connections"),
    ("CRN048", "bad_request"),
    ("CRN049", "internal"),
];

#[test]
fn codes_and_names_are_those_given_out() {
    let now: Vec<_> = Reason::all()
        .map(|reason| (reason.code(), reason.name()))
        .collect();
    assert_eq!(now, GIVEN_OUT);
}

#[test]
fn codes_and_names_are_unique() {
    let codes: BTreeSet<_> = Reason::all().map(Reason::code).collect();
    let names: BTreeSet<_> = Reason::all().map(Reason::name).collect();
    assert_eq!(codes.len(), Reason::all().count());
    assert_eq!(names.len(), Reason::all().count());
}

#[test]
fn a_code_leads_back_to_its_reason() {
    for reason in Reason::all() {
        assert_eq!(Reason::from_code(reason.code()), Some(reason));
        assert_eq!(
            Reason::from_code(&reason.code().to_lowercase()),
            Some(reason)
        );
    }
    for code in [
        "",
        "CRN",
        "CRN013",
        "CRN069",
        "CRN0000",
        "forbidden",
        "ＣＲＮ０００",
    ] {
        assert_eq!(Reason::from_code(code), None, "{code:?}");
    }
    assert_eq!(Refusal::from_code("CRN002"), Some(Refusal::Forbidden));
    assert_eq!(Refusal::from_code("CRN020"), None);
    assert_eq!(Failure::from_code("CRN020"), Some(Failure::EndpointRefused));
    assert_eq!(Failure::from_code("CRN002"), None);
}

#[test]
fn each_kind_keeps_to_its_range() {
    let number = |code: &str| code.strip_prefix("CRN").unwrap().parse::<u32>().unwrap();
    assert!(
        Refusal::ALL
            .iter()
            .all(|refusal| (1..20).contains(&number(refusal.code())))
    );
    assert!(
        Failure::ALL
            .iter()
            .all(|failure| (20..70).contains(&number(failure.code())))
    );
}

#[test]
fn texts_are_one_line_without_full_stop() {
    for reason in Reason::all() {
        for text in [reason.summary(), reason.hint()] {
            assert!(
                !text.is_empty() && !text.ends_with('.') && !text.contains('\n'),
                "{text}"
            );
        }
    }
}

#[test]
fn a_reason_shows_meaning_and_code_and_is_its_code_in_json() {
    let reason = Reason::from(Refusal::Draining);
    assert_eq!(
        reason.to_string(),
        "the gateway is stopping and takes nothing new (CRN006)"
    );
    assert_eq!(reason.to_string(), Refusal::Draining.to_string());
    assert_eq!(serde_json::to_string(&reason).unwrap(), "\"CRN006\"");
    assert_eq!(
        serde_json::to_string(&Failure::PathDead).unwrap(),
        "\"CRN025\""
    );
}

#[test]
fn only_failures_have_a_culprit() {
    assert_eq!(Reason::Completed.culprit(), None);
    assert_eq!(Reason::Refused(Refusal::Forbidden).culprit(), None);
    for (failure, culprit) in [
        (Failure::EndpointReset, Culprit::Endpoint),
        (Failure::TunnelCut, Culprit::Peer),
        (Failure::ClientGone, Culprit::Client),
        (Failure::Internal, Culprit::Local),
    ] {
        assert_eq!(Reason::from(failure).culprit(), Some(culprit));
    }
}
