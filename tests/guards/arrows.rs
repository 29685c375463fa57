//! Which crate may use which, and what the pure crates pull in.

use std::collections::BTreeSet;

use crate::assert_none;
use crate::repository::{self, root};

/// One crate and what it may use.
struct Arrows {
    name: &'static str,
    /// Crates of ours; dev-dependencies may be wider.
    may_use: &'static [&'static str],
    /// Packages of others that must not even be below it.
    never: &'static [&'static str],
}

/// The map of docs/architecture.md.
const ARROWS: &[Arrows] = &[
    Arrows {
        name: "corinth-model",
        may_use: &[],
        never: &["tokio", "kube", "tonic", "rustls"],
    },
    Arrows {
        name: "corinth-api",
        may_use: &["corinth-model"],
        never: &["kube"],
    },
    Arrows {
        name: "corinth-identity",
        may_use: &["corinth-model"],
        never: &["kube", "tonic"],
    },
    Arrows {
        name: "corinth-daemon",
        may_use: &[],
        never: &[],
    },
    Arrows {
        name: "corinth-control",
        may_use: &[
            "corinth-model",
            "corinth-api",
            "corinth-identity",
            "corinth-daemon",
        ],
        never: &[],
    },
    Arrows {
        name: "corinth-core",
        may_use: &["corinth-model"],
        never: &["tokio", "prometheus", "tracing"],
    },
    Arrows {
        name: "corinth-transport",
        may_use: &["corinth-model", "corinth-api", "corinth-identity"],
        never: &["kube"],
    },
    Arrows {
        name: "corinth-gateway",
        may_use: &[
            "corinth-model",
            "corinth-api",
            "corinth-identity",
            "corinth-daemon",
            "corinth-core",
            "corinth-transport",
        ],
        never: &["kube"],
    },
    Arrows {
        name: "corinth-load",
        may_use: &[],
        never: &["kube", "tonic"],
    },
    Arrows {
        name: "corinth-wan",
        may_use: &[],
        never: &["kube", "tonic"],
    },
    Arrows {
        name: "corinth-campaign",
        may_use: &["corinth-load", "corinth-wan"],
        never: &["kube", "tonic"],
    },
    Arrows {
        name: "corinth-perf",
        may_use: &["corinth-load", "corinth-wan", "corinth-campaign"],
        never: &["kube", "tonic"],
    },
    Arrows {
        name: "corinth",
        may_use: SHIPPED,
        never: &[],
    },
    Arrows {
        name: "corinth-tests",
        may_use: SHIPPED,
        never: &[],
    },
];

/// Every library that is part of what users run; `corinth-tests` is not.
const SHIPPED: &[&str] = &[
    "corinth-model",
    "corinth-api",
    "corinth-identity",
    "corinth-daemon",
    "corinth-control",
    "corinth-core",
    "corinth-transport",
    "corinth-gateway",
    "corinth-load",
];

#[test]
fn crates_use_only_what_the_map_allows() {
    let mut faults = Vec::new();
    for member in repository::members() {
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.name == member.name) else {
            faults.push(format!("{} is not on the map", member.name));
            continue;
        };
        let strays = member
            .uses
            .iter()
            .filter(|used| !arrows.may_use.contains(&used.as_str()));
        faults.extend(strays.map(|used| format!("{} uses {used}", member.name)));

        let below = repository::tree(&member.name, "normal");
        let banned = arrows.never.iter().filter(|name| below.contains(**name));
        faults.extend(banned.map(|name| format!("{} has {name} below it", member.name)));
    }
    assert_none(
        &faults,
        "Move the code to the crate that may do this, or change the map in docs/architecture.md and tests/guards/arrows.rs.",
    );
}

#[test]
fn model_is_pure() {
    assert_tree_is_as_committed("corinth-model", "tests/guards/model.txt");
}

#[test]
fn core_is_pure() {
    assert_tree_is_as_committed("corinth-core", "tests/guards/core.txt");
}

#[test]
fn pure_crates_ban_clocks_sockets_and_unordered_maps() {
    const BANS: &[&str] = &[
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        // The file replaces the one at the top, so the general bans are repeated.
        "std::env::set_var",
        "std::thread::sleep",
    ];
    let mut faults = Vec::new();
    for file in ["control/model/clippy.toml", "gateway/core/clippy.toml"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        faults.extend(
            BANS.iter()
                .filter(|ban| !text.contains(**ban))
                .map(|ban| format!("{file} does not ban {ban}")),
        );
    }
    assert_none(
        &faults,
        "Add the ban under disallowed-methods or disallowed-types.",
    );
}

fn assert_tree_is_as_committed(package: &str, file: &str) {
    let committed: BTreeSet<String> = repository::read(file).lines().map(str::to_owned).collect();
    let now = repository::tree(package, "normal");
    let new = now.difference(&committed).map(|name| format!("+ {name}"));
    let gone = committed.difference(&now).map(|name| format!("- {name}"));
    assert_none(
        &new.chain(gone).collect::<Vec<_>>(),
        &format!(
            "{package} is pure: each package below it is a decision. If this one was meant:\n  \
             cargo tree -p {package} -e normal --target x86_64-unknown-linux-gnu --prefix none --format '{{p}}' |\n    \
             cut -d' ' -f1 | LC_ALL=C sort -u > {file}"
        ),
    );
}
