//! Servers that everybody knows.

use std::{fs, net::SocketAddr, path::Path};

use crate::{Host, Process, WAIT, pki::Site, until};

/// nginx, answering `ok` to every request.
pub struct Nginx {
    _process: Process,
    host: Host,
    status: SocketAddr,
}

/// dnsmasq, a server for names.
pub struct Dnsmasq {
    _process: Process,
}

/// An iperf3 server.
pub struct Iperf {
    _process: Process,
}

impl Nginx {
    /// Starts it on `host`: plain on `plain`, and with TLS on `tls` if there is a certificate.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(
        host: &Host,
        folder: &Path,
        plain: SocketAddr,
        tls: Option<(SocketAddr, &Site)>,
    ) -> Self {
        let folder = folder.join(format!("nginx-{}", plain.port()));
        fs::create_dir_all(&folder).expect("there is room");
        let status = SocketAddr::new(plain.ip(), plain.port() + 1);
        let secure = tls.map_or_else(String::new, |(address, site)| {
            format!(
                "server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {}; \
                 location / {{ return 200 \"ok\\n\"; }} }}\n",
                site.certificate.display(),
                site.key.display()
            )
        });
        let text = format!(
            "daemon off; user root; worker_processes 1; pid {folder}/pid; error_log stderr warn;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 1000000; keepalive_timeout 60s;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             server {{ listen {plain} backlog=4096; location / {{ return 200 \"ok\\n\"; }} }}\n\
             server {{ listen {status}; location / {{ stub_status; }} }}\n\
             {secure} }}\n",
            folder = folder.display(),
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).expect("there is room");
        let mut command = host.command("nginx");
        command
            .arg("-e")
            .arg("stderr")
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&file);
        let mut process = Process::start("nginx", command);
        until("nginx listens", WAIT, || {
            assert!(process.is_running(), "nginx: {:#?}", process.wait(WAIT));
            host.try_connect(status).ok()
        });
        Self {
            _process: process,
            host: host.clone(),
            status,
        }
    }

    /// Requests it has answered, those of this question not counted.
    ///
    /// # Panics
    /// When its page is not what it always was.
    pub fn requests(&self) -> u64 {
        let url = format!("http://{}/", self.status);
        let page = self
            .host
            .run("curl", ["-gsS", "--noproxy", "*", &url])
            .good();
        let counts = page.stdout.iter().find(|line| line.starts_with(' '));
        let handled = counts.and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        handled.expect("nginx counts") - 1
    }
}

impl Dnsmasq {
    /// Starts it on `host`: it knows the names that `records` say, as its options spell them, and asks nobody.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(host: &Host, on: SocketAddr, records: &[String]) -> Self {
        let (address, port) = (on.ip().to_string(), on.port().to_string());
        let mut command = host.command("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
            ])
            .args([
                "--bind-interfaces",
                "--log-facility=-",
                "--user=root",
                "--pid-file",
            ])
            .args([
                "--edns-packet-max=8192",
                "--listen-address",
                &address,
                "--port",
                &port,
            ])
            .args(records);
        let process = Process::start("dnsmasq", command);
        let is_there = |line: &str| line.contains("started, version").then_some(());
        process
            .stderr
            .find(0, WAIT, is_there)
            .expect("dnsmasq says that it has started");
        Self { _process: process }
    }
}

impl Iperf {
    /// Starts it on `host`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(host: &Host, on: SocketAddr) -> Self {
        let (address, port) = (on.ip().to_string(), on.port().to_string());
        let process = host.start(
            "iperf3",
            ["-s", "-B", &address, "-p", &port, "--forceflush"],
        );
        let is_there = |line: &str| line.contains("listening").then_some(());
        process
            .stdout
            .find(0, WAIT, is_there)
            .expect("iperf3 says that it listens");
        Self { _process: process }
    }
}
