//! A laboratory: four network namespaces in a row, with real programs in them.
//!
//! ```text
//! client ── east ══ west ── server        10.1.0.0/24  10.2.0.0/24  10.3.0.0/24
//!            └ gateways ┘                 fd00:1::/64  fd00:2::/64  fd00:3::/64
//! ```
//!
//! [`Lab`] makes the namespaces and takes them away again, also after a panic. [`GatewayConfig`] writes a
//! configuration and starts the release binary of the gateway on one of the hosts; [`Gateway`] is the running
//! process with its log, access log, admin pages and metrics. Nodes that can be linked have a control plane too, in the
//! same process or as a [`Control`] of its own. [`Host`] starts other programs, and sockets of the
//! test itself. [`Service`] is a server of a few lines, [`Load`] a client that never stops asking.
//!
//! Nothing in here waits without a deadline, touches the network outside its namespaces, or ends a process it did not
//! start. A laboratory that cannot be made says why on standard error; with `CI=true` that fails the test.

mod address;
mod balancer;
mod capture;
mod config;
mod evidence;
mod firewall;
mod gateway;
mod guard;
mod hello;
mod host;
mod lab;
mod load;
mod node;
mod pki;
mod process;
mod programs;
mod service;
mod traffic;
pub mod tunnel;

pub use address::{Family, Ground, Net, Transport};
pub use balancer::Balancer;
pub use capture::{Capture, Traffic};
pub use config::{GatewayConfig, Site};
pub use evidence::{Lines, WAIT, pause_until, until};
pub use firewall::Firewall;
pub use gateway::{Gateway, Record};
pub use guard::{is_soak, skip};
pub use hello::{Hello, record};
pub use host::Host;
pub use lab::{Lab, LabBuilder};
pub use load::{Load, Report};
pub use node::Control;
pub use pki::{Pki, Site as TlsSite};
pub use process::{Output, Process};
pub use programs::{Dnsmasq, Iperf, Nginx};
pub use service::{Service, Tally, echo_back};
pub use traffic::{Ending, ending, exchange, random_block, read_to_ending, reset};
