//! The time between start and end of a test.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{
    Context, Control, Heard, Load, Progress, ServerSide, TestResult, Workload, crew::Span,
};
use crate::{
    cost::{Carried, Meter},
    count::{Count, Part, Sample, Timeline},
    error::Error,
    result::{Cost, Interval},
    schedule::Schedule,
    socket::Granted,
    wire::{Report, Tell},
};

/// How often it is looked whether somebody wants the test to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The time that counts, and what was done in it.
pub(super) struct Window {
    /// Its length by the client's clock.
    pub(super) seconds: f64,
    /// When requests were due that count. It ends with the test, even if the counters were looked at later.
    span: Span,
    /// What each connection did in it.
    samples: Vec<Sample>,
    /// What each had done before.
    before: Vec<Sample>,
    /// Segments sent again in it.
    pub(super) retransmits: Option<u64>,
}

impl Window {
    fn between(before: &Looked, after: &Looked, span: Span) -> Self {
        let mut samples = Vec::with_capacity(after.samples.len());
        let mut retransmits = None;
        for sample in &after.samples {
            let earlier = before
                .samples
                .iter()
                .find(|earlier| earlier.connection == sample.connection);
            let since = earlier.map(|earlier| earlier.count).unwrap_or_default();
            samples.push(Sample {
                count: sample.count.since(since),
                ..*sample
            });
            if let Some(tcp) = sample.tcp {
                let earlier = earlier
                    .and_then(|earlier| earlier.tcp)
                    .map_or(0, |tcp| tcp.retransmits);
                *retransmits.get_or_insert(0) += tcp.retransmits.saturating_sub(earlier);
            }
        }
        Self {
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            samples,
            before: before.samples.clone(),
            retransmits,
            span: Span {
                to: span.to.min(after.at),
                ..span
            },
        }
    }

    /// How many requests were due in it on a schedule of this rate.
    pub(super) fn due(&self, per_second: f64) -> u64 {
        Schedule::new(self.span.started, per_second).due_between(self.span.from, self.span.to)
    }

    /// What a connection has done since the window began, up to a count that was taken after its end.
    pub(super) fn since_start(&self, connection: u32, now: Count) -> Count {
        let before = self
            .before
            .iter()
            .find(|before| before.connection == connection);
        now.since(before.map(|before| before.count).unwrap_or_default())
    }

    /// What all connections of this kind did.
    pub(super) fn sum(&self, part: Part) -> Count {
        let of_part = self.samples.iter().filter(|sample| sample.part == part);
        of_part.fold(Count::default(), |sum, sample| sum.plus(sample.count))
    }

    fn carried(&self) -> Carried {
        let moved = |part: Part| {
            let count = self.sum(part);
            count.sent_bytes + count.received_bytes
        };
        let is_there = |part: Part| self.samples.iter().any(|sample| sample.part == part);
        let streams = is_there(Part::Sends) || is_there(Part::Receives);
        Carried {
            bytes: streams.then(|| moved(Part::Sends) + moved(Part::Receives)),
            requests: is_there(Part::Asks).then(|| self.sum(Part::Asks).completed),
        }
    }
}

/// All counters at one moment.
struct Looked {
    at: Instant,
    samples: Vec<Sample>,
}

impl Looked {
    fn now(loads: &[Box<dyn Load>]) -> Self {
        Self {
            samples: loads.iter().flat_map(|load| load.samples()).collect(),
            at: Instant::now(),
        }
    }
}

/// What a test came to.
pub(super) struct Measured {
    window: Window,
    intervals: Vec<Interval>,
    report: Option<Box<Report>>,
    fault: Option<String>,
    cost: Option<Cost>,
    granted: Option<Granted>,
}

/// Runs a test from its start to its end. `control` is absent where the server is not ours.
pub(super) fn run(
    context: &Context<'_>,
    loads: &mut [Box<dyn Load>],
    mut control: Option<&mut Control>,
    heard: &mpsc::Receiver<Heard>,
    progress: &mut dyn Progress,
) -> Result<Measured, Error> {
    // What is counted from the start is counted from before the first byte, which may come before we hear of it.
    let before = Looked::now(loads);
    if let Some(control) = control.as_deref_mut()
        && let Err(error) = control.start(heard)
    {
        context.gate.shut();
        loads.iter_mut().for_each(|load| load.halt());
        return Err(error);
    }
    let started = Instant::now();
    let mut course = Course::new(context, started, before);
    context.gate.open(started);
    let mut fault = course.run(loads, control.as_deref_mut(), heard, progress);
    let end = Looked::now(loads);
    let granted = loads.iter().find_map(|load| load.granted());
    course.cut(loads, progress);
    let (before, mut meter) = course
        .counting
        .take()
        .unwrap_or_else(|| course.start_counting(loads));
    let window = Window::between(&before, &end, Span::new(context.spec, started));
    let cost = meter.finish(window.carried(), end.at);
    let mut settle = || loads.iter_mut().for_each(|load| load.settle());
    match control.as_deref() {
        Some(control) => control.stay_while(settle),
        None => settle(),
    }
    // Whoever sends in bulk goes on until the server has counted: otherwise it would count a time in which nothing came
    // any more, which is long on a busy machine. All others see that it is over before their connections break.
    if !context.sends_until_counted() {
        context.gate.shut();
    }
    let report =
        control
            .as_deref_mut()
            .and_then(|control| match course.fetch_report(control, heard) {
                Ok(report) => Some(report),
                Err(reason) => {
                    fault.get_or_insert_with(|| format!("the server is gone: {reason}"));
                    None
                }
            });
    context.gate.shut();
    loads.iter_mut().for_each(|load| load.halt());
    if let Some(control) = control.filter(|_| report.is_some()) {
        control.finish(heard);
    }
    if let Some(report) = &report
        && let Some(told) = &report.fault
        && (fault.is_none() || report.is_early)
    {
        fault = Some(format!("at the server: {told}"));
    }
    Ok(Measured {
        window,
        intervals: course.intervals,
        fault,
        report,
        cost,
        granted,
    })
}

