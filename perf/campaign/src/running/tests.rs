use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use rustix::process::geteuid;

use crate::{
    Interrupt, certificates,
    lab::{LinkMtu, Middle},
    programs::Programs,
    system::{SERVER_PORT, SystemKey, wireguard},
    testing::{gateway, place, serve_echo},
};

use super::*;

/// Every system that is installed comes up, carries bytes both ways, and is gone afterwards.
#[test]
fn every_installed_system_carries_bytes() {
    if !geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED every_installed_system_carries_bytes: namespaces need root"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    let place = place(folder.path());
    certificates::write(&place.certificates).expect("there is room");
    let programs = Programs {
        gateway: gateway(),
        envoy: None,
    };
    let interrupt = Interrupt::default();
    let keys = |wg: &str| wireguard::Keys::generate(wg, folder.path(), &interrupt);
    let lab = Lab::lay(Middle::Wire(LinkMtu::ETHERNET), &interrupt).expect("we are root");
    let listener = lab
        .within(Side::Server, || TcpListener::bind(("0.0.0.0", SERVER_PORT)))
        .expect("it is there")
        .expect("nobody else is");
    serve_echo(listener);
    for key in SystemKey::ALL {
        let recipe = match programs.find(key, &place, &keys) {
            Ok(found) => found.recipe,
            Err(fault) => {
                let _ = writeln!(std::io::stderr(), "without {key}: {fault}");
                continue;
            }
        };
        // The second start finds what the first left.
        for _ in 0..2 {
            let running =
                Running::start(&recipe, &lab).unwrap_or_else(|fault| panic!("{key}: {fault}"));
            carries(&lab, recipe.target)
                .unwrap_or_else(|error| panic!("{key}: {error}: {:?}", running.said()));
            let resident = running
                .resident()
                .map_or(0, |resident| resident.larger_bytes());
            assert_eq!(resident > 1_000_000, key != SystemKey::Direct, "{key}");
        }
    }
}

/// Until an answer comes: a link may need a moment.
fn carries(lab: &Lab, target: SocketAddr) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match once(lab, target) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => lab
                .interrupt()
                .pause(Duration::from_millis(50))
                .expect("nobody interrupts"),
            Ok(()) => return Ok(()),
        }
    }
}

fn once(lab: &Lab, target: SocketAddr) -> std::io::Result<()> {
    let limit = Duration::from_secs(2);
    let mut stream = lab
        .within(Side::Client, || TcpStream::connect_timeout(&target, limit))
        .expect("it is there")?;
    stream.set_read_timeout(Some(limit))?;
    let sent = [7; 20_000];
    stream.write_all(&sent)?;
    let mut got = [0; 20_000];
    stream.read_exact(&mut got)?;
    assert_eq!(sent, got);
    Ok(())
}
