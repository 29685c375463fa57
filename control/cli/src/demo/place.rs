//! What the demo takes of this machine: a directory that goes away again, and ports that stay its own.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Ports that the kernel gives to no outgoing connection by itself (its default range begins at 32768), so that what
/// stops and starts again finds its port as it left it. Import ports lie here by default.
const PORTS: RangeInclusive<u16> = 20_000..=27_999;
/// Import ports of one cluster: more than the demo has services.
const IMPORT_PORTS: u16 = 8;
/// Ports tried before the machine counts as full.
const TRIES: u32 = 1_000;

/// A directory for this run, removed at its end with all that is in it.
pub(super) struct Place {
    path: PathBuf,
    given: BTreeSet<u16>,
}

impl Place {
    pub(super) fn make() -> io::Result<Self> {
        let name = format!("corinth-demo-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self {
            path,
            given: BTreeSet::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A loopback address that nobody listens on and that was not given before.
    pub(super) fn address(&mut self) -> io::Result<SocketAddr> {
        for _ in 0..TRIES {
            let port = fastrand::u16(PORTS);
            if self.is_free(port) {
                self.given.insert(port);
                return Ok((Ipv4Addr::LOCALHOST, port).into());
            }
        }
        Err(full())
    }

    /// Some ports in a row on which nobody listens and that were not given before.
    pub(super) fn import_ports(&mut self) -> io::Result<RangeInclusive<u16>> {
        for _ in 0..TRIES {
            let first = fastrand::u16(*PORTS.start()..=*PORTS.end() - IMPORT_PORTS);
            let ports = first..=first + IMPORT_PORTS - 1;
            if ports.clone().all(|port| self.is_free(port)) {
                self.given.extend(ports.clone());
                return Ok(ports);
            }
        }
        Err(full())
    }

    fn is_free(&self, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        !self.given.contains(&port) && TcpListener::bind(address).is_ok()
    }
}

fn full() -> io::Error {
    let words = format!(
        "no port from {} to {} is free on 127.0.0.1",
        PORTS.start(),
        PORTS.end()
    );
    io::Error::new(io::ErrorKind::AddrInUse, words)
}

impl Drop for Place {
    fn drop(&mut self) {
        // Threads that keep something for later may still write: under a new name they find the directory no more.
        let gone = self.path.with_extension("gone");
        let path = match fs::rename(&self.path, &gone) {
            Ok(()) => &gone,
            Err(_) => &self.path,
        };
        // What cannot be removed is left to whoever cleans the directory for temporary files.
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_gives_each_port_once_and_goes_away() {
        let mut place = Place::make().unwrap();
        let path = place.path().to_owned();
        fs::write(path.join("x"), "y").unwrap();
        let ports: BTreeSet<_> = (0..20).map(|_| place.address().unwrap()).collect();
        assert_eq!(ports.len(), 20);
        let in_a_row = place.import_ports().unwrap();
        assert_eq!(in_a_row.len(), 8);
        assert!(
            ports
                .iter()
                .all(|address| !in_a_row.contains(&address.port()))
        );
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_goes_away_while_somebody_still_writes_there() {
        let parent = std::env::temp_dir();
        let left = |name: &str| {
            let entries = fs::read_dir(&parent).unwrap();
            let mut names = entries.map(|entry| entry.unwrap().file_name());
            names.any(|entry| entry.to_string_lossy().starts_with(name))
        };
        for _ in 0..20 {
            let place = Place::make().unwrap();
            let path = place.path().to_owned();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            fs::create_dir(path.join("deep")).unwrap();
            let (begun, began) = std::sync::mpsc::channel();
            let writer = std::thread::spawn(move || {
                for number in 0_u64.. {
                    if fs::write(path.join(format!("deep/{number}")), "y").is_err() {
                        return;
                    }
                    let _ = begun.send(());
                }
            });
            began.recv().unwrap();
            drop(place);
            writer.join().unwrap();
            assert!(!left(&name));
        }
    }
}
