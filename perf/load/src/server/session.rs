//! One test at the server, from its admission to its report.

use std::{
    collections::HashMap,
    io::{self, Read},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Entry, Host, Lifetime, Place,
    admission::drain,
    flows,
    shared::{Arrival, Event, Shared},
    work::Work,
};
use crate::{
    cost::{Carried, Meter},
    count::{Count, Timeline},
    result::Environment,
    spec::{TestSpec, Verify, Workload},
    wire::{self, ASK_MAX_BYTES, Ask, Report, Tell, TestId},
};

/// Once accepted, a client has this long to open its connections, of which there may be many thousands.
const OPENING_PATIENCE: Duration = Duration::from_secs(120);

/// A client says something more often than this while its test runs.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A test may end this much later than announced.
pub(super) const LATE_MAX: Duration = Duration::from_secs(30);

/// After the client has stopped, what is on its way has this long to arrive, if the test is one of bytes.
const TAIL_PATIENCE: Duration = Duration::from_secs(10);

/// Events that wait; a client that talks faster has to wait itself.
const EVENTS_MAX: usize = 8_192;

/// How often limits are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A report holds no more than these.
const INTERVALS_MAX: usize = 4_000;

/// Runs a test; what was wrong with its end is returned.
pub(super) fn run(
    host: &Arc<Host>,
    spec: TestSpec,
    control: &TcpStream,
    place: Place,
) -> Option<String> {
    let mut id = [0; 16];
    if rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()) != Ok(id.len()) {
        return Some("no random number for its name".to_owned());
    }
    let id = TestId(id);
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let connections_max = host.settings.limits.connections_of(&spec);
    let shared = Arc::new(Shared::new(spec, connections_max));
    let entry = Entry {
        events: sender.clone(),
        shared: Arc::clone(&shared),
    };
    host.tests.lock().insert(id, entry);
    let mut session = Session {
        host,
        shared: &shared,
        sender,
        events,
        control: None,
        controls: 0,
        readers: Vec::new(),
        work: HashMap::new(),
        senders: Vec::new(),
        last_heard: Instant::now(),
        fault: None,
    };
    let fault = session.run(id, control);
    shared.gate.shut();
    shared.stopped.send_replace(true);
    session.halt();
    host.tests.lock().remove(&id);
    // The client takes the end of the control connection for leave to ask for its next test.
    let Session {
        control,
        readers,
        events,
        ..
    } = session;
    // Nobody waits to be heard any more.
    drop(events);
    if host.settings.lifetime == Lifetime::Unlimited {
        drop(place);
        control.as_ref().inspect(|control| drain(control));
    } else {
        control.as_ref().inspect(|control| drain(control));
        drop(place);
    }
    // A client that has vanished would never end it.
    control.as_ref().inspect(|control| hang_up(control));
    for reader in readers {
        // One that panicked has printed why.
        let _ = reader.join();
    }
    fault
}

/// Ends it for whoever reads from it, here too.
fn hang_up(control: &TcpStream) {
    // Refused only where the client has closed it already.
    let _ = control.shutdown(Shutdown::Both);
}

struct Session<'a> {
    host: &'a Arc<Host>,
    shared: &'a Arc<Shared>,
    sender: mpsc::SyncSender<Event>,
    events: mpsc::Receiver<Event>,
    control: Option<TcpStream>,
    /// How many the client has had, the one above included.
    controls: u32,
    readers: Vec<JoinHandle<()>>,
    work: HashMap<u32, Work>,
    senders: Vec<JoinHandle<()>>,
    last_heard: Instant,
    fault: Option<String>,
}

/// What counts from the moment counting begins.
struct Counting {
    since: Instant,
    meter: Meter,
    before: HashMap<u32, Count>,
}

/// Why a session does not go on.
enum End {
    /// The client wants the report.
    Asked,
    /// Nobody is there to get one.
    Fault(String),
}

