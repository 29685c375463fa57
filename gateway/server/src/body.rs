//! The parts of a running gateway that a change reaches: listeners, tables, roots, links.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use corinth_identity::SharedBundles;
use corinth_model::{PortNumber, Protocol};
use parking_lot::Mutex;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tracing::warn;

use crate::{
    dialers::Dialers,
    flow::{ANSWERED, Patience},
    keeper,
    listen::{self, Door, ListenError, Listener, Listening},
    settings::{Drain, Settings},
    shared::{Shared, Times},
    wanted::Wanted,
    worker::{Order, Worker},
};

/// The parts of a running gateway that a change reaches.
pub(crate) struct Body {
    pub(crate) shared: Arc<Shared>,
    workers: Vec<Worker>,
    bundles: SharedBundles,
    changing: Mutex<Changing>,
}

/// What a change replaces.
struct Changing {
    settings: Settings,
    wanted: Wanted,
    dialers: Dialers,
    /// What is listened on: as it was asked for, and as it was bound.
    listening: BTreeMap<Listening, SocketAddr>,
    /// What was to be listened on and could not be; tried again with every change.
    closed: BTreeSet<Listening>,
    /// What was listened on until lately, as it was bound, with those that have not let go of it.
    closing: Vec<(Listening, Vec<oneshot::Receiver<()>>)>,
    /// Somebody else has the tunnel's port for UDP, which no peer needs: told once.
    is_udp_refused: bool,
    /// Nobody new is taken any more, whatever changes.
    is_stopping: bool,
}

/// An import port that cannot be listened on.
#[derive(Debug)]
pub(crate) struct ClosedDoor {
    /// Which.
    pub(crate) port: PortNumber,
    /// Why.
    pub(crate) error: ListenError,
}

