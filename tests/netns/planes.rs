//! Control planes that are processes of their own, and what goes on without them.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use corinth_lab::{
    Capture, Control, Family, Gateway, GatewayConfig, Lab, Load, Nginx, Service, WAIT, exchange,
    pause_until, until,
};
use serde_json::{Value, json};

use crate::{
    fixture::echo_back,
    nodes::{accept, answers, await_answer, export, imported, link, link_status},
};

on_both_families![
    calls_go_on_while_all_control_planes_are_dead,
    a_gateway_restarted_without_a_control_plane_serves_from_disk_within_two_seconds,
    certificates_are_renewed_while_all_control_planes_are_dead,
    a_control_plane_that_returns_with_nothing_new_takes_little_to_say_so,
];

/// The service most tests call.
const WEB: &str = "web.shop";
/// A service whose server the test writes.
const ECHO: &str = "echo.lab";

/// Two linked clusters whose control planes are processes of their own; west has both services.
struct Apart<'a> {
    lab: &'a Lab,
    east: Gateway,
    west: Gateway,
    east_control: Control,
    west_control: Control,
    _nginx: Nginx,
    _echo: Service,
}

impl<'a> Apart<'a> {
    /// Links both, each made by `config`.
    fn linked(lab: &'a Lab, config: impl Fn(&'static str) -> GatewayConfig<'a>) -> Self {
        Self::linked_issuing(lab, "24h", config)
    }

    /// The same, with control planes that issue certificates for so long.
    fn linked_issuing(
        lab: &'a Lab,
        leaf_lifetime: &str,
        config: impl Fn(&'static str) -> GatewayConfig<'a>,
    ) -> Self {
        let (web, echo) = (lab.server_at(0, 8080), lab.server_at(0, 7007));
        let nginx = Nginx::start(&lab.server, lab.folder(), web, None);
        let service = lab.server.serve(echo, echo_back);
        let start = |cluster| {
            let config = config(cluster);
            let control = config.start_control_issuing(leaf_lifetime);
            (config.start(), control)
        };
        let ((east, east_control), (west, west_control)) = (start("east"), start("west"));
        link(&west, &east);
        export(&west, WEB, 80, web, "east");
        export(&west, ECHO, 7, echo, "east");
        east.told(&["link", "accept", "west", "*"]);
        Self {
            lab,
            east,
            west,
            east_control,
            west_control,
            _nginx: nginx,
            _echo: service,
        }
    }

    fn kill_control_planes(&mut self) {
        self.east_control.kill();
        self.west_control.kill();
    }
}

fn apart(lab: &Lab) -> Apart<'_> {
    Apart::linked(lab, |cluster| lab.gateway(cluster).apart())
}

fn calls_go_on_while_all_control_planes_are_dead(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let mut apart = apart(&lab);
    let (web, echo) = (imported(&apart.east, WEB), imported(&apart.east, ECHO));
    await_answer(&lab.client, web);
    let mut stream = until("a stream", WAIT, || lab.client.try_connect(echo).ok());
    assert_eq!(exchange(&mut stream, b"hello", 5).unwrap(), b"hello");

    let load = Load::paced(&lab.client, web, 4, Duration::from_millis(5));
    load.await_answers(100);
    apart.kill_control_planes();
    load.await_answers(500);
    let report = load.stop();
    assert_eq!(report.failures(), [""; 0]);
    assert_eq!(exchange(&mut stream, b"still", 5).unwrap(), b"still");

    // They return, and go on from where they were.
    apart.west_control = lab.gateway("west").apart().start_control();
    apart.east_control = lab.gateway("east").apart().start_control();
    export(&apart.west, "new.shop", 80, lab.server_at(0, 8080), "east");
    await_answer(&lab.client, imported(&apart.east, "new.shop"));
    assert_eq!(imported(&apart.east, WEB), web, "the import port stays");
    assert_eq!(exchange(&mut stream, b"again", 5).unwrap(), b"again");
}

