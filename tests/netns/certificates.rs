//! Who knocks at the tunnel port with a certificate that does not open it.

use std::{
    fs,
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

use corinth_lab::{
    Family, Gateway, Host, Lab, WAIT, pause_until,
    tunnel::{Tunnel, certified, first, kind, paired},
    until,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    pki_types::{PrivateKeyDer, UnixTime},
    sign::CertifiedKey,
};
use serde_json::json;

use crate::strangers::waiting;

on_both_families![
    certificates_that_do_not_belong_are_refused,
    versions_and_early_data_are_refused,
    the_gateway_of_another_cluster_is_not_taken_for_the_peer,
];

/// East's gateway, as it should call itself.
const EAST: &str = "spiffe://east.corinth.internal/corinth/gateway/0";

/// A leaf under the authority of `cluster`, bent into some shape.
fn bent(
    lab: &Lab,
    cluster: &str,
    uris: &[&str],
    bend: impl FnOnce(&mut CertificateParams),
) -> CertifiedKey {
    lab.pki.authority(cluster);
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap();
    let root_key = KeyPair::from_pem(&read(&lab.pki.key(cluster))).unwrap();
    let root = Issuer::from_ca_cert_pem(&read(&lab.pki.certificate(cluster)), root_key).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let now = SystemTime::now();
    leaf.not_before = (now - Duration::from_secs(60)).into();
    leaf.not_after = (now + Duration::from_secs(3_600)).into();
    bend(&mut leaf);
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &root).unwrap();
    paired(vec![certificate.der().clone()], &key_der(&key))
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

/// What the far gateway writes about a handshake with this certificate.
fn refused(host: &Host, west: &Gateway, shown: Option<CertifiedKey>) -> (String, String) {
    let socket: TcpStream = host.connect(west.tunnel());
    let source = socket.local_addr().unwrap();
    if let Ok(mut tunnel) = Tunnel::shake_hands(socket, shown, &[b"corinth/1"]) {
        // We are done before the other side is; what we send now must not count.
        let _ = tunnel.begin();
        if let Some(told) = tunnel.hear() {
            assert_eq!(told.kind, kind::CLOSE, "{told:?}");
        }
    }
    let record = west.record_from(source);
    (record.text("intake").to_owned(), record.code().to_owned())
}

fn certificates_that_do_not_belong_are_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = lab.gateway("west").awaits("east").awaits("south").start();
    let now = SystemTime::now();
    let unchanged = |_: &mut CertificateParams| {};
    let purposes = |purposes: &[ExtendedKeyUsagePurpose]| {
        let purposes = purposes.to_vec();
        move |leaf: &mut CertificateParams| leaf.extended_key_usages = purposes
    };
    let issued = |path: &str| {
        let hour = Duration::from_secs(3_600);
        lab.pki.leaf("east", path, UnixTime::now(), hour)
    };
    let good = issued("corinth/gateway/0");
    let root = fs::read(lab.pki.certificate("east")).unwrap();
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(&root).unwrap();
    let root_key = fs::read(lab.pki.key("east")).unwrap();
    let root_key = rustls::pki_types::pem::PemObject::from_pem_slice(&root_key).unwrap();
    let stranger = "spiffe://north.corinth.internal/corinth/gateway/0";
    let own = "spiffe://west.corinth.internal/corinth/gateway/1";
    let workload = "spiffe://east.corinth.internal/ns/shop/sa/web";
    let control = "spiffe://east.corinth.internal/corinth/control/0";
    let cases: Vec<(&str, Option<CertifiedKey>, &str)> = vec![
        ("none", None, "CRN040"),
        (
            "the key of another",
            Some(paired(
                good.chain().to_vec(),
                &key_der(&KeyPair::generate().unwrap()),
            )),
            "CRN040",
        ),
        (
            "the authority itself",
            Some(paired(vec![root], &root_key)),
            "CRN040",
        ),
        (
            "for servers only",
            Some(bent(
                &lab,
                "east",
                &[EAST],
                purposes(&[ExtendedKeyUsagePurpose::ServerAuth]),
            )),
            "CRN040",
        ),
        (
            "for neither side",
            Some(bent(
                &lab,
                "east",
                &[EAST],
                purposes(&[ExtendedKeyUsagePurpose::CodeSigning]),
            )),
            "CRN040",
        ),
        (
            "one that is an authority",
            Some(bent(&lab, "east", &[EAST], |leaf| {
                leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
            })),
            "CRN040",
        ),
        (
            "one that may sign",
            Some(bent(&lab, "east", &[EAST], |leaf| {
                leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)
            })),
            "CRN040",
        ),
        (
            "two names",
            Some(bent(&lab, "east", &[EAST, workload], unchanged)),
            "CRN040",
        ),
        (
            "no name",
            Some(bent(&lab, "east", &[], unchanged)),
            "CRN040",
        ),
        (
            "a name with a port",
            Some(bent(
                &lab,
                "east",
                &["spiffe://east.corinth.internal:443/corinth/gateway/0"],
                unchanged,
            )),
            "CRN040",
        ),
        (
            "a name in capitals",
            Some(bent(
                &lab,
                "east",
                &["SPIFFE://east.corinth.internal/corinth/gateway/0"],
                unchanged,
            )),
            "CRN040",
        ),
        (
            "a name with dots",
            Some(bent(
                &lab,
                "east",
                &["spiffe://east.corinth.internal/corinth/../gateway/0"],
                unchanged,
            )),
            "CRN040",
        ),
        (
            "expired a second ago",
            Some(bent(&lab, "east", &[EAST], |leaf| {
                leaf.not_after = (now - Duration::from_secs(1)).into()
            })),
            "CRN041",
        ),
        (
            "valid in a minute",
            Some(bent(&lab, "east", &[EAST], |leaf| {
                leaf.not_before = (now + Duration::from_secs(60)).into()
            })),
            "CRN041",
        ),
        (
            "a workload",
            Some(certified(&issued("ns/shop/sa/web"))),
            "CRN042",
        ),
        (
            "a control plane",
            Some(bent(&lab, "east", &[control], unchanged)),
            "CRN042",
        ),
        (
            "a cluster that is not linked",
            Some(bent(&lab, "north", &[stranger], unchanged)),
            "CRN040",
        ),
        (
            "east, certified by south",
            Some(bent(&lab, "south", &[EAST], unchanged)),
            "CRN040",
        ),
        (
            "east, certified by nobody we know",
            Some(bent(&lab, "north", &[EAST], unchanged)),
            "CRN040",
        ),
        (
            "ourselves",
            Some(bent(&lab, "west", &[own], unchanged)),
            "CRN043",
        ),
    ];
    let mut faults = Vec::new();
    for (name, shown, code) in cases {
        let told = refused(&lab.east, &west, shown);
        if told != ("tunnel".to_owned(), code.to_owned()) {
            faults.push(format!("{name}: {told:?}, not {code}"));
        }
    }
    assert_eq!(faults, [""; 0]);
    assert_eq!(west.links("up"), 0);
    // And one that does belong.
    let socket = lab.east.connect(west.tunnel());
    let shown = Some(certified(&good));
    let mut tunnel = Tunnel::shake_hands(socket, shown, &[b"corinth/1"]).unwrap();
    tunnel.say(&first(2)).unwrap();
    assert_eq!(tunnel.hear().map(|frame| frame.kind), Some(kind::PONG));
}

