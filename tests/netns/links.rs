//! Nodes that become linked by a token, and what they may call of each other then.

use std::time::{Duration, Instant};

use corinth_api::{StreamKind, StreamOpen, StreamReply};
use corinth_lab::{
    Capture, Ending, Family, Gateway, Lab, Net, Nginx, Service, Traffic, WAIT, ending, exchange,
    pause_until,
    tunnel::{Tunnel, certified, encoded, frame, kind},
    until,
};
use corinth_model::{Condition, Protocol, Refusal, RouteName, SpiffeId};
use rustls::pki_types::UnixTime;
use serde_json::json;

use crate::{
    fixture::echo_back,
    nodes::{
        accept, answers, await_answer, await_silence, export, imported, link, link_status, node,
        token,
    },
};

on_both_families![
    a_service_is_called_after_linking_by_token_until_it_is_exported_no_longer,
    an_export_to_one_of_two_peers_is_seen_and_called_by_that_one_only,
    it_is_enough_that_one_side_can_be_dialled,
    who_listens_to_the_tunnel_learns_no_names_and_no_roots,
    a_linked_cluster_is_not_taken_for_another_at_its_address,
    unexporting_ends_open_streams_within_five_seconds,
    unlinking_ends_open_streams_within_five_seconds,
    being_unlinked_ends_open_streams_within_five_seconds,
    denying_ends_open_streams_within_five_seconds,
];

/// The service most tests call.
const WEB: &str = "web.shop";
/// What it is called on the wire.
const WEB_NAME: &str = "80.web.shop.svc.clusterset.local";
/// A service whose server the test writes.
const ECHO: &str = "echo.lab";
/// Where peers come in.
const TUNNEL_PORT: u16 = 15_443;
/// How soon what is withdrawn must end.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);

fn nginx(lab: &Lab) -> Nginx {
    Nginx::start(&lab.server, lab.folder(), lab.server_at(0, 8080), None)
}

fn a_service_is_called_after_linking_by_token_until_it_is_exported_no_longer(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let nginx = nginx(&lab);
    let (east, west) = (node(&lab, "east"), node(&lab, "west"));
    link(&west, &east);
    for (one, other) in [(&east, "west"), (&west, "east")] {
        let link = link_status(one, other).expect("they are linked");
        let new = (&link["imports"], &link["exports"], &link["accepted"]);
        assert_eq!(new, (&json!(0), &json!(0), &json!([])), "{other}");
    }

    export(&west, WEB, 80, lab.server_at(0, 8080), "east");
    let to = accept(&east, "west", WEB);
    await_answer(&lab.client, to);
    assert!(nginx.requests() > 0);

    west.told(&["unexport", WEB]);
    let took = await_silence(&lab.client, to);
    println!("closed within {took:?}");
    assert!(took < WITHDRAWN_WITHIN, "{took:?}");
    assert_eq!(east.items(&["imports"]), [json!(null); 0]);
}

fn an_export_to_one_of_two_peers_is_seen_and_called_by_that_one_only(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let nginx = nginx(&lab);
    let proxy = json!({ "connect": "127.0.0.1:8118" });
    let south = lab.gateway("south").node().with("listen", proxy);
    let south = south.start_node();
    let (east, west) = (node(&lab, "east"), node(&lab, "west"));
    link(&west, &east);
    link(&west, &south);
    link(&south, &east);

    south.told(&["link", "accept", "west", "*"]);
    export(&west, WEB, 80, lab.server_at(0, 8080), "east");
    let to = accept(&east, "west", WEB);
    await_answer(&lab.client, to);
    let called = nginx.requests();

    // South does not see it, its clients cannot name it, and a stream of its own making is refused.
    assert_eq!(south.items(&["imports"]), [json!(null); 0]);
    let url = format!("http://{WEB}.svc.clusterset.local/");
    let args = ["-sSvp", "--max-time", "5", "-x", "http://127.0.0.1:8118"];
    let asked = lab.west.run("curl", args.into_iter().chain([&*url]));
    let said = asked.stderr.join("\n");
    assert!(said.contains("x-corinth-reason: CRN001"), "{said}");
    assert_eq!(
        opened_by(&lab, "south", &west),
        StreamReply::Refused(Refusal::Forbidden)
    );
    assert_eq!(opened_by(&lab, "east", &west), StreamReply::Accepted);
    // Asking nginx is a request as well.
    assert_eq!(nginx.requests(), called + 1);

    west.told(&["export", WEB, "--to", "south"]);
    await_answer(&lab.server, imported(&south, WEB));
}

