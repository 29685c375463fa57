use super::*;

fn response(chain: &[usize], not_after: u64) -> wire::SignResponse {
    let chain = chain.iter().map(|bytes| vec![7; *bytes]);
    wire::SignResponse {
        chain: chain.collect(),
        not_after,
    }
}

#[test]
fn messages_survive_the_wire() {
    let request = SignRequest::new(vec![1; SIGNING_REQUEST_MAX_BYTES]).unwrap();
    let sent = wire::SignRequest::from(request.clone());
    assert_eq!(SignRequest::try_from(sent), Ok(request));
    for chain in [&[1][..], &[CERTIFICATE_MAX_BYTES; CHAIN_MAX]] {
        let sent = response(chain, 1);
        let read = SignResponse::try_from(sent.clone()).unwrap();
        assert_eq!(wire::SignResponse::from(read), sent);
    }
}

#[test]
fn an_issuer_survives_the_wire_unless_it_is_of_no_size_or_too_much() {
    for (bytes, is_good) in [
        (0, false),
        (1, true),
        (CERTIFICATE_MAX_BYTES, true),
        (CERTIFICATE_MAX_BYTES + 1, false),
    ] {
        let sent = wire::Issuer {
            root: vec![1; bytes],
        };
        let read = Issuer::try_from(sent.clone());
        let refused = IdentityError { field: "root" };
        let expected = if is_good { Ok(sent) } else { Err(refused) };
        assert_eq!(read.map(wire::Issuer::from), expected, "{bytes}");
    }
}

#[test]
fn a_request_of_no_size_or_too_much_is_refused() {
    for bytes in [0, SIGNING_REQUEST_MAX_BYTES + 1] {
        let sent = wire::SignRequest {
            request: vec![1; bytes],
        };
        let refused = SignRequest::try_from(sent);
        assert_eq!(refused, Err(IdentityError { field: "request" }));
    }
}

#[test]
fn a_response_without_a_certificate_or_with_too_much_is_refused() {
    for (chain, not_after, field) in [
        (&[][..], 1, "chain"),
        (&[0], 1, "chain"),
        (&[1, 0], 1, "chain"),
        (&[CERTIFICATE_MAX_BYTES + 1], 1, "chain"),
        (&[1; CHAIN_MAX + 1], 1, "chain"),
        (&[1], 0, "not_after"),
    ] {
        let refused = SignResponse::try_from(response(chain, not_after));
        assert_eq!(refused, Err(IdentityError { field }), "{chain:?}");
    }
}
