//! Who we are, and who may speak to us.
//!
//! An [`Authority`] is the certificate authority of one trust domain; it issues a [`Leaf`] per gateway. [`OwnIdentity`]
//! holds the leaf in use and swaps it in place at half life. Who has no authority makes a [`LeafKey`] and has somebody
//! sign its request, who reads it as a [`SigningRequest`]. A [`Bundle`] holds the roots of one trust domain, and a
//! [`BundleSet`] one bundle per linked domain: they are never pooled. [`GatewayVerifier`] reads the one SPIFFE ID of a
//! presented certificate, verifies it with the bundle of its own trust domain alone, and then asks whether that
//! identity may be at the other end. [`tls`] makes the rustls configurations from these; [`StateDir`] keeps a
//! standalone node's authority on disk.
//!
//! Never here: sockets, the clock (time is an argument, or rustls' `TimeProvider`), decisions about routes. No private
//! key is ever logged, formatted or put into an error.

mod authority;
mod bundle;
mod denials;
mod leaf;
mod link;
mod own;
mod presented;
mod request;
mod state;
pub mod tls;
mod verify;

pub use authority::{Authority, AuthorityError, LEAF_LIFETIME, ROOT_LIFETIME};
pub use bundle::{Bundle, BundleError, BundleSet, ROOTS_MAX, SharedBundles};
pub use denials::Denials;
pub use leaf::{Leaf, LeafError};
pub use link::{
    LINK_ALPN, LinkBinding, LinkKey, LinkMessage, control_id, link_client_config,
    link_server_config, root_pin,
};
pub use own::{OwnIdentity, RenewalError};
pub use presented::{PeerIdentity, PeerLeaf, not_after, peer_gateway, peer_identity};
pub use request::{LeafKey, SigningRequest, SigningRequestError};
pub use state::{
    ARCHIVE_MAX_BYTES, Rotation, RotationPhase, State, StateDir, StateError, create_private,
};
pub use verify::{
    CHAIN_MAX_CERTIFICATES, CallerVerifier, GatewayVerifier, LinkVerifier, Side, VerifyError,
    describe, refusal_of,
};

#[cfg(test)]
mod testing;