/// What `west` answers a gateway of `cluster` that opens a stream to the service.
fn opened_by(lab: &Lab, cluster: &str, west: &Gateway) -> StreamReply {
    let id = format!("spiffe://{cluster}.corinth.internal/corinth/gateway/9");
    let authority = lab.gateway(cluster).node().state().authority;
    let hour = Duration::from_secs(3_600);
    let leaf = authority.issue(&SpiffeId::parse(&id).unwrap(), &[], UnixTime::now(), hour);
    let socket = lab.site(cluster).host().connect(west.tunnel());
    let shown = Some(certified(&leaf.unwrap()));
    let mut tunnel = Tunnel::shake_hands(socket, shown, &[b"corinth/1"]).unwrap();
    let open = StreamOpen::new(StreamKind::Service {
        route: RouteName::parse(WEB_NAME).unwrap(),
        protocol: Protocol::Tcp,
    });
    tunnel.begin().unwrap();
    let opened = tunnel.say(&frame(kind::OPEN, 0, 1, &encoded(&open)));
    opened.unwrap();
    let reply = tunnel.hear().expect("a reply");
    StreamReply::decode(&reply.payload).expect("a reply")
}

fn it_is_enough_that_one_side_can_be_dialled(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _nginx = nginx(&lab);
    let at_client = family.socket(Net::Near, 100, 7007);
    let _echo = lab.client.serve(at_client, echo_back);
    let (east, west) = (node(&lab, "east"), node(&lab, "west"));
    lab.east.firewall().ignore_connects(east.tunnel());
    link(&west, &east);

    export(&west, WEB, 80, lab.server_at(0, 8080), "east");
    await_answer(&lab.client, accept(&east, "west", WEB));
    export(&east, ECHO, 7, at_client, "west");
    let to = accept(&west, "east", ECHO);
    let mut stream = until("a way back", WAIT, || {
        let mut stream = lab.server.try_connect(to).ok()?;
        exchange(&mut stream, b"hello", 5).ok().map(|_| stream)
    });
    assert_eq!(exchange(&mut stream, b"again", 5).unwrap(), b"again");
}

fn who_listens_to_the_tunnel_learns_no_names_and_no_roots(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _nginx = nginx(&lab);
    let capture = Capture::start(&lab.east, TUNNEL_PORT);
    let (east, west) = (node(&lab, "east"), node(&lab, "west"));
    link(&west, &east);
    export(&west, WEB, 80, lab.server_at(0, 8080), "east");
    await_answer(&lab.client, accept(&east, "west", WEB));
    let traffic = capture.stop();
    println!("{} bytes passed", traffic.bytes());

    // It was there, and in clear is what TLS says in clear.
    for protocol in ["corinth-link/1", "corinth/1"] {
        assert!(traffic.holds(protocol.as_bytes()), "{protocol}");
    }
    let mut clear = Vec::new();
    // Short names as messages hold them, with their length: four letters may come out of a cipher by chance.
    for words in [
        "web.shop",
        "clusterset",
        "corinth.internal",
        "spiffe://",
        "\u{4}east",
        "\u{4}west",
        "GET / HTTP",
    ] {
        if traffic.holds(words.as_bytes()) {
            clear.push(words.to_owned());
        }
    }
    for cluster in ["east", "west"] {
        let bundle = lab.gateway(cluster).node().state().bundle;
        for root in bundle.roots() {
            clear.extend(part_in_clear(&traffic, root).map(|part| format!("{cluster}: {part:x?}")));
        }
    }
    assert_eq!(clear, [""; 0]);
}

/// The first part of a certificate that passed as it is.
fn part_in_clear<'a>(traffic: &Traffic, certificate: &'a [u8]) -> Option<&'a [u8]> {
    let mut parts = certificate.chunks_exact(32);
    assert!(parts.len() > 8, "a certificate is longer");
    parts.find(|part| traffic.holds(part))
}

