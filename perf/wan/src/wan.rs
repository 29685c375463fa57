//! A running network.

use std::{net::IpAddr, time::Duration};

use rustix::process::geteuid;
use serde::Serialize;

use crate::{
    counters::Counters,
    fault::Fault,
    impairment::Impairment,
    netem::Netem,
    netns::{self, DefaultRoute, Namespace},
    spec::{Engine, Side, Spec, check_pair},
    timeline::Direction,
    tun::{self, Tunnel},
};

/// A running network between two namespaces. Dropping it takes away the devices, and the namespaces it made.
#[derive(Debug)]
pub struct Wan {
    // In the order in which it is taken away.
    carrier: Carrier,
    _namespaces: [Namespace; 2],
    sides: [Side; 2],
    carried_by: CarriedBy,
}

#[derive(Debug)]
enum Carrier {
    Tun(Box<Tunnel>),
    Netem(Netem),
}

/// Who carries the packets, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "engine", content = "why")]
pub enum CarriedBy {
    /// The kernel.
    Netem,
    /// This process, as it was asked to.
    Tun,
    /// This process, since netem cannot; with the reason.
    TunInstead(String),
}

impl Wan {
    /// Makes the network. When this returns, packets are carried.
    ///
    /// # Errors
    /// When the specification makes no sense, or the machine does not let us. Then nothing is left behind.
    pub fn start(spec: &Spec) -> Result<Self, Fault> {
        spec.check()?;
        if !geteuid().is_root() {
            return Err(Fault::NotRoot);
        }
        netns::sweep();
        let [first, second] = &spec.sides;
        let first = Namespace::find_or_make(&first.namespace)?;
        let second = Namespace::find_or_make(&second.namespace)?;
        let routes = [first.default_route(), second.default_route()];
        let (carrier, carried_by) = Carrier::start(spec, routes)?;
        Ok(Self {
            carrier,
            _namespaces: [first, second],
            sides: spec.sides.clone(),
            carried_by,
        })
    }

    /// Does from now on what `impairment` says, in one direction. What is on its way stays on its way.
    ///
    /// # Errors
    /// When it makes no sense, or netem carries the packets and cannot do that.
    pub fn set(&self, direction: Direction, impairment: &Impairment) -> Result<(), Fault> {
        let mut pair = self.impairments();
        pair[direction.index()] = impairment.clone();
        check_pair(&pair)?;
        match &self.carrier {
            Carrier::Tun(tunnel) => tunnel.set(direction, impairment),
            Carrier::Netem(netem) => netem.set(direction, impairment)?,
        }
        Ok(())
    }

    /// What happens now: forward, and back.
    pub fn impairments(&self) -> [Impairment; 2] {
        match &self.carrier {
            Carrier::Tun(tunnel) => tunnel.impairments(),
            Carrier::Netem(netem) => netem.impairments(),
        }
    }

    /// What happened to packets so far: forward, and back.
    pub fn counters(&self) -> [Counters; 2] {
        Direction::BOTH.map(|direction| match &self.carrier {
            Carrier::Tun(tunnel) => tunnel.counters(direction),
            Carrier::Netem(netem) => netem.counters(direction),
        })
    }

    /// How long it has run. The times of a timeline are measured by this.
    pub fn age(&self) -> Duration {
        match &self.carrier {
            Carrier::Tun(tunnel) => tunnel.age(),
            Carrier::Netem(netem) => netem.age(),
        }
    }

    /// Whether it still carries packets.
    ///
    /// # Errors
    /// When it does not: somebody took a device away.
    pub fn check(&self) -> Result<(), Fault> {
        match &self.carrier {
            Carrier::Tun(tunnel) => tunnel.check(),
            Carrier::Netem(netem) => netem.check(),
        }
    }

    /// Who carries the packets, and why.
    pub const fn carried_by(&self) -> &CarriedBy {
        &self.carried_by
    }

    /// The two ends, as they were asked for.
    pub const fn sides(&self) -> &[Side; 2] {
        &self.sides
    }

    /// The addresses of an end (0 or 1): IPv4, then IPv6.
    pub fn addresses(&self, side: usize) -> [IpAddr; 2] {
        tun::addresses(&self.sides[side % 2])
    }
}

impl Carrier {
    fn start(spec: &Spec, routes: [DefaultRoute; 2]) -> Result<(Self, CarriedBy), Fault> {
        let tunnel = |carried_by| {
            Ok((
                Self::Tun(Box::new(Tunnel::start(spec, routes)?)),
                carried_by,
            ))
        };
        if spec.engine == Engine::Tun {
            return tunnel(CarriedBy::Tun);
        }
        match Netem::start(spec, routes) {
            Ok(netem) => Ok((Self::Netem(netem), CarriedBy::Netem)),
            Err(Fault::Netem(why)) if spec.engine == Engine::Auto => {
                tunnel(CarriedBy::TunInstead(why))
            }
            // Whatever else it was: if it is in our way too, we say so.
            Err(fault) if spec.engine == Engine::Auto => {
                tunnel(CarriedBy::TunInstead(fault.said()))
            }
            Err(fault) => Err(fault),
        }
    }
}
