//! What a test is to do, before anything is done.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The port of a server, unless told otherwise.
pub const PORT_DEFAULT: u16 = 5301;

/// A message carries its number, so it has room for one.
pub const MESSAGE_MIN_BYTES: u64 = 8;

/// Larger requests or writes measure the memory, not the path.
pub const MESSAGE_MAX_BYTES: u64 = 16 << 20;

/// More connections than this need more than one client.
pub const CONNECTIONS_MAX: u32 = 65_536;

/// What is done on the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// As many bytes as fit.
    Stream,
    /// Request and response on kept connections.
    Rr,
    /// Connect, request, response, close.
    Crr,
    /// Datagrams at a rate.
    Udp,
    /// Connections that are held and do nothing.
    Idle,
    /// HTTP/1.1 requests.
    Http,
    /// Requests and responses while bulk streams run.
    Mix,
    /// Numbered requests at a steady beat: how long was nobody answered?
    Probe,
}

impl Workload {
    /// All of them, in the order in which they are explained.
    pub const ALL: [Self; 8] = [
        Self::Stream,
        Self::Rr,
        Self::Crr,
        Self::Udp,
        Self::Idle,
        Self::Http,
        Self::Mix,
        Self::Probe,
    ];

    /// The word for it on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Rr => "rr",
            Self::Crr => "crr",
            Self::Udp => "udp",
            Self::Idle => "idle",
            Self::Http => "http",
            Self::Mix => "mix",
            Self::Probe => "probe",
        }
    }

    /// How long a message is when nobody says. For `stream` and `mix` it is the size of one write of a stream.
    pub const fn message_default_bytes(self) -> u64 {
        match self {
            Self::Stream => 128 << 10,
            // What fits a packet of 1,500 bytes with TCP-like headers, as iperf3 chooses it.
            Self::Udp => 1_448,
            Self::Rr | Self::Crr | Self::Idle | Self::Http | Self::Mix | Self::Probe => 64,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|known| known.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("no such workload; there are {}", names.join(", "))
        })
    }
}

/// Which way the payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From client to server.
    #[default]
    Up,
    /// From server to client.
    Down,
    /// Both at once, on separate connections.
    Both,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// When the answer to the one before is there.
    Closed,
    /// On a fixed schedule, answered or not.
    PerSecond(f64),
    /// On a schedule of this share of the highest rate that the path was found to hold.
    PercentOfKnee(f64),
}

/// How much of each request or response is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Nothing: the payload is whatever.
    #[default]
    Off,
    /// Every byte, against a pattern made from a seed.
    EveryByte,
}

/// How the sender and the receiver of a stream treat the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copying {
    /// Written from memory, read to memory: what applications do.
    #[default]
    Both,
    /// Sent from a file without a copy, read to memory.
    ReceiveOnly,
    /// Written from memory, dropped in the kernel at the receiver.
    SendOnly,
    /// Neither.
    Neither,
}

impl Copying {
    /// Whether the sender takes the payload from a file.
    pub const fn sends_a_file(self) -> bool {
        matches!(self, Self::ReceiveOnly | Self::Neither)
    }

    /// Whether the receiver drops the payload where it is.
    pub const fn drops_in_kernel(self) -> bool {
        matches!(self, Self::SendOnly | Self::Neither)
    }
}

/// Whether an HTTP connection serves more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Kept alive.
    #[default]
    Kept,
    /// Closed after each response.
    OncePerRequest,
}