impl Body {
    /// A gateway that listens nowhere yet.
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Vec<Worker>,
        bundles: SharedBundles,
        settings: Settings,
        dialers: Dialers,
    ) -> Self {
        let wanted = Wanted::nothing(settings.cluster.clone());
        Self {
            shared,
            workers,
            bundles,
            changing: Mutex::new(Changing {
                settings,
                wanted,
                dialers,
                listening: BTreeMap::new(),
                closed: BTreeSet::new(),
                closing: Vec::new(),
                is_udp_refused: false,
                is_stopping: false,
            }),
        }
    }

    /// Carries out other settings, other tables, or both; what is not given stays. Opens what is new, which can fail,
    /// then changes what cannot: roots, tables, what is gone. On error everything stays as it was. Import ports that a
    /// control plane gave out and that cannot be listened on stay closed until the next change, and are returned:
    /// whoever else is served must not suffer from one of them. So does the tunnel's UDP port while no peer is to be
    /// reached by QUIC.
    pub(crate) fn change(
        &self,
        settings: Option<Settings>,
        wanted: Option<Wanted>,
    ) -> Result<Vec<ClosedDoor>, ListenError> {
        let mut changing = self.changing.lock();
        // Whoever changes settings may have made room.
        changing.is_udp_refused &= settings.is_none();
        let is_listening_anew = settings.is_some();
        let settings = settings.unwrap_or_else(|| changing.settings.clone());
        // Until somebody has said whom to dial, nobody was tried.
        let is_told = wanted.is_some();
        let wanted = wanted.unwrap_or_else(|| changing.wanted.clone());
        let doors = match is_listening_anew {
            _ if changing.is_stopping => Doors::default(),
            true => Doors::all(&changing, &settings, &wanted),
            false => Doors::changed(&changing, &wanted),
        };
        let may_stay_closed = settings.control.is_some();
        let needs_udp = wanted.carriers.values().any(|wish| wish.may_be_quic());
        let (optional, required): (BTreeSet<_>, BTreeSet<_>) = doors
            .missing
            .iter()
            .partition(|door| door.door == Door::Quic && !needs_udp);
        changing.forget_closed();
        let (opened, closed) = self.open_missing(&required, &changing, may_stay_closed)?;
        changing.listening.extend(opened);
        if !changing.is_udp_refused {
            match self.open_missing(&optional, &changing, may_stay_closed) {
                Ok((opened, _)) => changing.listening.extend(opened),
                Err(error) => {
                    warn!(%error, "no tunnels over UDP; those over TCP are served");
                    changing.is_udp_refused = true;
                }
            }
        }

        self.bundles.replace(wanted.bundles.clone());
        self.shared.denials.replace(wanted.denied.clone());
        self.shared.set_times(times(&settings));
        self.shared.set_carriers(wanted.carriers.clone());
        let congestions = &self.shared.transports.congestions;
        congestions.replace(wanted.congestions.clone());
        let tables = Arc::clone(&wanted.tables);
        let mut core = self.shared.core.lock();
        let old = core.apply(Arc::clone(&tables), Instant::now());
        // Under the lock: whoever was given a candidate by the new tables finds it in them.
        let replaced = self.shared.tables.send_replace(tables);
        drop(core);
        drop((old, replaced));
        keeper::carry_out(&self.shared);
        keeper::close_denied(&self.shared, &self.shared.transports.links());
        if is_told {
            changing.dialers.set(&self.shared, wanted.dialled.clone());
        }

        for door in doors.gone {
            if let Some(bound) = changing.listening.remove(&door) {
                let bound = Listening {
                    address: bound,
                    ..door
                };
                let left = self.close_listener(bound);
                changing.closing.push((bound, left));
            }
        }
        let listening = &changing.listening;
        let closed_doors = doors.missing.into_iter();
        changing.closed = closed_doors
            .filter(|door| !listening.contains_key(door))
            .collect();
        changing.settings = settings;
        changing.wanted = wanted;
        Ok(closed)
    }

    fn open_missing(
        &self,
        missing: &BTreeSet<Listening>,
        changing: &Changing,
        may_stay_closed: bool,
    ) -> Result<(BTreeMap<Listening, SocketAddr>, Vec<ClosedDoor>), ListenError> {
        let mut opened: BTreeMap<Listening, (SocketAddr, Vec<Listener>)> = BTreeMap::new();
        let mut closed = Vec::new();
        for door in missing {
            let address = match door.door {
                // Where the kernel picked a port, it is the same for UDP.
                Door::Quic => beside_tunnel(door.address, &opened, &changing.listening),
                Door::Tunnel
                | Door::Import(_)
                | Door::Flows(_)
                | Door::Sni
                | Door::Socks
                | Door::Connect => door.address,
            };
            // Connections from before the last change may still have the port.
            let is_ours = match door.door {
                Door::Quic => self.shared.transports.quic.lingers_at(address),
                Door::Import(_) | Door::Flows(_) => changing.has(address, door.door),
                Door::Tunnel | Door::Sni | Door::Socks | Door::Connect => false,
            };
            match (
                listen::bind(address, door.door, self.workers.len(), is_ours),
                door.door,
            ) {
                (Ok(bound), _) => drop(opened.insert(*door, bound)),
                (Err(error), Door::Import(port) | Door::Flows(port)) if may_stay_closed => {
                    closed.push(ClosedDoor { port, error });
                }
                (Err(error), _) => return Err(error),
            }
        }
        let opened = opened.into_iter().map(|(door, (bound, listeners))| {
            for (worker, listener) in self.workers.iter().zip(listeners) {
                let listening = Listening {
                    address: bound,
                    ..door
                };
                worker.tell(Order::Open(listening, listener));
            }
            (door, bound)
        });
        Ok((opened.collect(), closed))
    }

    /// Returns what tells when every worker has emptied its queue.
    fn close_listener(&self, bound: Listening) -> Vec<oneshot::Receiver<()>> {
        self.workers
            .iter()
            .map(|worker| {
                let (done, closed) = oneshot::channel();
                worker.tell(Order::Close(bound, done));
                closed
            })
            .collect()
    }

    /// Closes every listener for good, and returns what tells when their queues are empty.
    pub(crate) fn close_all(&self) -> Vec<oneshot::Receiver<()>> {
        let listening = {
            let mut changing = self.changing.lock();
            changing.is_stopping = true;
            std::mem::take(&mut changing.listening)
        };
        listening
            .into_iter()
            .flat_map(|(door, bound)| {
                self.close_listener(Listening {
                    address: bound,
                    ..door
                })
            })
            .collect()
    }

    /// Dials nobody any more.
    pub(crate) fn dial_nobody(&self) {
        self.changing.lock().dialers = Dialers::default();
    }

    /// Where it listens, as bound.
    pub(crate) fn listening(&self) -> Vec<Listening> {
        let changing = self.changing.lock();
        let bound = changing.listening.iter();
        bound
            .map(|(door, bound)| Listening {
                address: *bound,
                ..*door
            })
            .collect()
    }

    /// The settings in use.
    pub(crate) fn settings(&self) -> Settings {
        self.changing.lock().settings.clone()
    }

    /// How it stops.
    pub(crate) fn drain(&self) -> Drain {
        self.changing.lock().settings.drain
    }

    /// The number of the tables that come next.
    pub(crate) fn next_revision(&self) -> u64 {
        self.changing.lock().wanted.tables.revision + 1
    }
}

