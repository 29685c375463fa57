//! Writes frames to a tunnel connection, sealed in the buffer the caller filled.
//!
//! The buffer is cut into slots, each with room for record header, frame header, payload and tag, so
//! that the payload of up to sixteen full records is read by one scatter call, sealed where it lies, and
//! sent by one call. A buffer is held only between the first byte queued and the last byte sent.

use std::{
    io::{self, IoSliceMut},
    ops::Range,
};

use tokio::net::TcpStream;

use super::{
    frame::{self, Kind},
    record::{self, Schedule, Sealer},
};
use crate::{
    StreamError,
    buffer::{Buffer, SLICES_MAX, Size, reserve},
    ready,
};

/// Before the payload: record header and frame header.
const FRONT_BYTES: usize = record::HEADER_BYTES + frame::HEADER_BYTES;
/// Around the payload.
const AROUND_BYTES: usize = FRONT_BYTES + record::TRAILER_BYTES;
/// One full slot.
const SLOT_BYTES: usize = AROUND_BYTES + frame::PAYLOAD_MAX_BYTES;
/// Room a key update takes.
const KEY_UPDATE_BYTES: usize = record::HEADER_BYTES + 5 + record::TRAILER_BYTES;

/// The sending side of one connection.
pub(super) struct Writer {
    sealer: Sealer,
    buffer: Option<Buffer>,
    /// Sealed and not yet sent.
    pending: Range<usize>,
}

impl Writer {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            buffer: None,
            pending: 0..0,
        }
    }

    #[cfg(test)]
    pub(super) fn sealer(&mut self) -> &mut Sealer {
        &mut self.sealer
    }

    /// Queues one frame that is not DATA.
    pub(super) fn put(
        &mut self,
        schedule: &parking_lot::Mutex<Schedule>,
        kind: Kind,
        stream: u32,
        payload: &[u8],
    ) -> Result<(), StreamError> {
        self.renew_keys_if_due(schedule)?;
        let start = reserve(
            &mut self.buffer,
            &mut self.pending,
            AROUND_BYTES + payload.len(),
        );
        let Some(buffer) = &mut self.buffer else {
            return Ok(());
        };
        let slot = &mut buffer[start..start + AROUND_BYTES + payload.len()];
        slot[record::HEADER_BYTES..FRONT_BYTES].copy_from_slice(&frame::encode(
            kind,
            payload.len(),
            stream,
        ));
        slot[FRONT_BYTES..FRONT_BYTES + payload.len()].copy_from_slice(payload);
        self.sealer.seal(slot);
        self.pending.end = start + AROUND_BYTES + payload.len();
        Ok(())
    }

    /// Lends room for DATA of `stream`; seals what `fill` put there.
    pub(super) fn lend(
        &mut self,
        schedule: &parking_lot::Mutex<Schedule>,
        stream: u32,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.renew_keys_if_due(schedule).map_err(io::Error::other)?;
        if self.buffer.is_none() {
            self.buffer = Some(Buffer::take(Size::holding(AROUND_BYTES + want_bytes)));
            self.pending = 0..0;
        }
        let Some(buffer) = &mut self.buffer else {
            return Ok(0);
        };
        let room = &mut buffer[self.pending.end..];
        if room.len() <= AROUND_BYTES {
            return Ok(0);
        }
        let mut slices: [IoSliceMut<'_>; SLICES_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        for (slice, slot) in slices.iter_mut().zip(room.chunks_mut(SLOT_BYTES)) {
            if slot.len() <= AROUND_BYTES {
                break;
            }
            let payload_end = slot.len() - record::TRAILER_BYTES;
            *slice = IoSliceMut::new(&mut slot[FRONT_BYTES..payload_end]);
            count += 1;
        }
        let filled = match fill(&mut slices[..count]) {
            Ok(filled) => filled,
            Err(error) => {
                self.release_if_sent();
                return Err(error);
            }
        };
        self.seal_slots(stream, filled);
        self.release_if_sent();
        Ok(filled)
    }

    fn seal_slots(&mut self, stream: u32, mut filled: usize) {
        let Some(buffer) = &mut self.buffer else {
            return;
        };
        for slot in buffer[self.pending.end..].chunks_mut(SLOT_BYTES) {
            if filled == 0 {
                return;
            }
            let payload = filled.min(slot.len() - AROUND_BYTES);
            let slot = &mut slot[..AROUND_BYTES + payload];
            slot[record::HEADER_BYTES..FRONT_BYTES].copy_from_slice(&frame::encode(
                Kind::Data,
                payload,
                stream,
            ));
            self.sealer.seal(slot);
            self.pending.end += slot.len();
            filled -= payload;
        }
    }

    /// Queues the alert that ends TLS.
    pub(super) fn put_close_notify(&mut self) {
        const ALERT_BYTES: usize = record::HEADER_BYTES + 2 + record::TRAILER_BYTES;
        let start = reserve(&mut self.buffer, &mut self.pending, ALERT_BYTES);
        if let Some(buffer) = &mut self.buffer {
            let used = self
                .sealer
                .close_notify(&mut buffer[start..start + ALERT_BYTES]);
            self.pending.end = start + used;
        }
    }

    /// Sends everything queued. Cancel-safe.
    pub(super) async fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while !self.try_flush(socket)? {
            ready::writable(socket).await?;
        }
        Ok(())
    }

    /// Sends what the kernel takes now; `true` when nothing is left.
    pub(super) fn try_flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while !self.pending.is_empty() {
            let Some(buffer) = &self.buffer else {
                break;
            };
            match socket.try_write(&buffer[self.pending.clone()]) {
                Ok(sent) => self.pending.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.release_if_sent();
        Ok(true)
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_empty()
    }

    fn release_if_sent(&mut self) {
        if self.pending.is_empty() {
            self.buffer = None;
            self.pending = 0..0;
        }
    }

    fn renew_keys_if_due(
        &mut self,
        schedule: &parking_lot::Mutex<Schedule>,
    ) -> Result<(), StreamError> {
        let mut schedule = schedule.lock();
        if !self.sealer.is_due() && !schedule.owes_update() {
            return Ok(());
        }
        let start = reserve(&mut self.buffer, &mut self.pending, KEY_UPDATE_BYTES);
        if let Some(buffer) = &mut self.buffer {
            let used = self
                .sealer
                .update_keys(&mut schedule, &mut buffer[start..start + KEY_UPDATE_BYTES])
                .map_err(|_| StreamError::Protocol("no further keys can be derived"))?;
            self.pending.end = start + used;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn holds_no_buffer(&self) -> bool {
        self.buffer.is_none()
    }
}
