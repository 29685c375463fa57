//! The cells that are measured over a wide-area network, which `corinth-wan` makes between the two gateways.
//!
//! It says nothing about CPU: the emulator has its share of it. It must agree with theory on this machine, now, before
//! anything is measured on it.

use std::{net::Ipv4Addr, time::Duration};

use corinth_wan::{Impairment, Loss, Rate, SelfTestFault, Spec, Wan};
use ipnet::Ipv4Net;

use crate::{
    Fault, Interrupt, Lab, Side,
    goals::FIRST_BYTE_RTT_MS,
    lab::{A_FAR, B_NEAR, CONGESTION},
    measure::Measure,
    system::SystemKey,
};

/// What is lost is left to chance, which needs time to even out.
pub const BULK_SECONDS_MIN: u32 = 20;

const BULK_BITS_PER_SECOND: u64 = 100_000_000;
const BULK_DELAY: Duration = Duration::from_millis(50);
const BULK_LOSS: f64 = 0.001;
const DEVICE: &str = "wan0";
const PREFIX_BITS: u8 = 24;

/// A cell: what is measured, and on which network.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What.
    pub measure: Measure,
    /// What happens to packets, in both directions.
    pub impairment: Impairment,
    /// Of those that take part in a campaign, these are measured on it.
    pub systems: &'static [SystemKey],
}

/// All cells.
pub fn cells() -> [Cell; 2] {
    let one_way = Duration::from_secs_f64(FIRST_BYTE_RTT_MS / 2_000.0);
    [
        Cell {
            measure: Measure::WanFirstByte,
            impairment: Impairment {
                delay: one_way,
                ..Impairment::default()
            },
            systems: &[
                SystemKey::Direct,
                SystemKey::Corinth,
                SystemKey::EnvoyMtls,
                SystemKey::EnvoyHttp2,
            ],
        },
        Cell {
            measure: Measure::WanBulk,
            impairment: Impairment {
                delay: BULK_DELAY,
                loss: Loss::Bernoulli(BULK_LOSS),
                rate: Some(Rate::new(BULK_BITS_PER_SECOND)),
                ..Impairment::default()
            },
            systems: &[SystemKey::Direct, SystemKey::Corinth],
        },
    ]
}

/// Whether the emulator does on this machine what theory says.
///
/// # Errors
/// When it does not.
pub fn must_agree_with_theory(say: &dyn Fn(&str), interrupt: &Interrupt) -> Result<(), Fault> {
    let tell = |finding: &corinth_wan::Finding| {
        say(&format!(
            "wide-area network, {}: {:.1} measured, {:.1} ± {:.1} expected",
            finding.check.name(),
            finding.measured,
            finding.expected,
            finding.tolerance
        ));
    };
    let tested = corinth_wan::self_test(tell, &|| interrupt.check().is_err());
    tested.map(drop).map_err(|fault| match fault {
        SelfTestFault::Stopped => Fault::Interrupted,
        fault @ (SelfTestFault::Fault(_)
        | SelfTestFault::Unmeasured { .. }
        | SelfTestFault::Failed(_)) => Fault::Machine(format!("the wide-area network: {fault}")),
    })
}

/// Joins gateway A with gateway B in a laboratory whose middle is open.
///
/// # Errors
/// When the machine does not let us.
pub fn join(lab: &Lab, impairment: &Impairment, seed: u64) -> Result<Wan, Fault> {
    let (a, b) = (lab.namespace(Side::A), lab.namespace(Side::B));
    let mut spec = Spec::between(&a, &b).both(impairment.clone());
    spec.seed = seed;
    let ends = [(A_FAR, [10, 71, 3, 0]), (B_NEAR, [10, 71, 1, 0])];
    for (side, (own, beyond)) in spec.sides.iter_mut().zip(ends) {
        side.v4 = Ipv4Net::new_assert(own, PREFIX_BITS);
        DEVICE.clone_into(&mut side.device);
        side.routes = vec![Ipv4Net::new_assert(Ipv4Addr::from(beyond), PREFIX_BITS).into()];
    }
    let wan = Wan::start(&spec).map_err(|fault| Fault::Machine(fault.to_string()))?;
    // The routes above have the congestion control of the host; more special ones have ours.
    for (side, own, other) in [(Side::A, A_FAR, B_NEAR), (Side::B, B_NEAR, A_FAR)] {
        lab.ip_in(
            side,
            &format!("route add {other}/32 dev {DEVICE} src {own} congctl {CONGESTION}"),
        )?;
    }
    Ok(wan)
}

#[cfg(test)]
mod tests;
