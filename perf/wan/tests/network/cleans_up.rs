use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use corinth_wan::{Fault, Wan};

use crate::lab::{spec, turn};

fn is_there(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn namespaces_that_were_made_are_removed() {
    let Some(_turn) = turn("namespaces_that_were_made_are_removed") else {
        return;
    };
    let spec = spec("");
    let [first, second] = spec.sides.each_ref().map(|side| side.namespace.as_str());
    let wan = Wan::start(&spec).unwrap();
    assert!(is_there(first) && is_there(second));
    let routes = ip(&["-n", first, "route"]) + &ip(&["-n", first, "-6", "route"]);
    assert!(routes.matches("default dev wan0").count() == 2, "{routes}");
    drop(wan);
    assert!(!is_there(first) && !is_there(second));
    assert!(!Path::new("/run/corinth-wan").join(first).exists());
}

/// A namespace of the test's own.
struct Given<'a>(&'a str);

impl<'a> Given<'a> {
    fn make(name: &'a str) -> Self {
        ip(&["netns", "add", name]);
        Self(name)
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        ip(&["netns", "del", self.0]);
    }
}

#[test]
fn a_namespace_that_was_given_stays_and_loses_its_device() {
    let Some(_turn) = turn("a_namespace_that_was_given_stays_and_loses_its_device") else {
        return;
    };
    let mut spec = spec("");
    let first = spec.sides[0].namespace.clone();
    spec.sides[0].routes = vec![
        "203.0.113.0/24".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ];
    let _given = Given::make(&first);
    let wan = Wan::start(&spec).unwrap();
    let routes = ip(&["-n", &first, "route"]) + &ip(&["-n", &first, "-6", "route"]);
    assert!(routes.contains("203.0.113.0/24 dev wan0"), "{routes}");
    assert!(routes.contains("2001:db8::/32 dev wan0"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    drop(wan);
    assert!(is_there(&first));
    let devices = ip(&["-n", &first, "-br", "link"]);
    assert!(!devices.contains("wan0"), "{devices}");
    assert!(!is_there(&spec.sides[1].namespace));
}

#[test]
fn nothing_is_left_of_a_network_that_could_not_be_made() {
    let Some(_turn) = turn("nothing_is_left_of_a_network_that_could_not_be_made") else {
        return;
    };
    let spec = spec("");
    let second = spec.sides[1].namespace.clone();
    let _given = Given::make(&second);
    // The name of the device is taken on the second side.
    ip(&[
        "-n", &second, "link", "add", "wan0", "type", "veth", "peer", "name", "other",
    ]);
    let fault = Wan::start(&spec).unwrap_err();
    assert!(matches!(fault, Fault::Device { .. }), "{fault}");
    assert!(!fault.is_usage());
    assert!(!is_there(&spec.sides[0].namespace));
    assert!(is_there(&second));
}

#[test]
fn a_device_that_was_taken_away_is_noticed() {
    let Some(_turn) = turn("a_device_that_was_taken_away_is_noticed") else {
        return;
    };
    let spec = spec("");
    let wan = Wan::start(&spec).unwrap();
    wan.check().unwrap();
    ip(&["-n", &spec.sides[0].namespace, "link", "del", "wan0"]);
    for _ in 0..1_000 {
        if wan.check().is_err() {
            return;
        }
        std::thread::yield_now();
        ip(&["netns"]);
    }
    panic!("the network says it still stands");
}

const CHILD: &str = "cleans_up::child_that_is_killed";

#[test]
#[ignore = "runs as a child of another test"]
fn child_that_is_killed() {
    let wan = Wan::start(&spec("")).unwrap();
    let [first, second] = wan.sides();
    println!("made {} {}", first.namespace, second.namespace);
    // Until we are killed.
    let _ = std::io::stdin().read(&mut [0; 1]);
}

#[test]
fn what_a_killed_process_left_is_swept_up_by_the_next() {
    let Some(_turn) = turn("what_a_killed_process_left_is_swept_up_by_the_next") else {
        return;
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let made = lines.map(Result::unwrap).find_map(|line| {
        let (_, names) = line.split_once("made ")?;
        Some(names.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    let made = made.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(made.iter().all(|name| is_there(name)), "{made:?}");
    let devices = ip(&["-n", &made[0], "-br", "link"]);
    assert!(!devices.contains("wan0"), "{devices}");

    drop(Wan::start(&spec("")).unwrap());
    assert!(!made.iter().any(|name| is_there(name)), "{made:?}");
    let notes: Vec<_> = fs::read_dir("/run/corinth-wan")
        .unwrap()
        .flatten()
        .collect();
    assert!(
        notes
            .iter()
            .all(|note| !made.iter().any(|name| note.file_name() == name.as_str()))
    );
}
