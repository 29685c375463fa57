use corinth_model::{Protocol, Refusal, RouteName};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::StreamKind;

fn number(number: u32) -> FlowNumber {
    FlowNumber::new(number).unwrap()
}

fn open() -> StreamOpen {
    StreamOpen::new(StreamKind::Service {
        route: RouteName::parse("53.dns.infra.svc.clusterset.local").unwrap(),
        protocol: Protocol::Udp,
    })
}

/// One frame that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Open(u32),
    Reply(u32, StreamReply),
    Data(u32, Vec<u8>),
    End(u32, Reason),
}

impl Owned {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(flow) => FlowFrame::put_open(number(*flow), &open(), out),
            Self::Reply(flow, reply) => FlowFrame::put_reply(number(*flow), reply, out),
            Self::Data(flow, bytes) => assert!(FlowFrame::put_data(number(*flow), bytes, out)),
            Self::End(flow, reason) => FlowFrame::put_end(number(*flow), *reason, out),
        }
    }

    fn of(frame: FlowFrame<'_>) -> Self {
        match frame {
            FlowFrame::Open(flow, header) => {
                assert_eq!(*header, Ok(open()));
                Self::Open(flow.get())
            }
            FlowFrame::Reply(flow, reply) => Self::Reply(flow.get(), reply.unwrap()),
            FlowFrame::Data(flow, bytes) => Self::Data(flow.get(), bytes.to_vec()),
            FlowFrame::End(flow, reason) => Self::End(flow.get(), reason),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Owned>, FlowError> {
    let mut frames = FlowFrames::default();
    frames.feed(bytes);
    let mut read = Vec::new();
    while let Some(frame) = frames.take()? {
        read.push(Owned::of(frame));
    }
    Ok(read)
}

#[test]
fn a_frame_is_what_the_protocol_says_byte_by_byte() {
    let mut bytes = Vec::new();
    assert!(FlowFrame::put_data(number(0x0102_0304), b"hi", &mut bytes));
    FlowFrame::put_end(number(1), Reason::Completed, &mut bytes);
    FlowFrame::put_end(number(1), Reason::Failed(Failure::PeerReset), &mut bytes);
    let expected = [
        &[3, 0, 0, 2, 1, 2, 3, 4][..],
        b"hi",
        &[4, 0, 0, 0, 0, 0, 0, 1],
        &[4, 0, 0, 6, 0, 0, 0, 1],
        b"CRN027",
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn the_largest_datagram_fits_and_a_larger_one_is_not_written() {
    let mut bytes = Vec::new();
    assert!(FlowFrame::put_data(
        FlowNumber::FIRST,
        &[7; DATAGRAM_MAX_BYTES],
        &mut bytes
    ));
    assert_eq!(
        read(&bytes),
        Ok(vec![Owned::Data(1, vec![7; DATAGRAM_MAX_BYTES])])
    );
    let mut bytes = Vec::new();
    assert!(!FlowFrame::put_data(
        FlowNumber::FIRST,
        &[7; DATAGRAM_MAX_BYTES + 1],
        &mut bytes
    ));
    assert!(bytes.is_empty());
}

#[test]
fn an_unknown_type_ends_the_stream_unless_it_may_be_ignored() {
    assert_eq!(
        read(&[9, 0, 0, 0, 0, 0, 0, 1]),
        Err(FlowError::UnknownType(9))
    );
    assert_eq!(
        read(&[0, 0, 0, 0, 0, 0, 0, 1]),
        Err(FlowError::UnknownType(0))
    );
    let skipped = [9, 0x80, 0, 1, 0, 0, 0, 0, 42, 4, 0, 0, 0, 0, 0, 0, 5];
    assert_eq!(read(&skipped), Ok(vec![Owned::End(5, Reason::Completed)]));
}

#[test]
fn what_breaks_a_rule_is_found_before_its_payload_comes() {
    let too_long = |kind, length: u16| {
        let [high, low] = length.to_be_bytes();
        read(&[kind, 0, high, low, 0, 0, 0, 1])
    };
    assert_eq!(too_long(1, 4_097), Err(FlowError::TooLong(4_097)));
    assert_eq!(too_long(2, 4_097), Err(FlowError::TooLong(4_097)));
    assert_eq!(too_long(3, 65_528), Err(FlowError::TooLong(65_528)));
    assert_eq!(too_long(4, 7), Err(FlowError::TooLong(7)));
    assert_eq!(
        read(&[4, 0, 0, 1, 0, 0, 0, 1, b'C']),
        Err(FlowError::NoCode)
    );
    assert_eq!(read(&[3, 0, 0, 0, 0, 0, 0, 0]), Err(FlowError::NoNumber));
}

#[test]
fn a_bad_header_concerns_its_flow_alone() {
    let mut bytes = vec![1, 0, 0, 1, 0, 0, 0, 3, 0xFF];
    FlowFrame::put_end(number(2), Reason::Completed, &mut bytes);
    let mut frames = FlowFrames::default();
    frames.feed(&bytes);
    let first = frames.take().unwrap().unwrap();
    assert!(matches!(first, FlowFrame::Open(flow, header) if flow == number(3) && header.is_err()));
    let second = frames.take().unwrap();
    assert_eq!(second, Some(FlowFrame::End(number(2), Reason::Completed)));
}

#[test]
fn an_end_with_an_unknown_code_is_still_an_end() {
    let unknown = [&[4, 0, 0, 6, 0, 0, 0, 1][..], b"XYZ999"].concat();
    let ended = Owned::End(1, Reason::Failed(Failure::PeerReset));
    assert_eq!(read(&unknown), Ok(vec![ended]));
}

#[test]
fn numbers_stand_in_front_of_datagrams_in_their_shortest_form() {
    for (value, length) in [
        (1, 1),
        (63, 1),
        (64, 2),
        (16_383, 2),
        (16_384, 4),
        (0x3FFF_FFFF, 4),
    ] {
        let mut bytes = Vec::new();
        number(value).put(&mut bytes);
        assert_eq!(bytes.len(), length, "{value}");
    }
    assert_eq!(FlowNumber::take(&[]), None);
    assert_eq!(FlowNumber::take(&[0, 1]), None, "there is no flow 0");
    assert_eq!(FlowNumber::take(&[0x40]), None);
    assert_eq!(
        FlowNumber::take(&[0xC0, 0, 0, 1, 0, 0, 0, 0]),
        None,
        "beyond 32 bits"
    );
    assert_eq!(FlowNumber::take(&[5]), Some((number(5), &[][..])));
}

fn frames() -> impl Strategy<Value = Owned> {
    let flow = || 1..=u32::MAX;
    let reason = || {
        let all: Vec<_> = Reason::all().collect();
        prop::sample::select(all)
    };
    let reply = prop_oneof![
        Just(StreamReply::Accepted),
        Just(StreamReply::Refused(Refusal::FlowLimit)),
        Just(StreamReply::Failed(Failure::EndpointUnreachable)),
    ];
    prop_oneof![
        flow().prop_map(Owned::Open),
        (flow(), reply).prop_map(|(flow, reply)| Owned::Reply(flow, reply)),
        (flow(), vec(any::<u8>(), 0..200)).prop_map(|(flow, bytes)| Owned::Data(flow, bytes)),
        (flow(), reason()).prop_map(|(flow, reason)| Owned::End(flow, reason)),
    ]
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        sent in vec(frames(), 0..20),
        cuts in vec(1_usize..100, 1..20),
    ) {
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.put(&mut bytes);
        }
        let mut reader = FlowFrames::default();
        let (mut got, mut left) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (piece, rest) = left.split_at(left.len().min(*cut));
            left = rest;
            reader.feed(piece);
            while let Some(frame) = reader.take().unwrap() {
                got.push(Owned::of(frame));
            }
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn numbers_return_whole(value in 1..=u32::MAX, rest in vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        number(value).put(&mut bytes);
        bytes.extend(&rest);
        prop_assert_eq!(FlowNumber::take(&bytes), Some((number(value), &rest[..])));
    }

    #[test]
    fn bytes_of_strangers_never_panic(bytes in vec(any::<u8>(), 0..500)) {
        let mut reader = FlowFrames::default();
        reader.feed(&bytes);
        while let Ok(Some(_)) = reader.take() {}
        let _ = FlowNumber::take(&bytes);
    }
}
