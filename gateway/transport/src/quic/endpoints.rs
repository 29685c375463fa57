//! The endpoints of the transport: one for each socket that listens, and one for each connection that we dial.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread::ThreadId,
};

use quinn::{Connecting, Endpoint, Runtime, TokioRuntime};
use tracing::debug;

use super::{Shared, batch::BatchingSocket, config, ids, post::SharedSocket};

/// An endpoint that is remembered.
pub(super) struct Listed {
    pub(super) endpoint: Endpoint,
    /// The worker that drives it and the port it has, where it listened and would again.
    pub(super) lingers: Option<(ThreadId, SocketAddr)>,
}

impl Shared {
    /// Remembers an endpoint, under the number that is returned.
    pub(super) fn list(&self, endpoint: &Endpoint) -> u64 {
        let mut endpoints = self.endpoints.lock();
        let number = endpoints.last_key_value().map_or(0, |(last, _)| last + 1);
        let listed = Listed {
            endpoint: endpoint.clone(),
            lingers: None,
        };
        endpoints.insert(number, listed);
        number
    }

    /// An endpoint of the calling worker that listened there before, listening again: two on one port would share what
    /// comes, and of the old one nobody would take it.
    pub(super) fn revive(
        &self,
        address: SocketAddr,
        server: &quinn::ServerConfig,
    ) -> Option<(Endpoint, u64)> {
        let wanted = Some((std::thread::current().id(), address));
        let mut endpoints = self.endpoints.lock();
        let (number, listed) = endpoints
            .iter_mut()
            .find(|(_, listed)| listed.lingers == wanted)?;
        listed.lingers = None;
        listed.endpoint.set_server_config(Some(server.clone()));
        Some((listed.endpoint.clone(), *number))
    }

    /// Forgets an endpoint that takes nobody any more, once it has no connections. They end with their links.
    /// Where it had listened, it may begin to again before that.
    pub(super) fn leave_when_idle(
        self: &Arc<Self>,
        endpoint: Endpoint,
        number: u64,
        listened: Option<SocketAddr>,
    ) {
        let lingers = listened.map(|address| (std::thread::current().id(), address));
        if let Some(listed) = self.endpoints.lock().get_mut(&number) {
            listed.lingers = lingers;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            endpoint.wait_idle().await;
            let mut endpoints = shared.endpoints.lock();
            if endpoints
                .get(&number)
                .is_some_and(|listed| listed.lingers == lingers)
            {
                endpoints.remove(&number);
            }
        });
    }

    /// An endpoint that listens on `socket`, driven by the calling worker.
    pub(super) fn listening_endpoint(
        &self,
        socket: UdpSocket,
        server: quinn::ServerConfig,
    ) -> io::Result<Endpoint> {
        self.widen(&socket)?;
        let socket = BatchingSocket::over(TokioRuntime.wrap_udp_socket(socket)?);
        let socket = SharedSocket::join(&self.post, socket)?;
        let config = ids::listening(&self.settings.keys, self.post.slot(), socket.number());
        let runtime = Arc::new(TokioRuntime);
        Endpoint::new_with_abstract_socket(config, Some(server), Arc::new(socket), runtime)
    }

    fn widen(&self, socket: &UdpSocket) -> io::Result<()> {
        let granted = config::widen(socket)?;
        debug!(?granted, "a socket for QUIC");
        let mut smallest = self.granted.lock();
        *smallest = Some(smallest.map_or(granted, |other| other.min(granted)));
        Ok(())
    }

    /// Dials `address` from a port that was not used before, on the calling worker.
    pub(super) fn connect(
        self: &Arc<Self>,
        config: quinn::ClientConfig,
        address: SocketAddr,
    ) -> io::Result<Connecting> {
        let socket = config::bind_towards(address)?;
        self.widen(&socket)?;
        let ids = ids::dialling(&self.settings.keys);
        let socket = BatchingSocket::over(TokioRuntime.wrap_udp_socket(socket)?);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(ids, None, socket, runtime)?;
        // The name is not sent, and no certificate is compared with it.
        let connecting = endpoint
            .connect_with(config, address, &address.ip().to_string())
            .map_err(io::Error::other)?;
        let number = self.list(&endpoint);
        self.leave_when_idle(endpoint, number, None);
        Ok(connecting)
    }
}
