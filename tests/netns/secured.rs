//! TLS that we do not end: it reaches the application as it left the client. And the one kind that we do end.

use std::{net::SocketAddr, path::Path, time::Duration};

use corinth_lab::{Family, Gateway, Host, Lab, Nginx, TlsSite, WAIT, until};
use rustls::pki_types::UnixTime;
use serde_json::json;

use crate::fixture::{WEB, WEB_PORT, curl, web};

on_both_families![
    tls_of_a_local_client_reaches_the_application_it_names,
    tls_of_a_direct_client_reaches_the_application_untouched,
    a_direct_client_from_elsewhere_is_turned_away,
    mutual_tls_of_a_direct_client_ends_at_the_gateway,
    a_caller_that_is_not_listed_is_turned_away,
    proxies_reach_services_by_name_and_say_why_not,
];

/// The application's service.
const PAY: &str = "pay.shop:443";
/// What its clients have always called it.
const NAME: &str = "pay.example.com";

/// nginx with a certificate of its own.
struct Application {
    _nginx: Nginx,
    site: TlsSite,
    endpoint: SocketAddr,
}

fn application(lab: &Lab) -> Application {
    let endpoint = lab.server_at(0, 8443);
    let names = [
        NAME,
        "pay.shop.svc.clusterset.local",
        "443.pay.shop.svc.clusterset.local",
    ];
    let site = lab.pki.site(&names, endpoint.ip());
    let plain = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), plain, Some((endpoint, &site)));
    Application {
        _nginx: nginx,
        site,
        endpoint,
    }
}

/// What curl gets from `name` at `address`, trusting `ca` alone.
fn curl_tls(host: &Host, ca: &Path, name: &str, address: SocketAddr) -> Vec<String> {
    let resolve = match address {
        SocketAddr::V4(v4) => format!("{name}:{}:{}", v4.port(), v4.ip()),
        SocketAddr::V6(v6) => format!("{name}:{}:[{}]", v6.port(), v6.ip()),
    };
    let url = format!("https://{name}:{}/", address.port());
    curl(
        host,
        &[
            "--cacert",
            &ca.to_string_lossy(),
            "--resolve",
            &resolve,
            &url,
        ],
    )
}

