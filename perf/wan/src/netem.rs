//! The netem engine: a veth pair, and the kernel's netem on both ends of it.
//!
//! Only what netem does as we do is given to it. A queue counted in bytes, an order kept under jitter, and everything
//! that looks into packets is not among that.

mod words;

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::{
    counters::{Counters, Dropped},
    fault::Fault,
    impairment::Impairment,
    netns::DefaultRoute,
    program,
    spec::{Side, Spec},
    timeline::Direction,
};

/// A running veth pair. Dropping it removes the pair.
#[derive(Debug)]
pub(crate) struct Netem {
    ends: Arc<Ends>,
    began: Instant,
    timeline: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Ends {
    sides: [Side; 2],
    seed: u64,
    now: Mutex<[Impairment; 2]>,
    /// What went wrong when nobody was there to be told.
    broken: Mutex<Option<String>>,
}

/// What of `tc -s -j qdisc show` counts.
#[derive(Debug, Deserialize)]
struct Statistics {
    bytes: u64,
    packets: u64,
    drops: u64,
    #[serde(default)]
    qlen: u64,
}

impl Netem {
    /// Fails with [`Fault::Netem`] if it is netem that cannot, or is not there.
    pub(crate) fn start(spec: &Spec, routes: [DefaultRoute; 2]) -> Result<Self, Fault> {
        for phase in spec.phases() {
            for impairment in &phase {
                words::of(impairment, spec.seed).map_err(|what| Fault::Netem(what.to_owned()))?;
            }
        }
        let ends = Ends::lay(spec)?;
        ends.set_up(spec.mtu_bytes, routes)?;
        let mut netem = Self {
            ends: Arc::new(ends),
            began: Instant::now(),
            timeline: None,
        };
        for direction in Direction::BOTH {
            let impairment = &spec.impairments[direction.index()];
            netem.ends.begin(direction, impairment)?;
        }
        netem.follow(spec)?;
        Ok(netem)
    }

    pub(crate) fn set(&self, direction: Direction, impairment: &Impairment) -> Result<(), Fault> {
        self.ends.set(direction, impairment)
    }

    pub(crate) fn impairments(&self) -> [Impairment; 2] {
        self.ends.now.lock().clone()
    }

    /// What the kernel counts; it does not tell reasons apart.
    pub(crate) fn counters(&self, direction: Direction) -> Counters {
        let Statistics {
            bytes,
            packets,
            drops,
            qlen,
        } = self.ends.statistics(direction);
        Counters {
            arrived_packets: packets + drops + qlen,
            delivered_packets: packets,
            delivered_bytes: bytes,
            held_packets: qlen,
            dropped: Dropped {
                lost: drops,
                ..Dropped::default()
            },
            ..Counters::default()
        }
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        match &*self.ends.broken.lock() {
            None => Ok(()),
            Some(said) => Err(Fault::Netem(said.clone())),
        }
    }

