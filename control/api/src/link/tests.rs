use super::*;

mod random;

#[test]
fn token_returns_whole_from_its_text() {
    let token = token();
    let text = token.to_text().expect("it is short");
    assert!(text.starts_with("corinth-1."));
    assert!(!text.contains(['=', '+', '/', '\n']));
    assert_eq!(Token::parse(&text), Ok(token.clone()));
    assert_eq!(Token::parse(&format!(" {text}\r\n")), Ok(token));
}

#[test]
fn cut_and_changed_tokens_are_told_from_strangers_and_other_versions() {
    let text = token().to_text().expect("it is short");
    for end in "corinth-1.".len()..text.len() {
        let refused = Token::parse(&text[..end]).expect_err("something is missing");
        assert!(
            matches!(
                refused,
                TokenError::Damaged | TokenError::InvalidField { .. }
            ),
            "{end}: {refused:?}"
        );
    }
    assert_eq!(Token::parse(&format!("{text}=")), Err(TokenError::Damaged));
    assert_eq!(
        Token::parse(&text.replacen('.', ".!", 1)),
        Err(TokenError::Damaged)
    );
    for stranger in [
        "",
        "corinth",
        "corinth-.x",
        "corinth-a.x",
        "CORINTH-1.x",
        "eyJ",
    ] {
        assert_eq!(
            Token::parse(stranger),
            Err(TokenError::NotAToken),
            "{stranger}"
        );
    }
    assert_eq!(Token::parse("corinth-2.x"), Err(TokenError::OtherVersion));
    assert_eq!(Token::parse("corinth-10.x"), Err(TokenError::OtherVersion));
}

#[test]
fn long_tokens_are_neither_made_nor_read() {
    let long = Token {
        addresses: vec![address(&format!("{}:1", vec!["a".repeat(60); 4].join("."))); 8],
        ..token()
    };
    assert!(matches!(long.to_text(), Err(TokenError::TooLong { .. })));
    let text = format!("corinth-1.{}", "A".repeat(TOKEN_TEXT_MAX_BYTES));
    let bytes = text.len();
    assert_eq!(Token::parse(&text), Err(TokenError::TooLong { bytes }));
}

