//! Waits for a socket in a few bytes.
//!
//! `TcpStream::readable` keeps a place in a list that any number of tasks may join: some 130 bytes for each direction
//! that waits, as long as the connection lasts. Our connections are held by one task each, so that the single place
//! the reactor has for each direction will do. Two tasks must not wait for the same direction of one socket.

use std::{future::poll_fn, io};

use tokio::net::TcpStream;

/// Waits until the socket may have bytes, an end or an error to read. Cancel-safe.
///
/// # Errors
///
/// The reactor of the socket has ended.
pub async fn readable(socket: &TcpStream) -> io::Result<()> {
    poll_fn(|context| socket.poll_read_ready(context)).await
}

/// Waits until the socket may take bytes, or has failed. Cancel-safe.
///
/// # Errors
///
/// The reactor of the socket has ended.
pub async fn writable(socket: &TcpStream) -> io::Result<()> {
    poll_fn(|context| socket.poll_write_ready(context)).await
}
