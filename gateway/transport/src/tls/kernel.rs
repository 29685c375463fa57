//! What the kernel knows of a TCP connection (TCP_INFO of tcp(7)).
//!
//! The only `unsafe` of this crate: no library that is well kept hands out the whole of it.

#![expect(
    unsafe_code,
    reason = "getsockopt writes into a structure of the kernel's"
)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use linux_raw_sys::net::tcp_info;

/// What the kernel knows of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TcpFigures {
    /// Bytes that the peer has acknowledged.
    pub(super) acknowledged_bytes: u64,
    /// Bytes that came, each once.
    pub(super) received_bytes: u64,
    /// Segments with data that were sent, again or for the first time.
    pub(super) sent_segments: u64,
    /// Segments that were sent again.
    pub(super) resent_segments: u64,
    /// How long something was on its way, or was to be sent.
    pub(super) busy: Duration,
    /// Of that, how long the peer's window was what held sending up.
    pub(super) held_by_peer: Duration,
    /// Bytes that have not been sent even once.
    pub(super) unsent_bytes: u64,
}

impl TcpFigures {
    /// Those of a socket.
    ///
    /// # Errors
    ///
    /// It is no TCP socket.
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut info = MaybeUninit::<tcp_info>::zeroed();
        let mut length = size_of::<tcp_info>() as libc::socklen_t;
        // SAFETY: `info` and `length` live and are writable for all of the call, and the kernel writes no more than `length`
        // says at first, which is the size of `info`. The descriptor is borrowed, hence open.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is made of integers alone, all of them zero where an older kernel has written less.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            acknowledged_bytes: info.tcpi_bytes_acked,
            received_bytes: info.tcpi_bytes_received,
            sent_segments: u64::from(info.tcpi_data_segs_out),
            resent_segments: u64::from(info.tcpi_total_retrans),
            busy: Duration::from_micros(info.tcpi_busy_time),
            held_by_peer: Duration::from_micros(info.tcpi_rwnd_limited),
            unsent_bytes: u64::from(info.tcpi_notsent_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    #[test]
    fn the_kernel_counts_what_both_ends_have() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 5_000]).unwrap();
        far.read_exact(&mut [0; 5_000]).unwrap();
        far.write_all(&[7; 300]).unwrap();
        near.read_exact(&mut [0; 300]).unwrap();
        let figures = TcpFigures::of(&near).unwrap();
        // The handshake counts for one.
        assert_eq!(figures.acknowledged_bytes, 5_001);
        assert_eq!(figures.received_bytes, 300);
        assert!(figures.sent_segments >= 1);
        assert_eq!(figures.resent_segments, 0);
        assert_eq!(figures.unsent_bytes, 0);
    }

    #[test]
    fn what_nobody_reads_stays_unsent_for_the_peers_sake() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _far = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        while near.write(&[7; 65_536]).is_ok() {}
        let figures = TcpFigures::of(&near).unwrap();
        assert!(figures.unsent_bytes > 0);
        assert!(figures.held_by_peer <= figures.busy);
    }

    #[test]
    fn another_socket_has_no_such_figures() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        TcpFigures::of(&socket).unwrap_err();
    }
}