/// A test, whole. What is `None` was not asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestSpec {
    /// What is done.
    pub workload: Workload,
    /// Host and port, or an URL for `http`.
    pub target: String,
    /// How long is measured, after what is omitted.
    pub duration_ms: u64,
    /// How long at the start is not counted.
    #[serde(default)]
    pub omit_ms: u64,
    /// The time between two interim reports; 0 for none.
    #[serde(default)]
    pub interval_ms: u64,
    /// Connections in each direction.
    pub connections: u32,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// Size of a write, request or datagram.
    pub message_bytes: u64,
    /// Size of a response.
    #[serde(default)]
    pub response_bytes: u64,
    /// Requests per second that are sent whatever happens, over all connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// Share of the knee the rate was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee_percent: Option<f64>,
    /// The limit for each stream, or the rate of each flow of datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<u64>,
    /// The end comes when this many bytes were carried in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// The congestion control that both sides ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion_control: Option<String>,
    /// The size of socket buffers that both sides ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_buffer_bytes: Option<u64>,
    /// Bulk streams beside the requests of a `mix`.
    #[serde(default)]
    pub elephants: u32,
    /// How a request that is not answered in time is treated.
    pub timeout_ms: u64,
    /// What is checked.
    #[serde(default)]
    pub verify: Verify,
    /// The copies that are made of a stream.
    #[serde(default)]
    pub copying: Copying,
    /// For `http`.
    #[serde(default)]
    pub reuse: Reuse,
    /// What the payload is made from.
    #[serde(default)]
    pub seed: u64,
}

impl TestSpec {
    /// A test of ten seconds on one connection; what else there is gets its usual value.
    pub fn new(workload: Workload, target: impl Into<String>) -> Self {
        let message_bytes = workload.message_default_bytes();
        Self {
            workload,
            target: target.into(),
            duration_ms: 10_000,
            omit_ms: 0,
            interval_ms: 1_000,
            connections: 1,
            direction: Direction::Up,
            message_bytes,
            response_bytes: message_bytes,
            rate_per_second: match workload {
                Workload::Probe => Some(1_000.0),
                Workload::Stream
                | Workload::Rr
                | Workload::Crr
                | Workload::Udp
                | Workload::Idle
                | Workload::Http
                | Workload::Mix => None,
            },
            knee_percent: None,
            bits_per_second: match workload {
                Workload::Udp => Some(1_000_000),
                Workload::Stream
                | Workload::Rr
                | Workload::Crr
                | Workload::Idle
                | Workload::Http
                | Workload::Mix
                | Workload::Probe => None,
            },
            total_bytes: None,
            congestion_control: None,
            socket_buffer_bytes: None,
            elephants: u32::from(workload == Workload::Mix),
            timeout_ms: match workload {
                Workload::Probe => 250,
                Workload::Stream
                | Workload::Rr
                | Workload::Crr
                | Workload::Udp
                | Workload::Idle
                | Workload::Http
                | Workload::Mix => 5_000,
            },
            verify: Verify::Off,
            copying: Copying::Both,
            reuse: Reuse::Kept,
            seed: 0,
        }
    }

