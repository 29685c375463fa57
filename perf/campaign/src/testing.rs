//! Recorded results, and what stands at the ends of a path, for tests.

use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use crate::{
    machine::Fact,
    measure::{Figure, Measure, Sample},
    results::{Results, SCHEMA, SystemRecord},
    system::{Place, SystemKey},
};

/// Results without samples, in which every system was found.
pub(crate) fn results() -> Results {
    let record = |key: SystemKey| SystemRecord {
        key,
        version: (key != SystemKey::Direct).then(|| format!("{key} 1.0")),
        absent: None,
        files: Vec::new(),
        commands: Vec::new(),
    };
    Results {
        schema: SCHEMA.to_owned(),
        partial: false,
        command: "corinth-perf compare".to_owned(),
        started: "2026-11-20T12:00:00Z".to_owned(),
        rounds: 5,
        seconds: 3,
        environment: vec![
            Fact::new("kernel", "6.18"),
            Fact::new("cpu", "2 × any"),
            Fact::new("git", "0123456789ab"),
        ],
        systems: SystemKey::ALL.map(record).to_vec(),
        samples: BTreeMap::new(),
        problems: Vec::new(),
    }
}

impl Results {
    /// Adds samples of one figure, round by round; none is a round without data.
    pub(crate) fn with(
        mut self,
        measure: Measure,
        system: SystemKey,
        figure: Figure,
        values: &[Option<f64>],
    ) -> Self {
        for (round, value) in values.iter().enumerate() {
            let list = self
                .samples
                .entry(measure)
                .or_default()
                .entry(system)
                .or_default();
            if list.len() == round {
                list.push(None);
            }
            if let Some(value) = value {
                let sample = list[round].get_or_insert_with(|| Sample {
                    figures: BTreeMap::new(),
                    curve: vec![(50.0, 10.0), (99.0, 40.0), (99.9, 300.0)],
                    outside_share: 0.01,
                    stolen_share: 0.0,
                });
                sample.put(figure, *value);
            }
        }
        self
    }

    /// The same where every round has data.
    pub(crate) fn with_all(
        self,
        measure: Measure,
        system: SystemKey,
        figure: Figure,
        values: &[f64],
    ) -> Self {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        self.with(measure, system, figure, &values)
    }
}

/// A place in a folder.
pub(crate) fn place(folder: &Path) -> Place {
    Place {
        folder: folder.to_owned(),
        certificates: folder.join("certificates"),
        cpus: 2,
        descriptors: 10_000,
    }
}

/// Sends back what comes, on every connection.
pub(crate) fn serve_echo(listener: TcpListener) {
    thread::spawn(move || listener.incoming().flatten().for_each(echo));
}

/// Our gateway, where it was built.
pub(crate) fn gateway() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    // target/debug/deps/name-0123456789abcdef
    let path = own.ancestors().nth(3)?.join("release/corinth-gateway");
    path.exists().then_some(path)
}

fn echo(mut stream: TcpStream) {
    thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
    });
}
