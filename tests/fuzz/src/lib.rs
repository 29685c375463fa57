//! Bytes of strangers against every parser.
//!
//! Each target is one function from bytes to nothing. It must return for any input, and it says what must hold for an
//! accepted one: that it survives the way out and back in unchanged. A refusal must be printable: no control
//! characters, nothing longer than a line of a log may be.
//!
//! The programs in `src/bin` drive one target each: with libFuzzer under `cargo fuzz`, and else with [`mutate`], which
//! knows nothing of coverage but runs anywhere and always the same way.

use std::error::Error;
use std::fmt::Debug;
use std::path::Path;

use corinth_api::link::{Answer, Join, LINK_MESSAGE_MAX_BYTES, Party, Token};
use corinth_api::peering::{self, MESSAGE_MAX_BYTES};
use corinth_api::{
    FlowFrame, FlowFrames, FlowNumber, HEADER_MAX_BYTES, HandOver, Report, StreamOpen, StreamReply,
    Update, wire,
};
use corinth_gateway::settings::Settings;
use corinth_model::{DnsName, RouteName, ServiceId, SniName, SpiffeId};
use prost::Message as _;

pub mod mutate;

/// A refusal longer than this fills logs with what a stranger wrote.
const REFUSAL_MAX_BYTES: usize = 1024;

/// Takes bytes, panics if they break a promise, says whether any parser accepted them.
pub type Target = fn(&[u8]) -> bool;

/// All targets, each with the name of its program and of its folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("stream_open", stream_open),
    ("flow_frames", flow_frames),
    ("routes_update", routes_update),
    ("hand_over", hand_over),
    ("peering_message", peering_message),
    ("route_name", route_name),
    ("sni_name", sni_name),
    ("spiffe_id", spiffe_id),
    ("config", config),
    ("link_token", link_token),
    ("link_join", link_join),
];

/// Makes the `main` of a target's program.
#[macro_export]
macro_rules! program {
    ($target:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $target(bytes);
        });

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::mutate::main($target)
        }
    };
}

/// The first message on a stream and its answer, as a peer may send them.
pub fn stream_open(bytes: &[u8]) -> bool {
    let open = accepted(StreamOpen::decode(bytes)).map(|open| {
        let mut again = Vec::new();
        open.encode(&mut again);
        assert!(
            again.len() <= HEADER_MAX_BYTES,
            "{open:?} takes {} bytes",
            again.len()
        );
        assert_eq!(StreamOpen::decode(&again), Ok(open));
    });
    let reply = accepted(StreamReply::decode(bytes)).map(|reply| {
        let mut again = Vec::new();
        reply.encode(&mut again);
        assert_eq!(StreamReply::decode(&again), Ok(reply));
    });
    open.or(reply).is_some()
}

/// The frames of flows, and the number in front of a datagram beside them. Wherever they are cut, the same comes out.
pub fn flow_frames(bytes: &[u8]) -> bool {
    if let Some((flow, content)) = FlowNumber::take(bytes) {
        let mut again = Vec::new();
        flow.put(&mut again);
        again.extend_from_slice(content);
        assert_eq!(FlowNumber::take(&again), Some((flow, content)));
    }
    let whole = rewritten(&[bytes]);
    let middle = bytes.len() / 2;
    assert_eq!(rewritten(&[&bytes[..middle], &bytes[middle..]]), whole);
    let (again, is_sound) = whole;
    assert_eq!(rewritten(&[&again[..]]).0, again);
    is_sound && !again.is_empty()
}

/// What is read of these pieces, written again, and whether nothing in them broke a rule.
fn rewritten(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let (mut frames, mut again) = (FlowFrames::default(), Vec::new());
    for piece in pieces {
        frames.feed(piece);
        loop {
            let frame = match frames.take() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(refusal) => {
                    assert_printable(&refusal);
                    return (again, false);
                }
            };
            match frame {
                FlowFrame::Open(flow, header) => {
                    if let Some(open) = accepted(*header) {
                        FlowFrame::put_open(flow, &open, &mut again);
                    }
                }
                FlowFrame::Reply(flow, reply) => {
                    if let Some(reply) = accepted(reply) {
                        FlowFrame::put_reply(flow, &reply, &mut again);
                    }
                }
                FlowFrame::Data(flow, datagram) => {
                    assert!(FlowFrame::put_data(flow, datagram, &mut again));
                }
                FlowFrame::End(flow, reason) => FlowFrame::put_end(flow, reason, &mut again),
            }
        }
    }
    (again, true)
}

/// What a control plane tells its gateways, and what a gateway answers.
pub fn routes_update(bytes: &[u8]) -> bool {
    let update = accepted(Update::from_bytes(bytes)).map(|update| {
        assert_eq!(Update::from_bytes(&update.to_bytes()), Ok(update));
    });
    let report = accepted(Report::from_bytes(bytes)).map(|report| {
        assert_eq!(Report::from_bytes(&report.to_bytes()), Ok(report));
    });
    update.or(report).is_some()
}

/// The first words on a stream that a gateway hands to its control plane.
pub fn hand_over(bytes: &[u8]) -> bool {
    let Some(hand_over) = accepted(HandOver::decode(bytes)) else {
        return false;
    };
    let again = hand_over.encode();
    assert_eq!(
        HandOver::decode(&again[HandOver::LENGTH_BYTES..]),
        Ok(hand_over)
    );
    true
}

