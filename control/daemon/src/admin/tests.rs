use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use super::*;
use lab::{Answer, Lab, any_port, ended_soon, exchange, get_request, metrics};

mod lab;

#[tokio::test]
async fn each_page_is_served() {
    let lab = Lab::new();
    let routes = lab.get("/routes").await;
    assert_eq!(routes.status, 200);
    assert_eq!(routes.header("content-type"), Some("application/json"));
    assert_eq!(routes.header("cache-control"), Some("no-store"));
    assert_eq!(routes.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(routes.header("connection"), Some("close"));
    assert_eq!(routes.body, "{\"routes\":[]}");
    assert_eq!(lab.get("/routes?verbose").await.body, routes.body);

    let live = lab.get("/livez").await;
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));

    let metrics = lab.get("/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let build = "corinth_build_info{binary=\"corinth-test\",version=\"0.0.0\"} 1\n";
    assert!(metrics.body.contains(build));

    let index = lab.get("/").await;
    assert_eq!(index.status, 200);
    assert_eq!(
        index.body,
        "/livez\n/readyz\n/metrics\n/log-level\n/routes\n"
    );
}

#[tokio::test]
async fn pages_are_rendered_anew() {
    let rendered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rendered);
    let lab = Lab::with(|pages| {
        pages.page("/count", move || {
            Page::text(counter.fetch_add(1, Ordering::Relaxed).to_string())
        })
    });
    assert_eq!(lab.get("/count").await.body, "0");
    assert_eq!(lab.get("/count").await.body, "1");
    lab.send("POST /count HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(rendered.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let lab = Lab::new();
    for path in ["/routes", "/livez", "/log-level", "/"] {
        let get = lab.get(path).await;
        let head = lab
            .send(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("content-length"), get.header("content-length"));
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let lab = Lab::new();
    for (method, path, allowed) in [
        ("POST", "/routes", "GET, HEAD"),
        ("PUT", "/livez", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
        ("DELETE", "/log-level", "GET, HEAD, PUT"),
        ("BREW", "/readyz", "GET, HEAD"),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
        let answer = lab.send(&request).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allowed));
        assert_eq!(answer.body, format!("this page takes {allowed}\n"));
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_the_known_ones() {
    let lab = Lab::new();
    for path in ["/route", "/routes/", "//livez", "/LIVEZ", "/../livez", "*"] {
        let answer = lab.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("/routes\n"));
    }
}

#[tokio::test]
async fn a_host_that_is_not_loopback_is_refused() {
    let lab = Lab::new();
    for head in [
        "GET /livez HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: 192.0.2.1:15021\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost.attacker.example\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
        "GET http://attacker.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PUT /log-level HTTP/1.1\r\nHost: attacker.example\r\nContent-Length: 3\r\n\r\noff",
    ] {
        assert_eq!(lab.send(head).await.status, 403, "{head}");
    }
    assert_eq!(lab.level.current(), "warn");
}

#[tokio::test]
async fn every_loopback_name_is_answered() {
    let lab = Lab::new();
    for head in [
        "GET /livez HTTP/1.1\r\nHost: localhost:9\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: [::1]:15021\r\n\r\n",
        "GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n",
        "GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        assert_eq!(lab.send(head).await.status, 200, "{head}");
    }
}

#[tokio::test]
async fn readiness_is_told_with_its_reasons() {
    let lab = Lab::new();
    let readiness = lab.readiness.clone();
    let tables = readiness.register("tables");
    let listeners = readiness.register("listeners");
    let answer = lab.get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "not ready\n"));
    let answer = lab.get("/readyz?verbose").await;
    let body = "not ready\npending: tables\npending: listeners\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, body));
    tables.done();
    let answer = lab.get("/readyz?verbose=1").await;
    let body = "not ready\npending: listeners\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, body));
    listeners.done();
    let answer = lab.get("/readyz?verbose").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    readiness.drain();
    let answer = lab.get("/readyz?verbose").await;
    let body = "not ready\ndraining\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, body));
    assert_eq!(lab.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_remark_stands_below_the_verdict_and_does_not_change_it() {
    let readiness = Readiness::new();
    let pages = AdminPages::new(readiness.clone(), metrics());
    let pages = pages.remark(|| "certificate: none yet".to_owned());
    let admin = Admin::bind(any_port(), pages).unwrap().spawn().unwrap();
    let get = async |path| exchange(admin.local_addr(), &get_request(path)).await;
    let answer = get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    let answer = get("/readyz?verbose").await;
    let body = "ready\ncertificate: none yet\n";
    assert_eq!((answer.status, answer.body.as_str()), (200, body));
    readiness.drain();
    let answer = get("/readyz?verbose").await;
    let body = "not ready\ndraining\ncertificate: none yet\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, body));
    admin.stop();
}

#[tokio::test]
async fn a_put_log_level_takes_effect() {
    let lab = Lab::new();
    debug!("unheard");
    assert_eq!(lab.lines.take(), "");
    let answer = lab.put_level("", "warn,corinth_daemon=debug\n").await;
    let body = "warn,corinth_daemon=debug\n";
    assert_eq!((answer.status, answer.body.as_str()), (200, body));
    assert_eq!(lab.get("/log-level").await.body, body);
    debug!("heard");
    assert!(lab.lines.take().contains("heard"));
}

#[tokio::test]
async fn a_bad_log_level_is_explained_and_changes_nothing() {
    let lab = Lab::new();
    let answer = lab.put_level("", "inof").await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.body,
        "\"inof\" is not a log level; write error, warn, info, debug, trace or off, or target=level\n"
    );
    for (query, directive) in [
        ("", ""),
        ("?for=0", "debug"),
        ("?for=86401", "debug"),
        ("?for=-1", "debug"),
        ("?for=5m", "debug"),
        ("?until=5", "debug"),
        ("?for", "debug"),
    ] {
        let answer = lab.put_level(query, directive).await;
        assert_eq!(answer.status, 400, "{query} {directive}");
    }
    let request =
        b"PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n\xff\xfe";
    assert_eq!(lab.send_bytes(request).await.status, 400);
    assert_eq!(lab.level.current(), "warn");
}

#[tokio::test]
async fn a_temporary_log_level_returns() {
    let lab = Lab::new();
    assert_eq!(lab.put_level("?for=3600", "trace").await.status, 200);
    assert_eq!(lab.put_level("?for=1", "debug").await.status, 200);
    assert_eq!(lab.level.current(), "debug");
    let started = Instant::now();
    while lab.level.current() != "warn" {
        assert!(started.elapsed() < Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_a_handle_there_is_no_log_level_page() {
    let pages = AdminPages::new(Readiness::new(), metrics());
    let admin = Admin::bind(any_port(), pages).unwrap().spawn().unwrap();
    let answer = exchange(admin.local_addr(), &get_request("/log-level")).await;
    assert_eq!(answer.status, 404);
    assert!(!answer.body.contains("/log-level"));
    admin.stop();
}

#[tokio::test]
async fn a_body_too_large_is_refused() {
    let lab = Lab::new();
    for size in [BODY_MAX_BYTES + 1, 60_000, 10_000_000] {
        for method in ["PUT", "GET"] {
            let mut request = format!(
                "{method} /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            )
            .into_bytes();
            // Of the largest only the announcement is sent: that must be enough.
            if size < 1_000_000 {
                request.resize(request.len() + size, b'x');
            }
            let answer = lab.send_bytes(&request).await;
            assert_eq!(answer.status, 413, "{method} {size}");
            assert_eq!(answer.body, "a body may have 4096 bytes\n");
        }
    }
    let chunk = format!("2000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x2000));
    let head = "PUT /log-level HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(lab.send(&format!("{head}{chunk}")).await.status, 413);
    assert_eq!(lab.level.current(), "warn");
}

#[tokio::test]
async fn a_body_cut_short_is_not_acted_upon() {
    let lab = Lab::new();
    let mut client = lab.connect().await;
    let request = "PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\noff";
    client.write_all(request.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(lab.level.current(), "warn");
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let lab = Lab::new();
    let padding = "x".repeat(2 * HEAD_MAX_BYTES);
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {padding}\r\n\r\n");
    let mut client = lab.connect().await;
    // The refusal may come, as a reset, while we still send.
    let _ = client.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(lab.get("/livez").await.status, 200);
}

#[tokio::test]
async fn garbage_is_refused() {
    let lab = Lab::new();
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /livez HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n",
    ] {
        let mut client = lab.connect().await;
        client.write_all(garbage.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{garbage:?}");
    }
    assert_eq!(lab.get("/livez").await.status, 200);
}

#[tokio::test]
async fn one_request_is_answered_per_connection() {
    let lab = Lab::new();
    let request = get_request("/livez").repeat(2);
    let answer = lab.send(&request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn a_client_that_half_closes_is_answered() {
    let lab = Lab::new();
    let mut client = lab.connect().await;
    client
        .write_all(get_request("/livez").as_bytes())
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).body, "ok\n");
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let lab = Lab::impatient(CONNECTIONS_MAX);
    for sent in ["", "GET /livez HTTP/1.1\r\nHost: local"] {
        let mut client = lab.connect().await;
        client.write_all(sent.as_bytes()).await.unwrap();
        assert!(ended_soon(client).await, "{sent:?}");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_cut() {
    let lab = Lab::impatient(CONNECTIONS_MAX);
    let mut client = lab.connect().await;
    let started = Instant::now();
    // Each byte comes in time; the head as a whole does not.
    while client.write_all(b"G").await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(30));
        time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_slow_body_is_cut() {
    let lab = Lab::impatient(CONNECTIONS_MAX);
    let mut client = lab.connect().await;
    let request = "PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\noff";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    time::timeout(Duration::from_secs(30), client.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(Answer::parse(&answer).status, 408);
    assert_eq!(lab.level.current(), "warn");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let dropped = Arc::new(());
    let held = Arc::downgrade(&dropped);
    let lab = Lab::impatient_with(1, |pages| {
        pages.page("/large", move || {
            let _ = &dropped;
            Page::text("x".repeat(32 << 20))
        })
    });
    let mut client = lab.connect().await;
    client
        .write_all(get_request("/large").as_bytes())
        .await
        .unwrap();
    // The only place is free again once the deadline has cut the reader that does not read.
    let answer = time::timeout(Duration::from_secs(30), lab.get("/livez"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let mut seen = Vec::new();
    let _ = client.read_to_end(&mut seen).await;
    assert!(seen.len() < 32 << 20);
    assert!(held.upgrade().is_some());
}

#[tokio::test]
async fn silent_clients_cannot_keep_others_out_for_long() {
    let lab = Lab::impatient(CONNECTIONS_MAX);
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        silent.push(lab.connect().await);
    }
    let answer = time::timeout(Duration::from_secs(30), lab.get("/livez"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_page_that_panics_harms_nobody_else() {
    let lab = Lab::with(|pages| pages.page("/broken", || panic!("a broken page")));
    let mut client = lab.connect().await;
    client
        .write_all(get_request("/broken").as_bytes())
        .await
        .unwrap();
    assert!(ended_soon(client).await);
    assert_eq!(lab.get("/livez").await.status, 200);
    assert!(lab.lines.take().contains("an admin page failed"));
}

#[tokio::test]
async fn addresses_others_can_reach_are_refused() {
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:15021",
        "[::ffff:192.0.2.1]:0",
    ] {
        let address = address.parse().unwrap();
        let pages = AdminPages::new(Readiness::new(), metrics());
        let Err(AdminError::NotLoopback(refused)) = Admin::bind(address, pages) else {
            panic!("{address} was not refused");
        };
        assert_eq!(refused, address);
    }
    assert_eq!(
        AdminError::NotLoopback("192.0.2.1:15021".parse().unwrap()).to_string(),
        "admin address 192.0.2.1:15021 is not loopback; use 127.0.0.1:15021 or [::1]:15021"
    );
}

#[tokio::test]
async fn a_taken_address_says_so() {
    let lab = Lab::new();
    let pages = AdminPages::new(Readiness::new(), metrics());
    let Err(error) = Admin::bind(lab.address, pages) else {
        panic!("bound twice");
    };
    assert!(error.to_string().ends_with("is another instance running?"));
}

#[tokio::test]
async fn pages_that_would_hide_a_built_in_one_are_refused() {
    for path in ["/livez", "/log-level", "/", "routes", "/routes?all", ""] {
        let pages = AdminPages::new(Readiness::new(), metrics());
        let pages = pages.page(path, || Page::text(""));
        let Err(AdminError::Path(refused)) = Admin::bind(any_port(), pages) else {
            panic!("{path} was not refused");
        };
        assert_eq!(refused, path);
    }
}

#[tokio::test]
async fn it_answers_over_ipv6() {
    let pages = AdminPages::new(Readiness::new(), metrics());
    let Ok(admin) = Admin::bind("[::1]:0".parse().unwrap(), pages) else {
        // A machine without IPv6 has nothing to test here.
        return;
    };
    let admin = admin.spawn().unwrap();
    let answer = exchange(admin.local_addr(), &get_request("/livez")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn stopping_frees_the_address() {
    let pages = || AdminPages::new(Readiness::new(), metrics());
    let admin = Admin::bind(any_port(), pages()).unwrap().spawn().unwrap();
    let address = admin.local_addr();
    let _open = TcpStream::connect(address).await.unwrap();
    assert_eq!(exchange(address, &get_request("/livez")).await.status, 200);
    admin.stop();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    Admin::bind(address, pages()).unwrap();
}
