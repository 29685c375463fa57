//! A gateway that maps one port: it ends TCP on both sides and copies.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::fixture::PATIENCE;

/// Runs until the test process ends.
pub(crate) struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: Vec<(TcpStream, TcpStream)>,
    is_down: bool,
    /// Changes a byte this far into each connection, on the way to the server.
    corrupt_at: Option<u64>,
    /// The last word of a client waits until so many bytes more have gone to the server.
    hold_stop_bytes: Option<u64>,
    to_server_bytes: u64,
}

impl Gateway {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.carry(client);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn target(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn corrupt_at(&self, offset: u64) {
        self.shared.state.lock().unwrap().corrupt_at = Some(offset);
    }

    /// The last word of a client waits on its way until `bytes` more of it have gone by.
    pub(crate) fn hold_stop_for(&self, bytes: u64) {
        self.shared.state.lock().unwrap().hold_stop_bytes = Some(bytes);
    }

    /// Breaks all connections and takes no new ones.
    pub(crate) fn fall(&self) {
        self.shared.state.lock().unwrap().is_down = true;
        self.cut_newest(usize::MAX);
    }

    pub(crate) fn rise(&self) {
        self.shared.state.lock().unwrap().is_down = false;
    }

    /// Breaks the connections that came last.
    pub(crate) fn cut_newest(&self, count: usize) {
        let state = self.shared.state.lock().unwrap();
        for (client, server) in state.connections.iter().rev().take(count) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Waits until so many connections have come.
    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.shared.state.lock().unwrap();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.connections.len() < count);
        assert!(
            !waited.unwrap().1.timed_out(),
            "fewer than {count} connections came"
        );
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let corrupt_at = {
            let state = self.state.lock().unwrap();
            if state.is_down {
                return;
            }
            state.corrupt_at
        };
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        let pairs = [
            (&client, &server, Way::ToServer(corrupt_at)),
            (&server, &client, Way::ToClient),
        ];
        for (from, to, way) in pairs {
            from.set_nodelay(true).unwrap();
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let shared = Arc::clone(self);
            thread::spawn(move || shared.copy(from, to, way));
        }
        self.state
            .lock()
            .unwrap()
            .connections
            .push((client, server));
        self.changed.notify_all();
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut buffer = vec![0; 64 << 10];
        let mut copied = 0;
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            if let Way::ToServer(corrupt_at) = way {
                if let Some(at) = corrupt_at
                    .and_then(|at| at.checked_sub(copied))
                    .filter(|at| *at < got as u64)
                {
                    buffer[at as usize] ^= 0x10;
                }
                self.pass(&buffer[..got]);
            }
            copied += got as u64;
            if to.write_all(&buffer[..got]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Counts what goes to the server, and holds back what is to be held back.
    fn pass(&self, bytes: &[u8]) {
        const STOP: &[u8] = b"\"stop\"";
        let mut state = self.state.lock().unwrap();
        state.to_server_bytes += bytes.len() as u64;
        self.changed.notify_all();
        let hold = state.hold_stop_bytes.filter(|_| bytes.ends_with(STOP));
        if let Some(hold) = hold {
            let until = state.to_server_bytes + hold;
            let waited = self
                .changed
                .wait_timeout_while(state, PATIENCE, |state| state.to_server_bytes < until);
            // Whoever waits in vain lets the test go on and fail.
            drop(waited);
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    /// With a byte to change.
    ToServer(Option<u64>),
    ToClient,
}
