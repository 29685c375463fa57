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

/// Each test named runs on IPv4 and on IPv6, with TLS and with QUIC between the gateways.
macro_rules! over_both_transports {
    ($($test:ident),* $(,)?) => {
        on_ground!(on_ipv4: V4 Tls, $($test)*);
        on_ground!(on_ipv6: V6 Tls, $($test)*);
        on_ground!(by_quic_on_ipv4: V4 Quic, $($test)*);
        on_ground!(by_quic_on_ipv6: V6 Quic, $($test)*);
    };
}

macro_rules! on_ground {
    ($module:ident: $family:ident $transport:ident, $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test(corinth_lab::Ground {
                        family: corinth_lab::Family::$family,
                        transport: corinth_lab::Transport::$transport,
                    });
                }
            )*
        }
    };
}

mod auto;
mod carries;
mod certificates;
mod changes;
mod fails;
mod fixture;
mod floods;
mod flows;
mod frames;
mod links;
mod names;
mod nodes;
mod overrun;
mod planes;
mod proxies;
mod secured;
mod stops;
mod strangers;