fn a_linked_cluster_is_not_taken_for_another_at_its_address(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let nginx = nginx(&lab);
    let (east, mut west, south) = (node(&lab, "east"), node(&lab, "west"), node(&lab, "south"));
    link(&west, &east);
    link(&south, &east);
    for node in [&west, &south] {
        export(node, WEB, 80, lab.server_at(0, 8080), "east");
    }
    let to = accept(&east, "west", WEB);
    await_answer(&lab.client, to);

    let mark = east.log_mark();
    let firewall = lab.west.firewall();
    firewall.balance(west.tunnel(), &[south.tunnel()]);
    west.kill();
    let said = east.await_log_since(mark, "cannot link");
    assert!(
        said.contains("south.corinth.internal"),
        "it says who answered: {said}"
    );
    let called = nginx.requests();
    assert!(!answers(&lab.client, to));
    // Asking nginx is a request as well.
    assert_eq!(nginx.requests(), called + 1);
    assert_eq!(east.links("up"), 1, "the link with south stands");
}

fn unexporting_ends_open_streams_within_five_seconds(family: Family) {
    withdrawn(family, |_, west| {
        west.told(&["unexport", ECHO]);
    });
}

fn unlinking_ends_open_streams_within_five_seconds(family: Family) {
    withdrawn(family, |_, west| unlink(west, "east"));
}

fn being_unlinked_ends_open_streams_within_five_seconds(family: Family) {
    withdrawn(family, |east, _| unlink(east, "west"));
}

fn denying_ends_open_streams_within_five_seconds(family: Family) {
    withdrawn(family, |_, west| {
        let east = "east.corinth.internal";
        west.told(&["link", "deny", east]);
    });
}

fn unlink(node: &Gateway, peer: &str) {
    let risk = "--accept-risk=drop-live-connections";
    node.told(&["link", "delete", peer, risk]);
}

/// Streams of east end, and nobody gets new ones, after `withdraw` has happened to east and west.
fn withdrawn(family: Family, withdraw: impl FnOnce(&Gateway, &Gateway)) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 7007);
    let echo: Service = lab.server.serve(endpoint, echo_back);
    let (east, west) = (node(&lab, "east"), node(&lab, "west"));
    link(&west, &east);
    export(&west, ECHO, 7, endpoint, "east");
    let to = accept(&east, "west", ECHO);
    let open = || {
        let mut stream = lab.client.try_connect(to).ok()?;
        exchange(&mut stream, b"hello", 5).ok().map(|_| stream)
    };
    let first = until("a stream", WAIT, open);
    let mut streams: Vec<_> = (1..20).map(|_| open().expect("a stream")).collect();
    streams.push(first);

    let withdrawn_at = Instant::now();
    withdraw(&east, &west);
    for stream in &mut streams {
        assert_eq!(ending(stream), Ending::Reset);
    }
    let took = withdrawn_at.elapsed();
    println!("20 streams ended within {took:?}");
    assert!(took < WITHDRAWN_WITHIN, "{took:?}");
    let accepted = echo.tally().accepted();
    assert!(open().is_none());
    assert_eq!(echo.tally().accepted(), accepted);
}

#[test]
fn tokens_that_are_of_no_use_are_refused_with_a_code() {
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let (east, mut west, south) = (node(&lab, "east"), node(&lab, "west"), node(&lab, "south"));
    let refused = |joiner: &Gateway, token: &str, expected: Condition| {
        let output = joiner.corinth(&["link", "join", token]);
        let said = output.stderr.join("\n");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(expected.code()),
            "not {}: {said}",
            expected.code()
        );
    };
    // Nobody listens where the only token has expired.
    let expired = south.told(&["link", "token", "create", "--ttl", "1s"]);
    pause_until(Instant::now() + Duration::from_millis(1_100));
    refused(&east, &expired.concat(), Condition::LinkUnreachable);

    refused(&east, "not-a-token", Condition::TokenRefused);
    refused(&west, &token(&west), Condition::OwnCluster);

    let expired = west.told(&["link", "token", "create", "--ttl", "1s"]);
    pause_until(Instant::now() + Duration::from_millis(1_100));
    refused(&east, &expired.concat(), Condition::TokenRefused);

    let used = token(&west);
    east.told(&["link", "join", &used]);
    refused(&south, &used, Condition::TokenRefused);
    refused(&east, &token(&west), Condition::AlreadyLinked);

    let of_nobody = token(&west);
    west.kill();
    refused(&south, &of_nobody, Condition::LinkUnreachable);
    assert_eq!(south.items(&["link", "list"]), [json!(null); 0]);
}
