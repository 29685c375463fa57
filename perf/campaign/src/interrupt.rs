//! The wish of whoever started a campaign that it ends now. All waiting goes through it.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::signal::unix::{SignalKind, signal};

use crate::Fault;

/// Clones are the same wish.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    /// Raised by SIGINT, SIGTERM and SIGHUP from now on, which then no longer end this process by themselves.
    ///
    /// # Errors
    /// When the signals cannot be taken.
    pub fn on_signals() -> io::Result<Self> {
        let interrupt = Self::default();
        let raised = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let guard = runtime.enter();
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut hup = signal(SignalKind::hangup())?;
        drop(guard);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hup.recv() => {}
                }
            });
            raised.raise();
        });
        Ok(interrupt)
    }

    /// Asks for the end.
    pub fn raise(&self) {
        *self.shared.raised.lock() = true;
        self.shared.changed.notify_all();
    }

    /// # Errors
    /// [`Fault::Interrupted`] if the end was asked for.
    pub fn check(&self) -> Result<(), Fault> {
        if *self.shared.raised.lock() {
            return Err(Fault::Interrupted);
        }
        Ok(())
    }

    /// Waits, unless the end is asked for before.
    ///
    /// # Errors
    /// [`Fault::Interrupted`] if the end was asked for.
    pub fn pause(&self, duration: Duration) -> Result<(), Fault> {
        let until = Instant::now() + duration;
        let mut raised = self.shared.raised.lock();
        while !*raised {
            if self
                .shared
                .changed
                .wait_until(&mut raised, until)
                .timed_out()
            {
                return Ok(());
            }
        }
        Err(Fault::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_the_end_is_asked_for() {
        let interrupt = Interrupt::default();
        assert!(interrupt.pause(Duration::from_millis(1)).is_ok());
        let other = interrupt.clone();
        let raiser = thread::spawn(move || other.raise());
        assert!(matches!(
            interrupt.pause(Duration::from_secs(60)),
            Err(Fault::Interrupted)
        ));
        raiser.join().expect("it only raises");
        assert!(interrupt.check().is_err());
    }
}
