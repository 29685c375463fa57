//! Bytes, and how a connection ended.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use socket2::SockRef;

/// How a connection ended, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In good order.
    End,
    /// By a reset.
    Reset,
    /// Not at all within the time the socket has.
    Open,
}

/// Reads until the other side ends, and says what came and how it ended.
///
/// # Panics
/// On an error that no peer can cause.
pub fn read_to_ending(stream: &mut impl Read) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (bytes, Ending::End),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if is_reset(&error) => return (bytes, Ending::Reset),
            Err(error) if is_late(&error) => return (bytes, Ending::Open),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("reading: {error}"),
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// How the other side ends; what comes before is not looked at.
pub fn ending(stream: &mut impl Read) -> Ending {
    read_to_ending(stream).1
}

/// Sends `request` and reads exactly `answer_bytes`.
pub fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    answer_bytes: usize,
) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = vec![0; answer_bytes];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Ends a connection by RST.
pub fn reset(stream: TcpStream) {
    // It fails only where the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Random bytes, the same for the same seed.
pub fn random_block(seed: u64, bytes: usize) -> Vec<u8> {
    let mut block = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut block);
    block
}
