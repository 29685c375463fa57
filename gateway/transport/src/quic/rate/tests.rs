//! Controllers on a path that is made up: one bottleneck with a queue, and losses by the throw of a die.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use quinn::congestion::Controller;

use super::*;

const PACKET_BYTES: u64 = 1_400;

/// A bottleneck between two ends, and a sender.
struct Path {
    megabits: f64,
    rtt: Duration,
    /// What finds no room in the queue is lost.
    queue_bytes: f64,
    loss: f64,
    /// Acknowledgements leave only at multiples of this.
    acks_every: Duration,
    /// What there is to send; everything if there is no limit.
    app_megabits: Option<f64>,

    begin: Instant,
    now: Instant,
    rate: ByRate,
    free_at: Instant,
    /// When it was sent and when it is acknowledged, if ever; in order.
    on_its_way: VecDeque<(Instant, Option<Instant>)>,
    app_bytes: f64,
    die: fastrand::Rng,
    seen: Seen,
}

/// What was seen since the last time one looked.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    seconds: f64,
    delivered_bytes: u64,
    lost_bytes: u64,
    /// The mean of what was in the queue when something was sent.
    queued_bytes: f64,
    sent: f64,
}

impl Seen {
    fn megabits(&self) -> f64 {
        self.delivered_bytes as f64 * 8.0 / 1e6 / self.seconds
    }

    fn lost(&self) -> f64 {
        self.lost_bytes as f64 / (self.lost_bytes + self.delivered_bytes) as f64
    }
}

impl Path {
    fn of(megabits: f64, rtt_ms: u64) -> Self {
        let begin = Instant::now();
        let rtt = Duration::from_millis(rtt_ms);
        Self {
            megabits,
            rtt,
            queue_bytes: (megabits * 125e3 * rtt.as_secs_f64()).max(64e3),
            loss: 0.0,
            acks_every: Duration::ZERO,
            app_megabits: None,
            begin,
            now: begin,
            rate: ByRate::new(begin, PACKET_BYTES as u16),
            free_at: begin,
            on_its_way: VecDeque::new(),
            app_bytes: 0.0,
            die: fastrand::Rng::with_seed(7),
            seen: Seen::default(),
        }
    }

    fn product_bytes(&self) -> f64 {
        self.megabits * 125e3 * self.rtt.as_secs_f64()
    }

    fn in_flight(&self) -> u64 {
        self.on_its_way.len() as u64 * PACKET_BYTES
    }

    fn queued_bytes(&self) -> f64 {
        let waits = self.free_at.saturating_duration_since(self.now);
        waits.as_secs_f64() * self.megabits * 125e3
    }

    /// Lets it go on for some time; what was seen in it.
    fn go_on(&mut self, seconds: f64) -> Seen {
        self.seen = Seen::default();
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.send();
            self.advance();
            self.acknowledge();
        }
        self.seen.seconds = seconds;
        self.seen.queued_bytes /= self.seen.sent.max(1.0);
        self.seen
    }

    fn has_something_to_send(&self) -> bool {
        self.app_megabits.is_none() || self.app_bytes >= PACKET_BYTES as f64
    }

    fn send(&mut self) {
        while self.in_flight() + PACKET_BYTES <= self.rate.window() && self.has_something_to_send()
        {
            self.app_bytes -= PACKET_BYTES as f64;
            let queued = self.queued_bytes();
            self.seen.queued_bytes += queued;
            self.seen.sent += 1.0;
            let is_lost = self.die.f64() < self.loss || queued > self.queue_bytes;
            let arrives = (!is_lost).then(|| {
                let takes = PACKET_BYTES as f64 / (self.megabits * 125e3);
                self.free_at = self.free_at.max(self.now) + Duration::from_secs_f64(takes);
                self.rounded(self.free_at + self.rtt)
            });
            self.on_its_way.push_back((self.now, arrives));
            self.rate.on_sent(self.now, PACKET_BYTES, 0);
        }
    }

    fn rounded(&self, at: Instant) -> Instant {
        let every = self.acks_every.as_nanos().max(1);
        let since = (at - self.begin).as_nanos().div_ceil(every) * every;
        self.begin + Duration::from_nanos(since as u64)
    }

    /// To the next moment in which something happens.
    fn advance(&mut self) {
        let next = self.on_its_way.iter().find_map(|(_, arrives)| *arrives);
        let tick = self.now + Duration::from_millis(1);
        let step = next.unwrap_or(tick).min(tick).max(self.now) - self.now;
        self.app_bytes += self.app_megabits.unwrap_or(0.0) * 125e3 * step.as_secs_f64();
        self.now += step;
    }

    /// Takes in what has arrived by now. What was sent before and has not is lost.
    fn acknowledge(&mut self) {
        let mut arrived = 0;
        for (at, (_, arrives)) in self.on_its_way.iter().enumerate() {
            match arrives {
                Some(arrives) if *arrives > self.now => break,
                Some(_) => arrived = at + 1,
                None => {}
            }
        }
        if arrived == 0 {
            return;
        }
        let is_limited = !self.has_something_to_send() && self.in_flight() < self.rate.window();
        let mut lost = 0;
        for (sent, arrives) in self.on_its_way.drain(..arrived) {
            if arrives.is_some() {
                self.seen.delivered_bytes += PACKET_BYTES;
                self.rate.delivery.acknowledged(sent, PACKET_BYTES);
            } else {
                lost += PACKET_BYTES;
            }
        }
        let in_flight = self.in_flight();
        self.rate.on_end_acks(self.now, in_flight, is_limited, None);
        if lost > 0 {
            self.seen.lost_bytes += lost;
            self.rate
                .on_congestion_event(self.now, self.now, false, lost);
        }
    }
}

