//! Clients that never stop asking, while something happens to the gateways.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::Host;

/// Clients that ask the same HTTP server again and again, each time on a new connection.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    host: Host,
    to: SocketAddr,
    pause: Duration,
    is_over: AtomicBool,
    asked: Mutex<Vec<Asked>>,
    more: Condvar,
}

/// One request.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    took: Duration,
    failure: Option<String>,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Report {
    asked: Vec<Asked>,
}

impl Load {
    /// Starts `clients` clients that ask as fast as they are answered.
    pub fn start(host: &Host, to: SocketAddr, clients: usize) -> Self {
        Self::paced(host, to, clients, Duration::ZERO)
    }

    /// Starts `clients` clients, each with this pause between two requests.
    pub fn paced(host: &Host, to: SocketAddr, clients: usize, pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            host: host.clone(),
            to,
            pause,
            is_over: AtomicBool::new(false),
            asked: Mutex::default(),
            more: Condvar::new(),
        });
        let clients = (0..clients)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let host = shared.host.clone();
                    host.within(|| shared.ask());
                })
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until `count` more requests were answered.
    ///
    /// # Panics
    /// When they are not.
    pub fn await_answers(&self, count: usize) {
        let answered =
            |asked: &Vec<Asked>| asked.iter().filter(|asked| asked.failure.is_none()).count();
        let mut asked = self.shared.asked.lock();
        let wanted = answered(&asked) + count;
        let deadline = Instant::now() + crate::WAIT;
        while answered(&asked) < wanted {
            let late = self
                .shared
                .more
                .wait_until(&mut asked, deadline)
                .timed_out();
            assert!(
                !late,
                "no {count} answers within {:?}: {:?}",
                crate::WAIT,
                asked.last()
            );
        }
    }

    /// Ends the clients after their present request.
    ///
    /// # Panics
    /// When a client has panicked.
    pub fn stop(mut self) -> Report {
        self.end();
        let asked = std::mem::take(&mut *self.shared.asked.lock());
        Report { asked }
    }

    fn end(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        for client in self.clients.drain(..) {
            client.join().expect("clients do not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
    }
}

impl Shared {
    fn ask(&self) {
        /// A failing gateway would be asked without pause.
        const PAUSE: Duration = Duration::from_millis(5);
        while !self.is_over.load(SeqCst) {
            let at = Instant::now();
            let failure = ask_once(self.to).err().map(|error| error.to_string());
            let has_failed = failure.is_some();
            let took = at.elapsed();
            self.asked.lock().push(Asked { at, took, failure });
            self.more.notify_all();
            let pause = if has_failed {
                self.pause.max(PAUSE)
            } else {
                self.pause
            };
            if !pause.is_zero() {
                thread::park_timeout(pause);
            }
        }
    }
}

fn ask_once(to: SocketAddr) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /load HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nok\n") {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&answer).into_owned();
    Err(io::Error::other(format!("not the answer: {words:?}")))
}

impl Report {
    /// Requests in all.
    pub fn requests(&self) -> usize {
        self.asked.len()
    }

    /// Those begun at or after `since` that failed, in words.
    pub fn failures_since(&self, since: Instant) -> Vec<String> {
        let origin = self.asked.iter().map(|asked| asked.at).min();
        let failed = self.asked.iter().filter(|asked| asked.at >= since);
        failed
            .filter_map(|asked| {
                let failure = asked.failure.as_ref()?;
                let at = origin.map(|origin| asked.at - origin).unwrap_or_default();
                Some(format!("at {at:?}, after {:?}: {failure}", asked.took))
            })
            .collect()
    }

    /// Every failure, in words.
    pub fn failures(&self) -> Vec<String> {
        match self.asked.iter().map(|asked| asked.at).min() {
            Some(first) => self.failures_since(first),
            None => Vec::new(),
        }
    }

    /// The longest that a request begun at or after `since` took to be answered.
    pub fn slowest_since(&self, since: Instant) -> Duration {
        let answered = self
            .asked
            .iter()
            .filter(|asked| asked.at >= since && asked.failure.is_none());
        answered.map(|asked| asked.took).max().unwrap_or_default()
    }

    /// The longest time after `since` in which no request was answered.
    pub fn longest_silence_since(&self, since: Instant) -> Duration {
        let mut ends: Vec<Instant> = self
            .asked
            .iter()
            .filter(|asked| asked.failure.is_none())
            .map(|asked| asked.at + asked.took)
            .filter(|end| *end >= since)
            .collect();
        ends.push(since);
        ends.sort();
        ends.windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}