/// A test on its way.
struct Course<'a> {
    context: &'a Context<'a>,
    started: Instant,
    timeline: Timeline,
    intervals: Vec<Interval>,
    next_cut: Option<Instant>,
    counting: Option<(Looked, Meter)>,
    is_control_lost: bool,
    report: Option<Box<Report>>,
}

impl<'a> Course<'a> {
    fn new(context: &'a Context<'a>, started: Instant, before: Looked) -> Self {
        let interval = Duration::from_millis(context.spec.interval_ms);
        let mut course = Self {
            context,
            started,
            timeline: Timeline::default(),
            intervals: Vec::new(),
            next_cut: (!interval.is_zero()).then(|| started + interval),
            counting: None,
            is_control_lost: false,
            report: None,
        };
        if context.spec.omit_ms == 0 {
            let meter = Meter::start(&context.setup.watch, started);
            course.counting = Some((
                Looked {
                    at: started,
                    ..before
                },
                meter,
            ));
        }
        course
    }

    fn start_counting(&self, loads: &[Box<dyn Load>]) -> (Looked, Meter) {
        let looked = Looked::now(loads);
        let meter = Meter::start(&self.context.setup.watch, looked.at);
        (looked, meter)
    }

    /// Waits for the end; what brought it about too early is returned.
    fn run(
        &mut self,
        loads: &[Box<dyn Load>],
        mut control: Option<&mut Control>,
        heard: &mpsc::Receiver<Heard>,
        progress: &mut dyn Progress,
    ) -> Option<String> {
        let spec = self.context.spec;
        let counts_from = self.started + spec.omit();
        let end = spec
            .total_bytes
            .is_none()
            .then(|| counts_from + spec.duration());
        loop {
            let now = Instant::now();
            if self.context.is_interrupted() {
                return Some("interrupted".to_owned());
            }
            if self.counting.is_none() && now >= counts_from {
                self.counting = Some(self.start_counting(loads));
            }
            if self.next_cut.is_some_and(|due| now >= due) {
                self.cut(loads, progress);
            }
            if end.is_some_and(|end| now >= end) {
                return None;
            }
            if loads.iter().all(|load| load.is_done()) {
                // Why they are done may still have to be heard.
                let faults = heard
                    .try_iter()
                    .map(|heard| self.handle(heard, control.as_deref_mut()));
                return faults.flatten().next();
            }
            if let Err(fault) = self.keep_alive(control.as_deref_mut(), now) {
                return Some(fault);
            }
            let next = self.next_look(now, end);
            match heard.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(heard) => {
                    if let Some(fault) = self.handle(heard, control.as_deref_mut()) {
                        return Some(fault);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Says to the server that the client lives, and looks whether the server does.
    fn keep_alive(&mut self, control: Option<&mut Control>, now: Instant) -> Result<(), String> {
        let Some(control) = control.filter(|_| !self.is_control_lost) else {
            return Ok(());
        };
        match control.tick(now) {
            Ok(()) => Ok(()),
            Err(_) if self.context.spec.workload == Workload::Probe => {
                self.is_control_lost = true;
                Ok(())
            }
            Err(reason) => Err(format!("the server is gone: {reason}")),
        }
    }

    /// When there is something to do even if nothing is heard.
    fn next_look(&self, now: Instant, end: Option<Instant>) -> Instant {
        let counts_from = self.started + self.context.spec.omit();
        let begins = self.counting.is_none().then_some(counts_from);
        let known = [end, self.next_cut, begins];
        known
            .into_iter()
            .flatten()
            .fold(now + LOOK_EVERY, Instant::min)
    }

    fn handle(&mut self, heard: Heard, control: Option<&mut Control>) -> Option<String> {
        match heard {
            Heard::Told(Tell::Pong) => {
                if let Some(control) = control {
                    control.note_heard(Instant::now());
                }
                None
            }
            Heard::Told(Tell::Report(report)) => {
                let fault = report
                    .fault
                    .clone()
                    .unwrap_or_else(|| "it ended the test".to_owned());
                self.report = Some(report);
                Some(format!("at the server: {fault}"))
            }
            Heard::Told(Tell::Refused(reason)) => {
                Some(format!("the server ends the test: {reason}"))
            }
            Heard::Told(Tell::Accepted { .. } | Tell::Started) => {
                Some("the server says things out of turn".to_owned())
            }
            Heard::Gone(reason) => {
                self.is_control_lost = true;
                let can_go_on = self.context.spec.workload == Workload::Probe;
                (!can_go_on).then(|| format!("the server is gone: {reason}"))
            }
            Heard::Finished => None,
            Heard::Failed(fault) => Some(fault),
        }
    }

    fn cut(&mut self, loads: &[Box<dyn Load>], progress: &mut dyn Progress) {
        let Some(due) = self.next_cut else { return };
        let looked = Looked::now(loads);
        let interval = Duration::from_millis(self.context.spec.interval_ms);
        let since_last = looked.at + interval - due.min(looked.at + interval);
        // A last interval that is a sliver says nothing.
        if looked.at < due && since_last < interval / 10 {
            return;
        }
        let now_ms = looked.at.duration_since(self.started).as_secs_f64() * 1e3;
        let cut = self
            .timeline
            .cut(now_ms, &looked.samples, self.context.spec.omit_ms as f64);
        progress.interval(&cut);
        self.intervals.extend(cut);
        self.next_cut = Some(due.max(looked.at.checked_sub(interval).unwrap_or(due)) + interval);
    }

    fn fetch_report(
        &mut self,
        control: &mut Control,
        heard: &mpsc::Receiver<Heard>,
    ) -> Result<Box<Report>, String> {
        if let Some(report) = self.report.take() {
            return Ok(report);
        }
        if !self.is_control_lost {
            let report = control.stop(heard);
            if report.is_ok() || self.context.spec.workload != Workload::Probe {
                return report;
            }
        }
        if self.context.spec.workload != Workload::Probe {
            return Err("the control connection is lost".to_owned());
        }
        control.stop_anew(&self.context.heard, heard)
    }
}

impl Measured {
    /// Joins everything into the result.
    pub(super) fn write(self, loads: &[Box<dyn Load>], result: &mut TestResult) {
        result.partial = self.fault.is_some();
        result.fault = self.fault;
        result.intervals = self.intervals;
        if let Some(granted) = self.granted {
            granted.write(&mut result.environment);
        }
        for load in loads {
            load.write(&self.window, self.report.as_deref(), result);
        }
        result.cost = self.cost;
        if result.rate.as_ref().is_some_and(|rate| rate.completed == 0) && result.fault.is_none() {
            result.partial = true;
            result.fault = Some("no request was answered".to_owned());
        }
        if let Some(latency) = result.latency.as_ref().filter(|latency| !latency.valid)
            && result.test.workload != Workload::Probe
        {
            let achieved = latency.achieved_percent.unwrap_or(0.0);
            result.partial = true;
            result.fault.get_or_insert_with(|| {
                format!(
                    "{achieved:.2} % of the schedule was met, below 99 %: the times mean nothing"
                )
            });
        }
        if let Some(verified) = &mut result.verified
            && let Some(report) = &self.report
        {
            verified.corrupt_connections += report.corrupt_connections;
        }
        let Some(report) = self.report else { return };
        let is_here = report.environment.boot_id.is_some()
            && report.environment.boot_id == result.environment.boot_id;
        if is_here && let (Some(cost), Some(there)) = (&mut result.cost, &report.cost) {
            let own = std::process::id();
            cost.processes.extend(
                there
                    .processes
                    .iter()
                    .filter(|process| process.pid != own)
                    .cloned(),
            );
            let mut known = Vec::new();
            cost.processes.retain(|process| {
                let is_new = !known.contains(&process.pid);
                known.push(process.pid);
                is_new
            });
        }
        result.server = Some(ServerSide {
            environment: report.environment,
            cost: if is_here { None } else { report.cost },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::TestSpec;

    fn window(spec: &TestSpec, started: Instant, end: Instant) -> Window {
        let looked = |at| Looked {
            at,
            samples: Vec::new(),
        };
        let span = Span::new(spec, started);
        Window::between(&looked(span.from), &looked(end), span)
    }

    #[test]
    fn whoever_looks_late_does_not_invent_requests_that_were_due() {
        let mut spec = TestSpec::new(Workload::Probe, "host");
        (spec.omit_ms, spec.duration_ms) = (100, 300);
        let started = Instant::now();
        let late = started + Duration::from_millis(407);
        assert_eq!(window(&spec, started, late).due(1_000.0), 300);
    }

    #[test]
    fn a_test_that_was_cut_short_counts_what_was_due_until_then() {
        let spec = TestSpec::new(Workload::Probe, "host");
        let started = Instant::now();
        let early = started + Duration::from_millis(40);
        assert_eq!(window(&spec, started, early).due(1_000.0), 40);
    }
}