fn a_gateway_restarted_without_a_control_plane_serves_from_disk_within_two_seconds(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let mut apart = apart(&lab);
    let web = imported(&apart.east, WEB);
    await_answer(&lab.client, web);
    // What is in use is on disk within a second, or later where the disk is slow.
    until("the service in the tables on disk", WAIT, || {
        let is_kept = |cluster: &str| {
            let state = lab.folder().join(format!("{cluster}-0/state"));
            let tables = fs::read(state.join("tables.bin")).unwrap_or_default();
            let name = WEB.split('.').next().unwrap_or(WEB).as_bytes();
            tables.windows(name.len()).any(|there| there == name)
        };
        (is_kept("east") && is_kept("west")).then_some(())
    });
    apart.kill_control_planes();

    apart.east.kill();
    let began = Instant::now();
    apart.east = lab.gateway("east").apart().start();
    await_answer(&lab.client, web);
    let near = began.elapsed();
    apart.west.kill();
    let began = Instant::now();
    apart.west = lab.gateway("west").apart().start();
    await_answer(&lab.client, web);
    let far = began.elapsed();
    println!("near gateway served after {near:?}, far gateway after {far:?}");
    assert!(near < Duration::from_secs(2), "{near:?}");
    assert!(far < Duration::from_secs(2), "{far:?}");
    assert!(
        apart
            .east
            .log()
            .iter()
            .any(|line| line.contains("started from the tables on disk"))
    );
}

fn certificates_are_renewed_while_all_control_planes_are_dead(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let identity = json!({ "leafLifetime": "10s" });
    let mut apart = Apart::linked(&lab, |cluster| {
        lab.gateway(cluster)
            .apart()
            .with("identity", identity.clone())
    });
    let web = imported(&apart.east, WEB);
    await_answer(&lab.client, web);
    let marks = [&apart.east, &apart.west].map(Gateway::log_mark);
    let expiry =
        |gateway: &Gateway| gateway.metric("corinth_certificate_expiry_timestamp_seconds", &[]);
    let before = [expiry(&apart.east), expiry(&apart.west)];
    apart.kill_control_planes();

    let load = Load::paced(&lab.client, web, 2, Duration::from_millis(5));
    pause_until(Instant::now() + Duration::from_secs(15));
    let report = load.stop();
    assert_eq!(report.failures(), [""; 0]);
    for ((gateway, mark), before) in [&apart.east, &apart.west]
        .into_iter()
        .zip(marks)
        .zip(before)
    {
        gateway.await_log_since(mark, "certificate renewed");
        assert!(expiry(gateway) >= before + 5.0);
    }
}

fn a_control_plane_that_returns_with_nothing_new_takes_little_to_say_so(family: Family) {
    /// Most bytes of a conversation in which nothing has changed.
    const LITTLE: u64 = 10_000;
    const SERVICES: usize = 100;
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let mut apart = apart(&lab);
    for number in 2..SERVICES {
        let name = format!("web-{number}.shop");
        export(&apart.west, &name, 80, lab.server_at(0, 8080), "east");
    }
    let offered = || apart.east.items(&["imports"]).len();
    until("all services are offered", WAIT, || {
        (offered() == SERVICES).then_some(())
    });
    await_up_to_date(&apart);
    let first = said_since(&mut apart, 0);

    let mark = apart.east.records().len();
    let capture = Capture::start(&lab.east, 15_443);
    apart.west_control = lab.gateway("west").apart().start_control();
    await_up_to_date(&apart);
    let passed = capture.stop().bytes();
    let again = said_since(&mut apart, mark);
    println!(
        "{SERVICES} services: {first} bytes at first, {again} bytes again; {passed} on the tunnel"
    );
    assert!(again > 0 && again < LITTLE, "{again}");
    assert!(first > again, "saying all of it takes more: {first}");
    assert_eq!(apart.east.items(&["imports"]).len(), SERVICES);
}

/// Waits until both control planes have told each other everything.
fn await_up_to_date(apart: &Apart<'_>) {
    for (one, other) in [(&apart.east, "west"), (&apart.west, "east")] {
        until("both are up to date", WAIT, || {
            let link = link_status(one, other)?;
            let relation = &link["relation"];
            let is_whole = link["peering"] == "told"
                && relation["held"].is_string()
                && relation["acknowledged"].is_string()
                && relation["isCurrent"] == true;
            is_whole.then_some(())
        });
    }
}