/// What `openssl s_client` says about a session with `name`.
fn openssl(host: &Host, ca: &Path, name: &str, address: SocketAddr) -> String {
    let (ca, address) = (ca.to_string_lossy().into_owned(), address.to_string());
    let mut args = vec![
        "s_client",
        "-connect",
        &address,
        "-servername",
        name,
        "-CAfile",
        &ca,
    ];
    args.extend([
        "-verify_hostname",
        NAME,
        "-verify_return_error",
        "-brief",
        "-ign_eof",
    ]);
    let ask = b"GET / HTTP/1.0\r\n\r\n";
    let output = host.feed("openssl", &args, ask);
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn tls_of_a_local_client_reaches_the_application_it_names(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let application = application(&lab);
    let tls = json!({ "tls": true });
    let west = lab.gateway("west").peer("east");
    let _west = west
        .exports_with(PAY, &[application.endpoint], &["east"], tls)
        .start();
    let east = lab.gateway("east").peer("west");
    let east = east
        .imports_with(PAY, 20_443, &["west"], json!({ "names": [NAME] }))
        .start();
    east.await_links(1);

    let ca = &application.site.ca;
    for name in [
        NAME,
        "pay.shop.svc.clusterset.local",
        "443.pay.shop.svc.clusterset.local",
    ] {
        assert_eq!(
            curl_tls(&lab.client, ca, name, east.sni()),
            ["ok"],
            "{name}"
        );
    }
    // Neither case nor one dot at the end means anything.
    for name in [NAME, "PAY.Example.COM", "pay.example.com."] {
        let said = openssl(&lab.client, ca, name, east.sni());
        assert!(
            said.contains("Verification: OK") && said.contains("200 OK"),
            "{name}: {said}"
        );
    }
    let record = east.await_record(|record| record.text("intake") == "sni");
    assert_eq!(
        (record.code(), record.text("route")),
        ("CRN000", "443.pay.shop.svc.clusterset.local")
    );
}

fn passing_through(lab: &Lab, application: &Application, sources: &[&str]) -> Gateway {
    let direct = json!({ "passthrough": "anonymous", "sources": sources });
    let keys = json!({ "names": [NAME], "direct": direct });
    lab.gateway("west")
        .exports_with(PAY, &[application.endpoint], &[], keys)
        .start()
}

fn tls_of_a_direct_client_reaches_the_application_untouched(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let application = application(&lab);
    let west = passing_through(&lab, &application, &["10.2.0.0/24", "fd00:2::/64"]);
    let ca = &application.site.ca;
    for name in [
        NAME,
        "pay.shop.svc.clusterset.local",
        "443.pay.shop.svc.clusterset.local",
    ] {
        assert_eq!(
            curl_tls(&lab.east, ca, name, west.tunnel()),
            ["ok"],
            "{name}"
        );
    }
    let said = openssl(&lab.east, ca, NAME, west.tunnel());
    assert!(
        said.contains("Verification: OK") && said.contains("200 OK"),
        "{said}"
    );
    let record = west.await_record(|record| record.text("intake") == "direct");
    assert_eq!(
        (record.code(), record.text("route")),
        ("CRN000", "443.pay.shop.svc.clusterset.local")
    );
}

fn a_direct_client_from_elsewhere_is_turned_away(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let application = application(&lab);
    let west = passing_through(&lab, &application, &["192.0.2.0/24", "2001:db8::/32"]);
    let said = openssl(&lab.east, &application.site.ca, NAME, west.tunnel());
    assert!(!said.contains("Verification: OK"), "{said}");
    let record = west.await_record(|record| record.text("intake") == "direct");
    assert_eq!(record.code(), "CRN010");
}

fn mutual_tls_of_a_direct_client_ends_at_the_gateway(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let (nginx, west) = terminating(&lab);
    assert_eq!(
        call_with_certificate(&lab, &west, "ns/shop/sa/web").unwrap(),
        ["ok"]
    );
    assert!(nginx.requests() > 0);
    let record = west.await_record(|record| record.text("intake") == "direct");
    assert_eq!((record.code(), record.text("asked")), ("CRN000", CALLER));
}

fn a_caller_that_is_not_listed_is_turned_away(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let (_nginx, west) = terminating(&lab);
    let answer = call_with_certificate(&lab, &west, "ns/shop/sa/other");
    assert!(answer.is_err(), "{answer:?}");
    let record = west.await_record(|record| record.text("intake") == "direct");
    assert_eq!(record.code(), "CRN010");
}

/// Who may call.
const CALLER: &str = "spiffe://east.corinth.internal/ns/shop/sa/web";

fn terminating(lab: &Lab) -> (Nginx, Gateway) {
    let endpoint = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let keys = json!({ "direct": { "terminate": [CALLER] } });
    let west = lab
        .gateway("west")
        .awaits("east")
        .exports_with(WEB, &[endpoint], &[], keys);
    (nginx, west.start())
}

/// Calls `web` at the tunnel port with a certificate for this path; curl's words if it does not work.
fn call_with_certificate(lab: &Lab, west: &Gateway, path: &str) -> Result<Vec<String>, String> {
    let leaf = lab
        .pki
        .leaf("east", path, UnixTime::now(), Duration::from_secs(3_600));
    let (certificate, key) = lab.pki.write_leaf("caller", &leaf);
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let ca = lab.pki.certificate("west");
    let name = "80.web.shop.svc.clusterset.local";
    let to = format!("::{}", west.tunnel());
    let url = format!("https://{name}/");
    let mut args = vec![
        "-sS",
        "--noproxy",
        "*",
        "--cert",
        &certificate,
        "--key",
        &key,
    ];
    let ca = ca.to_string_lossy();
    args.extend([
        "--cacert",
        &ca,
        "--connect-to",
        &to,
        "--max-time",
        "10",
        &url,
    ]);
    let output = lab.east.run("curl", args);
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(output.stderr.join("\n"))
    }
}

