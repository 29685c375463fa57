//! Which network to make.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    fault::Fault,
    impairment::{Impairment, MTU_MAX_BYTES},
    timeline::{Direction, Step},
};

/// The smallest MTU with which a device has IPv6.
const DEVICE_MTU_MIN_BYTES: u32 = 1_280;
/// The longest name of a device: `IFNAMSIZ` without its end.
const DEVICE_NAME_MAX_BYTES: usize = 15;
/// Longer than anybody wants to type; a file name may have 255.
const NAMESPACE_NAME_MAX_BYTES: usize = 100;

/// A network between two namespaces.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its two ends.
    pub sides: [Side; 2],
    /// What happens from the first to the second, and back.
    pub impairments: [Impairment; 2],
    /// What changes by itself.
    pub timeline: Vec<Step>,
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// Who carries the packets.
    pub engine: Engine,
    /// MTU of the devices. Their kernels tell senders by ICMP.
    pub mtu_bytes: u32,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The name of a network namespace below `/run/netns`. One that is not there is made, and removed in the end.
    pub namespace: String,
    /// What the device in it is called.
    pub device: String,
    /// The IPv4 address here, with the length of the prefix both sides share.
    pub v4: Ipv4Net,
    /// The same for IPv6.
    pub v6: Ipv6Net,
    /// Destinations that are reached through the network from here. In a namespace that was made here everything is.
    pub routes: Vec<IpNet>,
}

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// netem, if the kernel has it and can do all that is asked for; else TUN devices.
    #[default]
    Auto,
    /// TUN devices and threads of this process.
    Tun,
    /// The kernel's netem on a veth pair.
    Netem,
}

impl Spec {
    /// A network that does nothing to packets, between two namespaces. Addresses are those set aside for benchmarks
    /// (RFC 2544, RFC 5180): 198.18.77.1 and .2, 2001:2:0:77::1 and ::2.
    pub fn between(first: &str, second: &str) -> Self {
        Self {
            sides: [Side::new(first, 1), Side::new(second, 2)],
            impairments: Default::default(),
            timeline: Vec::new(),
            seed: 1,
            engine: Engine::Auto,
            mtu_bytes: 1_500,
        }
    }

    /// What happens in both directions.
    #[must_use]
    pub fn both(mut self, impairment: Impairment) -> Self {
        self.impairments = [impairment.clone(), impairment];
        self
    }

    /// What happens in one direction.
    #[must_use]
    pub fn with(mut self, direction: Direction, impairment: Impairment) -> Self {
        self.impairments[direction.index()] = impairment;
        self
    }

    /// Whether all of it makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Fault> {
        let [first, second] = &self.sides;
        for side in &self.sides {
            side.check()?;
        }
        if first.namespace == second.namespace {
            return Err(Fault::SameNamespace(first.namespace.clone()));
        }
        if first.v4.trunc() != second.v4.trunc() || first.v4.addr() == second.v4.addr() {
            return Err(Fault::Addresses(
                first.v4.to_string(),
                second.v4.to_string(),
            ));
        }
        if first.v6.trunc() != second.v6.trunc() || first.v6.addr() == second.v6.addr() {
            return Err(Fault::Addresses(
                first.v6.to_string(),
                second.v6.to_string(),
            ));
        }
        if !(DEVICE_MTU_MIN_BYTES..=MTU_MAX_BYTES).contains(&self.mtu_bytes) {
            return Err(Fault::DeviceMtu(self.mtu_bytes));
        }
        let phases = self.phases();
        self.check_words(&phases)?;
        phases.iter().try_for_each(check_pair)
    }

    /// Whether no step says something about what is not there.
    fn check_words(&self, phases: &[[Impairment; 2]]) -> Result<(), Fault> {
        for (step, before) in self.sorted_steps().into_iter().zip(phases) {
            for direction in Direction::BOTH {
                let index = direction.index();
                if step.direction.is_none_or(|only| only == direction) {
                    step.change
                        .tried(&before[index], &self.impairments[index])
                        .map_err(|why| Fault::Step { at: step.at, why })?;
                }
            }
        }
        Ok(())
    }

    fn sorted_steps(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.timeline.iter().collect();
        steps.sort_by_key(|step| step.at);
        steps
    }

    /// What both directions do at the start and after each step.
    pub(crate) fn phases(&self) -> Vec<[Impairment; 2]> {
        let mut now = self.impairments.clone();
        let mut phases = vec![now.clone()];
        for step in self.sorted_steps() {
            for direction in Direction::BOTH {
                let index = direction.index();
                if step.direction.is_none_or(|only| only == direction) {
                    now[index] = step.change.applied(&now[index], &self.impairments[index]);
                }
            }
            phases.push(now.clone());
        }
        phases
    }
}