/// The line that lets another cluster link itself.
pub fn link_token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Some(token) = accepted(Token::parse(text)) else {
        return false;
    };
    // An address may be written longer than it was read.
    if let Ok(again) = token.to_text() {
        assert_eq!(Token::parse(&again), Ok(token));
    }
    true
}

/// What a stranger who wants to link says first, what an inviter answers, and the party inside either.
pub fn link_join(bytes: &[u8]) -> bool {
    let join = accepted(Join::decode(bytes)).map(|join| {
        let again = join.encode();
        assert!(again.len() <= LINK_MESSAGE_MAX_BYTES);
        accepted(Party::decode(&join.party));
        assert_eq!(Join::decode(&again), Ok(join));
    });
    let answer = accepted(Answer::decode(bytes)).map(|answer| {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    });
    let party = accepted(Party::decode(bytes)).map(|party| {
        if let Ok(again) = party.encode() {
            assert_eq!(Party::decode(&again), Ok(party));
        }
    });
    join.or(answer).or(party).is_some()
}

/// A message between control planes. An entry that was not taken has no way back out.
pub fn peering_message(bytes: &[u8]) -> bool {
    let Ok(message) = wire::peering::Message::decode(bytes) else {
        return false;
    };
    let Some(message) = accepted(peering::Message::decode(message)) else {
        return false;
    };
    if matches!(message, peering::Message::NotTaken { .. }) {
        return false;
    }
    let again = wire::peering::Message::from(&message).encode_to_vec();
    assert!(
        again.len() <= MESSAGE_MAX_BYTES,
        "{message:?} takes {} bytes",
        again.len()
    );
    let read = wire::peering::Message::decode(again.as_slice()).map(peering::Message::decode);
    // What we do not know of an entry is covered by its digest, and not written again.
    let same = match (&message, &read) {
        (
            peering::Message::Upsert { version, offer, .. },
            Ok(Ok(peering::Message::Upsert {
                version: version_again,
                offer: offer_again,
                ..
            })),
        ) => version == version_again && offer == offer_again,
        (message, read) => matches!(read, Ok(Ok(read)) if read == message),
    };
    assert!(same, "{message:?} became {read:?}");
    true
}

/// Route names, and the service names inside them.
pub fn route_name(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let service = accepted(ServiceId::parse(text));
    if let Some(service) = service {
        assert_eq!(ServiceId::parse(&service.to_string()), Ok(service));
    }
    let Some(name) = accepted(RouteName::parse(text)) else {
        return false;
    };
    assert_eq!(RouteName::parse(&name.to_string()), Ok(name));
    true
}

/// What a TLS client asked for.
pub fn sni_name(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    if let Some(name) = accepted(DnsName::parse(text)) {
        assert_eq!(DnsName::parse(&name.to_string()), Ok(name));
    }
    let Some(name) = accepted(SniName::parse(text)) else {
        return false;
    };
    assert_eq!(SniName::parse(&name.to_string()), Ok(name));
    true
}

/// The URI of a peer's certificate.
pub fn spiffe_id(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Some(id) = accepted(SpiffeId::parse(text)) else {
        return false;
    };
    // There is one way to write an identity, and its role follows from it.
    assert_eq!(id.to_string(), text);
    assert_eq!(
        SpiffeId::parse(text).map(|again| again.role()),
        Ok(id.role())
    );
    true
}

/// The configuration file. Files that it names are not read.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let settings = match Settings::parse(text, Path::new("config.yaml")) {
        Ok(settings) => settings,
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                assert_fit_for_a_log(&mistake.message);
                assert_fit_for_a_log(&mistake.hint);
            }
            return false;
        }
    };
    assert_eq!(settings.text(), text);
    assert_eq!(settings.needs_restart(&settings), <[&str; 0]>::default());
    true
}

/// What was accepted; a refusal is checked for what it would put into a log.
fn accepted<T, E: Error + Debug>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(refusal) => {
            assert_printable(&refusal);
            None
        }
    }
}

fn assert_printable(refusal: &dyn Error) {
    let mut cause = Some(refusal);
    while let Some(error) = cause {
        assert_fit_for_a_log(&error.to_string());
        cause = error.source();
    }
}

fn assert_fit_for_a_log(text: &str) {
    assert!(
        !text.contains(char::is_control),
        "{text:?} holds a control character"
    );
    assert!(
        text.len() <= REFUSAL_MAX_BYTES,
        "a refusal of {} bytes: {text}",
        text.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that is refused at the door tests nothing behind it. Other files of a corpus are inputs that failed once.
    #[test]
    fn corpora_pass_and_their_seeds_are_accepted() {
        for (name, target) in TARGETS {
            let folder = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut seeds = 0;
            for (bytes, file) in mutate::inputs(folder.as_ref()) {
                let accepted = target(&bytes);
                if file.contains("/seed-") {
                    assert!(accepted, "{file} is refused");
                    seeds += 1;
                }
            }
            assert!(seeds > 0, "{folder} has no seed");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let folder = format!("{}/src/bin", env!("CARGO_MANIFEST_DIR"));
        let mut programs: Vec<String> = mutate::inputs(folder.as_ref())
            .into_iter()
            .map(|(_, file)| {
                file.trim_start_matches(&folder)
                    .trim_matches('/')
                    .replace(".rs", "")
            })
            .collect();
        let mut targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        programs.sort();
        targets.sort();
        assert_eq!(programs, targets);
    }
}
