//! One of the four hosts: a network namespace.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{Firewall, Output, Process, Service, Tally, WAIT, process};

/// How long a socket of a test waits for the other side.
const SOCKET_WAIT: Duration = WAIT;

/// A network namespace. Clones mean the same one; the laboratory takes it away.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) namespace: String,
}

impl Host {
    /// `program`, to be started here.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Starts a program here.
    pub fn start<'a>(&self, program: &str, args: impl IntoIterator<Item = &'a str>) -> Process {
        let mut command = self.command(program);
        command.args(args);
        Process::start(program, command)
    }

    /// Runs a program here to its end.
    pub fn run<'a>(&self, program: &str, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.start(program, args).wait(WAIT)
    }

    /// Runs a program here to its end, with `input` on its standard input.
    ///
    /// # Panics
    /// When it cannot be started, or does not take the input.
    pub fn feed(&self, program: &str, args: &[&str], input: &[u8]) -> std::process::Output {
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("ip starts");
        let mut pipe = child.stdin.take().expect("it is piped");
        pipe.write_all(input).expect("it reads its input");
        drop(pipe);
        child.wait_with_output().expect("it is our child")
    }

    /// What it is called below `/run/netns`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Does something in this namespace. Sockets made by it stay here for good.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(&path).expect("the laboratory stands");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we are root");
                act()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Connects from here.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        self.try_connect(to)
            .unwrap_or_else(|error| panic!("connecting to {to}: {error}"))
    }

    /// Connects from here, or says why not.
    pub fn try_connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self.within(|| TcpStream::connect_timeout(&to, SOCKET_WAIT))?;
        prepare(&stream);
        Ok(stream)
    }

    /// Connects from one of the addresses here.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn connect_from(&self, from: IpAddr, to: SocketAddr) -> TcpStream {
        self.within(|| self.connect_here(from, to))
    }

    /// The same on a thread that [is in here](Self::within) already: for very many connections.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn connect_here(&self, from: IpAddr, to: SocketAddr) -> TcpStream {
        let connect = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), SOCKET_WAIT)?;
            Ok::<_, std::io::Error>(TcpStream::from(socket))
        };
        let stream = connect();
        let stream =
            stream.unwrap_or_else(|error| panic!("connecting from {from} to {to}: {error}"));
        prepare(&stream);
        stream
    }

    /// Listens here.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn listen(&self, on: SocketAddr) -> TcpListener {
        self.within(|| {
            let socket = Socket::new(Domain::for_address(on), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&on.into())?;
            socket.listen(1_024)?;
            Ok::<_, std::io::Error>(TcpListener::from(socket))
        })
        .unwrap_or_else(|error| panic!("listening on {on}: {error}"))
    }

    /// Serves every connection to `on` with `serve`, each on a thread of its own, until the service is dropped.
    pub fn serve(
        &self,
        on: SocketAddr,
        serve: impl Fn(TcpStream, &Tally) + Send + Sync + 'static,
    ) -> Service {
        Service::start(self.listen(on), serve)
    }

    /// A socket for datagrams at an address here; with port 0 the kernel picks one. Reading gives up after `patience`.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn datagrams(&self, on: SocketAddr, patience: Duration) -> UdpSocket {
        let socket = self.within(|| UdpSocket::bind(on));
        let socket = socket.unwrap_or_else(|error| panic!("a socket on {on}: {error}"));
        socket
            .set_read_timeout(Some(patience))
            .expect("it is no zero");
        socket
    }

    /// The packet filter of this host.
    pub fn firewall(&self) -> Firewall<'_> {
        Firewall { host: self }
    }

    /// Adds an address to the interface towards a neighbour.
    pub(crate) fn ip_batch(&self, batch: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.namespace, "-batch", "-"]);
        feed_ip(command, batch);
    }
}

/// Every socket of a test gives up one day.
pub(crate) fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_read_timeout(Some(SOCKET_WAIT));
    let _ = socket.set_write_timeout(Some(SOCKET_WAIT));
    let _ = socket.set_tcp_nodelay(true);
}

/// Runs `ip` with commands on its standard input.
pub(crate) fn feed_ip(mut command: Command, batch: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut pipe = child.stdin.take().expect("it is piped");
    pipe.write_all(batch.as_bytes())
        .expect("ip reads its commands");
    drop(pipe);
    let output = child.wait_with_output().expect("it is our child");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip: {words}\n{batch}");
}

/// Runs `ip` outside every namespace.
pub(crate) fn ip(args: &[&str]) -> Output {
    let mut command = Command::new("ip");
    command.args(args);
    process::run("ip", command)
}
