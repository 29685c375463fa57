//! Requests and responses as bytes: the number of the request, then payload.

use crate::{
    pattern::Pattern,
    spec::{TestSpec, Verify},
};

/// The number of a request, in front of it and of its response.
const NUMBER_BYTES: usize = 8;

/// Once there is so much to send, it is sent before more is answered: a small request may ask for a long response.
const PART_BYTES: usize = 64 << 10;

/// The stream of a pattern from which requests are taken.
const REQUESTS: u64 = 1 << 40;

/// And responses.
const RESPONSES: u64 = 2 << 40;

/// Makes messages of one kind and checks them.
#[derive(Debug, Clone)]
struct Messages {
    bytes: usize,
    pattern: Pattern,
    verify: Verify,
    /// One of them, of which only the number has to be changed when nothing is verified.
    template: Vec<u8>,
}

/// A message that is not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {number} is not what was sent")]
pub struct Corrupt {
    /// The number it claims.
    pub number: u64,
}

impl Messages {
    fn new(spec: &TestSpec, bytes: u64, stream: u64) -> Self {
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .max(NUMBER_BYTES);
        let pattern = Pattern::new(spec.seed, stream);
        let mut template = vec![0; bytes];
        pattern.fill(&mut template, 0);
        Self {
            bytes,
            pattern,
            verify: spec.verify,
            template,
        }
    }

    fn payload_offset(&self, number: u64) -> u64 {
        number.wrapping_mul(self.bytes as u64)
    }

    fn write(&mut self, number: u64, out: &mut Vec<u8>) {
        self.template[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
        if self.verify == Verify::EveryByte {
            let offset = self.payload_offset(number);
            self.pattern
                .fill(&mut self.template[NUMBER_BYTES..], offset);
        }
        out.extend_from_slice(&self.template);
    }

    /// The number of the message that these bytes are.
    fn read(&self, message: &[u8]) -> Result<u64, Corrupt> {
        let number = message.first_chunk().copied().map_or(0, u64::from_be_bytes);
        let payload = message.get(NUMBER_BYTES..).unwrap_or_default();
        if self.verify == Verify::EveryByte
            && self
                .pattern
                .first_difference(payload, self.payload_offset(number))
                .is_some()
        {
            return Err(Corrupt { number });
        }
        Ok(number)
    }
}

/// The server's side: a response for each request.
#[derive(Debug, Clone)]
pub struct Answers {
    requests: Messages,
    responses: Messages,
}

impl Answers {
    /// For the requests of this test.
    pub fn new(spec: &TestSpec) -> Self {
        Self {
            requests: Messages::new(spec, spec.message_bytes, REQUESTS),
            responses: Messages::new(spec, spec.response_bytes, RESPONSES),
        }
    }

    /// How long a request is.
    pub const fn request_bytes(&self) -> usize {
        self.requests.bytes
    }

    /// Takes whole requests from the front of `bytes` and adds a response for each to `out`, until there is no more
    /// or there is enough to send; nothing in `out` means that no whole request is left. A corrupt one is answered
    /// too; `note` is told of each.
    pub fn answer(
        &mut self,
        bytes: &mut Vec<u8>,
        out: &mut Vec<u8>,
        mut note: impl FnMut(Result<u64, Corrupt>),
    ) {
        let mut taken = 0;
        for request in bytes.chunks_exact(self.requests.bytes) {
            if out.len() >= PART_BYTES {
                break;
            }
            taken += request.len();
            let number = self.requests.read(request);
            note(number);
            self.responses
                .write(number.unwrap_or_else(|corrupt| corrupt.number), out);
        }
        bytes.drain(..taken);
    }
}

/// The client's side: requests, and the reading of responses.
#[derive(Debug, Clone)]
pub struct Questions {
    requests: Messages,
    responses: Messages,
}

impl Questions {
    /// For the requests of this test.
    pub fn new(spec: &TestSpec) -> Self {
        Self {
            requests: Messages::new(spec, spec.message_bytes, REQUESTS),
            responses: Messages::new(spec, spec.response_bytes, RESPONSES),
        }
    }

    /// How long a response is.
    pub const fn response_bytes(&self) -> usize {
        self.responses.bytes
    }

    /// Puts request `number` at the end of `out`.
    pub fn ask(&mut self, number: u64, out: &mut Vec<u8>) {
        self.requests.write(number, out);
    }

    /// Which request these bytes answer.
    pub fn read(&self, response: &[u8]) -> Result<u64, Corrupt> {
        self.responses.read(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Workload;

    fn spec() -> TestSpec {
        TestSpec {
            message_bytes: 20,
            response_bytes: 33,
            verify: Verify::EveryByte,
            seed: 5,
            ..TestSpec::new(Workload::Rr, "host")
        }
    }

    fn asked(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in numbers {
            Questions::new(&spec()).ask(*number, &mut bytes);
        }
        bytes
    }

    #[test]
    fn each_request_is_answered_with_its_number() {
        let mut bytes = asked(&[3, 1, 4]);
        let mut out = Vec::new();
        let mut seen = Vec::new();
        Answers::new(&spec()).answer(&mut bytes, &mut out, |number| seen.push(number));
        assert_eq!(seen, [Ok(3), Ok(1), Ok(4)]);
        let questions = Questions::new(&spec());
        let numbers: Vec<_> = out
            .chunks(questions.response_bytes())
            .map(|part| questions.read(part))
            .collect();
        assert_eq!(numbers, seen);
    }

    #[test]
    fn small_requests_for_long_responses_are_answered_in_parts() {
        let spec = TestSpec {
            message_bytes: 8,
            response_bytes: 1 << 20,
            ..TestSpec::new(Workload::Rr, "host")
        };
        let mut bytes = Vec::new();
        for number in 0..100 {
            Questions::new(&spec).ask(number, &mut bytes);
        }
        let mut answers = Answers::new(&spec);
        let mut seen = Vec::new();
        loop {
            let mut out = Vec::new();
            answers.answer(&mut bytes, &mut out, |number| seen.push(number));
            if out.is_empty() {
                break;
            }
            assert_eq!(out.len(), 1 << 20, "no more than one at once");
        }
        assert_eq!(seen, (0..100).map(Ok).collect::<Vec<_>>());
        assert!(bytes.is_empty());
    }

    #[test]
    fn requests_may_come_in_any_pieces() {
        let all = asked(&[1, 2, 3]);
        for cut in 0..all.len() {
            let mut answers = Answers::new(&spec());
            let mut count = 0;
            let mut out = Vec::new();
            let mut bytes = all[..cut].to_vec();
            answers.answer(&mut bytes, &mut out, |_| count += 1);
            bytes.extend_from_slice(&all[cut..]);
            answers.answer(&mut bytes, &mut out, |_| count += 1);
            assert_eq!((count, bytes.len()), (3, 0), "cut at {cut}");
        }
    }

    #[test]
    fn any_changed_byte_of_the_payload_is_noticed_on_either_side() {
        let mut request = asked(&[9]);
        for at in NUMBER_BYTES..request.len() {
            let mut bytes = request.clone();
            bytes[at] ^= 0x80;
            let mut seen = None;
            Answers::new(&spec()).answer(&mut bytes, &mut Vec::new(), |number| seen = Some(number));
            assert_eq!(seen, Some(Err(Corrupt { number: 9 })), "byte {at}");
        }
        let mut response = Vec::new();
        Answers::new(&spec()).answer(&mut request, &mut response, |_| ());
        response[32] ^= 1;
        assert_eq!(
            Questions::new(&spec()).read(&response),
            Err(Corrupt { number: 9 })
        );
    }
}
