//! What is said about a connection: liveness, announced slots, draining, closing.
//!
//! The dialer sends PING every interval and the other side answers PONG. Four in a row unanswered, or one late answer while
//! a stream waits for its own, mark the path dead. An acknowledgement is an answer too: probes that the path loses are not
//! repeated, but QUIC asks again by itself for what is not acknowledged. The answering side notices silence for as long.
//! Streams of a path that died go on if it comes back before QUIC gives the connection up.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use corinth_model::Failure;
use quinn::FrameStats;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::debug;

use super::{
    Shared, Worker, code, datagram,
    dial::replace,
    frames::{Control, Said},
    link::QuicLink,
    serve,
    tunnel::Tunnel,
};
use crate::{
    LinkState, StreamError,
    tls::frame::{Kind, Ping, Pong},
};

/// Probes in a row without an answer that mark a path dead.
const MISSED_MAX: u64 = 4;
/// Probes in a row without an answer from which on answers are overdue: whoever has another way takes it.
const OVERDUE: u64 = 2;
/// In the first byte of a PING: nobody opens streams of the frames' kind here.
const ROLE_CONTROL: u8 = 2;
/// The bits of it that say so. Above them is the number of the worker that drives the connection.
const ROLE_BITS: u32 = 2;
/// Streams of a closed link have this long to end by themselves.
const CLOSING: Duration = Duration::from_millis(500);
/// A connection that another one has taken the place of is closed when it had no stream for so many probes: what the peer
/// opened before it knew of the other has arrived by then.
const REPLACED_MAX: u32 = 5;

/// Serves a connection that the peer dialled, until it ends.
pub(super) async fn answer(shared: &Arc<Shared>, tunnel: Tunnel) -> Result<(), StreamError> {
    let asked = timeout(shared.settings.timeouts.first_frame, asked(&tunnel)).await;
    let (mut control, nonce, worker) = asked.map_err(|_| {
        StreamError::Failed(
            Failure::FirstFrameTimeout,
            "no first frame within its deadline",
        )
    })??;
    let link = shared.link_to(&tunnel.peer);
    let tunnel = Arc::new(tunnel);
    control.put(Kind::Pong, &pong(shared, &link, &tunnel, nonce))?;
    link.alive(&tunnel, false, worker, false);
    carry(Arc::clone(shared), link, tunnel, control, Side::Acceptor).await;
    Ok(())
}

/// Waits for the dialer's first PING, and opens our control stream.
async fn asked(tunnel: &Tunnel) -> Result<(Control, u64, Worker), StreamError> {
    let lost = |error| code::lost(&error);
    let recv = tunnel.quic.accept_uni().await.map_err(lost)?;
    let send = tunnel.quic.open_uni().await.map_err(lost)?;
    let mut control = Control::new(&tunnel.waiting, send, recv);
    let Said { kind, payload, .. } = control.next().await?;
    let ping = Ping::read(&payload)
        .filter(|ping| kind == Kind::Ping && ping.role & ((1 << ROLE_BITS) - 1) == ROLE_CONTROL);
    let ping = ping.ok_or(StreamError::Protocol(
        "a connection that does not begin with a PING",
    ))?;
    Ok((control, ping.nonce, Worker(ping.role >> ROLE_BITS)))
}

/// Which side of a connection we are.
pub(super) enum Side {
    Dialer(Probes),
    Acceptor,
}

/// Serves both what is said about a connection and the streams on it.
pub(super) async fn carry(
    shared: Arc<Shared>,
    link: Arc<QuicLink>,
    tunnel: Arc<Tunnel>,
    mut control: Control,
    side: Side,
) {
    control.hear(datagram::sort(&tunnel));
    tokio::spawn(serve::streams(
        Arc::clone(&shared),
        Arc::clone(&link),
        Arc::clone(&tunnel),
    ));
    let ended = match side {
        Side::Dialer(mut probes) => probes.run(&shared, &link, &tunnel, control).await,
        Side::Acceptor => answering(&shared, &link, &tunnel, control).await,
    };
    if let Err(error) = &ended {
        debug!(peer = %link.peer, %error, "a QUIC connection is no longer used");
    }
    link.lost(&tunnel);
    if ended.is_err() {
        tunnel.set_dead();
    }
    if let Err(error @ StreamError::Protocol(_)) = &ended {
        tunnel.close_for(Some(error.failure()));
        return;
    }
    let mut state = link.state.subscribe();
    let closed = async {
        // The sender is the link's.
        let _ = state
            .wait_for(|state| *state == LinkState::Closed)
            .await
            .is_ok();
    };
    tokio::select! {
        () = tunnel.idle() => {}
        () = closed => tunnel.idle_within(CLOSING).await,
    }
    tunnel.end(shared.closed_for.get().copied()).await;
}

