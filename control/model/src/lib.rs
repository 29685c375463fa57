//! The vocabulary of Corinth: names, identity, locality, exports, routes, tables, and every typed "no".
//!
//! Everything here is a value. Text from outside is parsed once, at the edge, into types that cannot hold anything
//! malformed ([`RouteName`], [`SniName`], [`SpiffeId`], [`Endpoint`]); the rest of the system never re-checks it.
//! Exports and routes are gathered into [`Tables`], which are built in full beside the old ones and swapped in whole:
//! a table never changes once it exists, and its look-ups cost the same for ten routes as for a hundred thousand.
//!
//! This crate never reads a clock, a socket, a file or the environment, never draws a random number and never logs.
//! Parsers are bounded: they look at the length before anything else, never panic, and never echo what they refused
//! except escaped.

mod only;
mod text;

mod carriage;
mod condition;
mod denied;
mod diff;
mod endpoint;
mod export;
mod identity;
mod locality;
mod merge;
mod name;
mod offer;
mod ports;
mod reason;
mod refusal;
mod route;
mod table;
mod tables;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;

pub use carriage::{Carriage, ChoiceError, CongestionChoice, TransportChoice};
pub use condition::Condition;
pub use denied::Denied;
pub use diff::{RouteChange, TableDiff, diff};
pub use endpoint::{AddressSource, Endpoint, EndpointError, ReservedAddresses};
pub use export::{Direct, DirectMatch, Export, ExportConflict, ExportKey, ExportTable, ExportView};
pub use identity::{
    GatewayId, NotAGateway, Role, SPIFFE_ID_MAX_BYTES, Slot, SpiffeError, SpiffeId,
    TRUST_DOMAIN_MAX_BYTES, TrustDomain,
};
pub use ipnet::IpNet;
pub use locality::{Locality, LocalityError, Proximity, proximity};
pub use merge::{
    ImportRule, MergeConflict, Merged, Offered, OwnPort, OwnService, PRIORITY_LAST, Property,
    Share, WEIGHT_MAX, merge,
};
pub use name::{
    ClusterName, DNS_NAME_MAX_BYTES, DnsName, LABEL_MAX_BYTES, Label, NameError, Namespace,
    PortNumber, Protocol, RouteName, Scope, ScopedService, ServiceId, ServiceName, SniName, ZONE,
};
pub use offer::{
    Accepted, Instance, NotAnInstance, OFFERED_PORTS_MAX, OFFERED_SNI_NAMES_MAX, OFFERED_ZONES_MAX,
    OFFERS_MAX, Offer, OfferedPort, Selector, ServiceKind, Version, is_reserved,
};
pub use ports::{Assigned, PortAllocator, PortBook, PortRange, QUARANTINE, Wanted};
pub use reason::{Culprit, Failure, Reason};
pub use refusal::Refusal;
pub use route::{Candidate, Replay, Route, Target};
pub use table::{RouteConflict, RouteKey, RouteTable};
pub use tables::{Peer, PeerConflict, Tables};
