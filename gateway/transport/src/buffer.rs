//! Buffers in three sizes, kept per worker, so that an idle stream holds none.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut, Range},
};

/// The most pieces lent in one call: what one scatter or gather system call takes here.
pub(crate) const SLICES_MAX: usize = 17;

/// How much a direction reads or writes at once: small while it talks, large while it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Small,
    Medium,
    Large,
}

impl Size {
    /// Bytes of a buffer of this size. Medium holds one full record, Large sixteen.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 4 << 10,
            Self::Medium => 20 << 10,
            Self::Large => 264 << 10,
        }
    }

    pub(crate) fn up(self) -> Self {
        match self {
            Self::Small => Self::Medium,
            Self::Medium | Self::Large => Self::Large,
        }
    }

    pub(crate) fn down(self) -> Self {
        match self {
            Self::Small | Self::Medium => Self::Small,
            Self::Large => Self::Medium,
        }
    }

    /// The smallest size that holds `bytes`, or the largest there is.
    pub(crate) fn holding(bytes: usize) -> Self {
        if bytes <= Self::Small.bytes() {
            Self::Small
        } else if bytes <= Self::Medium.bytes() {
            Self::Medium
        } else {
            Self::Large
        }
    }

    /// How many free buffers of this size a worker keeps.
    const fn kept(self) -> usize {
        match self {
            Self::Small => 32,
            Self::Medium => 16,
            Self::Large => 4,
        }
    }
}

/// A buffer on loan from the worker's pool; it goes back when dropped, if it is of one of the sizes.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    pub(crate) fn take(size: Size) -> Self {
        let bytes = POOL
            .try_with(|pool| pool.borrow_mut()[size as usize].pop())
            .ok()
            .flatten()
            .unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice());
        Self { bytes, size }
    }

    /// One that holds `bytes`. More than the largest size holds is made for this once.
    fn holding(bytes: usize) -> Self {
        let size = Size::holding(bytes);
        if bytes <= size.bytes() {
            return Self::take(size);
        }
        let bytes = vec![0; bytes].into_boxed_slice();
        Self { bytes, size }
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() != self.size.bytes() {
            return;
        }
        // The pool is gone while the thread ends: then the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let free = &mut pool.borrow_mut()[self.size as usize];
            if free.len() < self.size.kept() {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Makes sure that `bytes` fit behind what is queued (`pending`, of `buffer`), and answers where they go.
pub(crate) fn reserve(
    buffer: &mut Option<Buffer>,
    pending: &mut Range<usize>,
    bytes: usize,
) -> usize {
    let held = pending.len();
    let fits = buffer
        .as_ref()
        .is_some_and(|buffer| buffer.len() - pending.end >= bytes);
    if !fits {
        let mut larger = Buffer::holding(held + bytes);
        if let Some(buffer) = buffer {
            larger[..held].copy_from_slice(&buffer[pending.clone()]);
        }
        *buffer = Some(larger);
        *pending = 0..held;
    }
    pending.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_a_full_buffer_of_the_largest_size_has_room_too() {
        const MORE_BYTES: usize = 36;
        let mut buffer = Some(Buffer::take(Size::Large));
        let full = Size::Large.bytes();
        buffer.as_mut().unwrap().fill(7);
        let mut pending = 0..full;
        let start = reserve(&mut buffer, &mut pending, MORE_BYTES);
        assert_eq!(start, full);
        let larger = buffer.take().unwrap();
        assert!(larger.len() >= full + MORE_BYTES);
        assert!(larger[..full].iter().all(|byte| *byte == 7));
        drop(larger);
        // Nobody else is given what is of none of the sizes.
        assert_eq!(Buffer::take(Size::Large).len(), full);
    }
}