/// The probes of one connection; numbers count up from 1.
pub(super) struct Probes {
    sent: u64,
    answered: u64,
    /// Packets that were acknowledged by the last look.
    acknowledged: u64,
    draining: bool,
    /// Probes for which another connection was there and no stream on this one.
    replaced: u32,
}

impl Probes {
    /// The first one was answered.
    pub(super) fn begun(draining: bool) -> Self {
        Self {
            sent: 1,
            answered: 1,
            acknowledged: 0,
            draining,
            replaced: 0,
        }
    }

    /// The dialer's side, until the path is dead, the link closed or the connection needed no more.
    async fn run(
        &mut self,
        shared: &Arc<Shared>,
        link: &Arc<QuicLink>,
        tunnel: &Arc<Tunnel>,
        mut control: Control,
    ) -> Result<(), StreamError> {
        let mut state = link.state.subscribe();
        let mut draining = link.draining.subscribe();
        // What changed before this task began counts as a change too.
        state.mark_changed();
        if *draining.borrow() {
            draining.mark_changed();
        }
        let mut ticks = interval(shared.settings.timeouts.probe_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Set while a stream waits longer than it should: the next answer must come before it.
        let mut answer_by: Option<Instant> = None;
        loop {
            tokio::select! {
                said = control.next() => match said? {
                    Said { kind: Kind::Pong, payload, .. } => {
                        self.heard(link, tunnel, &payload);
                        answer_by = None;
                    }
                    Said { kind: Kind::Drain, .. } => {
                        self.draining = true;
                        link.set_state(LinkState::Draining);
                    }
                    Said { kind: Kind::Close, .. } => return Ok(()),
                    Said { kind, .. } => return Err(misplaced(kind)),
                },
                _ = ticks.tick() => {
                    self.is_acknowledged(tunnel);
                    let missed = (self.sent - self.answered).saturating_sub(under_way(shared, link));
                    if missed >= MISSED_MAX {
                        return Err(StreamError::Failed(Failure::PathDead, "no answer to four probes"));
                    }
                    link.set_overdue(tunnel, missed >= OVERDUE);
                    if missed >= OVERDUE {
                        replace(shared, link, tunnel);
                    }
                    if self.is_replaced(link, tunnel) {
                        return control.close().await;
                    }
                    if let Some(looked) = tunnel.look(Instant::now()) {
                        link.looked(looked);
                    }
                    if tunnel.term.renew_at <= shared.now_unix_seconds() {
                        replace(shared, link, tunnel);
                    }
                    self.probe(tunnel, &mut control)?;
                }
                () = link.suspected.notified() => {
                    if answer_by.is_none() {
                        self.is_acknowledged(tunnel);
                        self.probe(tunnel, &mut control)?;
                        answer_by = Some(Instant::now() + link.answer_within());
                    }
                }
                () = sleep_until(answer_by.unwrap_or_else(far)), if answer_by.is_some() => {
                    if self.is_acknowledged(tunnel) {
                        answer_by = None;
                        continue;
                    }
                    return Err(StreamError::Failed(Failure::PathDead, "no answer while a stream waits"));
                }
                changed = state.changed() => {
                    if changed.is_err() || *state.borrow_and_update() == LinkState::Closed {
                        return control.close().await;
                    }
                }
                Ok(()) = draining.changed() => control.put(Kind::Drain, &[])?,
            }
        }
    }

    fn probe(&mut self, tunnel: &Tunnel, control: &mut Control) -> Result<(), StreamError> {
        self.sent += 1;
        let ping = Ping {
            role: role_of(tunnel.worker),
            is_filled: tunnel.is_filled(),
            nonce: self.sent,
        };
        control.probe(Kind::Ping, &ping.write())
    }

    /// Looks whether the peer has acknowledged anything since the last time: then it is there.
    fn is_acknowledged(&mut self, tunnel: &Tunnel) -> bool {
        let acknowledged = tunnel.acknowledged.packets();
        let is_news = acknowledged != self.acknowledged;
        self.acknowledged = acknowledged;
        if is_news {
            self.answered = self.sent;
        }
        is_news
    }

    fn heard(&mut self, link: &QuicLink, tunnel: &Tunnel, payload: &[u8]) {
        let Some(pong) = Pong::read(payload) else {
            return;
        };
        self.answered = self.answered.max(pong.nonce.min(self.sent));
        link.measured(tunnel.quic.rtt());
        link.set_overdue(tunnel, false);
        tunnel.set_peer_filled(pong.is_filled);
        link.announced_slots.store(u32::from(pong.slots), Relaxed);
        if pong.draining && !self.draining {
            self.draining = true;
            link.set_state(LinkState::Draining);
        }
    }

    fn is_replaced(&mut self, link: &QuicLink, tunnel: &Arc<Tunnel>) -> bool {
        if link.is_newest_dialled(tunnel) || *tunnel.streams.borrow() > 0 {
            self.replaced = 0;
            return false;
        }
        self.replaced += 1;
        self.replaced > REPLACED_MAX
    }
}

/// The acceptor's side: answers, and notices silence.
async fn answering(
    shared: &Arc<Shared>,
    link: &Arc<QuicLink>,
    tunnel: &Arc<Tunnel>,
    mut control: Control,
) -> Result<(), StreamError> {
    let interval = shared.settings.timeouts.probe_interval;
    let silence_max = interval * (MISSED_MAX as u32 + 1);
    let overdue_after = interval * (OVERDUE as u32 + 1);
    let mut state = link.state.subscribe();
    state.mark_changed();
    let mut draining = link.draining.subscribe();
    // Told in the first PONG.
    draining.mark_unchanged();
    let mut heard_at = Instant::now();
    let mut is_overdue = false;
    let mut frames_seen = frames_of(&tunnel.quic.stats().frame_rx);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            said = control.next() => match said? {
                Said { kind: Kind::Ping, payload, way } => {
                    heard_at = Instant::now();
                    is_overdue = false;
                    link.set_overdue(tunnel, false);
                    let ping = Ping::read(&payload);
                    if let Some(ping) = ping {
                        tunnel.set_peer_filled(ping.is_filled);
                    }
                    let nonce = ping.map_or(0, |ping| ping.nonce);
                    control.answer(way, &pong(shared, link, tunnel, nonce))?;
                    if let Some(looked) = tunnel.look(heard_at) {
                        link.looked(looked);
                    }
                }
                Said { kind: Kind::Drain, .. } => link.set_state(LinkState::Draining),
                Said { kind: Kind::Close, .. } => return Ok(()),
                Said { kind, .. } => return Err(misplaced(kind)),
            },
            _ = ticks.tick() => {
                let frames = frames_of(&tunnel.quic.stats().frame_rx);
                let now = Instant::now();
                // What came instead of a probe that was lost, at the earliest since the last look.
                if frames != std::mem::replace(&mut frames_seen, frames) && now > heard_at + interval {
                    heard_at = now - interval;
                    is_overdue = false;
                    link.set_overdue(tunnel, false);
                }
            }
            () = sleep_until(heard_at + overdue_after), if !is_overdue => {
                is_overdue = true;
                link.set_overdue(tunnel, true);
            }
            () = sleep_until(heard_at + silence_max) => {
                return Err(StreamError::Failed(Failure::PathDead, "the peer's probes stopped"));
            }
            changed = state.changed() => {
                if changed.is_err() || *state.borrow_and_update() == LinkState::Closed {
                    return control.close().await;
                }
            }
            Ok(()) = draining.changed() => control.put(Kind::Drain, &[])?,
        }
    }
}

