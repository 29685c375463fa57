//! Waits for a socket in a few bytes.
//!
//! `TcpStream::readable` keeps a place in a list that any number of tasks may join: some 130 bytes for each direction
//! that waits, as long as the connection lasts. Our connections are held by one task each, so that the single place
//! the reactor has for each direction will do. Two tasks must not wait for the same direction of one socket.

use std::{
    future::poll_fn,
    io::{self, Read},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, task::coop::consume_budget};

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

/// Waits until the other side has closed the socket, whether or not what it sent before was read, or the socket has failed.
/// Any number of tasks may. Cancel-safe.
pub(crate) async fn closed(socket: &TcpStream) {
    // Of a socket without urgent data the first one tells nothing but the end.
    let interest = Interest::PRIORITY | Interest::ERROR;
    while let Ok(ready) = socket.ready(interest).await {
        if ready.is_read_closed() || ready.is_error() {
            return;
        }
        consume_budget().await;
    }
}

/// Reads what is there. A read that leaves room has emptied the socket (epoll(7)): the next one waits for news instead of
/// asking the kernel for nothing. That holds for sockets without urgent data, at which a read stops short: those of
/// tunnels, not those of applications.
///
/// # Errors
///
/// `WouldBlock` where nothing is there; else what the kernel says.
pub(crate) fn try_read(socket: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let mut drained = None;
    let read = socket.try_io(Interest::READABLE, || {
        let bytes = (&*SockRef::from(socket)).read(room)?;
        if 0 < bytes && bytes < room.len() {
            drained = Some(bytes);
            // What makes the runtime wait for the next event.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(bytes)
    });
    drained.map_or(read, Ok)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    fn would_block(read: &io::Result<usize>) -> bool {
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn a_socket_read_empty_is_not_ready_until_more_comes() {
        let (mut dialled, accepted) = pair().await;
        dialled.write_all(b"12345").await.unwrap();
        readable(&accepted).await.unwrap();
        let mut room = [0; 8];
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 5);
        SockRef::from(&dialled).send(b"6").unwrap();
        // There is a byte, and nobody has said so.
        assert!(would_block(&try_read(&accepted, &mut room)));
        readable(&accepted).await.unwrap();
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_full_read_and_an_end_leave_the_socket_ready() {
        let (mut dialled, accepted) = pair().await;
        dialled.write_all(b"12345678").await.unwrap();
        drop(dialled);
        readable(&accepted).await.unwrap();
        let mut room = [0; 4];
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 4);
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 4);
        readable(&accepted).await.unwrap();
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_socket_is_closed_when_its_end_or_a_reset_has_come_and_not_before() {
        for is_reset in [false, true] {
            let (mut dialled, accepted) = pair().await;
            dialled.write_all(b"unread").await.unwrap();
            readable(&accepted).await.unwrap();
            assert!(closed(&accepted).now_or_never().is_none());
            if is_reset {
                let now = Some(std::time::Duration::ZERO);
                SockRef::from(&dialled).set_linger(now).unwrap();
            }
            drop(dialled);
            closed(&accepted).await;
        }
    }

    #[tokio::test]
    async fn an_end_behind_a_short_read_is_found() {
        let (mut dialled, accepted) = pair().await;
        dialled.write_all(b"123").await.unwrap();
        drop(dialled);
        let mut room = [0; 8];
        readable(&accepted).await.unwrap();
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 3);
        readable(&accepted).await.unwrap();
        assert_eq!(try_read(&accepted, &mut room).unwrap(), 0);
    }
}
