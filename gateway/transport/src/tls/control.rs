//! Liveness of a link: the control connection and its probes.
//!
//! The dialer of a control connection sends PING every interval and the other side answers PONG. Four in
//! a row unanswered, or one late answer while a stream waits for its own, mark the path dead. The
//! answering side notices silence for as long.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use corinth_model::Failure;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::debug;

use super::{
    Role, Shared,
    connection::Connection,
    frame::{Kind, Ping, Pong},
    link::TlsLink,
    reader::Event,
    serve,
};
use crate::{DialError, DialTarget, LinkState, StreamError};

/// Probes in a row without an answer that mark a path dead.
const MISSED_MAX: u64 = 4;

/// Dials a control connection. Returns the link to the gateway that answered, alive from now on.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    target: &DialTarget,
) -> Result<Arc<TlsLink>, DialError> {
    let mut connection = shared.dial(target, Role::Control).await?;
    // The answer proves that the peer accepted our certificate too (RFC 8446 §4.4.4: we finish first).
    let asked = Instant::now();
    let first = timeout(shared.settings.timeouts.first_frame, connection.next())
        .await
        .map_err(|_| DialError::HandshakeTimeout {
            address: target.address,
        })?;
    let pong = match &first {
        Ok(Event::Frame {
            kind: Kind::Pong,
            payload,
            ..
        }) => Pong::read(payload),
        // Whatever else comes instead, an alert or the end: the peer has not taken us in.
        Ok(_) | Err(_) => None,
    };
    let Some(pong) = pong else {
        return Err(DialError::Handshake {
            address: target.address,
            failure: Failure::Untrusted,
            detail:
                "the peer closed the connection after our certificate; does it have our bundle, \
                 and do the clocks agree? its log says why"
                    .to_owned(),
        });
    };
    let link = shared.link_to(&connection.peer);
    if link.dialled_controls.fetch_add(1, Relaxed) > 0 {
        // The same gateway answered at another address, or behind the same load balancer again.
        link.dialled_controls.fetch_sub(1, Relaxed);
        connection.close();
        return Ok(link);
    }
    link.measured(asked.elapsed());
    link.announced_slots.store(u32::from(pong.slots), Relaxed);
    link.set_target(target);
    tokio::spawn(run(
        Arc::clone(shared),
        Arc::clone(&link),
        connection,
        pong.draining,
    ));
    alive(&link, pong.draining);
    link.warm_up();
    serve::keep_reverse(shared, &link, target);
    Ok(link)
}

fn alive(link: &TlsLink, draining: bool) {
    link.controls.fetch_add(1, Relaxed);
    link.set_state(if draining {
        LinkState::Draining
    } else {
        LinkState::Up
    });
}

/// One control connection less; without any the path counts as dead.
fn lost(link: &TlsLink) {
    if link.controls.fetch_sub(1, Relaxed) == 1 {
        link.set_state(LinkState::Dead);
    }
}

/// The dialer's side, until the path is dead or the link closed.
async fn run(shared: Arc<Shared>, link: Arc<TlsLink>, connection: Box<Connection>, draining: bool) {
    let mut probes = Probes {
        sent: 0,
        answered: 0,
        sent_at: Instant::now(),
        draining,
    };
    let ended = probes.run(&shared, &link, connection).await;
    link.dialled_controls.fetch_sub(1, Relaxed);
    lost(&link);
    if let Err(error) = ended {
        debug!(peer = %link.peer, %error, "control connection ended");
    }
}

/// The probes of one control connection; numbers count up from 1.
struct Probes {
    sent: u64,
    answered: u64,
    sent_at: Instant,
    draining: bool,
}