#[test]
fn every_field_of_a_token_is_checked() {
    type Change = fn(&mut wire::Token);
    let changes: [(&str, Change); 10] = [
        ("id", |token| token.id.push(0)),
        ("secret", |token| token.secret.clear()),
        ("cluster", |token| token.cluster = "East".into()),
        ("trust_domain", |token| token.trust_domain = "A.b".into()),
        ("addresses", |token| token.addresses.clear()),
        ("addresses", |token| token.addresses.push("nowhere".into())),
        ("addresses", |token| {
            token.addresses = vec!["a:1".into(); LINK_ADDRESSES_MAX + 1];
        }),
        ("root_pins", |token| token.root_pins.clear()),
        ("root_pins", |token| token.root_pins.push(vec![0; 31])),
        ("expires_at", |token| token.expires_at = 0),
    ];
    for (field, change) in changes {
        let text = token().to_text().expect("it is short");
        let encoded = text.strip_prefix(TOKEN_PREFIX).expect("it is a token");
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).expect("base64");
        let mut message = wire::Token::decode(&bytes[..]).expect("a token");
        change(&mut message);
        let encoded = BASE64URL_NOPAD.encode(&message.encode_to_vec());
        assert_eq!(
            Token::parse(&format!("{TOKEN_PREFIX}{encoded}")),
            Err(TokenError::InvalidField { field })
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", token());
    assert!(shown.contains("TokenSecret(..)"), "{shown}");
    assert!(!shown.contains("7, 7"), "{shown}");
}

#[test]
fn messages_return_whole() {
    let party = party().encode().expect("it is short");
    let join = Join {
        token_id: TokenId([1; 16]),
        party: party.clone(),
        mac: LinkMac([2; 32]),
        one_way: true,
    };
    assert_eq!(Join::decode(&join.encode()), Ok(join));
    assert_eq!(Party::decode(&party), Ok(self::party()));
    let linked = Answer::Linked {
        party,
        mac: LinkMac([3; 32]),
    };
    assert_eq!(Answer::decode(&linked.encode()), Ok(linked));
    for condition in Condition::ALL {
        let refused = Answer::Refused(*condition);
        assert_eq!(Answer::decode(&refused.encode()), Ok(refused));
    }
}

#[test]
fn largest_party_fits_into_its_messages() {
    let mut party = party();
    let fits = |party: &Party| party.encode().ok();
    while fits(&party).is_some() {
        party.roots[0].push(0x30);
    }
    party.roots[0].pop();
    let party = fits(&party).expect("one byte less fits");
    let join = Join {
        token_id: TokenId([1; 16]),
        party: party.clone(),
        mac: LinkMac([2; 32]),
        one_way: true,
    };
    assert!(join.encode().len() <= LINK_MESSAGE_MAX_BYTES);
    let mac = LinkMac([2; 32]);
    assert!(Answer::Linked { party, mac }.encode().len() <= LINK_MESSAGE_MAX_BYTES);
}

#[test]
fn every_field_of_a_party_is_checked() {
    type Change = fn(&mut wire::Party);
    let changes: [(&'static str, Change); 7] = [
        ("cluster", |party| party.cluster.clear()),
        ("trust_domain", |party| party.trust_domain.push('/')),
        ("roots", |party| party.roots.clear()),
        ("roots", |party| party.roots.push(Vec::new())),
        ("roots", |party| {
            party.roots = vec![vec![1]; LINK_ROOTS_MAX + 1]
        }),
        ("addresses", |party| party.addresses.push(":1".into())),
        ("addresses", |party| {
            party.addresses = vec!["a:1".into(); LINK_ADDRESSES_MAX + 1];
        }),
    ];
    for (field, change) in changes {
        let bytes = party().encode().expect("it is short");
        let mut message = wire::Party::decode(&bytes[..]).expect("a party");
        change(&mut message);
        let refused = Party::decode(&message.encode_to_vec());
        assert_eq!(refused, Err(LinkError::InvalidField { field }));
    }
}

#[test]
fn oversized_truncated_and_empty_messages_are_refused() {
    let bytes = LINK_MESSAGE_MAX_BYTES + 1;
    assert_eq!(
        Join::decode(&vec![0; bytes]),
        Err(LinkError::TooLong { bytes })
    );
    assert_eq!(
        Answer::decode(&vec![0; bytes]),
        Err(LinkError::TooLong { bytes })
    );
    assert_eq!(
        Party::decode(&vec![0; bytes]),
        Err(LinkError::TooLong { bytes })
    );
    let join = Join {
        token_id: TokenId([1; 16]),
        party: party().encode().expect("it is short"),
        mac: LinkMac([2; 32]),
        one_way: true,
    };
    let whole = join.encode();
    let cut = Join::decode(&whole[..whole.len() - 1]);
    assert!(matches!(cut, Err(LinkError::Malformed(_))), "{cut:?}");
    assert_eq!(
        Join::decode(&[]),
        Err(LinkError::InvalidField { field: "token_id" })
    );
    assert_eq!(Answer::decode(&[]), Err(LinkError::NoOutcome));
    let code = "CRN999".to_owned();
    let outcome = Some(wire::answer::Outcome::Refused(wire::Refused { code }));
    let unknown = wire::Answer { outcome }.encode_to_vec();
    assert_eq!(Answer::decode(&unknown), Err(LinkError::UnknownCode));
}

fn address(text: &str) -> HostPort {
    HostPort::parse(text).expect("an address")
}

fn token() -> Token {
    Token {
        id: TokenId([9; 16]),
        secret: TokenSecret([7; 32]),
        cluster: ClusterName::parse("east").expect("a name"),
        trust_domain: TrustDomain::parse("east.corinth.internal").expect("a trust domain"),
        addresses: vec![
            address("gw.east.example:15443"),
            address("[2001:db8::7]:15443"),
        ],
        root_pins: vec![RootPin([5; 32])],
        expires_at: 1_900_000_000,
    }
}

fn party() -> Party {
    Party {
        cluster: ClusterName::parse("west").expect("a name"),
        trust_domain: TrustDomain::parse("west.corinth.internal").expect("a trust domain"),
        roots: vec![vec![0x30; 400], vec![0x31; 400]],
        bundle_sequence: 3,
        addresses: vec![address("192.0.2.1:15443")],
    }
}
