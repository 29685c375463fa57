//! What runs on the client during a test, seen from outside.

use super::{
    Context, asking::Asking, flows::Flows, idle::Idle, measure::Window, probe::Probe,
    streams::Streams,
};
use crate::{
    count::Sample, error::Error, result::TestResult, socket::Granted, spec::Workload, wire::Report,
};

/// Threads that do the work of a test.
pub(super) trait Load {
    /// Its connections as they are now.
    fn samples(&self) -> Vec<Sample>;

    /// What the kernel granted to its connections, while they are open.
    fn granted(&self) -> Option<Granted>;

    /// Whether it has come to its end by itself.
    fn is_done(&self) -> bool;

    /// The time is over: waits for what is still to be answered.
    fn settle(&mut self);

    /// Ends it; its threads are gone afterwards. The gate is shut.
    fn halt(&mut self);

    /// Writes what it found.
    fn write(&self, window: &Window, report: Option<&Report>, result: &mut TestResult);
}

/// Opens the connections of the test and starts its threads, which wait at the gate.
pub(super) fn connect(context: &Context<'_>) -> Result<Vec<Box<dyn Load>>, Error> {
    Ok(match context.spec.workload {
        Workload::Stream => vec![Box::new(Streams::connect(context)?)],
        Workload::Rr => vec![Box::new(Asking::connect(context)?)],
        Workload::Crr => vec![Box::new(Asking::call(context)?)],
        Workload::Mix => vec![
            Box::new(Asking::connect(context)?),
            Box::new(Streams::connect(context)?),
        ],
        Workload::Udp => vec![Box::new(Flows::open(context)?)],
        Workload::Idle => vec![Box::new(Idle::open(context)?)],
        Workload::Probe => {
            let per_second = context.spec.rate_per_second.unwrap_or(1_000.0);
            vec![Box::new(Probe::connect(context, per_second)?)]
        }
        // It needs no server of ours, and so no test that the server knows.
        Workload::Http => Vec::new(),
    })
}