    /// Changes what the timeline says when it says so.
    fn follow(&mut self, spec: &Spec) -> Result<(), Fault> {
        let mut times: Vec<Duration> = spec.timeline.iter().map(|step| step.at).collect();
        times.sort();
        if times.is_empty() {
            return Ok(());
        }
        let phases = spec.phases().into_iter().skip(1);
        let changes: Vec<_> = times.into_iter().zip(phases).collect();
        let (stop, stopped) = mpsc::channel();
        let (ends, began) = (Arc::clone(&self.ends), self.began);
        let follow = move || {
            for (at, phase) in changes {
                let left = at.saturating_sub(began.elapsed());
                if stopped.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                for direction in Direction::BOTH {
                    if let Err(fault) = ends.set(direction, &phase[direction.index()]) {
                        *ends.broken.lock() = Some(fault.to_string());
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name("wan-timeline".to_owned())
            .spawn(follow)
            .map_err(Fault::system("starting a thread"))?;
        self.timeline = Some((stop, thread));
        Ok(())
    }
}

impl Drop for Netem {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.timeline.take() {
            drop(stop);
            // It has nothing to say that was not said already.
            let _ = thread.join();
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let [first, _] = &self.sides;
        // With one end goes the other. If it is gone already, so much the better.
        let _ = program::run(
            "ip",
            &["-n", &first.namespace, "link", "del", &first.device],
        );
    }
}

impl Ends {
    fn lay(spec: &Spec) -> Result<Self, Fault> {
        let [first, second] = &spec.sides;
        program::ip_batch(
            &first.namespace,
            &format!(
                "link add {} type veth peer name {} netns {}\n",
                first.device, second.device, second.namespace
            ),
        )?;
        // From here on the pair is ours to remove.
        Ok(Self {
            sides: spec.sides.clone(),
            seed: spec.seed,
            now: Mutex::new(spec.impairments.clone()),
            broken: Mutex::default(),
        })
    }

    fn set_up(&self, mtu_bytes: u32, routes: [DefaultRoute; 2]) -> Result<(), Fault> {
        let [first, second] = &self.sides;
        for (side, peer, default_route) in [(first, second, routes[0]), (second, first, routes[1])]
        {
            program::ip_batch(
                &side.namespace,
                &set_up(side, peer, mtu_bytes, default_route),
            )?;
        }
        Ok(())
    }

    /// In two steps, so that a kernel without netem is told from a `tc` or a netem without a seed.
    fn begin(&self, direction: Direction, impairment: &Impairment) -> Result<(), Fault> {
        let cannot = |what: &'static str| {
            move |fault: Fault| Fault::Netem(format!("{what} ({})", said(&fault)))
        };
        self.tc("add", direction, &[])
            .map_err(cannot("the kernel has none"))?;
        self.tc("change", direction, &self.words(direction, impairment)?)
            .map_err(cannot("this version refuses it"))
    }

    fn words(&self, direction: Direction, impairment: &Impairment) -> Result<Vec<String>, Fault> {
        let seed = self.seed.wrapping_add(direction.index() as u64);
        words::of(impairment, seed).map_err(|what| Fault::Netem(what.to_owned()))
    }

    fn tc(&self, verb: &str, direction: Direction, words: &[String]) -> Result<(), Fault> {
        program::run(
            "tc",
            &arguments(&self.sides[direction.index()], verb, words),
        )
        .map(drop)
    }

    fn set(&self, direction: Direction, impairment: &Impairment) -> Result<(), Fault> {
        let mut now = self.now.lock();
        if now[direction.index()] != *impairment {
            self.tc("change", direction, &self.words(direction, impairment)?)?;
            now[direction.index()] = impairment.clone();
        }
        Ok(())
    }

    fn statistics(&self, direction: Direction) -> Statistics {
        let side = &self.sides[direction.index()];
        let args = [
            "-n",
            &side.namespace,
            "-s",
            "-j",
            "qdisc",
            "show",
            "dev",
            &side.device,
        ];
        let said = program::run("tc", &args).unwrap_or_default();
        let all: Vec<Statistics> = serde_json::from_str(&said).unwrap_or_default();
        all.into_iter().next().unwrap_or(Statistics {
            bytes: 0,
            packets: 0,
            drops: 0,
            qlen: 0,
        })
    }
}

/// Behind `tc`.
fn arguments<'a>(side: &'a Side, verb: &'a str, words: &'a [String]) -> Vec<&'a str> {
    let start = [
        "-n",
        &side.namespace,
        "qdisc",
        verb,
        "dev",
        &side.device,
        "root",
        "netem",
    ];
    let words = words.iter().map(String::as_str);
    start.into_iter().chain(words).collect()
}

/// What `ip` has to do on one side. One segment at a time: what TCP hands over in one piece would be lost in one piece.
fn set_up(side: &Side, peer: &Side, mtu_bytes: u32, default_route: DefaultRoute) -> String {
    let device = &side.device;
    let mut batch = format!(
        "link set dev {device} addrgenmode none mtu {mtu_bytes} gso_max_segs 1\n\
         address add {} dev {device}\n\
         address add {} dev {device} nodad\n\
         link set dev {device} up\n",
        side.v4, side.v6
    );
    let (v4, v6) = (peer.v4.addr(), peer.v6.addr());
    for route in &side.routes {
        let via = if route.addr().is_ipv4() {
            v4.to_string()
        } else {
            v6.to_string()
        };
        batch.push_str(&format!("route add {route} via {via} dev {device}\n"));
    }
    if default_route == DefaultRoute::Through {
        batch.push_str(&format!(
            "route add 0.0.0.0/0 via {v4} dev {device}\nroute add ::/0 via {v6} dev {device}\n"
        ));
    }
    batch
}

/// What `tc` said, as part of a sentence.
fn said(fault: &Fault) -> String {
    let said = fault.said();
    let said = said.trim_start_matches("Error: ").trim_end_matches('.');
    said.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel without netem never sees these; what would be asked of one that has it is compared whole.
    #[test]
    fn the_kernel_is_asked_in_full_lines() {
        let spec = Spec::between("east", "west");
        let [first, second] = &spec.sides;
        let words = ["delay".to_owned(), "30000us".to_owned()];
        let line = |verb, words| arguments(first, verb, words).join(" ");
        assert_eq!(
            line("add", &[][..]),
            "-n east qdisc add dev wan0 root netem"
        );
        assert_eq!(
            line("change", &words[..]),
            "-n east qdisc change dev wan0 root netem delay 30000us"
        );
        let mut with_route = first.clone();
        with_route.routes = vec!["10.9.0.0/16".parse().unwrap()];
        let (v4, v6) = (second.v4.addr(), second.v6.addr());
        assert_eq!(
            set_up(&with_route, second, 1_400, DefaultRoute::Through),
            format!(
                "link set dev wan0 addrgenmode none mtu 1400 gso_max_segs 1\n\
                 address add {} dev wan0\n\
                 address add {} dev wan0 nodad\n\
                 link set dev wan0 up\n\
                 route add 10.9.0.0/16 via {v4} dev wan0\n\
                 route add 0.0.0.0/0 via {v4} dev wan0\n\
                 route add ::/0 via {v6} dev wan0\n",
                first.v4, first.v6
            )
        );
    }
}
