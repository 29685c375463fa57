//! How fast a sender may be, for each peer.

use std::{collections::BTreeMap, fmt, io, os::fd::AsFd, sync::Arc};

use corinth_model::TrustDomain;
use parking_lot::RwLock;
use rustix::net::sockopt;

/// How fast a sender may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Congestion {
    /// By losses (RFC 9438).
    Cubic,
    /// By the rate at which the path delivers (draft-ietf-ccwg-bbr); over QUIC with our own controller.
    Bbr,
}

impl Congestion {
    /// What QUIC does where nothing is said: a network between clusters loses packets that nobody has congested.
    pub const OF_QUIC: Self = Self::Bbr;

    /// The word in the configuration, which is also the kernel's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// Has a TCP socket send in this way.
    ///
    /// # Errors
    ///
    /// The system has it not, or does not allow it.
    pub(crate) fn set(self, socket: impl AsFd) -> io::Result<()> {
        Ok(sockopt::set_tcp_congestion(socket, self.as_str())?)
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How fast senders may be to each peer, swapped in place; clones share it. Where nothing is said it is what the system
/// does for TCP, and [`Congestion::OF_QUIC`] for QUIC. It counts for connections made from then on.
#[derive(Debug, Clone, Default)]
pub struct Congestions(Arc<RwLock<BTreeMap<TrustDomain, Congestion>>>);

impl Congestions {
    /// From now on it is this.
    pub fn replace(&self, congestions: BTreeMap<TrustDomain, Congestion>) {
        *self.0.write() = congestions;
    }

    /// What is said for one peer.
    pub(crate) fn of(&self, trust_domain: &TrustDomain) -> Option<Congestion> {
        self.0.read().get(trust_domain).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_sends_as_it_was_told_where_the_system_allows_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
        let allowed = allowed.unwrap();
        for congestion in [Congestion::Cubic, Congestion::Bbr] {
            let is_allowed = allowed
                .split_whitespace()
                .any(|word| word == congestion.as_str());
            // Whoever may do everything may do this too, if the system knows how.
            if congestion.set(&socket).is_ok() || is_allowed {
                let set = sockopt::tcp_congestion(&socket).unwrap();
                assert_eq!(set, congestion.as_str());
            }
        }
    }

    #[test]
    fn what_is_said_for_one_peer_counts_for_no_other() {
        let [east, west] =
            ["east", "west"].map(|name| TrustDomain::parse(&format!("{name}.test")).unwrap());
        let congestions = Congestions::default();
        congestions.replace(BTreeMap::from([(east.clone(), Congestion::Bbr)]));
        assert_eq!(congestions.of(&east), Some(Congestion::Bbr));
        assert_eq!(congestions.of(&west), None);
    }
}
