//! One record per connection: opened when its route is known, closed once, written as access log line and
//! metrics together. No other code of the data path counts anything.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use corinth_core::CarrierChange;
use corinth_daemon::{
    access_log::AccessLog,
    metrics::{HistogramVec, IntCounterVec, IntGaugeVec, Metrics, MetricsError},
};
use corinth_model::{ClusterName, GatewayId, Reason, RouteName};
use serde::Serialize;

use crate::{flow::Tally, relay::Carried};

/// How a connection came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// An import port.
    Import,
    /// A flow of a local client: UDP at an import port.
    Flow,
    /// SNI of a local client.
    Sni,
    /// SOCKS5.
    Socks,
    /// HTTP CONNECT.
    Connect,
    /// A stream that a peer opened.
    Peer,
    /// A flow that a peer opened.
    PeerFlow,
    /// A stream between control planes, opened by either side.
    Peering,
    /// Somebody who wants to be linked.
    Joining,
    /// A client of another cluster on a route opened to it directly.
    Direct,
    /// The tunnel port, before it was known what comes.
    Tunnel,
}

impl Intake {
    /// The word in log and metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Flow => "flow",
            Self::Sni => "sni",
            Self::Socks => "socks",
            Self::Connect => "connect",
            Self::Peer => "peer",
            Self::PeerFlow => "peer_flow",
            Self::Peering => "peering",
            Self::Joining => "joining",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Which connections the access log names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logged {
    /// Every one.
    All,
    /// Those that did not complete.
    Errors,
}

/// Where records are written.
pub(crate) struct Telemetry {
    access_log: AccessLog,
    logged: Logged,
    opened: IntCounterVec,
    closed: IntCounterVec,
    active: IntGaugeVec,
    duration: HistogramVec,
    setup: HistogramVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    datagrams_sent: IntCounterVec,
    datagrams_received: IntCounterVec,
    datagrams_dropped: IntCounterVec,
    left_out: IntCounterVec,
    carrier_changes: IntCounterVec,
}

/// 0.1 ms to about 10 s, doubling.
const SETUP_BUCKETS: [f64; 17] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.005, 0.01, 0.0128, 0.0256, 0.0512, 0.1024,
    0.2048, 0.8192, 1.6384, 3.2768, 10.0,
];
const DURATION_BUCKETS: [f64; 10] = [
    0.001, 0.01, 0.1, 0.5, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0,
];

impl Telemetry {
    pub(crate) fn new(
        metrics: &Metrics,
        access_log: AccessLog,
        logged: Logged,
    ) -> Result<Self, MetricsError> {
        let by_service = ["intake", "peer", "service"];
        Ok(Self {
            access_log,
            logged,
            opened: metrics.counter_vec(
                "connections_opened_total",
                "Connections and streams taken in.",
                &["intake"],
            )?,
            closed: metrics.counter_vec(
                "connections_closed_total",
                "Connections and streams ended, by the code of their reason.",
                &["intake", "peer", "service", "code", "reason"],
            )?,
            active: metrics.gauge_vec(
                "connections_active",
                "Connections and streams open now.",
                &["intake"],
            )?,
            duration: metrics.histogram_vec(
                "connection_duration_seconds",
                "From intake to end.",
                &["intake"],
                &DURATION_BUCKETS,
            )?,
            setup: metrics.histogram_vec(
                "connection_setup_seconds",
                "From intake until an endpoint had accepted.",
                &["intake"],
                &SETUP_BUCKETS,
            )?,
            sent: metrics.counter_vec(
                "sent_bytes_total",
                "Bytes from the application's socket into the tunnel or to the endpoint.",
                &by_service,
            )?,
            received: metrics.counter_vec(
                "received_bytes_total",
                "Bytes from the tunnel or the endpoint to the application's socket.",
                &by_service,
            )?,
            datagrams_sent: metrics.counter_vec(
                "datagrams_sent_total",
                "Datagrams of flows from the application's socket into the tunnel or to the endpoint.",
                &by_service,
            )?,
            datagrams_received: metrics.counter_vec(
                "datagrams_received_total",
                "Datagrams of flows from the tunnel or the endpoint to the application's socket.",
                &by_service,
            )?,
            datagrams_dropped: metrics.counter_vec(
                "datagrams_dropped_total",
                "Datagrams thrown away: for want of room or of a way (full), because nobody took them in time (unread), after \
                 their flow had ended (over), or because of a refusal, by its name.",
                &["cause"],
            )?,
            left_out: metrics.counter_vec(
                "access_log_left_out_total",
                "Refused flows that have no line in the access log because there were too many.",
                &["intake"],
            )?,
            carrier_changes: metrics.counter_vec(
                "carrier_changes_total",
                "Times that new streams to a gateway went over to another transport.",
                &["peer", "slot", "to", "cause"],
            )?,
        })
    }

    /// Counts that new streams to a gateway go another way.
    pub(crate) fn carrier_changed(
        &self,
        cluster: &ClusterName,
        gateway: &GatewayId,
        change: CarrierChange,
    ) {
        let labels = [
            cluster.as_str(),
            gateway.slot.as_str(),
            change.to.as_str(),
            change.cause.as_str(),
        ];
        self.carrier_changes.with_label_values(&labels).inc();
    }

    /// Counts datagrams that were thrown away because of something.
    pub(crate) fn datagrams_dropped(&self, cause: &str, count: u64) {
        if count > 0 {
            let dropped = self.datagrams_dropped.with_label_values(&[cause]);
            dropped.inc_by(count);
        }
    }

    /// Counts a connection of which the access log says nothing.
    fn left_out(&self, intake: Intake) {
        self.left_out.with_label_values(&[intake.as_str()]).inc();
    }

