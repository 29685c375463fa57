//! A wide-area network between two network namespaces of one machine.
//!
//! For measuring and testing where the kernel has no netem. It never touches a namespace it was not given, and it
//! is no model of a real provider: it does exactly what it was told, the same for the same seed.
//!
//! A packet is read from the TUN device of one side, judged ([`Impairment`]: pure, seeded: drop, delay, reorder,
//! duplicate, corrupt, queue), waits for its time, and is written to the device of the other side. [`Wan::start`] makes
//! namespaces and devices and starts a thread for each direction; dropping the [`Wan`] takes everything away. Where the
//! kernel has netem, that can carry the packets instead. [`self_test()`] compares the result with theory.

mod change;
mod counters;
mod fault;
mod impair;
mod impairment;
mod netem;
mod netns;
mod packet;
mod program;
mod self_test;
mod spec;
mod timeline;
mod tun;
mod units;
mod wan;

pub use change::{Change, NoChange};
pub use counters::{Counters, Dropped};
pub use fault::Fault;
pub use impairment::{
    DELAY_MAX, Discipline, GilbertElliott, Impairment, Jitter, Loss, MTU_MAX_BYTES, MTU_MIN_BYTES,
    Mtu, Nonsense, Order, Oversize, Path, QUEUE_DEFAULT_MIN_BYTES, QueueLimit, Rate, Reordering,
    Udp,
};
pub use netns::{clean_up, within};
pub use self_test::{Check, Failure, Finding, SelfTestFault, Stop, self_test};
pub use spec::{Engine, Side, Spec};
pub use timeline::{Direction, NoTimeline, Step, from_yaml};
pub use units::Misread;
pub use wan::{CarriedBy, Wan};
