use super::*;
use crate::spec::Workload;

fn preamble() -> Preamble {
    Preamble {
        kind: Kind::Data,
        test: TestId([7; 16]),
        connection: 0x0102_0304,
    }
}

#[test]
fn a_preamble_comes_out_as_it_went_in() {
    for kind in [Kind::Control, Kind::Data, Kind::Resume] {
        let preamble = Preamble { kind, ..preamble() };
        assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
    }
}

#[test]
fn another_version_is_told_by_its_number() {
    let mut bytes = preamble().encode();
    bytes[9] = 9;
    assert_eq!(
        Preamble::decode(&bytes),
        Err(PreambleFault::OtherVersion(9))
    );
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = preamble().encode();
    bytes[10] = 77;
    assert_eq!(
        Preamble::decode(&bytes),
        Err(PreambleFault::UnknownKind(77))
    );
}

#[test]
fn any_change_of_the_magic_makes_it_somebody_elses() {
    for index in 0..MAGIC.len() {
        let mut bytes = preamble().encode();
        bytes[index] ^= 0x40;
        assert_eq!(Preamble::decode(&bytes), Err(PreambleFault::NotOurs));
    }
}

#[test]
fn a_message_comes_out_as_it_went_in() {
    let ask = Ask::Open {
        spec: Box::new(TestSpec::new(Workload::Rr, "host:1")),
        token: Some("secret".to_owned()),
    };
    let mut bytes = Vec::new();
    write_message(&mut bytes, &ask).unwrap();
    let back: Ask = read_message(&mut bytes.as_slice(), ASK_MAX_BYTES).unwrap();
    assert_eq!(back, ask);
}

#[test]
fn a_message_that_claims_to_be_huge_is_refused_unread() {
    let bytes = u32::MAX.to_be_bytes();
    let error = read_message::<Ask>(&mut bytes.as_slice(), ASK_MAX_BYTES).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_message_that_ends_early_is_an_end_of_file() {
    let mut bytes = 100_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"{}");
    let error = read_message::<Ask>(&mut bytes.as_slice(), ASK_MAX_BYTES).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn random_bytes_are_never_a_message_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2_000 {
        let length = random.usize(0..64);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        if random.bool() && length > 4 {
            bytes[..4].copy_from_slice(&(length as u32 - 4).to_be_bytes());
        }
        assert!(read_message::<Ask>(&mut bytes.as_slice(), ASK_MAX_BYTES).is_err());
    }
}

#[test]
fn a_test_is_named_by_32_digits_only() {
    let id = TestId([0xab; 16]);
    assert_eq!(TestId::from_hex(&id.to_hex()), Some(id));
    for wrong in ["", "00", "zz".repeat(16).as_str(), "0".repeat(33).as_str()] {
        assert_eq!(TestId::from_hex(wrong), None, "{wrong}");
    }
}
