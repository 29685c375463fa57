//! What a control plane serves on its own socket, and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use corinth_api::HostPort;
use corinth_api::identity::IDENTITY_MESSAGE_MAX_BYTES;
use corinth_api::link::Party;
use corinth_api::wire::{admin as admin_wire, identity as identity_wire, routes as routes_wire};
use corinth_identity::State;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tracing::error;

use super::{Shared, StartError};
use crate::admin::Admin;
use crate::identity::Identity;
use crate::link::OwnSide;
use crate::plane::Own;
use crate::routes::Routes;
use crate::settings::Settings;

/// Largest message either way.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// A gateway or command that answers no ping for so long hangs, and keeps nothing here.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers for people may be longer: 100,000 routes.
const ANSWER_MAX_BYTES: usize = 128 << 20;

/// Serves gRPC until it is dropped.
pub(super) async fn grpc(shared: Arc<Shared>, listener: UnixListener) {
    let routes = Routes::new(Arc::clone(&shared), shared.consumers.clone());
    let routes = routes_wire::routes_server::RoutesServer::new(routes)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let identity = Identity::new(Arc::clone(&shared));
    let identity = identity_wire::identity_server::IdentityServer::new(identity)
        .max_decoding_message_size(IDENTITY_MESSAGE_MAX_BYTES)
        .max_encoding_message_size(IDENTITY_MESSAGE_MAX_BYTES);
    let admin = admin_wire::admin_server::AdminServer::new(Admin::new(shared))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(ANSWER_MAX_BYTES);
    let served = Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(256)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .add_service(routes)
        .add_service(identity)
        .add_service(admin)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await;
    if let Err(error) = served {
        error!(%error, "the control plane's socket is no longer served");
    }
}

/// What we say of ourselves when we link.
pub(super) fn side(settings: &Settings, state: State) -> Result<OwnSide, StartError> {
    let addresses: Result<Vec<HostPort>, _> =
        settings.gateways.iter().map(|one| one.parse()).collect();
    Ok(OwnSide {
        party: Party {
            cluster: settings.cluster.clone(),
            trust_domain: settings.trust_domain.clone(),
            roots: state
                .bundle
                .roots()
                .iter()
                .map(|root| root.as_ref().to_vec())
                .collect(),
            bundle_sequence: state.bundle.sequence(),
            addresses: addresses.map_err(StartError::Address)?,
        },
        slot: settings.slot.clone(),
        authority: Arc::new(state.authority),
    })
}

/// What we tell linked peers of ourselves.
pub(super) fn own(settings: &Settings, side: &OwnSide) -> Own {
    Own {
        cluster: settings.cluster.clone(),
        trust_domain: settings.trust_domain.clone(),
        gateways: settings.gateways.clone(),
        slots: settings.slots,
        roots: side.party.roots.clone().into(),
        bundle_sequence: side.party.bundle_sequence,
    }
}