/// Whether what both directions do makes sense together.
pub(crate) fn check_pair(pair: &[Impairment; 2]) -> Result<(), Fault> {
    for direction in Direction::BOTH {
        pair[direction.index()]
            .check_with(&pair[(!direction).index()])
            .map_err(|nonsense| Fault::Nonsense {
                direction,
                nonsense,
            })?;
    }
    Ok(())
}

impl Side {
    fn new(namespace: &str, host: u8) -> Self {
        let v4 = Ipv4Addr::new(198, 18, 77, host);
        let v6 = Ipv6Addr::new(0x2001, 2, 0, 0x77, 0, 0, 0, host.into());
        Self {
            namespace: namespace.to_owned(),
            device: "wan0".to_owned(),
            v4: Ipv4Net::new_assert(v4, 30),
            v6: Ipv6Net::new_assert(v6, 64),
            routes: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        check_name(
            &self.namespace,
            NAMESPACE_NAME_MAX_BYTES,
            "a network namespace",
            "letters, digits, `.`, `_` and `-`, the first a letter or digit, at most 100",
        )?;
        check_name(
            &self.device,
            DEVICE_NAME_MAX_BYTES,
            "a device",
            "letters, digits, `.`, `_` and `-`, the first a letter or digit, at most 15",
        )
    }
}

fn check_name(
    name: &str,
    max_bytes: usize,
    what: &'static str,
    rule: &'static str,
) -> Result<(), Fault> {
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= max_bytes
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    if is_name {
        return Ok(());
    }
    let name = name.to_owned();
    Err(Fault::Name { name, what, rule })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;

    fn fault(change: impl FnOnce(&mut Spec)) -> String {
        let mut spec = Spec::between("left", "right");
        spec.check().unwrap();
        change(&mut spec);
        spec.check().unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_said_in_one_line() {
        assert_eq!(
            fault(|spec| spec.sides[1].namespace = "left".into()),
            "both sides are `left`; a path leads from one namespace to another"
        );
        assert!(
            fault(|spec| spec.sides[0].namespace = "../a".into()).starts_with("`../a` is no name")
        );
        assert!(
            fault(|spec| spec.sides[0].device = "a-very-long-device".into()).contains("a device")
        );
        assert_eq!(
            fault(|spec| spec.sides[0].v4 = "10.0.0.1/30".parse().unwrap()),
            "10.0.0.1/30 and 198.18.77.2/30 are not in one network"
        );
        assert!(fault(|spec| spec.mtu_bytes = 576).contains("576"));
    }

    #[test]
    fn a_step_that_makes_no_sense_is_found_before_the_start() {
        let said = fault(|spec| {
            spec.timeline = vec![Step::parse("3s", "back rate 1mbit queue 1bdp", 1).unwrap()];
        });
        assert!(said.starts_with("back: a queue in bdp"), "{said}");
        let said = fault(|spec| {
            spec.timeline = vec![Step::parse("3s", "queue 64k", 1).unwrap()];
        });
        assert_eq!(
            said,
            "the change at 3s: `queue` is about a rate, and there is none"
        );
    }

    #[test]
    fn phases_follow_the_timeline() {
        let mut spec = Spec::between("left", "right");
        let none = Impairment::default();
        let slow = "delay 5ms".parse::<Change>().unwrap().applied(&none, &none);
        spec = spec.both(slow);
        spec.timeline = vec![
            Step::parse("9s", "clear", 1).unwrap(),
            Step::parse("3s", "forward delay 1ms", 2).unwrap(),
        ];
        let delays: Vec<_> = spec
            .phases()
            .iter()
            .map(|pair| pair.each_ref().map(|one| one.delay.as_millis()))
            .collect();
        assert_eq!(delays, [[5, 5], [1, 5], [5, 5]]);
    }
}