fn proxies_reach_services_by_name_and_say_why_not(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 8080);
    let _nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let _west = lab
        .gateway("west")
        .peer("east")
        .exports(WEB, &[endpoint], &["east"])
        .start();
    let (socks, connect) = match family {
        Family::V4 => ("127.0.0.1:1080", "127.0.0.1:8118"),
        Family::V6 => ("[::1]:1080", "[::1]:8118"),
    };
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(WEB, WEB_PORT, &["west"]);
    let east = east
        .with("listen", json!({ "socks": socks, "connect": connect }))
        .start();
    east.await_links(1);

    let url = "http://web.shop.svc.clusterset.local/";
    let unknown = "http://nobody.shop.svc.clusterset.local/";
    let by_socks = format!("socks5h://{socks}");
    let by_connect = format!("http://{connect}");
    let ask = |proxy: &str, url: &str| {
        lab.east.run(
            "curl",
            [
                "-sS",
                "--proxytunnel",
                "--max-time",
                "10",
                "--proxy",
                proxy,
                url,
            ],
        )
    };
    assert_eq!(ask(&by_socks, url).good().stdout, ["ok"]);
    assert_eq!(ask(&by_connect, url).good().stdout, ["ok"]);
    let refused = ask(&by_socks, unknown);
    assert_eq!(
        refused.status.code(),
        Some(97),
        "SOCKS5 says no: {refused:?}"
    );
    let refused = lab.east.run(
        "curl",
        ["-sSv", "--proxytunnel", "--proxy", &by_connect, unknown],
    );
    let said = refused.stderr.join("\n");
    assert!(
        said.contains("HTTP/1.1 404") && said.contains("x-corinth-reason: CRN001"),
        "{said}"
    );
    for intake in ["socks", "connect"] {
        east.await_record(|record| record.text("intake") == intake && record.code() == "CRN001");
    }
}

#[test]
fn one_listener_takes_both_families() {
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 8080);
    let _nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let everywhere = json!({ "tunnel": "[::]:15443", "imports": ["::"] });
    let west = lab
        .gateway("west")
        .awaits("east")
        .exports(WEB, &[endpoint], &["east"]);
    let _west = west.with("listen", everywhere.clone()).start();
    for family in [Family::V4, Family::V6] {
        let address = lab.site("west").tunnel(family, 0);
        let east = lab
            .gateway("east")
            .peer_with("west", json!({ "addresses": [address] }));
        let east = east.imports(WEB, WEB_PORT, &["west"]);
        let east = east.with("listen", everywhere.clone()).start();
        east.await_links(1);
        for family in [Family::V4, Family::V6] {
            let to = family.socket(corinth_lab::Net::Near, 1, WEB_PORT);
            assert_eq!(
                curl(&lab.client, &[&format!("http://{to}/")]),
                ["ok"],
                "{to}"
            );
        }
        let sources = east.records();
        let sources: Vec<_> = sources.iter().map(|record| record.text("src")).collect();
        assert!(
            sources.iter().all(|source| !source.contains("::ffff")),
            "{sources:?}"
        );
    }
}

#[test]
fn ipv6_literals_serve_ipv4_clients_and_the_other_way_round() {
    let Some(lab) = Lab::on(Family::V6).build() else {
        return;
    };
    let web = web(&lab);
    assert_eq!(
        curl(
            &lab.client,
            &[&format!("http://{}/", web.east.at(WEB_PORT))]
        ),
        ["ok"]
    );
    // The tunnel stays IPv6, the client speaks IPv4.
    let config = lab
        .gateway("east")
        .peer("west")
        .imports(WEB, WEB_PORT, &["west"]);
    let config = config.with("listen", json!({ "imports": ["10.1.0.1", "fd00:1::1"] }));
    web.east.reconfigure(&config);
    assert_eq!(
        curl(&lab.client, &[&format!("http://10.1.0.1:{WEB_PORT}/")]),
        ["ok"]
    );
    // A client has its answer before the gateways have written that it is gone.
    until("both calls came through the tunnel", WAIT, || {
        let closed = ("corinth_connections_closed_total", ["intake=\"peer\""]);
        (web.west.metric(closed.0, &closed.1) >= 2.0).then_some(())
    });
}
