//! Gateways that know each other, applications that answer by UDP, and clients that ask.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket},
    path::PathBuf,
    time::Duration,
};

use corinth_daemon::{
    drain::Drain,
    metrics::{Build, Metrics},
    ready::Readiness,
};
use corinth_gateway::{Door, Gateway, Surroundings, settings::Settings};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

/// Anything that takes longer has not happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits no longer than a test may.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens soon")
}

/// A gateway on loopback.
pub(crate) struct Node {
    pub(crate) gateway: Gateway,
    metrics: Metrics,
    name: &'static str,
    directory: TempDir,
    /// Keys beside those that every node has.
    beside: &'static str,
}

/// A port that nobody has, by either protocol.
pub(crate) fn free_port() -> u16 {
    loop {
        let socket = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        if std::net::TcpListener::bind(address).is_ok() {
            return address.port();
        }
    }
}

impl Node {
    /// One that knows nobody; `beside` are further keys.
    pub(crate) fn start(name: &'static str, beside: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(Build {
            binary: "corinth-gateway",
            version: "0",
        })
        .unwrap();
        let surroundings = Surroundings {
            readiness: Readiness::new(),
            metrics: metrics.clone(),
            drain: Drain::new(),
        };
        let text = head(name, beside);
        let settings = Settings::parse(&text, &directory.path().join("config.yaml")).unwrap();
        Self {
            gateway: Gateway::start(settings, surroundings).unwrap(),
            metrics,
            name,
            directory,
            beside,
        }
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("state/bundle.pem")
    }

    pub(crate) fn tunnel(&self) -> SocketAddr {
        self.gateway.address_of(Door::Tunnel).unwrap()
    }

    /// Knows these peers from now on, and exports and imports this.
    pub(crate) fn say(&self, transport: &str, dialled: &[&Self], waited_for: &[&Self], rest: &str) {
        self.say_at("127.0.0.1", transport, dialled, waited_for, rest);
    }

    /// The same, with import ports at these addresses.
    pub(crate) fn say_at(
        &self,
        imports: &str,
        transport: &str,
        dialled: &[&Self],
        waited_for: &[&Self],
        rest: &str,
    ) {
        let mut text = head(self.name, self.beside);
        text = text.replace("imports: [127.0.0.1]", &format!("imports: [{imports}]"));
        if !dialled.is_empty() || !waited_for.is_empty() {
            text.push_str("peers:\n");
        }
        let peers = dialled.iter().map(|peer| {
            let to = peer.tunnel();
            (peer, format!("addresses: ['{to}'], transport: {transport}"))
        });
        let waited_for = waited_for
            .iter()
            .map(|peer| (peer, "acceptOnly: true".to_owned()));
        for (peer, how) in peers.chain(waited_for) {
            let (name, bundle) = (peer.name, peer.bundle());
            let bundle = bundle.display();
            writeln!(text, "- {{name: {name}, bundle: '{bundle}', {how}}}").unwrap();
        }
        text.push_str(rest);
        let origin = self.directory.path().join("config.yaml");
        let settings = Settings::parse(&text, &origin).unwrap_or_else(|wrong| panic!("{wrong}"));
        self.gateway.apply(settings).unwrap();
    }

    /// The lines of the access log that `is_wanted`, once there is one.
    pub(crate) async fn records(&self, is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let look = || {
            let text = std::fs::read_to_string(self.directory.path().join("access.log"));
            let lines = text.unwrap_or_default();
            let whole = lines
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let records = whole.map(|line| serde_json::from_str(line).unwrap());
            records.filter(&is_wanted).collect::<Vec<Value>>()
        };
        soon(async {
            loop {
                let records = look();
                if !records.is_empty() {
                    return records;
                }
                // The log has a thread of its own, which tells nobody.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Waits for a record of flows of this intake that ended with this code.
    pub(crate) async fn record(&self, intake: &str, code: &str) -> Value {
        let is_it = |line: &Value| line["intake"] == intake && line["code"] == code;
        self.records(is_it).await.remove(0)
    }

    /// Waits until this peer is linked.
    pub(crate) async fn linked(&self, peer: &str) {
        let label = format!("peer=\"{peer}\"");
        soon(async {
            while self.metric("corinth_link_up", &label) < 1.0 {
                // Nobody tells the outside.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The sum of a metric over all label values that contain `part`.
    pub(crate) fn metric(&self, name: &str, part: &str) -> f64 {
        let text = self.metrics.text().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(part));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

fn head(name: &str, beside: &str) -> String {
    let usual = [
        ("workers:", "workers: 2\n"),
        ("drain:", "drain: {delay: off, limit: 1s}\n"),
    ];
    let usual = usual.iter().filter(|(key, _)| !beside.contains(key));
    let usual: String = usual.map(|(_, line)| *line).collect();
    format!(
        "cluster: {name}\nstateDir: state\n\
         listen: {{tunnel: '127.0.0.1:0', imports: [127.0.0.1], importPorts: 1024-65535, admin: '127.0.0.1:0'}}\n\
         accessLog: {{target: ./access.log}}\n{usual}{beside}"
    )
}

/// Two gateways: `east` imports what `west` exports.
pub(crate) struct Two {
    pub(crate) east: Node,
    pub(crate) west: Node,
    pub(crate) import: SocketAddr,
}

/// Both, with the service `echo.shop`, port 7, at these endpoints.
pub(crate) async fn two(transport: &str, beside: &'static str, endpoints: &[SocketAddr]) -> Two {
    let (east, west) = (Node::start("east", beside), Node::start("west", beside));
    west.say("tls", &[], &[&east], &exports(endpoints));
    let port = free_port();
    east.say(transport, &[&west], &[], &imports(&["west"], port));
    Two {
        east,
        west,
        import: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    }
}

/// An export of `echo.shop` to `east`.
pub(crate) fn exports(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|at| format!("'{at}'")).collect();
    format!(
        "exports:\n- {{service: echo.shop, port: 7, protocol: udp, endpoints: [{}], to: [east]}}\n",
        endpoints.join(", ")
    )
}

/// An import of `echo.shop`, the first of these clusters before the next.
pub(crate) fn imports(from: &[&str], port: u16) -> String {
    let from: Vec<_> = from
        .iter()
        .enumerate()
        .map(|(priority, cluster)| format!("{{cluster: {cluster}, priority: {priority}}}"))
        .collect();
    format!(
        "imports:\n- {{service: echo.shop, port: 7, protocol: udp, importPort: {port}, from: [{}]}}\n",
        from.join(", ")
    )
}

/// Says back what it hears, with a name in front.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), name).await
    }

    pub(crate) async fn at(address: SocketAddr, name: &'static str) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut room = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut room).await {
                let answer = [name.as_bytes(), &room[..length]].concat();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, task }
    }

    /// From now on nobody listens there.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A client at an address of its own.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) async fn of(import: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(import).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn say(&self, words: &[u8]) {
        self.0.send(words).await.unwrap();
    }

    /// The next answer, if one comes within this time.
    pub(crate) async fn hear_within(&self, time: Duration) -> Option<Vec<u8>> {
        let mut room = vec![0; 65_536];
        let length = timeout(time, self.0.recv(&mut room)).await.ok()?.unwrap();
        room.truncate(length);
        Some(room)
    }

    /// Says this and waits for nothing but its answer: of what was asked before none is left.
    pub(crate) async fn ask_once(&self, words: &[u8]) -> Option<Vec<u8>> {
        self.say(words).await;
        self.hear_within(PATIENCE).await
    }

    /// Asks again and again, as clients do, until there is an answer.
    pub(crate) async fn ask(&self, words: &[u8]) -> Vec<u8> {
        soon(async {
            loop {
                self.say(words).await;
                if let Some(answer) = self.hear_within(Duration::from_millis(300)).await {
                    return answer;
                }
            }
        })
        .await
    }
}

/// What clients at `count` addresses heard, by answer.
pub(crate) async fn ask_all(
    import: SocketAddr,
    count: usize,
    time: Duration,
) -> BTreeMap<Option<Vec<u8>>, usize> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = Client::of(import).await;
        client.say(b"?").await;
        clients.push(client);
    }
    let mut heard = BTreeMap::new();
    let until = tokio::time::Instant::now() + time;
    for client in &clients {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let answer = client.hear_within(left.max(Duration::from_millis(5))).await;
        *heard.entry(answer).or_insert(0) += 1;
    }
    heard
}
