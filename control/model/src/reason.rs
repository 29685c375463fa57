//! Why a connection ended: a closed set with stable codes, the same in log, metric and CLI.
//!
//! Codes: `CRN000` completed, `CRN001`–`CRN019` refusals, `CRN020`–`CRN069` failures. A code is never given to
//! another reason, also not after its own has gone.

use std::fmt;

use serde::Serialize;

use crate::refusal::Refusal;

#[cfg(test)]
mod tests;

/// Writes an enum from one table of its variants, so that no variant can lack its code or be missing from `ALL`.
macro_rules! closed_set {
    (
        $(#[$doc:meta])*
        $type:ident {
            $( $variant:ident = $code:literal, $name:literal, $summary:literal, $hint:literal; )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $( #[doc = concat!($code, ": ", $summary, ".")] $variant, )+
        }

        impl $type {
            /// All of them, in the order of their codes.
            pub const ALL: &[Self] = &[ $( Self::$variant, )+ ];

            /// The stable code, `CRN` and three digits.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $( Self::$variant => $code, )+ }
            }

            /// The name in snake case, as used for metric labels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }

            /// What it means, without full stop.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $( Self::$variant => $summary, )+ }
            }

            /// What to do about it, without full stop.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $( Self::$variant => $hint, )+ }
            }

            /// The one with this code, in either case.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.code().eq_ignore_ascii_case(code))
            }
        }

        /// Code and meaning, for people.
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} ({})", self.summary(), self.code())
            }
        }

        impl std::error::Error for $type {}

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.code())
            }
        }
    };
}

pub(crate) use closed_set;

closed_set! {
    /// Something that went wrong with a connection that was not refused.
    Failure {
        EndpointRefused = "CRN020", "endpoint_refused",
            "the endpoint refused the connection",
            "check that the application listens on the endpoint's port";
        EndpointTimeout = "CRN021", "endpoint_timeout",
            "the endpoint did not answer in time",
            "check the endpoint's node and network policies between it and the gateway";
        EndpointUnreachable = "CRN022", "endpoint_unreachable",
            "there is no way to the endpoint",
            "check the addresses the service names and the routes of the gateway's network";
        PeerUnreachable = "CRN023", "peer_unreachable",
            "no gateway of the peer can be reached",
            "is port 15443 open between the networks, and do the peer's gateway addresses still hold?";
        PeerTimeout = "CRN024", "peer_timeout",
            "the peer's gateway did not answer in time",
            "is port 15443 open between the networks? A firewall that drops shows as this";
        PathDead = "CRN025", "path_dead",
            "the path to the peer's gateway went silent",
            "check the network between the clusters; traffic moves to other candidates meanwhile";
        TunnelCut = "CRN026", "tunnel_cut",
            "the tunnel ended with the stream still open",
            "look into the peer gateway's log at this time: it stopped, or something on the way cut the connection";
        PeerReset = "CRN027", "peer_reset",
            "the peer's gateway reset the stream",
            "look for the same connection in the peer gateway's log";
        ClientReset = "CRN028", "client_reset",
            "the client reset the connection",
            "nothing to do here: the client gave up or crashed";
        ClientGone = "CRN029", "client_gone",
            "the client went away before an endpoint had accepted",
            "if this is frequent, compare the client's connect timeout with the time to the endpoint";
        EndpointReset = "CRN030", "endpoint_reset",
            "the endpoint reset the connection",
            "look into the application's log";
        IdleTimeout = "CRN031", "idle_timeout",
            "nothing was sent in either direction for too long",
            "raise the idle timeout, or let the application send keep-alives";
        DrainLimit = "CRN032", "drain_limit",
            "the gateway stopped before the stream had ended",
            "raise drain.limit if streams live longer than that";
        Withdrawn = "CRN033", "withdrawn",
            "the export, the link or the identity the stream relied on was withdrawn",
            "nothing to do if the change was meant; see what changed in the destination cluster";
        Terminated = "CRN034", "terminated",
            "the gateway was told to stop at once",
            "nothing to do: a second signal or an operator ended it";
        TlsFailed = "CRN035", "tls_failed",
            "the TLS handshake failed",
            "both sides need TLS 1.3; see the log line for the alert";
        TlsTimeout = "CRN036", "tls_timeout",
            "the TLS handshake did not finish in time",
            "check for packet loss on the way; a scanner shows as this too";
        NotTls = "CRN037", "not_tls",
            "the first bytes are not a TLS ClientHello",
            "plain connections go to an import port, not to a TLS port";
        NoSni = "CRN038", "no_sni",
            "the ClientHello names no server",
            "let the client send SNI: connect by name, not by address";
        AlpnRefused = "CRN039", "alpn_refused",
            "no protocol the client offers is spoken here, and no direct route matches its server name",
            "this port takes tunnels of linked gateways; check the address, and that both sides run versions next to each other";
        Untrusted = "CRN040", "untrusted",
            "the certificate does not verify against the bundle of its trust domain",
            "exchange trust bundles again if the peer has a new CA; otherwise something on the way is not your peer";
        CertificateExpired = "CRN041", "certificate_expired",
            "a certificate is expired or not yet valid",
            "check the clocks of both clusters, and that the peer's control plane renews its certificates";
        WrongRole = "CRN042", "wrong_role",
            "the certificate is not a gateway's",
            "tunnels are between gateways: applications connect to an import port or to a direct route";
        WrongPeer = "CRN043", "wrong_peer",
            "the certificate belongs to another cluster than the one dialled, or to one not linked",
            "check the peer's gateway addresses: they lead to another cluster";
        ProtocolViolation = "CRN044", "protocol_violation",
            "the peer broke the tunnel protocol",
            "upgrade the older side; report it if both run the same version";
        HeaderInvalid = "CRN045", "header_invalid",
            "the stream header is malformed",
            "upgrade the older side; report it if both run the same version";
        FirstFrameTimeout = "CRN046", "first_frame_timeout",
            "no frame came after the handshake",
            "check for packet loss on the way; the other side may be stuck";
        TooManyConnections = "CRN047", "too_many_connections",
            "too many connections from this address, or in all",
            "raise the connection limits if these are wanted; otherwise find who opens them";
        BadRequest = "CRN048", "bad_request",
            "the SOCKS or CONNECT request is malformed",
            "check the client's proxy settings";
        Internal = "CRN049", "internal",
            "a fault of the gateway itself",
            "report it with the log around this time";
    }
}