impl Changing {
    /// Of sockets that nobody holds any more nothing needs to be known.
    fn forget_closed(&mut self) {
        for (_, left) in &mut self.closing {
            left.retain_mut(|done| matches!(done.try_recv(), Err(TryRecvError::Empty)));
        }
        self.closing.retain(|(_, left)| !left.is_empty());
    }

    /// Whether we have sockets at this import port, by the same protocol, on an address that covers this one or is
    /// covered by it: those will have gone soon, or their import stays and no other may have the port.
    fn has(&self, address: SocketAddr, door: Door) -> bool {
        let open = self.listening.iter().map(|(door, bound)| Listening {
            address: *bound,
            ..*door
        });
        let closing = self.closing.iter().map(|(bound, _)| *bound);
        let overlaps = |other: IpAddr| {
            other == address.ip() || other.is_unspecified() || address.ip().is_unspecified()
        };
        open.chain(closing).any(|other| {
            other.door == door
                && other.address.port() == address.port()
                && overlaps(other.address.ip())
        })
    }
}

/// Where the tunnel port was bound that was asked for at `address`.
fn beside_tunnel(
    address: SocketAddr,
    opened: &BTreeMap<Listening, (SocketAddr, Vec<Listener>)>,
    open: &BTreeMap<Listening, SocketAddr>,
) -> SocketAddr {
    let tunnel = Listening {
        address,
        door: Door::Tunnel,
    };
    let opened = opened.get(&tunnel).map(|(bound, _)| *bound);
    opened
        .or_else(|| open.get(&tunnel).copied())
        .unwrap_or(address)
}

pub(crate) fn times(settings: &Settings) -> Times {
    let timeouts = &settings.timeouts;
    Times {
        request: timeouts.tls_handshake,
        connect: timeouts.connect,
        open: timeouts.open,
        idle: timeouts.idle,
        flows: Patience {
            unanswered: timeouts.flow_unanswered,
            idle: timeouts.flow_idle,
            answered: ANSWERED,
        },
    }
}

/// What a change asks of listeners.
#[derive(Default)]
struct Doors {
    /// To be listened on, and not yet.
    missing: BTreeSet<Listening>,
    /// To be listened on no more.
    gone: BTreeSet<Listening>,
}

impl Doors {
    /// By other settings: everything is looked at.
    fn all(changing: &Changing, settings: &Settings, wanted: &Wanted) -> Self {
        let listening = &changing.listening;
        let imports = imports(settings, wanted.import_ports.iter().copied());
        let all: BTreeSet<_> = fixed(settings).chain(imports).collect();
        let is_open = |door: &&Listening| listening.contains_key(door);
        let gone = listening.keys().filter(|door| !all.contains(door));
        Self {
            gone: gone.copied().collect(),
            missing: all.iter().filter(|door| !is_open(door)).copied().collect(),
        }
    }

    /// By other tables: of thousands of import ports, only those that are not in both.
    fn changed(changing: &Changing, wanted: &Wanted) -> Self {
        let (settings, listening) = (&changing.settings, &changing.listening);
        let (had, has) = (&changing.wanted.import_ports, &wanted.import_ports);
        let gone: BTreeSet<_> = imports(settings, had.difference(has).copied()).collect();
        let came = imports(settings, has.difference(had).copied());
        let closed = changing.closed.iter().copied();
        let missing = fixed(settings).chain(closed).chain(came);
        Self {
            missing: missing
                .filter(|door| !listening.contains_key(door) && !gone.contains(door))
                .collect(),
            gone,
        }
    }
}

/// What is listened on whatever is imported.
fn fixed(settings: &Settings) -> impl Iterator<Item = Listening> {
    let listen = &settings.listen;
    let one =
        |address: Option<SocketAddr>, door| address.map(|address| Listening { address, door });
    let fixed = [
        one(Some(listen.tunnel), Door::Tunnel),
        one(Some(listen.tunnel), Door::Quic),
        one(listen.sni, Door::Sni),
        one(listen.socks, Door::Socks),
        one(listen.connect, Door::Connect),
    ];
    fixed.into_iter().flatten()
}

/// Where these import ports are accepted.
fn imports(
    settings: &Settings,
    ports: impl Iterator<Item = (PortNumber, Protocol)>,
) -> impl Iterator<Item = Listening> {
    ports.flat_map(|(port, protocol)| {
        let on = move |ip: &IpAddr| Listening {
            address: SocketAddr::new(*ip, port.get()),
            door: match protocol {
                Protocol::Tcp => Door::Import(port),
                Protocol::Udp => Door::Flows(port),
            },
        };
        settings.listen.imports.iter().map(on)
    })
}
