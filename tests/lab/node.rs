//! Nodes that can be linked: a gateway with a control plane, in one process or in two, and the command that asks them.

use std::path::PathBuf;

use corinth_identity::{State, StateDir};
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

use crate::{
    Gateway, GatewayConfig, Output, Pki, Process, WAIT, gateway::faults, guard, pki, process,
};

/// Admin pages of the control plane of slot 0 of the first cluster on a host.
const ADMIN_PORT: u16 = 16_000;

/// A control plane that runs as a process of its own; it is killed when this is dropped.
pub struct Control {
    name: String,
    process: Process,
}

impl GatewayConfig<'_> {
    /// A node: its keys are in its state directory, and its links, exports and imports come by command.
    pub fn node(self) -> Self {
        let reached = self.site.tunnel(self.family, self.slot);
        self.alone().with("gateways", json!([reached]))
    }

    /// The gateway of a node whose control plane is a process of its own.
    pub fn apart(self) -> Self {
        self.alone().with("control", json!({}))
    }

    fn alone(self) -> Self {
        let of_a_file = ["identity", "peers", "exports", "imports"];
        of_a_file.into_iter().fold(self, Self::without)
    }

    /// Starts a node, gateway and control plane in one process, and waits until it is ready.
    pub fn start_node(self) -> Gateway {
        self.write(&self.text());
        let binary = guard::binary("corinth");
        let mut command = self.site.host.command(&binary.to_string_lossy());
        command.arg("run");
        let node = Gateway::launch_by(&self, command);
        node.await_ready();
        node
    }

    /// Starts the control plane of this gateway as a process of its own, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_control(&self) -> Control {
        self.start_control_issuing("24h")
    }

    /// The same, which issues certificates for so long, such as `10s`.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_control_issuing(&self, leaf_lifetime: &str) -> Control {
        let settings = json!({
            "leafLifetime": leaf_lifetime,
            "cluster": self.site.cluster,
            "stateDir": self.state_dir(),
            "gateways": [self.site.tunnel(self.family, self.slot)],
            "admin": format!("127.0.0.1:{}", ADMIN_PORT + u16::from(self.site.first + self.slot)),
            "log": "info,corinth_control=debug",
        });
        std::fs::create_dir_all(&self.folder).expect("there is room");
        let file = self.folder.join("control.yaml");
        pki::write(&file, &settings.to_string());
        let binary = guard::binary("corinth-control");
        let mut command = self.site.host.command(&binary.to_string_lossy());
        command
            .arg("--config")
            .arg(&file)
            .env_remove("NOTIFY_SOCKET");
        let name = format!("control plane of {}", self.site.cluster);
        let control = Control {
            process: Process::start(&name, command),
            name,
        };
        let is_ready = |line: &str| line.contains("READY=1").then_some(());
        let ready = control.process.stderr.find(0, WAIT, is_ready);
        assert!(
            ready.is_some(),
            "{} is not ready: {:#?}",
            control.name,
            control.process.stderr.all()
        );
        control
    }

    /// The authority and roots of a node, made now if it has never run.
    ///
    /// # Panics
    /// When its state directory cannot be used.
    pub fn state(&self) -> State {
        std::fs::create_dir_all(&self.folder).expect("there is room");
        let state = StateDir::open(self.state_dir()).expect("a state directory");
        let trust_domain = Pki::trust_domain(self.site.cluster);
        state
            .load_or_create(&trust_domain, UnixTime::now())
            .expect("a state")
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }
}

impl Gateway {
    /// Runs `corinth` with these arguments, about this node.
    pub fn corinth(&self, args: &[&str]) -> Output {
        let binary = guard::binary("corinth");
        let mut command = self.host.command(&binary.to_string_lossy());
        command.args(args).arg("--config").arg(&self.config);
        process::run("corinth", command)
    }

    /// Lets `corinth` do something to this node, and gives what it printed.
    ///
    /// # Panics
    /// When it could not.
    pub fn told(&self, args: &[&str]) -> Vec<String> {
        self.corinth(args).good().stdout
    }

    /// The items that a command which only looks prints about this node.
    ///
    /// # Panics
    /// When it does not print JSON.
    pub fn items(&self, args: &[&str]) -> Vec<Value> {
        let args = [args, &["-o", "json"]].concat();
        let answer = self.told(&args).join("\n");
        let answer: Value = serde_json::from_str(&answer).expect("an envelope");
        let items = answer["items"].as_array();
        items.expect("an envelope has items").clone()
    }
}

impl Control {
    /// Ends it without a chance to say anything.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    #[expect(
        clippy::print_stderr,
        reason = "the harness shows it with the failed test"
    )]
    fn tell(&self) {
        let log = self.process.stderr.all();
        let from = log.len().saturating_sub(25);
        eprintln!(
            "-- log of the {}\n  {}",
            self.name,
            log[from..].join("\n  ")
        );
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
            return;
        }
        let faults = faults(self.process.stderr.all());
        assert!(
            faults.is_empty(),
            "{} logged errors: {faults:#?}",
            self.name
        );
    }
}