/// Frames that show that the peer is there.
fn frames_of(received: &FrameStats) -> u64 {
    received.acks + received.ping + received.stream + received.datagram
}

/// A frame that is known and does not belong on a control stream.
fn misplaced(kind: Kind) -> StreamError {
    debug!(?kind, "a frame that has no place on a control stream");
    StreamError::Protocol("a frame that has no place on a control stream")
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// Probes that are under way on a healthy path as long as this one is: they are not missed yet.
fn under_way(shared: &Shared, link: &QuicLink) -> u64 {
    let round_trips_us = 2 * link.rtt_us.load(Relaxed);
    let interval_us = shared.settings.timeouts.probe_interval.as_micros().max(1) as u64;
    round_trips_us / interval_us
}

/// The first one of a connection.
pub(super) fn ping(nonce: u64, worker: Worker) -> [u8; 9] {
    let mut payload = [role_of(worker); 9];
    payload[1..].copy_from_slice(&nonce.to_be_bytes());
    payload
}

const fn role_of(worker: Worker) -> u8 {
    ROLE_CONTROL | (worker.0 << ROLE_BITS)
}

fn pong(shared: &Shared, link: &QuicLink, tunnel: &Tunnel, nonce: u64) -> [u8; 11] {
    let pong = Pong {
        nonce,
        slots: shared.settings.slots,
        draining: *link.draining.borrow(),
        worker: tunnel.worker.0,
        is_filled: tunnel.is_filled(),
    };
    pong.write()
}