impl Probes {
    async fn run(
        &mut self,
        shared: &Shared,
        link: &TlsLink,
        mut connection: Box<Connection>,
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
                event = connection.next() => match event? {
                    Event::Frame { kind: Kind::Pong, payload, .. } => {
                        self.heard(link, &payload);
                        answer_by = None;
                    }
                    Event::Frame { kind: Kind::Drain, .. } => {
                        self.draining = true;
                        link.set_state(LinkState::Draining);
                    }
                    Event::Ended | Event::Frame { .. } | Event::Data { .. } => return Ok(()),
                },
                _ = ticks.tick() => {
                    if self.sent - self.answered >= MISSED_MAX + under_way(shared, link) {
                        return Err(StreamError::Failed(Failure::PathDead, "no answer to four probes"));
                    }
                    self.probe(link, &mut connection)?;
                }
                () = link.suspected.notified() => {
                    if answer_by.is_none() {
                        self.probe(link, &mut connection)?;
                        answer_by = Some(Instant::now() + link.answer_within());
                    }
                }
                () = sleep_until(answer_by.unwrap_or_else(far)), if answer_by.is_some() => {
                    return Err(StreamError::Failed(Failure::PathDead, "no answer while a stream waits"));
                }
                changed = state.changed() => {
                    if changed.is_err() || *state.borrow_and_update() == LinkState::Closed {
                        connection.close();
                        return Ok(());
                    }
                }
                Ok(()) = draining.changed() => {
                    connection.put(Kind::Drain, 0, &[])?;
                    connection.flush().await?;
                }
            }
        }
    }

    fn probe(&mut self, link: &TlsLink, connection: &mut Connection) -> Result<(), StreamError> {
        self.sent += 1;
        self.sent_at = Instant::now();
        let ping = Ping {
            role: Role::Control.byte(),
            is_filled: link.sockets.lock().is_filled(),
            nonce: self.sent,
        };
        connection.put(Kind::Ping, 0, &ping.write())?;
        // A path that takes nothing more is not waited for: the missing answers tell.
        connection.writer.try_flush(&connection.socket)?;
        Ok(())
    }

    fn heard(&mut self, link: &TlsLink, payload: &[u8]) {
        let Some(pong) = Pong::read(payload) else {
            return;
        };
        self.answered = self.answered.max(pong.nonce.min(self.sent));
        if pong.nonce == self.sent {
            link.measured(self.sent_at.elapsed());
        }
        link.announced_slots.store(u32::from(pong.slots), Relaxed);
        link.sockets.lock().set_peer_filled(pong.is_filled);
        if pong.draining && !self.draining {
            self.draining = true;
            link.set_state(LinkState::Draining);
        }
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// Probes that are under way on a healthy path as long as this one is: they are not missed yet.
fn under_way(shared: &Shared, link: &TlsLink) -> u64 {
    let round_trips_us = 2 * link.rtt_us.load(Relaxed);
    let interval_us = shared.settings.timeouts.probe_interval.as_micros().max(1) as u64;
    round_trips_us / interval_us
}

/// The acceptor's side of a control connection: answers, and notices silence.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    link: &Arc<TlsLink>,
    mut connection: Box<Connection>,
) -> Result<(), StreamError> {
    pong(shared, link, &mut connection, 0).await?;
    alive(link, false);
    let ended = answering(shared, link, connection).await;
    lost(link);
    ended
}

async fn answering(
    shared: &Arc<Shared>,
    link: &Arc<TlsLink>,
    mut connection: Box<Connection>,
) -> Result<(), StreamError> {
    let silence_max = shared.settings.timeouts.probe_interval * (MISSED_MAX as u32 + 1);
    let mut state = link.state.subscribe();
    let mut draining = link.draining.subscribe();
    draining.mark_unchanged();
    let mut silent_at = Instant::now() + silence_max;
    loop {
        tokio::select! {
            event = connection.next() => match event? {
                Event::Frame { kind: Kind::Ping, payload, .. } => {
                    silent_at = Instant::now() + silence_max;
                    let ping = Ping::read(&payload);
                    if let Some(ping) = ping {
                        link.sockets.lock().set_peer_filled(ping.is_filled);
                    }
                    pong(shared, link, &mut connection, ping.map_or(0, |ping| ping.nonce)).await?;
                }
                Event::Frame { kind: Kind::Drain, .. } => link.set_state(LinkState::Draining),
                Event::Ended | Event::Frame { .. } | Event::Data { .. } => return Ok(()),
            },
            () = sleep_until(silent_at) => {
                return Err(StreamError::Failed(Failure::PathDead, "the peer's probes stopped"));
            }
            changed = state.changed() => {
                if changed.is_err() || *state.borrow_and_update() == LinkState::Closed {
                    connection.close();
                    return Ok(());
                }
            }
            Ok(()) = draining.changed() => {
                connection.put(Kind::Drain, 0, &[])?;
                connection.flush().await?;
            }
        }
    }
}

async fn pong(
    shared: &Shared,
    link: &TlsLink,
    connection: &mut Connection,
    nonce: u64,
) -> Result<(), StreamError> {
    let pong = Pong {
        worker: 0,
        nonce,
        slots: shared.announced_slots(),
        draining: *link.draining.borrow(),
        is_filled: link.sockets.lock().is_filled(),
    };
    connection.put(Kind::Pong, 0, &pong.write())?;
    connection.flush().await
}
