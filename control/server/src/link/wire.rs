//! One message each way, each with its length (u16, big-endian) in front.

use std::io;

use corinth_api::link::LINK_MESSAGE_MAX_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one message.
///
/// # Errors
/// If it is longer than allowed, or the stream ends before it does.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LINK_MESSAGE_MAX_BYTES {
        let why =
            format!("a message of {length} bytes; at most {LINK_MESSAGE_MAX_BYTES} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message.
///
/// # Errors
/// If it is longer than allowed, or the stream cannot be written to.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= LINK_MESSAGE_MAX_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    // At once, so that it is one record.
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await?;
    stream.flush().await
}
