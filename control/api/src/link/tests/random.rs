use proptest::{collection::vec, prelude::*};

use super::*;

proptest! {
    #[test]
    fn tokens_return_whole(token in tokens()) {
        if let Ok(text) = token.to_text() {
            prop_assert_eq!(Token::parse(&text), Ok(token));
        }
    }

    #[test]
    fn parties_return_whole(party in parties()) {
        if let Ok(bytes) = party.encode() {
            prop_assert_eq!(Party::decode(&bytes), Ok(party));
        }
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..LINK_MESSAGE_MAX_BYTES + 16)) {
        let _ = Party::decode(&bytes);
        if let Ok(join) = Join::decode(&bytes) {
            prop_assert_eq!(Join::decode(&join.encode()), Ok(join));
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        let _ = Token::parse(&format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)));
    }

    #[test]
    fn arbitrary_text_is_a_token_or_refused(text in ".{0,200}") {
        let _ = Token::parse(&text);
    }
}

fn labels() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,20}"
}

fn hosts() -> impl Strategy<Value = HostPort> {
    let host = prop_oneof![
        vec(labels(), 1..4).prop_map(|labels| labels.join(".")),
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| format!("[{address}]")),
    ];
    (host, 1..=u16::MAX).prop_filter_map("a mask is no label", |(host, port)| {
        HostPort::parse(&format!("{host}:{port}")).ok()
    })
}

fn names() -> impl Strategy<Value = (ClusterName, TrustDomain)> {
    (labels(), "[a-z0-9._-]{1,40}").prop_map(|(name, domain)| {
        (
            ClusterName::parse(&name).expect("labels are names"),
            TrustDomain::parse(&domain).expect("the pattern is the rule"),
        )
    })
}

fn tokens() -> impl Strategy<Value = Token> {
    let pins = vec(any::<[u8; 32]>().prop_map(RootPin), 1..4);
    let ids = (any::<[u8; 16]>(), any::<[u8; 32]>());
    (ids, names(), vec(hosts(), 1..5), pins, 1..u64::MAX).prop_map(
        |((id, secret), (cluster, trust_domain), addresses, root_pins, expires_at)| Token {
            id: TokenId(id),
            secret: TokenSecret(secret),
            cluster,
            trust_domain,
            addresses,
            root_pins,
            expires_at,
        },
    )
}

fn parties() -> impl Strategy<Value = Party> {
    let roots = vec(vec(any::<u8>(), 1..600), 1..5);
    (names(), roots, any::<u64>(), vec(hosts(), 0..5)).prop_map(
        |((cluster, trust_domain), roots, bundle_sequence, addresses)| Party {
            cluster,
            trust_domain,
            roots,
            bundle_sequence,
            addresses,
        },
    )
}