#[test]
fn a_path_is_full_and_its_queue_short() {
    for (megabits, rtt_ms) in [(10.0, 40), (50.0, 10), (100.0, 60)] {
        let mut path = Path::of(megabits, rtt_ms);
        path.go_on(3.0);
        let seen = path.go_on(12.0);
        assert!(seen.megabits() > megabits * 0.94, "{megabits}: {seen:?}");
        assert!(seen.lost() < 0.001, "{megabits}: {seen:?}");
        let share = seen.queued_bytes / path.product_bytes();
        assert!(share < 0.5, "{megabits}: {share} {seen:?}");
    }
}

#[test]
fn the_start_fills_a_path_soon_and_loses_little() {
    for (megabits, rtt_ms) in [(100.0, 10), (200.0, 60)] {
        let mut path = Path::of(megabits, rtt_ms);
        let seen = path.go_on(1.0);
        assert!(seen.megabits() > megabits * 0.5, "{megabits}: {seen:?}");
        assert!(seen.lost() < 0.06, "{megabits}: {seen:?}");
    }
}

#[test]
fn losses_that_are_not_of_its_making_cost_little() {
    for (loss, share) in [(0.001, 0.94), (0.01, 0.92), (0.05, 0.85)] {
        let mut path = Path::of(100.0, 20);
        path.loss = loss;
        path.go_on(2.0);
        let seen = path.go_on(5.0);
        assert!(seen.megabits() > 100.0 * share, "{loss}: {seen:?}");
        assert!(seen.lost() < loss * 1.2 + 0.001, "{loss}: {seen:?}");
    }
}

#[test]
fn a_police_shows_in_what_is_lost() {
    let mut path = Path::of(20.0, 20);
    // A policer queues nothing.
    path.queue_bytes = PACKET_BYTES as f64 * 2.0;
    path.go_on(3.0);
    let seen = path.go_on(5.0);
    assert!(seen.lost() > 0.1, "{seen:?}");
    assert!(seen.megabits() > 16.0, "{seen:?}");
}

#[test]
fn a_path_that_becomes_wider_or_narrower_is_followed() {
    let mut path = Path::of(100.0, 20);
    path.go_on(3.0);
    path.megabits = 200.0;
    path.queue_bytes = path.product_bytes();
    path.go_on(1.5);
    let wide = path.go_on(2.0);
    assert!(wide.megabits() > 186.0, "{wide:?}");
    path.megabits = 50.0;
    path.queue_bytes = path.product_bytes() * 4.0;
    path.go_on(2.0);
    let narrow = path.go_on(5.0);
    assert!(narrow.megabits() > 46.0, "{narrow:?}");
    let share = narrow.queued_bytes / path.product_bytes();
    assert!(share < 0.5, "{share} {narrow:?}");
}

#[test]
fn a_path_that_becomes_longer_is_followed() {
    let mut path = Path::of(100.0, 10);
    path.go_on(3.0);
    path.rtt *= 4;
    path.queue_bytes = path.product_bytes();
    path.go_on(12.0);
    let seen = path.go_on(2.0);
    assert!(seen.megabits() > 90.0, "{seen:?}");
}

#[test]
fn acknowledgements_that_come_all_at_once_do_not_stop_the_sender() {
    let mut path = Path::of(300.0, 1);
    path.acks_every = Duration::from_millis(1);
    path.queue_bytes = 300e3;
    path.go_on(1.0);
    let seen = path.go_on(2.0);
    assert!(seen.megabits() > 240.0, "{seen:?}");
}

/// The most that may be on its way within a second.
fn largest_window(path: &mut Path) -> u64 {
    let windows = (0..1_000).map(|_| {
        path.go_on(0.001);
        path.rate.window()
    });
    windows.max().unwrap()
}

#[test]
fn on_a_short_path_its_ends_need_not_wait_for_each_other() {
    let in_a_millisecond = 125_000;
    let mut path = Path::of(1_000.0, 0);
    path.rtt = Duration::from_micros(100);
    path.queue_bytes = 4e6;
    path.go_on(0.5);
    let window = largest_window(&mut path);
    assert!(
        (in_a_millisecond..3 * in_a_millisecond).contains(&window),
        "{window}"
    );
}

#[test]
fn a_short_and_fast_path_is_not_asked_to_hold_more_than_a_small_socket_does() {
    let mut path = Path::of(10_000.0, 0);
    path.rtt = Duration::from_micros(100);
    path.queue_bytes = 416e3;
    path.go_on(0.5);
    let seen = path.go_on(0.5);
    assert!(seen.lost() < 0.001, "{seen:?}");
    assert!(seen.megabits() > 9_400.0, "{seen:?}");
}

#[test]
fn who_has_little_to_send_does_not_forget_what_the_path_carries() {
    let mut path = Path::of(200.0, 20);
    path.go_on(3.0);
    path.app_megabits = Some(5.0);
    path.app_bytes = 0.0;
    let little = path.go_on(30.0);
    assert!((4.5..5.5).contains(&little.megabits()), "{little:?}");
    path.app_megabits = None;
    let again = path.go_on(0.5);
    assert!(again.megabits() > 160.0, "{again:?}");
}
