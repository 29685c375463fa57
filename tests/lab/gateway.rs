//! A gateway that runs, and everything it tells.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{GatewayConfig, Host, Process, WAIT, guard, pki, until};

/// A running gateway; it is killed when this is dropped.
pub struct Gateway {
    pub(crate) name: String,
    pub(crate) host: Host,
    process: Process,
    pub(crate) config: PathBuf,
    admin: SocketAddr,
    tunnel: SocketAddr,
    own: IpAddr,
    tolerated: Vec<&'static str>,
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub Value);

impl Gateway {
    pub(crate) fn launch(config: &GatewayConfig<'_>) -> Self {
        let binary = guard::binary("corinth-gateway");
        let command = config.site.host.command(&binary.to_string_lossy());
        Self::launch_by(config, command)
    }

    /// Starts it by a command that lacks only the configuration.
    pub(crate) fn launch_by(config: &GatewayConfig<'_>, mut command: Command) -> Self {
        let name = format!("{}-{}", config.site.cluster, config.slot);
        command
            .arg("--config")
            .arg(config.path())
            .env_remove("NOTIFY_SOCKET");
        let process = Process::start(&name, command);
        let listen = &config.settings["listen"];
        let place = |key: &str| listen[key].as_str().and_then(|text| text.parse().ok());
        let number = config.site.first + config.slot;
        Self {
            name,
            host: config.site.host.clone(),
            process,
            config: config.path(),
            admin: place("admin").expect("an address was written"),
            tunnel: place("tunnel").expect("an address was written"),
            own: config.family.address(config.site.own_net, number),
            tolerated: Vec::new(),
        }
    }

