//! What may be held, and for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{At, Field};
use super::mistake::{Findings, MistakeCode};
use super::peer::STREAMS_MAX;
use super::units::{self, Size, Span, SpanOrOff};
use super::value::{Number, number};

const MIB: u64 = 1024 * 1024;
/// No phase of a connection sensibly takes longer.
const PHASE_MAX: Duration = Duration::from_mins(10);
/// Below this, a busy machine would look like a broken one.
const PHASE_MIN: Duration = Duration::from_millis(10);
/// What load balancers and peers need to notice.
const DRAIN_DELAY: Duration = Duration::from_secs(5);
/// What most requests need to end.
const DRAIN_LIMIT: Duration = Duration::from_mins(1);
/// Longest drain; what still runs then has been told often enough.
const DRAIN_MAX: Duration = Duration::from_hours(24);

/// Most that may be held for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes held for all who have not proven who they are.
    #[serde(serialize_with = "units::serialize_size")]
    pub unauthenticated_bytes: u64,
    /// Connections of all who have not proven who they are.
    pub unauthenticated_connections: u32,
    /// Of these, from one IPv4 address or IPv6 /64.
    pub per_prefix_connections: u32,
    /// Streams one peer may have open here, unless its own entry says otherwise.
    pub streams_per_peer: u32,
    /// Flows (UDP) of local clients and of peers together.
    pub flows: u32,
    /// Flows one peer may have open here.
    pub flows_per_peer: u32,
    /// Flows of one client: an IPv4 address or an IPv6 /64.
    pub flows_per_client: u32,
}

/// How long each phase of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// A client's whole ClientHello or request, and again the rest of the TLS handshake.
    #[serde(serialize_with = "units::serialize_duration")]
    pub tls_handshake: Duration,
    /// From the end of the handshake to the first frame.
    #[serde(serialize_with = "units::serialize_duration")]
    pub first_frame: Duration,
    /// Connecting to one endpoint.
    #[serde(serialize_with = "units::serialize_duration")]
    pub connect: Duration,
    /// All attempts of one connection together.
    #[serde(serialize_with = "units::serialize_duration")]
    pub open: Duration,
    /// Without a byte in either direction; none means for ever.
    #[serde(serialize_with = "units::serialize_duration_or_off")]
    pub idle: Option<Duration>,
    /// Without a datagram of a flow that was answered before.
    #[serde(serialize_with = "units::serialize_duration")]
    pub flow_idle: Duration,
    /// Without an answer to a flow.
    #[serde(serialize_with = "units::serialize_duration")]
    pub flow_unanswered: Duration,
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Between being told to stop and refusing new work, so that others notice; zero where switched off.
    #[serde(serialize_with = "units::serialize_duration")]
    pub delay: Duration,
    /// From then to cutting what still runs.
    #[serde(serialize_with = "units::serialize_duration")]
    pub limit: Duration,
}

/// Most that may be held for others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Bytes held for all who have not proven who they are. Default `32MiB`.
    unauthenticated_bytes: Option<Field<Size>>,
    /// Connections of all who have not proven who they are. Default 1024.
    unauthenticated_connections: Option<Field<Number>>,
    /// Of these, from one IPv4 address or IPv6 /64. Default 64.
    per_prefix_connections: Option<Field<Number>>,
    /// Streams one peer may have open here. Default 10000.
    streams_per_peer: Option<Field<Number>>,
    /// Flows (UDP) of local clients and of peers together. Default 16384.
    flows: Option<Field<Number>>,
    /// Flows one peer may have open here. Default 8192.
    flows_per_peer: Option<Field<Number>>,
    /// Flows of one client, an IPv4 address or an IPv6 /64; never more than half of `flows`. Default 4096.
    flows_per_client: Option<Field<Number>>,
}

/// How long each phase of a connection may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawTimeouts {
    /// A client's whole ClientHello or request, and again the rest of the TLS handshake. Default `3s`.
    tls_handshake: Option<Field<Span>>,
    /// From the end of the handshake to the first frame. Default `5s`.
    first_frame: Option<Field<Span>>,
    /// Connecting to one endpoint. Default `1s`.
    connect: Option<Field<Span>>,
    /// All attempts of one connection together. Default `10s`.
    open: Option<Field<Span>>,
    /// Without a byte in either direction, or `off`. Default `1h`.
    idle: Option<Field<SpanOrOff>>,
    /// Without a datagram of a flow (UDP) that was answered before. Default `3m`.
    flow_idle: Option<Field<Span>>,
    /// Without an answer to a flow. Default `30s`.
    flow_unanswered: Option<Field<Span>>,
}

