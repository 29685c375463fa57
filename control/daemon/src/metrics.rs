//! The metrics of one process: a registry that refuses names that break the rules, and the text to scrape.
//!
//! Rules, checked when a metric is created: the prefix `corinth_` is added here and never written by the caller; base
//! units only (seconds, bytes, ratios); `_total` on counters and on nothing else. Resolve the child of a labelled
//! metric once per connection and keep it: each look-up takes a lock and a hash.

mod process;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, Opts, Registry, TextEncoder};
use thiserror::Error;

pub use prometheus::core;
pub use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec,
};

use process::Process;

/// What every metric name starts with, without the underscore that follows.
pub const PREFIX: &str = "corinth";

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Histogram bounds for latencies, in seconds: 0.1 ms to 10 s, each about double the one before, with marks at 5 ms
/// and 10 ms.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32,
    0.64, 1.28, 2.56, 5.0, 10.0,
];

/// Units a name must not carry because they are not base units, and the base unit to use.
const SCALED_UNITS: &[(&str, &str)] = &[
    ("ns", "seconds"),
    ("us", "seconds"),
    ("ms", "seconds"),
    ("nanoseconds", "seconds"),
    ("microseconds", "seconds"),
    ("milliseconds", "seconds"),
    ("millis", "seconds"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("kb", "bytes"),
    ("mb", "bytes"),
    ("kib", "bytes"),
    ("mib", "bytes"),
    ("kilobytes", "bytes"),
    ("megabytes", "bytes"),
    ("bits", "bytes"),
    ("percent", "ratio"),
];

/// Which program is running, shown as the labels of `corinth_build_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The name of the binary, such as `corinth-gateway`.
    pub binary: &'static str,
    /// Its version, such as `0.1.0`.
    pub version: &'static str,
}

/// The registry of one process (or of one gateway, where a process runs several); clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
}

/// Why a metric could not be created or the exposition not be written.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The name breaks a naming rule.
    #[error("metric name `{name}`: {rule}")]
    Name {
        /// The name as given, without the prefix.
        name: String,
        /// The rule it breaks and what to write instead.
        rule: String,
    },
    /// The registry refused the metric (a duplicate, a bad label) or could not encode.
    #[error(transparent)]
    Registry(#[from] prometheus::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Other,
}