    /// Waits for the line that says it is ready.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_ready(&self) {
        self.await_log("READY=1");
    }

    /// Waits until every peer is linked by `links` links that are up.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn await_links(&self, links: usize) {
        let what = format!("{}: {links} links up", self.name);
        until(&what, WAIT, || (self.links("up") == links).then_some(()));
    }

    /// How many links are in `state`.
    pub fn links(&self, state: &str) -> usize {
        let rows = self.link_rows();
        rows.iter().filter(|row| row["state"] == state).count()
    }

    /// The links as its admin page shows them; none while it does not answer.
    pub fn link_rows(&self) -> Vec<Value> {
        let Ok((200, page)) = self.admin("/links") else {
            return Vec::new();
        };
        let page: Value = serde_json::from_str(&page).unwrap_or_default();
        page["links"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for a line in the log that contains `words`, whenever it was written.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_log(&self, words: &str) -> String {
        self.await_log_since(0, words)
    }

    /// The same, from a mark that [`log_mark`](Self::log_mark) gave.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_log_since(&self, mark: usize, words: &str) -> String {
        let find = |line: &str| line.contains(words).then(|| line.to_owned());
        let found = self.process.stderr.find(mark, WAIT, find);
        found.unwrap_or_else(|| {
            let log = self.process.stderr.all().join("\n");
            panic!("{} has not logged {words:?}:\n{log}", self.name)
        })
    }

    /// How much it has logged so far.
    pub fn log_mark(&self) -> usize {
        self.process.stderr.count()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.all()
    }

    /// The access log so far.
    pub fn records(&self) -> Vec<Record> {
        self.process
            .stdout
            .all()
            .iter()
            .filter_map(|line| Record::parse(line))
            .collect()
    }

    /// Waits for the record that `is_meant`, whenever it was written.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_record(&self, is_meant: impl Fn(&Record) -> bool) -> Record {
        self.find_record(0, is_meant)
    }

    fn find_record(&self, mark: usize, is_meant: impl Fn(&Record) -> bool) -> Record {
        let find = |line: &str| Record::parse(line).filter(|record| is_meant(record));
        self.process
            .stdout
            .find(mark, WAIT, find)
            .unwrap_or_else(|| {
                let all = self.process.stdout.all();
                let last = all[all.len().saturating_sub(20)..].join("\n");
                panic!(
                    "{} has not written the record; the last ones are\n{last}",
                    self.name
                )
            })
    }

    /// The record of the connection that came from `source`.
    ///
    /// # Panics
    /// When it does not come.
    pub fn record_from(&self, source: SocketAddr) -> Record {
        self.record_since(0, source)
    }

    /// The same, from a mark that [`record_mark`](Self::record_mark) gave: ports are used again.
    ///
    /// # Panics
    /// When it does not come.
    pub fn record_since(&self, mark: usize, source: SocketAddr) -> Record {
        let source = source.to_string();
        self.find_record(mark, |record| record.text("src") == source)
    }

    /// The record of the connection from `source` to `route`: the same port may lead to others at once.
    ///
    /// # Panics
    /// When it does not come.
    pub fn record_to(&self, route: &str, source: SocketAddr) -> Record {
        let source = source.to_string();
        self.find_record(0, |record| {
            record.text("src") == source && record.text("route") == route
        })
    }

    /// How many records it has written so far.
    pub fn record_mark(&self) -> usize {
        self.process.stdout.count()
    }

    /// Status and body of an admin page.
    pub fn admin(&self, path: &str) -> std::io::Result<(u16, String)> {
        page(&self.host, self.admin, path)
    }

    /// Whether it says that it wants connections.
    pub fn is_ready(&self) -> bool {
        is_ready(&self.host, self.admin)
    }

    /// Where its admin pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The sum of the samples of `metric` that have all of `labels`, such as `code="CRN002"`.
    ///
    /// # Panics
    /// When the page cannot be read.
    pub fn metric(&self, metric: &str, labels: &[&str]) -> f64 {
        let (_, page) = self.admin("/metrics").expect("the gateway runs");
        let is_meant = |line: &&str| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        };
        page.lines().filter(is_meant).filter_map(value).sum()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the gateway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("the kernel says it") << 10
    }

    /// Where peers dial it.
    pub fn tunnel(&self) -> SocketAddr {
        self.tunnel
    }

    /// Where its local clients connect to.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.own, port)
    }

    /// Where its local TLS clients connect to.
    pub fn sni(&self) -> SocketAddr {
        self.at(15_444)
    }

    /// The file of its configuration.
    pub fn config(&self) -> &PathBuf {
        &self.config
    }

    /// Replaces its configuration while it runs.
    pub fn rewrite(&self, text: &str) {
        pki::write(&self.config, text);
    }

    /// Replaces its configuration and waits until it is applied.
    pub fn reconfigure(&self, config: &GatewayConfig<'_>) {
        let mark = self.log_mark();
        self.rewrite(&config.text());
        self.await_log_since(mark, "configuration applied");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Ends it without a chance to say anything.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits until it ends.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within).status
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Errors with these words in the log are what this test wants to see.
    pub fn tolerate(&mut self, words: &'static str) {
        self.tolerated.push(words);
    }

    /// Lines of the log that no test should see.
    fn faults(&self) -> Vec<String> {
        let is_tolerated = |line: &String| self.tolerated.iter().any(|words| line.contains(words));
        let faults = faults(self.log()).into_iter();
        faults.filter(|line| !is_tolerated(line)).collect()
    }

    /// What helps to understand a failed test.
    #[expect(
        clippy::print_stderr,
        reason = "the harness shows it with the failed test"
    )]
    fn tell(&self) {
        let tail = |lines: Vec<String>, count: usize| {
            let from = lines.len().saturating_sub(count);
            lines[from..].join("\n  ")
        };
        eprintln!("-- log of {}\n  {}", self.name, tail(self.log(), 25));
        eprintln!(
            "-- access log of {}\n  {}",
            self.name,
            tail(self.process.stdout.all(), 6)
        );
    }
}

/// Lines of a log that tell of our own bugs.
pub(crate) fn faults(log: Vec<String>) -> Vec<String> {
    let is_fault = |line: &String| line.contains("ERROR") || line.contains("panicked at");
    log.into_iter().filter(is_fault).collect()
}

/// Whether the gateway with these admin pages wants connections.
pub(crate) fn is_ready(host: &Host, admin: SocketAddr) -> bool {
    matches!(page(host, admin, "/readyz"), Ok((200, _)))
}

/// Status and body of an admin page.
fn page(host: &Host, admin: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = host.try_connect(admin)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    assert!(!is_chunked, "admin pages know their length");
    Ok((status.unwrap_or_default(), body.to_owned()))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
            return;
        }
        let faults = self.faults();
        assert!(
            faults.is_empty(),
            "{} logged errors: {faults:#?}",
            self.name
        );
    }
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().map(Self)
    }

    /// A field as text; empty if it is not there.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// The code of the reason.
    pub fn code(&self) -> &str {
        self.text("code")
    }

    /// A field as a whole number; 0 if it is not there.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }
}
