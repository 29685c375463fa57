//! What most tests begin with.

use std::net::TcpStream;

pub(crate) use corinth_lab::echo_back;
use corinth_lab::{Gateway, Host, Lab, Nginx, Service, Tally};

/// The service most tests call.
pub(crate) const WEB: &str = "web.shop:80";
/// Where east accepts it.
pub(crate) const WEB_PORT: u16 = 20_080;

/// A service whose server the test writes.
pub(crate) const ECHO: &str = "echo.lab:7";
/// Where east accepts it.
pub(crate) const ECHO_PORT: u16 = 20_007;

/// nginx behind west, called through east.
pub(crate) struct Web {
    pub(crate) nginx: Nginx,
    pub(crate) east: Gateway,
    pub(crate) west: Gateway,
}

/// One gateway on each side, and nginx.
pub(crate) fn web(lab: &Lab) -> Web {
    let endpoint = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let west = lab
        .gateway("west")
        .peer("east")
        .exports(WEB, &[endpoint], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(WEB, WEB_PORT, &["west"])
        .start();
    east.await_links(1);
    Web { nginx, east, west }
}

/// One gateway on each side, and a server that treats each connection as `serve` says.
pub(crate) fn echo(
    lab: &Lab,
    serve: impl Fn(TcpStream, &Tally) + Send + Sync + 'static,
) -> (Gateway, Gateway, Service) {
    let endpoint = lab.server_at(0, 7007);
    let service = lab.server.serve(endpoint, serve);
    let west = lab
        .gateway("west")
        .peer("east")
        .exports(ECHO, &[endpoint], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(ECHO, ECHO_PORT, &["west"])
        .start();
    east.await_links(1);
    (west, east, service)
}

/// Runs curl and gives what it wrote, line by line.
pub(crate) fn curl(host: &Host, args: &[&str]) -> Vec<String> {
    let always = ["-g", "-sS", "--noproxy", "*", "--max-time", "60"];
    host.run("curl", always.iter().chain(args).copied())
        .good()
        .stdout
}
