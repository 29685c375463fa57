//! `corinth status` where a control plane does not answer: its gateways are asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Barrier},
};

use serde_json::{Value, json};

use super::support::{Folder, corinth, free_address};

#[test]
fn a_gateway_says_how_long_it_does_without_a_control_plane_that_is_silent() {
    /// 11 hours, 52 minutes and half a minute.
    const LEFT_S: i64 = 42_750;
    let folder = Folder::new();
    let socket = folder.named("control.sock");
    let not_after = jiff::Timestamp::now().as_second() + LEFT_S;
    let page = json!({
        "cluster": "east", "socket": socket, "connected": false, "since": "", "instance": null, "revision": 7,
        "refused": null, "certificateNotAfter": not_after, "isCertificateFromControl": true,
    });
    let admin = gateway(page.to_string());
    let asked = ["status", "--control", &socket, "--admin", &admin];

    let ran = corinth(&asked);
    assert_eq!(ran.code, 3);
    let shown = "✗ no answer    -       -        -        -       -         -\n\neast\n\
                 ! control plane unreachable; certificates good for 11 h 52 min\n    seen  by gateway ";
    assert!(ran.stdout.contains(shown), "{}", ran.stdout);
    let said = format!("error: no answer from the control plane at {socket}\n");
    assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);

    let ran = corinth(&[&asked[..], &["-o", "json"]].concat());
    assert_eq!(ran.code, 3);
    let envelope = ran.envelope("ClusterStatus");
    assert_eq!(envelope["partial"], true);
    let left = envelope["items"][0]["certificateLeftS"].as_i64().unwrap();
    assert!((LEFT_S - 30..=LEFT_S).contains(&left), "{left}");
    let item = json!({
        "cluster": "east", "controlPlane": "unreachable", "isConnected": false, "socket": socket, "gateways": [admin],
        "certificateNotAfter": not_after, "certificateLeftS": left, "isCertificateFromControl": true,
    });
    assert_eq!(envelope["items"], json!([item]));
    // A gateway that follows another control plane says nothing about this one.
    let other = folder.named("other.sock");
    let ran = corinth(&["status", "--control", &other, "--admin", &admin]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
}

#[test]
fn gateways_are_asked_at_once_and_one_that_does_not_answer_is_named() {
    let folder = Folder::new();
    let socket = folder.named("control.sock");
    let page = json!({
        "cluster": "east", "socket": socket, "connected": false,
        "certificateNotAfter": 4_102_444_800_u64, "isCertificateFromControl": true,
    });
    // Neither answers before the other one was asked too.
    let both = Arc::new(Barrier::new(2));
    let [one, other] = [(); 2].map(|()| gateway_with(page.to_string(), Arc::clone(&both)));
    let nowhere = free_address().to_string();
    let asked = ["status", "--control", &socket, "-o", "json"];
    let named = [&one, &other, &nowhere].map(|admin| ["--admin", admin]);
    let ran = corinth(&[&asked[..], &named.concat()].concat());
    assert_eq!(ran.code, 3);
    let envelope = ran.envelope("ClusterStatus");
    let mut answered = [one, other];
    answered.sort();
    assert_eq!(envelope["items"][0]["gateways"], json!(answered));
    let silent = format!("no answer from the gateway at {nowhere}");
    let errors = envelope["errors"].as_array().unwrap();
    let is_named = |error: &Value| error.as_str().unwrap().starts_with(&silent);
    assert!(errors.iter().any(is_named), "{errors:?}");
    assert!(ran.stderr.contains(&silent), "{}", ran.stderr);
}

/// The admin page `/control` of a gateway, at the address that is returned.
fn gateway(page: String) -> String {
    gateway_with(page, Arc::new(Barrier::new(1)))
}

/// The same, of one that answers when as many were asked as the barrier waits for.
fn gateway_with(page: String, asked: Arc<Barrier>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            assert_eq!(request, "GET /control HTTP/1.1");
            lines.find(|line| line.as_ref().unwrap().is_empty());
            asked.wait();
            let length = page.len();
            write!(
                socket,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"
            )
            .unwrap();
        }
    });
    address.to_string()
}
