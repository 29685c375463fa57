//! Compares gateways on one path.
//!
//! For choosing between gateways and for noticing that one became slower. It never quotes an absolute figure as a
//! verdict on a change: everyone takes turns on the same path within each round, and only ratios are kept. It never
//! calls missing data zero.
//!
//! A path of four namespaces is laid ([`lab`]), every system found on the machine ([`programs`]) is started on it as its
//! recipe says ([`system`], [`running`]), the loads ([`load`], [`measure`]) run interleaved ([`campaign`]), and what came
//! out ([`results`]) becomes rows ([`rows`]) of medians with their intervals ([`statistics`]), a verdict on the goals
//! ([`goals`]) and against a committed baseline ([`baseline`]), and a report ([`report`]). [`matrix`] lays wide-area
//! networks of many kinds on the same path, and asks which of our tunnels is faster on each.

pub mod baseline;
pub mod beside;
pub mod campaign;
pub mod certificates;
mod fault;
pub mod goals;
mod interrupt;
pub mod lab;
pub mod load;
pub mod machine;
pub mod matrix;
pub mod measure;
pub mod process;
pub mod programs;
pub mod report;
pub mod results;
mod rounds;
pub mod rows;
pub mod running;
pub mod statistics;
pub mod system;
#[cfg(test)]
mod testing;
pub mod wan;

pub use fault::Fault;
pub use interrupt::Interrupt;
pub use lab::{Lab, Side};
