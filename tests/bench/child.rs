//! A process that is measured.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::cluster::Cluster;
use crate::role::{self, Role};

/// Runs until it is dropped; it also ends when this process does.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it, and waits until it serves. The address is that of its tunnel port, if it has one.
    pub(crate) fn start(role: Role, cluster: &Cluster) -> (Self, SocketAddr) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(role::ROLE, role.word())
            .env(role::CLUSTER, cluster.name.as_str())
            .env(role::DIRECTORY, cluster.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(announced) = cluster.announced {
            command.env(role::ANNOUNCED, announced.to_string());
        }
        let mut process = Self(command.spawn().unwrap());
        let out = process.0.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        let tunnel = line.trim().strip_prefix(role::READY);
        let tunnel = tunnel.expect("it says that it serves").parse().unwrap();
        (process, tunnel)
    }

    /// Resident memory now and at its most, in bytes.
    pub(crate) fn resident(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let field = |name: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            kib * 1_024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What it would do at its end is not measured.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
