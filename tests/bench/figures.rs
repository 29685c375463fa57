//! What was measured, beside what was promised.

use std::time::Duration;

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    lines: Vec<String>,
    is_missed: bool,
}

/// Times of one kind, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Figures {
    pub(crate) fn head(&mut self, what: &str) {
        self.lines.push(format!("\n{what}"));
    }

    pub(crate) fn note(&mut self, what: &str, found: &str) {
        self.lines.push(format!("  {what:<44} {found}"));
    }

    /// A figure, and whether it is as promised.
    pub(crate) fn promise(&mut self, what: &str, found: &str, promise: &str, is_kept: bool) {
        let verdict = if is_kept { "kept" } else { "MISSED" };
        self.note(what, &format!("{found} (promised: {promise}; {verdict})"));
        self.is_missed |= !is_kept;
    }

    pub(crate) fn times(&mut self, what: &str, times: &Times) {
        self.note(what, &times.shown());
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn is_missed(&self) -> bool {
        self.is_missed
    }
}

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The least time that so many of a thousand do not exceed; zero if there are none.
    pub(crate) fn permille(&self, permille: usize) -> Duration {
        let rank = (self.0.len() * permille).div_ceil(1_000).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    fn shown(&self) -> String {
        let [p50, p90, p99, most] = [500, 900, 990, 1_000].map(|part| shown(self.permille(part)));
        format!(
            "p50 {p50}, p90 {p90}, p99 {p99}, most {most} (n = {})",
            self.count()
        )
    }
}

pub(crate) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        10_000.0.. => format!("{:.1} s", ms / 1e3),
        10.0.. => format!("{ms:.0} ms"),
        _ => format!("{ms:.2} ms"),
    }
}