    /// Makes what was buffered appear.
    pub(crate) fn flush(&self) {
        self.access_log.flush(Duration::from_secs(1));
    }
}

/// One connection from its intake to its end. A record that is dropped was forgotten: it counts as internal error.
pub(crate) struct Record<'a> {
    telemetry: &'a Telemetry,
    began: Instant,
    intake: Intake,
    source: SocketAddr,
    pub(crate) route: Option<Box<RouteName>>,
    pub(crate) peer: Option<Box<str>>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// What the client called itself or asked for, where no route came of it; escaped when written.
    pub(crate) asked: Option<Box<str>>,
    pub(crate) attempts: u8,
    /// The log says nothing of it: there are too many of its kind.
    pub(crate) is_left_out: bool,
    setup: Option<Duration>,
    closed: bool,
}

/// The access log's line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    intake: &'static str,
    src: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<SocketAddr>,
    code: &'static str,
    reason: &'static str,
    attempts: u8,
    bytes_sent: u64,
    bytes_received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_ms: Option<f64>,
    duration_ms: f64,
}

impl<'a> Record<'a> {
    pub(crate) fn open(
        telemetry: &'a Telemetry,
        intake: Intake,
        source: SocketAddr,
        now: Instant,
    ) -> Self {
        telemetry.opened.with_label_values(&[intake.as_str()]).inc();
        telemetry.active.with_label_values(&[intake.as_str()]).inc();
        Self::resume(telemetry, intake, source, now)
    }

    /// Goes on with a record that was handed on.
    pub(crate) fn resume(
        telemetry: &'a Telemetry,
        intake: Intake,
        source: SocketAddr,
        now: Instant,
    ) -> Self {
        Self {
            telemetry,
            began: now,
            intake,
            source,
            route: None,
            peer: None,
            endpoint: None,
            asked: None,
            attempts: 0,
            is_left_out: false,
            setup: None,
            closed: false,
        }
    }

    /// An endpoint has accepted.
    pub(crate) fn accepted(&mut self, now: Instant) {
        self.setup = Some(now.duration_since(self.began));
    }

    /// Whether an endpoint has.
    pub(crate) fn is_accepted(&self) -> bool {
        self.setup.is_some()
    }

    /// Whoever resumes the connection writes it down.
    pub(crate) fn hand_on(mut self) {
        self.closed = true;
    }

    /// Writes log line and metrics.
    pub(crate) fn close(mut self, carried: &Carried, reason: Reason, now: Instant) {
        self.write(carried, None, reason, now);
    }

    /// The same for a flow, with what it has carried beyond bytes.
    pub(crate) fn close_flow(mut self, tally: &Tally, reason: Reason, now: Instant) {
        self.telemetry
            .datagrams_dropped("full", tally.take_dropped());
        self.write(&tally.carried, Some(tally.datagrams()), reason, now);
    }

    /// `datagrams` are those from the application's socket, and to it.
    fn write(
        &mut self,
        carried: &Carried,
        datagrams: Option<(u64, u64)>,
        reason: Reason,
        now: Instant,
    ) {
        self.closed = true;
        let telemetry = self.telemetry;
        let intake = self.intake.as_str();
        let duration = now.duration_since(self.began);
        let (sent, received) = (carried.sent_bytes(), carried.received_bytes());
        // Labels are names of our own configuration, never what a client sent: their number is bounded.
        let service = self.route.as_deref().map(service_label);
        let service = service.as_deref().unwrap_or("-");
        let peer = self.peer.as_deref().unwrap_or("-");
        telemetry.active.with_label_values(&[intake]).dec();
        telemetry
            .closed
            .with_label_values(&[intake, peer, service, reason.code(), reason.name()])
            .inc();
        telemetry
            .duration
            .with_label_values(&[intake])
            .observe(duration.as_secs_f64());
        if let Some(setup) = self.setup {
            telemetry
                .setup
                .with_label_values(&[intake])
                .observe(setup.as_secs_f64());
        }
        telemetry
            .sent
            .with_label_values(&[intake, peer, service])
            .inc_by(sent);
        if let Some((sent, received)) = datagrams {
            let labels = [intake, peer, service];
            telemetry
                .datagrams_sent
                .with_label_values(&labels)
                .inc_by(sent);
            telemetry
                .datagrams_received
                .with_label_values(&labels)
                .inc_by(received);
        }
        telemetry
            .received
            .with_label_values(&[intake, peer, service])
            .inc_by(received);

        let is_wanted = telemetry.logged == Logged::All || reason != Reason::Completed;
        if !telemetry.access_log.is_on() || !is_wanted {
            return;
        }
        if self.is_left_out {
            return telemetry.left_out(self.intake);
        }
        let line = Line {
            time: jiff::Timestamp::now().to_string(),
            intake,
            src: self.source,
            route: self.route.as_deref().map(RouteName::to_string),
            asked: self.asked.as_deref(),
            peer: self.peer.as_deref(),
            dst: self.endpoint,
            code: reason.code(),
            reason: reason.name(),
            attempts: self.attempts,
            bytes_sent: sent,
            bytes_received: received,
            datagrams_sent: datagrams.map(|(sent, _)| sent),
            datagrams_received: datagrams.map(|(_, received)| received),
            setup_ms: self.setup.map(milliseconds),
            duration_ms: milliseconds(duration),
        };
        if let Ok(line) = serde_json::to_string(&line) {
            telemetry.access_log.write(&line);
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.closed {
            let reason = Reason::Failed(corinth_model::Failure::Internal);
            self.write(&Carried::default(), None, reason, Instant::now());
        }
    }
}

/// `payments.shop:8080`.
fn service_label(route: &RouteName) -> String {
    format!("{}:{}", route.service, route.port)
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
