//! Servers of a few lines, for what no ordinary server does.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use socket2::SockRef;

use crate::host::prepare;

/// A listening server; it stops listening when this is dropped. Connections it has go on.
pub struct Service {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    tally: Tally,
    accepting: Option<JoinHandle<()>>,
}

/// What a server counted. Clones share the count.
#[derive(Clone, Default)]
pub struct Tally {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    deliveries: Mutex<Vec<Vec<u8>>>,
    changed: Condvar,
}

impl Service {
    pub(crate) fn start(
        listener: TcpListener,
        serve: impl Fn(TcpStream, &Tally) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let (listener, serve) = (Arc::new(listener), Arc::new(serve));
        let tally = Tally::default();
        let accepting = {
            let (listener, tally) = (Arc::clone(&listener), tally.clone());
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    prepare(&stream);
                    tally.shared.accepted.fetch_add(1, SeqCst);
                    let (serve, tally) = (Arc::clone(&serve), tally.clone());
                    thread::spawn(move || serve(stream, &tally));
                }
            })
        };
        Self {
            address,
            listener,
            tally,
            accepting: Some(accepting),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Tally {
    /// Connections accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// Notes that this arrived.
    pub fn deliver(&self, bytes: &[u8]) {
        self.shared.deliveries.lock().push(bytes.to_vec());
        self.shared.changed.notify_all();
    }

    /// Everything that arrived, in order.
    pub fn deliveries(&self) -> Vec<Vec<u8>> {
        self.shared.deliveries.lock().clone()
    }

    /// Waits until so many things have arrived; `false` if the time ends first.
    pub fn await_deliveries(&self, count: usize, within: Duration) -> bool {
        let mut deliveries = self.shared.deliveries.lock();
        let is_short = |deliveries: &mut Vec<Vec<u8>>| deliveries.len() < count;
        !self
            .shared
            .changed
            .wait_while_for(&mut deliveries, is_short, within)
            .timed_out()
    }
}

/// Says everything back, and notes how the connection ended.
pub fn echo_back(mut stream: TcpStream, tally: &Tally) {
    let mut chunk = [0; 4096];
    let ended = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break "End",
            Ok(bytes) if stream.write_all(&chunk[..bytes]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break "Reset",
        }
    };
    tally.deliver(ended.as_bytes());
}
