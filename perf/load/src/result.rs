//! What a test found, as it is written down: schema `corinth-perf/1`.
//!
//! A figure that was not measured is absent. Fields may be added within a version; none changes its meaning.

use serde::{Deserialize, Serialize};

pub use crate::spec::{Direction, TestSpec, Verify, Workload};

/// The version of everything in this file.
pub const SCHEMA: &str = "corinth-perf/1";

/// One test, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The test did not come to its end; what is there was measured before.
    pub partial: bool,
    /// What went wrong, in one line.
    #[serde(default)]
    pub fault: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// When it started, as RFC 3339.
    pub started: String,
    /// What was asked for.
    pub test: TestSpec,
    /// Where it ran.
    pub environment: Environment,
    /// The server's machine, if the server told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSide>,
    /// Interim figures, in the order of time.
    #[serde(default)]
    pub intervals: Vec<Interval>,
    /// Payload carried, as its receiver counted it; both directions together if there were two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
    /// The part of it that went from client to server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Throughput>,
    /// The part of it that went from server to client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Throughput>,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Response times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Fate of datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<Datagrams>,
    /// How long nobody was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Connections that were held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What `--verify` checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// The machine and the sockets of one side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the processor.
    pub cpu: String,
    /// Processors this process may use.
    pub cpus: u32,
    /// How their frequency is governed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// As granted to the connections of the test, or the default of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion_control: Option<String>,
    /// As granted by the kernel, at the end of the test (the kernel lets it grow).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_buffer_bytes: Option<u64>,
    /// As granted by the kernel, at the end of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_buffer_bytes: Option<u64>,
    /// The segments TCP settled on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<u32>,
    /// The device the connections leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its offloads that are on.
    #[serde(default)]
    pub offloads: Vec<String>,
    /// Its queueing discipline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qdisc: Option<String>,
    /// Version of this program.
    pub version: String,
    /// Revision it was built from, or of the directory it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// Tells whether two sides are one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// What the server said about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerSide {
    /// Its machine.
    pub environment: Environment,
    /// What it took there; absent if both sides are one machine, which is in the client's cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// Figures of a part of the time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Interval {
    /// From here, counted from the start of the test, what is omitted included.
    pub start_ms: f64,
    /// To here.
    pub end_ms: f64,
    /// Of which connection; none for all together.
    #[serde(default)]
    pub connection: Option<u32>,
    /// Whether it lies in the time that is not counted.
    #[serde(default)]
    pub omitted: bool,
    /// Bytes given to the kernel by the side that reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Bytes got from the kernel by the side that reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Segments TCP sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    /// Congestion window at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_bytes: Option<u64>,
    /// Requests that were answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
    /// Requests that were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
}

/// Payload over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// What the senders gave to their kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// What the receivers got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// The time the receivers counted for.
    pub seconds: f64,
    /// Received bits over that time; if the receiver did not tell, absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<f64>,
    /// Segments TCP sent again, where the sender is the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
}

/// Requests over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// Answered.
    pub completed: u64,
    /// Not answered, or answered wrongly.
    pub failed: u64,
    /// Answered ones per second.
    pub per_second: f64,
}

/// How the requests were sent whose times are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loop {
    /// On a schedule; times count from when a request was due.
    Open,
    /// Each after the answer to the one before; a stall shows once.
    Closed,
}

/// Response times, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How requests were sent.
    #[serde(rename = "loop")]
    pub loop_: Loop,
    /// Requests that were counted.
    pub count: u64,
    /// The fastest.
    pub min_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// Half were at most this.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Percentile and time, for drawing.
    #[serde(default)]
    pub curve: Vec<(f64, f64)>,
    /// The schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_per_second: Option<f64>,
    /// Share of it that was sent and answered within the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub achieved_percent: Option<f64>,
    /// The highest rate the path was found to hold, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee_per_second: Option<f64>,
    /// Whether the times mean anything: at least 99 % of the schedule was met.
    pub valid: bool,
}

/// Fate of datagrams, as their receivers saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Datagrams {
    /// Given to the kernel.
    pub sent: u64,
    /// Arrived, each counted once.
    pub received: u64,
    /// Never arrived.
    pub lost: u64,
    /// Share of what was sent.
    pub lost_percent: f64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// Variation of the transit time as in RFC 3550, 6.4.1.
    pub jitter_us: f64,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Gap {
    /// The longest time in which no answer came.
    pub longest_ms: f64,
    /// When it began, after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_at_ms: Option<f64>,
    /// Requests that were sent, or were due and could not be, and never answered.
    pub lost: u64,
    /// Requests the server got more than once. Absent if the server could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicated: Option<u64>,
    /// Requests that were due.
    pub sent: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Connections that had to be opened anew.
    #[serde(default)]
    pub reconnects: u64,
}

/// Connections that were held.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Asked for.
    pub connections: u32,
    /// Were open and had passed a few bytes both ways.
    pub opened: u32,
    /// Passed bytes again at the end.
    pub stayed: u32,
    /// How long opening them took.
    pub opening_seconds: f64,
}

/// What the check of the payload found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes compared with the pattern.
    pub bytes: u64,
    /// Connections on which something else came.
    pub corrupt_connections: u32,
}

/// What the test took, on one machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// How long was measured.
    pub seconds: f64,
    /// CPU time of the whole machine that was neither idle nor stolen.
    pub cpu_seconds: f64,
    /// The same for 10⁹ bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_gb: Option<f64>,
    /// The same for a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_request: Option<f64>,
    /// Share of the machine the hypervisor took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_percent: Option<f64>,
    /// Of the whole machine, for 10⁶ bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches_per_mb: Option<f64>,
    /// Of the whole machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<u64>,
    /// Of the whole machine, for 10⁶ bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls_per_mb: Option<f64>,
    /// Of the whole machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<u64>,
    /// Why there is no figure of system calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls_uncounted: Option<String>,
    /// This process and those it was told to watch.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// What one process took, for guidance: the kernel charges the work of a receiver to whoever sends on one machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// User and system time, its children's included that have ended.
    pub cpu_seconds: f64,
    /// Resident memory at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Resident memory at its highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_peak_bytes: Option<u64>,
    /// Voluntary and other switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<u64>,
}
