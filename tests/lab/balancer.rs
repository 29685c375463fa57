//! What stands before several gateways of one cluster and asks who is ready, as kube-proxy and a load balancer do.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{Gateway, Host, WAIT, gateway::is_ready};

/// How often it asks.
const LOOK: Duration = Duration::from_millis(50);

/// Sends new connections for one address to whichever gateways say that they are ready.
pub struct Balancer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    host: Host,
    service: SocketAddr,
    is_over: AtomicBool,
    targets: Mutex<Vec<SocketAddr>>,
    changed: Condvar,
}

impl Balancer {
    /// Starts it on the host of the gateways; `service` leads to `port` of each of them.
    pub fn start(host: &Host, service: SocketAddr, gateways: &[&Gateway], port: u16) -> Self {
        let shared = Arc::new(Shared {
            host: host.clone(),
            service,
            is_over: AtomicBool::new(false),
            targets: Mutex::default(),
            changed: Condvar::new(),
        });
        let behind: Vec<_> = gateways
            .iter()
            .map(|one| (one.admin_address(), one.at(port)))
            .collect();
        let worker = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !worker.is_over.load(SeqCst) {
                worker.look(&behind);
                thread::park_timeout(LOOK);
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Waits until it sends to so many gateways.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn await_targets(&self, count: usize) {
        let deadline = Instant::now() + WAIT;
        let mut targets = self.shared.targets.lock();
        while targets.len() != count {
            let late = self
                .shared
                .changed
                .wait_until(&mut targets, deadline)
                .timed_out();
            assert!(
                !late,
                "not {count} ready gateways within {WAIT:?}: {targets:?}"
            );
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn look(&self, behind: &[(SocketAddr, SocketAddr)]) {
        let ready = behind
            .iter()
            .filter(|(admin, _)| is_ready(&self.host, *admin));
        let ready: Vec<_> = ready.map(|(_, target)| *target).collect();
        let mut targets = self.targets.lock();
        if *targets != ready {
            self.host.firewall().balance(self.service, &ready);
            *targets = ready;
            self.changed.notify_all();
        }
    }
}