fn versions_and_early_data_are_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = waiting(&lab);
    let hour = Duration::from_secs(3_600);
    let leaf = lab
        .pki
        .leaf("east", "corinth/gateway/0", UnixTime::now(), hour);
    let (certificate, key) = lab.pki.write_leaf("east-leaf", &leaf);
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let to = west.tunnel().to_string();
    let client = |more: &[&str]| {
        let mut args = vec!["s_client", "-connect", &to, "-alpn", "corinth/1"];
        args.extend(["-cert", &certificate, "-key", &key]);
        args.extend(more);
        let output = lab.east.feed("openssl", &args, b"");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    for version in ["-tls1_2", "-tls1_1"] {
        let said = client(&[version]);
        assert!(
            said.contains("Cipher is (NONE)") || said.contains("no protocols"),
            "{version}: {said}"
        );
    }
    west.await_record(|record| record.code() == "CRN035");

    // A ticket of another server is all it takes to send early data.
    let file = |name: &str| lab.folder().join(name).to_string_lossy().into_owned();
    let (session, early) = (file("session.pem"), file("early"));
    fs::write(&early, first(2)).unwrap();
    let at = lab
        .family
        .socket(corinth_lab::Net::Between, 1, 4433)
        .to_string();
    let mut args = vec![
        "s_server",
        "-accept",
        &at,
        "-cert",
        &certificate,
        "-key",
        &key,
    ];
    args.extend(["-alpn", "corinth/1", "-early_data", "-tls1_3", "-quiet"]);
    let mut server = lab.east.start("openssl", args);
    await_ticket(&lab.east, &at, &session);
    server.kill();
    let before = west.records().len();
    let said = client(&["-sess_in", &session, "-early_data", &early, "-tls1_3"]);
    assert!(said.contains("Early data was rejected"), "{said}");
    assert!(!said.contains("Reused, "), "{said}");
    let record = until("west has written", WAIT, || {
        west.records().get(before).cloned()
    });
    assert_eq!(record.text("intake"), "tunnel", "{said}");
    assert_eq!(west.links("up"), 0, "what was said early did not count");
}

/// Stays connected until the server has handed out a ticket.
fn await_ticket(host: &Host, server: &str, session: &str) {
    until("there is a ticket", WAIT, || {
        let mut command = host.command("openssl");
        command.args(["s_client", "-connect", server, "-alpn", "corinth/1"]);
        command.args(["-tls1_3", "-sess_out", session]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        let open_end = client.stdin.take();
        let has_ticket = || fs::metadata(session).is_ok_and(|file| file.len() > 0);
        while !has_ticket() && matches!(client.try_wait(), Ok(None)) {
            pause_until(Instant::now() + Duration::from_millis(10));
        }
        drop(open_end);
        client.wait().unwrap();
        has_ticket().then_some(())
    });
}

fn the_gateway_of_another_cluster_is_not_taken_for_the_peer(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let south = lab.gateway("south").awaits("east").start();
    // East knows both; what it is told to be west is south.
    let east = lab.gateway("east").awaits("south");
    let east = east.peer_with("west", json!({ "addresses": [south.tunnel()] }));
    let east = east.imports("web.shop:80", 20_080, &["west"]).start();
    east.await_log("cannot link");
    let said = east.await_log("west.corinth.internal");
    assert!(
        said.contains("south.corinth.internal"),
        "it says who answered: {said}"
    );
    assert_eq!(east.links("up"), 0);
    assert_eq!(south.links("up"), 0);
}