/// How the gateway stops.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDrain {
    /// Between being told to stop and refusing new work, or `off`. Default `5s`.
    delay: Option<Field<SpanOrOff>>,
    /// From then to cutting what still runs. Default `60s`.
    limit: Option<Field<Span>>,
}

impl Limits {
    pub(super) fn read(raw: RawLimits, found: &mut Findings) -> Self {
        let per_prefix_at = raw.per_prefix_connections.as_ref().map(|field| field.at);
        let limits = Self {
            unauthenticated_bytes: bytes(raw.unauthenticated_bytes, 32 * MIB, found),
            unauthenticated_connections: number(
                raw.unauthenticated_connections,
                1024,
                16..=65_536,
                found,
            ),
            per_prefix_connections: number(raw.per_prefix_connections, 64, 1..=65_536, found),
            streams_per_peer: number(raw.streams_per_peer, 10_000, 1..=STREAMS_MAX, found),
            flows: number(raw.flows, 16_384, 1..=STREAMS_MAX, found),
            flows_per_peer: number(raw.flows_per_peer, 8_192, 1..=STREAMS_MAX, found),
            flows_per_client: number(raw.flows_per_client, 4_096, 1..=STREAMS_MAX, found),
        };
        let of_all = limits.unauthenticated_connections;
        if let Some(at) = per_prefix_at.filter(|_| limits.per_prefix_connections > of_all) {
            found.add(
                at,
                MistakeCode::OutOfRange,
                "one prefix may not hold more connections than all together",
                format!("write at most {of_all}, or raise `unauthenticatedConnections`"),
            );
        }
        limits
    }
}

impl Timeouts {
    pub(super) fn read(raw: RawTimeouts, found: &mut Findings) -> Self {
        let flow_idle = silence(raw.flow_idle, Duration::from_mins(3), found);
        let flow_unanswered = silence(raw.flow_unanswered, Duration::from_secs(30), found);
        let mut phase = |field: Option<Field<Span>>, default_ms| {
            let default = Duration::from_millis(default_ms);
            units::within(field, default, PHASE_MIN..=PHASE_MAX, found)
        };
        let written_at =
            [&raw.connect, &raw.open].map(|field| field.as_ref().map(|field| field.at));
        let mut timeouts = Self {
            tls_handshake: phase(raw.tls_handshake, 3_000),
            first_frame: phase(raw.first_frame, 5_000),
            connect: phase(raw.connect, 1_000),
            open: phase(raw.open, 10_000),
            idle: Some(Duration::from_hours(1)),
            flow_idle,
            flow_unanswered,
        };
        if let Some(SpanOrOff(idle)) = raw.idle.and_then(|field| field.take(found)) {
            timeouts.idle = idle;
        }
        let at = written_at.into_iter().flatten().max();
        if let Some(at) = at.filter(|_| timeouts.open < timeouts.connect) {
            found.add(
                at,
                MistakeCode::OutOfRange,
                "`open` is for all attempts together and cannot be shorter than `connect`, which is for one",
                "raise `open` or lower `connect`",
            );
        }
        timeouts
    }
}

/// How long a flow may be silent: not so short that one between two datagrams ends, nor for ever.
fn silence(field: Option<Field<Span>>, default: Duration, found: &mut Findings) -> Duration {
    units::within(
        field,
        default,
        Duration::from_secs(1)..=Duration::from_hours(1),
        found,
    )
}

impl Drain {
    pub(super) fn read(raw: RawDrain, found: &mut Findings) -> Self {
        let delay = raw.delay.and_then(|field| field.placed(found));
        if let Some(At {
            at,
            value: SpanOrOff(Some(delay)),
        }) = delay
            && delay > DRAIN_MAX
        {
            let hint = format!("write at most `{}`", units::duration(DRAIN_MAX));
            let message = format!("{} is outside the limits here", units::duration(delay));
            found.add(at, MistakeCode::OutOfRange, message, hint);
        }
        Self {
            delay: delay.map_or(DRAIN_DELAY, |delay| delay.value.0.unwrap_or_default()),
            limit: units::within(
                raw.limit,
                DRAIN_LIMIT,
                Duration::from_secs(1)..=DRAIN_MAX,
                found,
            ),
        }
    }
}

fn bytes(field: Option<Field<Size>>, default: u64, found: &mut Findings) -> u64 {
    let limits = MIB..=1024 * MIB;
    let Some(At {
        at,
        value: Size(value),
    }) = field.and_then(|field| field.placed(found))
    else {
        return default;
    };
    if limits.contains(&value) {
        return value;
    }
    let (least, most) = (units::size(*limits.start()), units::size(*limits.end()));
    found.add(
        at,
        MistakeCode::OutOfRange,
        format!("{} is outside the limits here", units::size(value)),
        format!("write a size from {least} to {most}"),
    );
    default
}
