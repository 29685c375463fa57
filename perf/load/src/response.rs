//! Finds the end of an HTTP/1 response.

/// Fields in a head.
const FIELDS_MAX: usize = 128;

/// A head is not longer.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// What is looked at of the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its length.
    pub bytes: usize,
    /// Its status.
    pub status: u16,
    /// Whether the server closes the connection afterwards.
    pub is_last: bool,
    length: Length,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
    UntilClosed,
}

/// It is not what HTTP/1 looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no HTTP response: {0}")]
pub struct NoResponse(String);

impl Head {
    /// The head at the front of these bytes, if it is whole.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, NoResponse> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(NoResponse("its head is too long".to_owned()));
            }
            Err(error) => return Err(NoResponse(error.to_string())),
        };
        let status = head.code.unwrap_or(0);
        let mut found = Self {
            bytes: length,
            status,
            is_last: head.version == Some(0),
            length: Length::UntilClosed,
        };
        for field in head.headers.iter() {
            found.note(field)?;
        }
        if status == 204 || status == 304 {
            found.length = Length::Bytes(0);
        }
        if found.length == Length::UntilClosed {
            found.is_last = true;
        }
        Ok(Some(found))
    }

    fn note(&mut self, field: &httparse::Header<'_>) -> Result<(), NoResponse> {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") && self.length != Length::Chunked {
            let bytes = value
                .parse()
                .map_err(|_| NoResponse("its length is no number".to_owned()))?;
            self.length = Length::Bytes(bytes);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            self.length = Length::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            let is_kept = value.eq_ignore_ascii_case("keep-alive");
            self.is_last = value.eq_ignore_ascii_case("close") || self.is_last && !is_kept;
        }
        Ok(())
    }
}

/// A body that is being skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So much is still to come.
    Bytes(u64),
    /// A line with the length of a chunk is next.
    ChunkHead,
    /// So much of a chunk is still to come, and the end of its line.
    Chunk(u64),
    /// Lines after the last chunk, until an empty one.
    Trailer,
    UntilClosed,
    Whole,
}

impl Body {
    /// The body that belongs to a head.
    pub const fn of(head: &Head) -> Self {
        Self {
            state: match head.length {
                Length::Bytes(0) => State::Whole,
                Length::Bytes(bytes) => State::Bytes(bytes),
                Length::Chunked => State::ChunkHead,
                Length::UntilClosed => State::UntilClosed,
            },
        }
    }

    /// How many of these bytes belong to the body and are done with.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, NoResponse> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let here = rest.len() as u64;
            match self.state {
                State::Whole => return Ok(taken),
                State::UntilClosed => return Ok(bytes.len()),
                State::Bytes(left) | State::Chunk(left) if here < left => {
                    self.state = match self.state {
                        State::Chunk(_) => State::Chunk(left - here),
                        State::Bytes(_)
                        | State::ChunkHead
                        | State::Trailer
                        | State::UntilClosed
                        | State::Whole => State::Bytes(left - here),
                    };
                    return Ok(bytes.len());
                }
                State::Bytes(left) => {
                    taken += left as usize;
                    self.state = State::Whole;
                }
                State::Chunk(left) => {
                    taken += left as usize;
                    self.state = State::ChunkHead;
                }
                State::ChunkHead => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((line, 0))) => {
                        taken += line;
                        self.state = State::Trailer;
                    }
                    Ok(httparse::Status::Complete((line, length))) => {
                        taken += line;
                        let with_end = length.checked_add(2);
                        self.state = State::Chunk(
                            with_end.ok_or_else(|| NoResponse("a chunk is too long".to_owned()))?,
                        );
                    }
                    Ok(httparse::Status::Partial) => return Ok(taken),
                    Err(_) => return Err(NoResponse("a chunk has no length".to_owned())),
                },
                State::Trailer => {
                    let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                        return Ok(taken);
                    };
                    taken += line + 2;
                    if line == 0 {
                        self.state = State::Whole;
                    }
                }
            }
        }
    }

    /// Nothing more is to come.
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Only the end of the connection tells where it ends.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClosed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a response in pieces of this size; how much of it was taken when it was whole.
    fn skip(response: &[u8], piece: usize) -> Option<usize> {
        let head = Head::parse(response).unwrap().unwrap();
        let mut body = Body::of(&head);
        let mut held = Vec::new();
        let mut taken = head.bytes;
        for part in response[head.bytes..].chunks(piece) {
            held.extend_from_slice(part);
            let done = body.take(&held).unwrap();
            held.drain(..done);
            taken += done;
            if body.is_whole() {
                return Some(taken);
            }
        }
        body.is_whole().then_some(taken)
    }

    #[test]
    fn the_end_of_a_response_is_found_however_it_is_cut() {
        let counted = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n2;x=y\r\n\r\n\r\n0\r\nA: b\r\n\r\n";
        for response in [counted.as_slice(), chunked] {
            for piece in 1..=response.len() {
                let mut with_next = response.to_vec();
                with_next.extend_from_slice(b"HTTP/1.1");
                assert_eq!(
                    skip(&with_next, piece),
                    Some(response.len()),
                    "pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_its_connection() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
        assert!(head.is_last);
        assert!(Body::of(&head).ends_with_connection());
    }

    #[test]
    fn a_response_that_has_no_body_is_whole_at_once() {
        let head = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(Body::of(&head).is_whole());
        assert!(!head.is_last);
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        assert!(Head::parse(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        let endless = [
            b"HTTP/1.1 200 OK\r\nA: ".as_slice(),
            &vec![b'a'; HEAD_MAX_BYTES],
        ]
        .concat();
        assert!(Head::parse(&endless).is_err());
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(Body::of(&head).take(b"zz\r\n").is_err());
        assert!(Body::of(&head).take(b"ffffffffffffffff\r\n").is_err());
    }
}