impl Metrics {
    /// A registry holding `corinth_build_info` and the metrics of the process itself, read from `/proc` when scraped.
    pub fn new(build: Build) -> Result<Self, MetricsError> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let metrics = Self { registry };
        metrics
            .gauge_vec(
                "build_info",
                "Which program this is; always 1.",
                &["binary", "version"],
            )?
            .with_label_values(&[build.binary, build.version])
            .set(1);
        metrics.register(Box::new(Process::new()?))?;
        Ok(metrics)
    }

    /// A counter of whole things; `name` ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.add(
            name,
            Kind::Counter,
            IntCounter::with_opts(Opts::new(name, help)),
        )
    }

    /// A labelled counter of whole things; `name` ends in `_total`.
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels);
        self.add(name, Kind::Counter, counter)
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.add(
            name,
            Kind::Other,
            IntGauge::with_opts(Opts::new(name, help)),
        )
    }

    /// A labelled whole number that goes up and down.
    pub fn gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels);
        self.add(name, Kind::Other, gauge)
    }

    /// A fractional number that goes up and down: seconds, ratios.
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.add(name, Kind::Other, Gauge::with_opts(Opts::new(name, help)))
    }

    /// A labelled fractional number that goes up and down: seconds, ratios.
    pub fn float_gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, MetricsError> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels);
        self.add(name, Kind::Other, gauge)
    }

    /// A histogram over the upper bounds `buckets`, in the unit the name ends in; see [`LATENCY_BUCKETS`].
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, Kind::Other, Histogram::with_opts(options))
    }

    /// A labelled histogram over the upper bounds `buckets`, in the unit the name ends in; see [`LATENCY_BUCKETS`].
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, MetricsError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, Kind::Other, HistogramVec::new(options, labels))
    }

    /// Adds a collector that computes its numbers when scraped; its names get the prefix, but only the caller can keep
    /// them to the rules.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), MetricsError> {
        Ok(self.registry.register(collector)?)
    }

    /// Everything registered, in the Prometheus text format ([`CONTENT_TYPE`]).
    pub fn text(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    fn add<M: Collector + Clone + 'static>(
        &self,
        name: &str,
        kind: Kind,
        metric: prometheus::Result<M>,
    ) -> Result<M, MetricsError> {
        check_name(name, kind).map_err(|rule| MetricsError::Name {
            name: name.to_owned(),
            rule,
        })?;
        let metric = metric?;
        self.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Checks `name` against the naming rules; the error says which rule it breaks.
fn check_name(name: &str, kind: Kind) -> Result<(), String> {
    if name.starts_with("corinth_") {
        return Err("the prefix `corinth_` is added by the registry; leave it out".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(plain) {
        return Err("write lower-case words joined by underscores".to_owned());
    }
    for word in name.split('_') {
        if word.is_empty() {
            return Err("write lower-case words joined by single underscores".to_owned());
        }
        if let Some((_, base)) = SCALED_UNITS.iter().find(|(scaled, _)| *scaled == word) {
            return Err(format!(
                "`{word}` is not a base unit; measure in `{base}` instead"
            ));
        }
    }
    match (kind, name.ends_with("_total")) {
        (Kind::Counter, false) => return Err("a counter ends in `_total`".to_owned()),
        (Kind::Other, true) => return Err("only a counter ends in `_total`".to_owned()),
        (Kind::Counter, true) | (Kind::Other, false) => {}
    }
    let reserved = ["_bucket", "_count", "_sum"];
    if let Some(suffix) = reserved.iter().find(|suffix| name.ends_with(*suffix)) {
        return Err(format!("`{suffix}` belongs to the series of a histogram"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Build {
            binary: "corinth-test",
            version: "9.8.7",
        })
        .unwrap()
    }

    #[test]
    fn every_line_carries_the_prefix() {
        let metrics = metrics();
        metrics.counter("refusals_total", "Refusals.").unwrap();
        let text = metrics.text().unwrap();
        for line in text.lines() {
            let name = line
                .strip_prefix("# HELP ")
                .or_else(|| line.strip_prefix("# TYPE "))
                .unwrap_or(line);
            assert!(name.starts_with("corinth_"), "{line}");
        }
    }

    #[test]
    fn text_shows_build_and_labelled_values() {
        let metrics = metrics();
        let closed = metrics
            .counter_vec(
                "connections_closed_total",
                "Connections that ended.",
                &["reason"],
            )
            .unwrap();
        closed.with_label_values(&["a\"b\nc"]).inc_by(3);
        let setup = metrics
            .histogram("connection_setup_seconds", "Setup.", LATENCY_BUCKETS)
            .unwrap();
        setup.observe(0.004);
        let text = metrics.text().unwrap();
        let expected = [
            "corinth_build_info{binary=\"corinth-test\",version=\"9.8.7\"} 1\n",
            "# TYPE corinth_connections_closed_total counter\n",
            "corinth_connections_closed_total{reason=\"a\\\"b\\nc\"} 3\n",
            "corinth_connection_setup_seconds_bucket{le=\"0.0032\"} 0\n",
            "corinth_connection_setup_seconds_bucket{le=\"0.005\"} 1\n",
            "corinth_connection_setup_seconds_count 1\n",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn process_metrics_hold_plausible_values() {
        let metrics = metrics();
        let text = metrics.text().unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("corinth_process_resident_memory_bytes ") > 100_000.0);
        assert!(value("corinth_process_open_fds ") >= 3.0);
        assert!(value("corinth_process_max_fds ") >= value("corinth_process_open_fds "));
        assert!(value("corinth_process_threads ") >= 1.0);
        assert!(value("corinth_process_start_time_seconds ") > 1_600_000_000.0);
        assert!(value("corinth_process_cpu_seconds_total ") >= 0.0);
    }

    #[test]
    fn processor_seconds_never_fall_between_scrapes() {
        let metrics = metrics();
        let read = || -> f64 {
            let text = metrics.text().unwrap();
            let line = text
                .lines()
                .find(|line| line.starts_with("corinth_process_cpu_seconds_total "))
                .unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let first = read();
        let mut last = first;
        while last <= first {
            let now = read();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        let metrics = metrics();
        let counters = [
            ("bytes_sent", "a counter ends in `_total`"),
            (
                "corinth_x_total",
                "the prefix `corinth_` is added by the registry; leave it out",
            ),
            (
                "wait_ms_total",
                "`ms` is not a base unit; measure in `seconds` instead",
            ),
            (
                "Bytes_total",
                "write lower-case words joined by underscores",
            ),
            (
                "a__b_total",
                "write lower-case words joined by single underscores",
            ),
            ("", "write lower-case words joined by underscores"),
        ];
        for (name, rule) in counters {
            let error = metrics.counter(name, "Help.").unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("metric name `{name}`: {rule}"),
                "{name}"
            );
        }
        let gauges = [
            ("streams_total", "only a counter ends in `_total`"),
            (
                "stream_count",
                "`_count` belongs to the series of a histogram",
            ),
            (
                "heap_kib",
                "`kib` is not a base unit; measure in `bytes` instead",
            ),
            (
                "full_percent",
                "`percent` is not a base unit; measure in `ratio` instead",
            ),
        ];
        for (name, rule) in gauges {
            let error = metrics.gauge(name, "Help.").unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("metric name `{name}`: {rule}"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_second_metric_of_the_same_name_is_refused() {
        let metrics = metrics();
        metrics.gauge("links", "Links.").unwrap();
        let error = metrics.gauge("links", "Links.").unwrap_err();
        assert!(matches!(error, MetricsError::Registry(_)), "{error}");
    }

    #[test]
    fn two_registries_in_one_process_are_apart() {
        let (one, two) = (metrics(), metrics());
        one.gauge("links", "Links.").unwrap().set(7);
        two.gauge("links", "Links.").unwrap();
        assert!(one.text().unwrap().contains("\ncorinth_links 7\n"));
        assert!(two.text().unwrap().contains("\ncorinth_links 0\n"));
    }
}