/// Who has to look into a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Culprit {
    /// Who opened the connection.
    Client,
    /// This gateway, or its configuration.
    Local,
    /// The other gateway, or the network to it.
    Peer,
    /// The application that was called.
    Endpoint,
}

impl Failure {
    /// Who has to look into it.
    #[must_use]
    pub const fn culprit(self) -> Culprit {
        match self {
            Self::EndpointRefused
            | Self::EndpointTimeout
            | Self::EndpointUnreachable
            | Self::EndpointReset => Culprit::Endpoint,
            Self::PeerUnreachable
            | Self::PeerTimeout
            | Self::PathDead
            | Self::TunnelCut
            | Self::PeerReset
            | Self::Untrusted
            | Self::CertificateExpired
            | Self::WrongRole
            | Self::WrongPeer
            | Self::ProtocolViolation
            | Self::HeaderInvalid
            | Self::FirstFrameTimeout => Culprit::Peer,
            Self::ClientReset
            | Self::ClientGone
            | Self::IdleTimeout
            | Self::TlsFailed
            | Self::TlsTimeout
            | Self::NotTls
            | Self::NoSni
            | Self::AlpnRefused
            | Self::TooManyConnections
            | Self::BadRequest => Culprit::Client,
            Self::DrainLimit | Self::Withdrawn | Self::Terminated | Self::Internal => {
                Culprit::Local
            }
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Local => "local",
            Self::Peer => "peer",
            Self::Endpoint => "endpoint",
        })
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Both sides had sent all they wanted (`CRN000`).
    Completed,
    /// It was refused.
    Refused(Refusal),
    /// Something went wrong.
    Failed(Failure),
}

impl Reason {
    /// The stable code, `CRN` and three digits.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Completed => "CRN000",
            Self::Refused(refusal) => refusal.code(),
            Self::Failed(failure) => failure.code(),
        }
    }

    /// The name in snake case, as used for metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused(refusal) => refusal.name(),
            Self::Failed(failure) => failure.name(),
        }
    }

    /// What it means, without full stop.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Completed => "both sides had sent all they wanted",
            Self::Refused(refusal) => refusal.summary(),
            Self::Failed(failure) => failure.summary(),
        }
    }

    /// What to do about it, without full stop.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Completed => "nothing to do",
            Self::Refused(refusal) => refusal.hint(),
            Self::Failed(failure) => failure.hint(),
        }
    }

    /// Who has to look into it; nobody if it completed or was refused.
    #[must_use]
    pub const fn culprit(self) -> Option<Culprit> {
        match self {
            Self::Completed | Self::Refused(_) => None,
            Self::Failed(failure) => Some(failure.culprit()),
        }
    }

    /// The reason with this code, in either case.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::all().find(|reason| reason.code().eq_ignore_ascii_case(code))
    }

    /// All reasons, in the order of their codes.
    pub fn all() -> impl Iterator<Item = Self> {
        let refusals = Refusal::ALL.iter().copied().map(Self::Refused);
        let failures = Failure::ALL.iter().copied().map(Self::Failed);
        std::iter::once(Self::Completed)
            .chain(refusals)
            .chain(failures)
    }
}

/// Code and meaning, for people.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.summary(), self.code())
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