impl Session<'_> {
    fn run(&mut self, id: TestId, control: &TcpStream) -> Option<String> {
        if let Err(error) = self.take_control(control, Vec::new()) {
            return Some(error.to_string());
        }
        match flows::send_all(self.shared, id, &self.host.datagrams) {
            Ok(senders) => self.senders = senders,
            Err(error) => return Some(error.to_string()),
        }
        self.tell(&Tell::Accepted { test: id.to_hex() });
        if let Err(fault) = self.gather() {
            self.tell(&Tell::Refused(fault.clone()));
            return Some(fault);
        }
        let (end, mut report) = self.measure();
        match end {
            End::Asked => {
                report.fault = self.fault.take();
                let fault = report.fault.clone();
                self.tell(&Tell::Report(Box::new(report)));
                fault
            }
            End::Fault(fault) => {
                report.fault = Some(fault.clone());
                report.is_early = true;
                self.tell(&Tell::Report(Box::new(report)));
                Some(fault)
            }
        }
    }

    /// Waits until all streams are there and the client says so.
    fn gather(&mut self) -> Result<(), String> {
        let expected = crate::role::streams(&self.shared.spec);
        let until = Instant::now() + OPENING_PATIENCE;
        let mut is_asked = false;
        loop {
            if is_asked
                && expected
                    .clone()
                    .all(|number| self.work.contains_key(&number))
            {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Asked(Ask::Start)) => is_asked = true,
                Ok(Event::Asked(Ask::Stop)) => {
                    return Err("the client gave up before the start".to_owned());
                }
                Ok(event) => self.handle(event)?,
                Err(_) => {
                    return Err(format!(
                        "not all connections came within {} s",
                        OPENING_PATIENCE.as_secs()
                    ));
                }
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
        }
    }

    fn measure(&mut self) -> (End, Report) {
        let spec = &self.shared.spec;
        let started = Instant::now();
        let mut timeline = Timeline::default();
        let mut report = Report::default();
        // What is counted from the start is counted from before the first byte.
        let mut counting = (spec.omit_ms == 0).then(|| self.start_counting(started));
        self.shared.gate.open(started);
        self.tell(&Tell::Started);
        let interval = Duration::from_millis(spec.interval_ms);
        let mut next_cut = started + interval;
        self.last_heard = started;
        let end = loop {
            let now = Instant::now();
            if counting.is_none() && now >= started + spec.omit() {
                counting = Some(self.start_counting(now));
            }
            if !interval.is_zero() && now >= next_cut && report.intervals.len() < INTERVALS_MAX {
                self.cut(&mut timeline, &mut report, started, now);
                next_cut = now + interval;
            }
            if let Some(fault) = self.overdue(started, now) {
                break End::Fault(fault);
            }
            let omitted = started + spec.omit();
            let mut wait = LOOK_EVERY;
            if counting.is_none() {
                wait = wait.min(omitted.saturating_duration_since(now));
            }
            match self.events.recv_timeout(wait) {
                Ok(Event::Asked(Ask::Stop)) => break End::Asked,
                Ok(event) => {
                    if let Err(fault) = self.handle(event) {
                        break End::Fault(fault);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    break End::Fault("the server stops".to_owned());
                }
            }
        };
        if matches!(end, End::Asked) && spec.total_bytes.is_some() {
            self.await_tail();
        }
        let now = Instant::now();
        // At once: bytes go on coming.
        let counts = self.counts();
        let mut counting = counting.unwrap_or_else(|| self.start_counting(now));
        self.conclude(&mut report, &mut counting, &counts, now);
        (end, report)
    }

    fn start_counting(&self, now: Instant) -> Counting {
        self.shared.flows.begin();
        Counting {
            since: now,
            meter: Meter::start(&self.host.settings.watch, now),
            before: self.counts(),
        }
    }

    fn counts(&self) -> HashMap<u32, Count> {
        let all = self.work.iter();
        all.map(|(number, work)| (*number, work.count())).collect()
    }

    fn cut(&self, timeline: &mut Timeline, report: &mut Report, started: Instant, now: Instant) {
        let mut numbers: Vec<u32> = self.work.keys().copied().collect();
        numbers.sort_unstable();
        let samples: Vec<_> = numbers
            .into_iter()
            .filter_map(|number| self.work.get(&number)?.sample(number))
            .collect();
        let now_ms = now.duration_since(started).as_secs_f64() * 1e3;
        let cut = timeline.cut(now_ms, &samples, self.shared.spec.omit_ms as f64);
        report.intervals.extend(
            cut.into_iter()
                .filter(|interval| interval.connection.is_none()),
        );
    }

    /// Bytes that were sent before the end have a little time to arrive.
    fn await_tail(&mut self) {
        let until = Instant::now() + TAIL_PATIENCE;
        while self.work.values().any(Work::is_running) {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Failed(fault)) => self.fault = Some(fault),
                Ok(_) => {}
                Err(_) => {
                    self.fault
                        .get_or_insert_with(|| "not all bytes came".to_owned());
                    return;
                }
            }
        }
    }

    fn conclude(
        &self,
        report: &mut Report,
        counting: &mut Counting,
        counts: &HashMap<u32, Count>,
        now: Instant,
    ) {
        let spec = &self.shared.spec;
        let mut numbers: Vec<&u32> = self.work.keys().collect();
        numbers.sort_unstable();
        let mut sent = Vec::new();
        let mut received = Vec::new();
        let mut environment = Environment::here();
        for number in numbers {
            let before = counting.before.get(number).copied().unwrap_or_default();
            let count = counts.get(number).copied().unwrap_or_default();
            let count = count.since(before);
            match crate::role::role(spec, *number) {
                Some(crate::role::Role::Up) => received.push(count.received_bytes),
                Some(crate::role::Role::Down) => sent.push(count.sent_bytes),
                Some(crate::role::Role::Answers) | None => {}
            }
        }
        if let Some(work) = self.work.values().next() {
            work.granted().write(&mut environment);
        }
        report.sent_bytes = sent;
        report.received_bytes = received;
        self.shared.write(report);
        if spec.verify == Verify::EveryByte {
            report.verified_bytes = self
                .work
                .values()
                .map(|work| work.count().received_bytes)
                .sum();
        }
        let all = report.sent_bytes.iter().chain(&report.received_bytes).sum();
        report.seconds = now.duration_since(counting.since).as_secs_f64();
        report.environment = environment;
        let carried = Carried {
            bytes: Some(all),
            requests: Some(report.answered),
        };
        report.cost = counting.meter.finish(carried, now);
        report.retransmits = self
            .work
            .values()
            .filter_map(Work::retransmits)
            .reduce(|sum, more| sum + more);
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Asked(Ask::Ping) => {
                self.last_heard = Instant::now();
                self.tell(&Tell::Pong);
            }
            Event::Asked(Ask::Open { .. } | Ask::Start | Ask::Stop) => {
                return Err("the client says things out of turn".to_owned());
            }
            // It has a newer one.
            Event::Gone { control, .. } if control != self.controls => {}
            Event::Gone { reason, .. } if self.shared.spec.workload != Workload::Probe => {
                return Err(format!("the client is gone: {reason}"));
            }
            Event::Gone { .. } => self.control = None,
            Event::Resumed(control, rest) => {
                if self.take_control(&control, rest).is_ok() {
                    self.last_heard = Instant::now();
                }
            }
            Event::Arrived(arrival) => self.arrive(arrival),
            Event::Finished => {}
            Event::Failed(fault) => {
                self.fault.get_or_insert(fault);
            }
            Event::Stopping => return Err("the server stops".to_owned()),
        }
        Ok(())
    }

    fn arrive(&mut self, arrival: Arrival) {
        let connection = arrival.connection;
        match self.work.get(&connection) {
            // Its client has given up the one before.
            Some(before) if before.is_answering() => before.halt(),
            // Dropping it closes it, which is what its client sees.
            Some(_) => return,
            None if !self.shared.has_room(self.work.len()) => return,
            None => {}
        }
        match Work::start(self.shared, arrival, &self.sender) {
            Ok(Some(work)) => {
                self.work.insert(connection, work);
            }
            Ok(None) => {}
            Err(error) => {
                self.fault
                    .get_or_insert_with(|| format!("connection {connection}: {error}"));
            }
        }
    }

    /// Why the test must not go on.
    fn overdue(&self, started: Instant, now: Instant) -> Option<String> {
        if self.host.is_stopping.load(SeqCst) {
            return Some("the server stops".to_owned());
        }
        let spec = &self.shared.spec;
        let limits = &self.host.settings.limits;
        let allowed = if spec.total_bytes.is_some() {
            limits.duration
        } else {
            // The last request may take as long as the others.
            let announced = spec.omit() + spec.duration() + spec.timeout();
            announced.min(limits.duration) + LATE_MAX
        };
        if now > started + allowed {
            return Some("it lasted longer than announced".to_owned());
        }
        if now > self.last_heard + SILENCE_MAX && spec.workload != Workload::Probe {
            return Some(format!(
                "the client has said nothing for {} s",
                SILENCE_MAX.as_secs()
            ));
        }
        let count = self.work.values().map(Work::count);
        let bytes: u64 = count
            .map(|count| count.sent_bytes.saturating_add(count.received_bytes))
            .sum::<u64>()
            .saturating_add(self.shared.flows.bytes())
            .saturating_add(self.shared.bytes());
        (bytes > limits.bytes).then(|| format!("it carried more than {} bytes", limits.bytes))
    }

    fn take_control(&mut self, control: &TcpStream, rest: Vec<u8>) -> io::Result<()> {
        control.set_read_timeout(None)?;
        control.set_write_timeout(Some(SILENCE_MAX))?;
        let mut reader = io::Cursor::new(rest).chain(control.try_clone()?);
        let sender = self.sender.clone();
        let before = self.control.replace(control.try_clone()?);
        before.as_ref().inspect(|before| hang_up(before));
        self.controls += 1;
        let number = self.controls;
        let reader = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                loop {
                    let event = match wire::read_message(&mut reader, ASK_MAX_BYTES) {
                        Ok(ask) => Event::Asked(ask),
                        Err(error) => Event::Gone {
                            control: number,
                            reason: error.to_string(),
                        },
                    };
                    let is_gone = matches!(event, Event::Gone { .. });
                    if sender.send(event).is_err() || is_gone {
                        return;
                    }
                }
            })?;
        self.readers.retain(|reader| !reader.is_finished());
        self.readers.push(reader);
        Ok(())
    }

    fn tell(&self, message: &Tell) {
        if let Some(mut control) = self.control.as_ref() {
            // A client that has gone is noticed by its reader.
            let _ = wire::write_message(&mut control, message);
        }
    }

    fn halt(&mut self) {
        for work in self.work.values() {
            work.halt();
        }
        for (_, work) in self.work.drain() {
            work.join();
        }
        for sender in self.senders.drain(..) {
            // One that panicked has printed why.
            let _ = sender.join();
        }
    }
}
