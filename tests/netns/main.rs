//! Real programs and release binaries in four network namespaces: client – east – west – server. Each behaviour is
//! shown on IPv4 and on IPv6.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this is tests; what they measure is shown with --nocapture"
)]

/// Each test named runs once on IPv4 and once on IPv6.
macro_rules! on_both_families {
    ($($test:ident),* $(,)?) => {
        mod on_ipv4 {
            $(#[test] fn $test() { super::$test(corinth_lab::Family::V4); })*
        }
        mod on_ipv6 {
            $(#[test] fn $test() { super::$test(corinth_lab::Family::V6); })*
        }
    };
}

mod carries;
mod certificates;
mod changes;
mod fails;
mod fixture;
mod floods;
mod frames;
mod links;
mod names;
mod nodes;
mod planes;
mod proxies;
mod secured;
mod stops;
mod strangers;
