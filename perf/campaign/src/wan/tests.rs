use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use rustix::process::geteuid;

use crate::{
    Interrupt,
    lab::Middle,
    running::Running,
    system::{self, SERVER_PORT, corinth},
    testing::{gateway, place, serve_echo},
};

use super::*;

/// The direct path needs a round trip to connect and one to ask; a gateway with a kept connection only the second.
#[test]
fn a_fresh_connection_through_kept_ones_takes_one_round_trip() {
    if !geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_fresh_connection_through_kept_ones_takes_one_round_trip: namespaces need root"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    let place = place(folder.path());
    let lab = Lab::lay(Middle::Open, &Interrupt::default()).expect("we are root");
    let [cell, _] = cells();
    let network = join(&lab, &cell.impairment, 1).expect("we are root");
    let listener = lab
        .within(Side::Server, || TcpListener::bind(("0.0.0.0", SERVER_PORT)))
        .expect("it is there")
        .expect("nobody else is");
    serve_echo(listener);
    let round_trip = Duration::from_secs_f64(FIRST_BYTE_RTT_MS / 1_000.0);

    let direct = first_byte(&lab, system::direct(&place).target);
    assert!(direct >= 2 * round_trip, "{direct:?}");
    network.check().expect("it still carries");

    let Some(gateway) = gateway() else {
        let _ = writeln!(std::io::stderr(), "without our gateway: it is not built");
        return;
    };
    let recipe = corinth::recipe(
        &place,
        &system::path_text(&gateway),
        corinth::Tunnel::new(corinth::Way::Tls),
    );
    let _running = Running::start(&recipe, &lab).expect("it works elsewhere");
    let ours = first_byte(&lab, recipe.target);
    assert!(ours >= round_trip && ours < 2 * round_trip, "{ours:?}");
    assert_eq!(lab.congestion_controls(Side::A), [CONGESTION]);
}

/// The fastest of a few, once bytes come back at all: a link may still be coming up.
fn first_byte(lab: &Lab, target: SocketAddr) -> Duration {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = once(lab, target) {
        assert!(Instant::now() < until, "{target}: {error}");
        let pause = lab.interrupt().pause(Duration::from_millis(50));
        pause.expect("nobody interrupts");
    }
    let tries = (0..10).filter_map(|_| once(lab, target).ok());
    tries.min().expect("bytes came back before")
}

fn once(lab: &Lab, target: SocketAddr) -> std::io::Result<Duration> {
    let limit = Duration::from_secs(3);
    let started = Instant::now();
    let mut stream = lab
        .within(Side::Client, || TcpStream::connect_timeout(&target, limit))
        .expect("it is there")?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    Ok(started.elapsed())
}