    /// How long is measured.
    pub const fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }

    /// How long is waited before anything counts.
    pub const fn omit(&self) -> Duration {
        Duration::from_millis(self.omit_ms)
    }

    /// How long an answer may take.
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// When requests are sent.
    pub fn pace(&self) -> Pace {
        match (self.rate_per_second, self.knee_percent) {
            (Some(rate), _) => Pace::PerSecond(rate),
            (None, Some(percent)) => Pace::PercentOfKnee(percent),
            (None, None) => Pace::Closed,
        }
    }

    /// What makes it impossible, in words for whoever asked.
    pub fn fault(&self) -> Option<String> {
        if self.connections == 0 || self.connections > CONNECTIONS_MAX {
            return Some(format!("connections must be 1 to {CONNECTIONS_MAX}"));
        }
        if self.elephants > CONNECTIONS_MAX {
            return Some(format!("bulk streams must be at most {CONNECTIONS_MAX}"));
        }
        if self.duration_ms == 0 && self.total_bytes.is_none() {
            return Some("a test needs a duration or a number of bytes".to_owned());
        }
        if self.timeout_ms == 0 {
            return Some("the time-out must be above zero".to_owned());
        }
        if self.message_bytes > MESSAGE_MAX_BYTES || self.response_bytes > MESSAGE_MAX_BYTES {
            return Some(format!(
                "a message must be at most {MESSAGE_MAX_BYTES} bytes"
            ));
        }
        self.message_fault()
            .or_else(|| self.rate_fault())
            .or_else(|| self.combination_fault())
    }

    fn message_fault(&self) -> Option<String> {
        let (least_bytes, most_bytes) = match self.workload {
            Workload::Stream => (1, MESSAGE_MAX_BYTES),
            Workload::Udp => (
                crate::datagram::HEADER_BYTES as u64,
                crate::datagram::MAX_BYTES as u64,
            ),
            Workload::Http => (0, MESSAGE_MAX_BYTES),
            Workload::Rr | Workload::Crr | Workload::Idle | Workload::Mix | Workload::Probe => {
                (MESSAGE_MIN_BYTES, MESSAGE_MAX_BYTES)
            }
        };
        let response_is_read = matches!(
            self.workload,
            Workload::Rr | Workload::Crr | Workload::Idle | Workload::Mix | Workload::Probe
        );
        let is_outside = |bytes: u64| !(least_bytes..=most_bytes).contains(&bytes);
        (is_outside(self.message_bytes) || response_is_read && is_outside(self.response_bytes))
            .then(|| {
                format!(
                    "a message of {} must be {least_bytes} to {most_bytes} bytes",
                    self.workload
                )
            })
    }

    fn rate_fault(&self) -> Option<String> {
        let is_wrong = |rate: f64| !rate.is_finite() || rate <= 0.0 || rate > 10_000_000.0;
        if self.rate_per_second.is_some_and(is_wrong) {
            return Some("a rate must be above 0 and at most 10,000,000 per second".to_owned());
        }
        if self
            .knee_percent
            .is_some_and(|percent| !(percent > 0.0 && percent <= 200.0))
        {
            return Some("a share of the knee must be above 0 and at most 200 percent".to_owned());
        }
        if self.bits_per_second == Some(0) {
            return Some("a limit must be above 0 bits per second".to_owned());
        }
        if self.workload == Workload::Probe && self.rate_per_second.is_none() {
            return Some("a probe needs a beat".to_owned());
        }
        None
    }

    fn combination_fault(&self) -> Option<String> {
        if self.copying != Copying::Both && self.verify == Verify::EveryByte {
            return Some("what is not copied cannot be verified".to_owned());
        }
        if self.total_bytes.is_some() && self.workload != Workload::Stream {
            return Some("a number of bytes is for streams; give others a duration".to_owned());
        }
        if self.workload == Workload::Probe && self.connections != 1 {
            return Some("a probe has one connection".to_owned());
        }
        let is_checked = match self.workload {
            Workload::Stream | Workload::Rr | Workload::Crr | Workload::Mix | Workload::Probe => {
                true
            }
            Workload::Udp | Workload::Idle | Workload::Http => false,
        };
        if self.verify == Verify::EveryByte && !is_checked {
            return Some(format!(
                "the payload of {} cannot be verified",
                self.workload
            ));
        }
        self.foreign_fault()
    }

    /// What was asked for that has no meaning for this workload.
    fn foreign_fault(&self) -> Option<String> {
        use Workload::{Http, Mix, Probe, Rr, Stream, Udp};
        let asked: [(bool, &str, &[Workload]); 6] = [
            // How fast crr opens connections is what it measures.
            (
                self.pace() != Pace::Closed,
                "a rate of requests",
                &[Rr, Http, Mix, Probe],
            ),
            (
                self.direction != Direction::Up,
                "a direction",
                &[Stream, Udp, Mix],
            ),
            (
                self.bits_per_second.is_some(),
                "a limit in bits per second",
                &[Stream, Udp, Mix],
            ),
            (
                self.copying != Copying::Both,
                "leaving out a copy",
                &[Stream, Mix],
            ),
            (self.elephants > 0, "a number of bulk streams", &[Mix]),
            (
                self.reuse == Reuse::OncePerRequest,
                "a new connection for each request",
                &[Http],
            ),
        ];
        let (_, what, has) = asked
            .into_iter()
            .find(|(is_asked, _, has)| *is_asked && !has.contains(&self.workload))?;
        let has: Vec<&str> = has.iter().map(|workload| workload.name()).collect();
        Some(format!(
            "{what} is for {}, not for {}",
            has.join(", "),
            self.workload
        ))
    }
}

#[cfg(test)]
mod tests;