/// Kills west's control plane, and adds up what the two had said in the streams since `mark`, which have ended then.
fn said_since(apart: &mut Apart<'_>, mark: usize) -> u64 {
    let silent = |east: &Gateway| {
        let peering = link_status(east, "west").map(|link| link["peering"].clone());
        (peering == Some("silent".into())).then_some(())
    };
    apart.west_control.kill();
    until("east has noticed", WAIT, || silent(&apart.east));
    until("every stream has its record", WAIT, || {
        let active = "corinth_connections_active";
        let open = apart.east.metric(active, &["intake=\"peering\""]);
        let records = apart.east.records();
        let said: Vec<_> = records[mark..]
            .iter()
            .filter(|record| record.text("intake") == "peering")
            .map(|record| record.number("bytes_sent") + record.number("bytes_received"))
            .collect();
        (open == 0.0 && !said.is_empty()).then(|| said.iter().sum())
    })
}

#[test]
fn certificates_of_dead_control_planes_are_counted_down_and_then_end_new_calls_but_no_open_stream()
{
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let identity = json!({ "issuer": "control" });
    let mut apart = Apart::linked_issuing(&lab, "12s", |cluster| {
        lab.gateway(cluster)
            .apart()
            .with("identity", identity.clone())
    });
    let (web, echo) = (imported(&apart.east, WEB), imported(&apart.east, ECHO));
    await_answer(&lab.client, web);
    let mut stream = until("a stream", WAIT, || lab.client.try_connect(echo).ok());
    assert_eq!(exchange(&mut stream, b"hello", 5).unwrap(), b"hello");
    apart.kill_control_planes();

    // Half of the life is left at least, and can be read without a control plane.
    let left = certificate_left(&apart.east);
    assert!((4..=12).contains(&left), "{left}");
    assert!(answers(&lab.client, web));
    let shown = apart.east.corinth(&["status"]).stdout.join("\n");
    let words = "control plane unreachable; certificates good for ";
    assert!(shown.contains(words), "{shown}");
    let expiry = "corinth_certificate_expiry_timestamp_seconds";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let by_metric = apart.east.metric(expiry, &[]) - now.unwrap().as_secs_f64();
    assert!(by_metric > 0.0 && by_metric <= 12.0, "{by_metric}");

    until("it has expired", WAIT, || {
        let now = certificate_left(&apart.east);
        assert!(now <= left, "{now} after {left}");
        (now < 0).then_some(())
    });
    assert!(!answers(&lab.client, web));
    apart.east.await_record(|record| record.code() == "CRN041");
    assert_eq!(exchange(&mut stream, b"still", 5).unwrap(), b"still");
    let shown = apart.east.corinth(&["status"]).stdout.join("\n");
    assert!(shown.contains("certificates expired "), "{shown}");
}

/// How many seconds its certificate is good for, as `corinth status` tells of a gateway whose control plane is dead.
fn certificate_left(gateway: &Gateway) -> i64 {
    let ran = gateway.corinth(&["status", "-o", "json"]);
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let answer: Value = serde_json::from_str(&ran.text()).unwrap();
    let left = answer["items"][0]["certificateLeftS"].as_i64();
    left.expect("the gateway was asked")
}

#[test]
fn status_tells_which_control_plane_is_dead_and_what_the_other_knows() {
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let mut apart = apart(&lab);
    accept(&apart.east, "west", WEB);
    apart.west_control.kill();
    let alone = apart.west.corinth(&["status"]);
    assert_eq!(alone.status.code(), Some(3), "{alone:?}");
    let said = alone.stderr.join("\n");
    assert!(said.contains("no answer from the control plane"), "{said}");

    until("east has noticed", WAIT, || {
        let config = apart.east.config().to_string_lossy();
        let both = apart
            .west
            .corinth(&["status", "-o", "json", "--config", &config]);
        assert_eq!(both.status.code(), Some(5), "{both:?}");
        let answer: Value = serde_json::from_str(&both.text()).unwrap();
        assert_eq!(answer["partial"], true);
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1));
        let east = &answer["items"][0];
        let link = &east["links"][0];
        let told = (&east["cluster"], &link["tunnel"], &link["peering"]);
        (told == (&json!("east"), &json!("up"), &json!("silent"))).then_some(())
    });
    // What has no control plane still says what it carries.
    let carried = apart.lab.west.run(
        "curl",
        [
            "-sS",
            &format!("http://{}/links", apart.west.admin_address()),
        ],
    );
    assert!(carried.good().text().contains("\"up\""));
}
