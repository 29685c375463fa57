//! The TUN engine: a device on each side, and a thread for each direction between them.

mod lane;
mod waking;

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    counters::Counters,
    fault::Fault,
    impair::Line,
    impairment::Impairment,
    netns::{self, DefaultRoute},
    packet::Router,
    program,
    spec::{Side, Spec},
    timeline::Direction,
};
use lane::{Lane, Stop};

/// What a device holds for a thread that is not running just now: 15 MB, more than a scheduler's turn brings.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;

/// A running pair of devices. Dropping it ends the threads and the devices.
#[derive(Debug)]
pub(crate) struct Tunnel {
    sides: [Side; 2],
    lines: [Arc<Mutex<Line>>; 2],
    wakes: [Arc<OwnedFd>; 2],
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
    began: Instant,
}

impl Tunnel {
    pub(crate) fn start(spec: &Spec, routes: [DefaultRoute; 2]) -> Result<Self, Fault> {
        let [first, second] = &spec.sides;
        let devices = [open(first)?, open(second)?].map(Arc::new);
        for (side, default_route) in spec.sides.iter().zip(routes) {
            program::ip_batch(
                &side.namespace,
                &set_up(side, spec.mtu_bytes, default_route),
            )?;
        }
        let wake = || {
            let made = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
            made.map(Arc::new)
                .map_err(|errno| Fault::system("making an event descriptor")(errno.into()))
        };
        let mut tunnel = Self {
            sides: spec.sides.clone(),
            lines: Direction::BOTH.map(|direction| {
                let [own, opposite] =
                    [direction, !direction].map(|way| spec.impairments[way.index()].clone());
                let line = Line::new(direction, own, opposite, &spec.timeline, spec.seed);
                Arc::new(Mutex::new(line))
            }),
            wakes: [wake()?, wake()?],
            stop: Arc::new(Stop::default()),
            threads: Vec::new(),
            began: Instant::now(),
        };
        for direction in Direction::BOTH {
            tunnel.spawn(direction, &devices)?;
        }
        Ok(tunnel)
    }

    fn spawn(&mut self, direction: Direction, devices: &[Arc<SyncDevice>; 2]) -> Result<(), Fault> {
        let far = &self.sides[(!direction).index()];
        let lane = Lane {
            direction,
            source: Arc::clone(&devices[direction.index()]),
            sink: Arc::clone(&devices[(!direction).index()]),
            line: Arc::clone(&self.lines[direction.index()]),
            wake: Arc::clone(&self.wakes[direction.index()]),
            stop: Arc::clone(&self.stop),
            router: Router {
                v4: far.v4.addr(),
                v6: far.v6.addr(),
            },
            began: self.began,
        };
        let name = match direction {
            Direction::Forward => "wan-forward",
            Direction::Back => "wan-back",
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || lane.run())
            .map_err(Fault::system("starting a thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    pub(crate) fn set(&self, direction: Direction, impairment: &Impairment) {
        let now = self.began.elapsed();
        self.lines[direction.index()]
            .lock()
            .set(impairment.clone(), now);
        self.lines[(!direction).index()]
            .lock()
            .set_opposite(impairment.clone(), now);
        self.wake_all();
    }

    pub(crate) fn impairments(&self) -> [Impairment; 2] {
        let line = self.lines[0].lock();
        let (own, opposite) = line.impairments();
        [own.clone(), opposite.clone()]
    }

    pub(crate) fn counters(&self, direction: Direction) -> Counters {
        let counters = self.lines[direction.index()].lock().counters();
        Counters {
            device_dropped: device_dropped(&self.sides[direction.index()]),
            ..counters
        }
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether both directions still carry packets.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.stop.fault()
    }

    fn wake_all(&self) {
        for wake in &self.wakes {
            // Full is as good as written.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.ask();
        self.wake_all();
        for thread in self.threads.drain(..) {
            // It has nothing to say that was not said already.
            let _ = thread.join();
        }
    }
}

/// What `ip` has to do on one side. No IPv6 chatter: no link-local address, no duplicate address detection.
fn set_up(side: &Side, mtu_bytes: u32, default_route: DefaultRoute) -> String {
    let device = &side.device;
    let mut batch = format!(
        "link set dev {device} addrgenmode none mtu {mtu_bytes} txqueuelen {DEVICE_QUEUE_PACKETS}\n\
         address add {} dev {device}\n\
         address add {} dev {device} nodad\n\
         link set dev {device} up\n",
        side.v4, side.v6
    );
    for route in &side.routes {
        batch.push_str(&format!("route add {route} dev {device}\n"));
    }
    if default_route == DefaultRoute::Through {
        batch.push_str(&format!(
            "route add 0.0.0.0/0 dev {device}\nroute add ::/0 dev {device}\n"
        ));
    }
    batch
}

fn open(side: &Side) -> Result<SyncDevice, Fault> {
    let open = || {
        let device = DeviceBuilder::new()
            .name(&side.device)
            .inherit_enable_state()
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    };
    netns::within(&side.namespace, open)?.map_err(|source| Fault::Device {
        device: side.device.clone(),
        namespace: side.namespace.clone(),
        source,
    })
}

/// Packets the kernel dropped because the device was full.
fn device_dropped(side: &Side) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let table = netns::within(&side.namespace, read).unwrap_or_default();
    let row = table.lines().find_map(|line| {
        line.trim_start()
            .strip_prefix(&side.device)?
            .strip_prefix(':')
    });
    // Eight columns for what is received, then bytes, packets, errors and drops of what is sent.
    row.and_then(|row| row.split_whitespace().nth(11)?.parse().ok())
        .unwrap_or(0)
}

/// The addresses of a side.
pub(crate) fn addresses(side: &Side) -> [IpAddr; 2] {
    [side.v4.addr().into(), side.v6.addr().into()]
}
