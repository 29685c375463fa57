//! What is refused, each with its code and place.

use super::*;

/// One of the blocks in `refused.txt`.
struct Row {
    text: String,
    code: &'static str,
    line: u32,
    column: u32,
}

fn rows() -> Vec<Row> {
    let blocks = include_str!("refused.txt").split("=== ").skip(1);
    blocks
        .map(|block| row(block).unwrap_or_else(|| panic!("not a row: {block}")))
        .collect()
}

fn row(block: &'static str) -> Option<Row> {
    let (head, text) = block.split_once('\n')?;
    let (code, place) = head.split_once(' ')?;
    let (place, linked) = place
        .split_once(' ')
        .map_or((place, ""), |(place, _)| (place, LINKED));
    let (line, column) = place.split_once(':')?;
    // Comments between the blocks stand after an empty line.
    let text = text.split("\n\n# ").next()?;
    Some(Row {
        text: format!("{linked}{}\n", text.trim_end_matches('\n')),
        code,
        line: line.parse().ok()?,
        column: column.parse().ok()?,
    })
}

const LINKED: &str = "cluster: east\nslot: 0\npeers:\n- name: west\n  bundle: west.pem\n  addresses: [gateway.west.example:15443]\n";

#[test]
fn each_mistake_has_its_code_and_place() {
    let mut wrong = Vec::new();
    for Row {
        text,
        code,
        line,
        column,
    } in rows()
    {
        let Err(refused) = parse(&text) else {
            wrong.push(format!("accepted:\n{text}"));
            continue;
        };
        let found: Vec<_> = refused
            .iter()
            .map(|m| (m.code.code(), m.at.line, m.at.column))
            .collect();
        if found != [(code, line, column)] {
            wrong.push(format!(
                "expected {code} at {line}:{column}:\n{text}\nfound {refused}"
            ));
        }
        let shown = refused.to_string();
        assert_eq!(
            shown.lines().count(),
            2 * refused.len(),
            "two lines for each mistake: {shown}"
        );
        assert!(
            shown.starts_with(ORIGIN) && shown.contains("\n  hint: "),
            "{shown}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(parse(LINKED).is_ok());
}

#[test]
fn every_code_of_a_text_has_a_row() {
    // These come from files, sizes and ports, which have tests of their own.
    let elsewhere = ["CRN902", "CRN937", "CRN940", "CRN941", "CRN944"];
    let rows = rows();
    for code in MistakeCode::all().map(MistakeCode::code) {
        let is_shown = rows.iter().any(|row| row.code == code);
        assert!(is_shown || elsewhere.contains(&code), "{code}");
    }
}

#[test]
fn six_mistakes_come_together() {
    let text = "cluster: east\n\
                clutser: x\n\
                listen:\n\
                \x20 admin: 0.0.0.0:15000\n\
                peers:\n\
                \x20 - name: west\n\
                \x20   bundle: west.pem\n\
                exports:\n\
                \x20 - service: payments.shop\n\
                \x20   port: 8080\n\
                \x20   endpoints: [10.0.0.1:8080, 169.254.169.254:80]\n\
                \x20   to: [wset]\n\
                timeouts:\n\
                \x20 idle: 3600\n";
    let refused = parse(text).expect_err("six mistakes");
    let expected = "\
/etc/corinth/config.yaml:2:1 CRN904 unknown key `clutser`
  hint: did you mean cluster?
/etc/corinth/config.yaml:4:10 CRN929 `listen.admin` may not listen on 0.0.0.0:15000: whoever reaches it is not asked who they are
  hint: write `127.0.0.1:15000` or `\"[::1]:15000\"`
/etc/corinth/config.yaml:6:5 CRN906 `addresses` is missing or empty here
  hint: add `addresses:` with at least one `host:port` of its gateways, or `acceptOnly: true`
/etc/corinth/config.yaml:11:32 CRN927 not an endpoint: 169.254.169.254:80 is a link-local address, where machines keep their metadata and credentials
  hint: write the address and port on which one instance of the service listens
/etc/corinth/config.yaml:12:10 CRN923 `wset` is not a peer
  hint: did you mean west?
/etc/corinth/config.yaml:14:9 CRN911 `3600` is a bare number where a duration needs its unit
  hint: write `3600s` for seconds or `3600ms` for milliseconds";
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn a_duplicate_key_does_not_hide_the_rest() {
    let found = mistakes(parse("cluster: east\nslot: 0\nslot: 1\nwrokers: 2\n"));
    assert_eq!(found, [("CRN905", 3, 1), ("CRN904", 4, 1)]);
}

#[test]
fn a_wrong_part_does_not_hide_what_stands_beside_it() {
    let found = mistakes(parse(
        "cluster: EAST_\npeers:\n- {name: west, bundle: 1, acceptOnly: maybe}\n\
         exports:\n- {service: a, port: x, endpoints: ['1'], to: [north], direct: 5}\n",
    ));
    let codes: Vec<_> = found.iter().map(|found| found.0).collect();
    assert_eq!(
        codes,
        [
            "CRN908", "CRN915", "CRN908", "CRN909", "CRN914", "CRN923", "CRN907"
        ]
    );
}

#[test]
fn no_key_is_ever_repeated() {
    let key = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----\\n";
    for place in [
        "cluster: KEY",
        "cluster: e\nslot: KEY",
        "cluster: e\nidentity: {caKey: KEY, caCert: a}",
        "cluster: e\nKEY: 1",
        "cluster: e\ntimeouts: {idle: KEY}",
        "cluster: e\nlog: {level: KEY}",
        "cluster: e\nlisten: {tunnel: KEY}",
        "cluster: e\npeers: [{name: w, acceptOnly: true, bundlePem: KEY}]",
        "cluster: e\npeers: [{name: w, bundle: b, addresses: [KEY]}]",
        "cluster: e\nlimits: {unauthenticatedBytes: KEY}",
        "cluster: e\nKEY: 1\nKEY: 2",
        "cluster: e\nstateDir: KEY",
        "cluster: e\nlocality: {zone: KEY}",
    ] {
        let text = place.replace("KEY", &format!("\"{key}\""));
        let refused = parse(&text).expect_err(place);
        assert!(!refused.to_string().contains("c2VjcmV0"), "{refused}");
    }
}

#[test]
fn hostile_text_never_reaches_the_terminal() {
    for text in [
        "cluster: \"\\e[2Jx\"\n",
        "\"\\e[2J\": 1\n",
        "cluster: \"a\\nb CRN999 fake\"\n",
        "cluster: \"\\u202e\"\n",
    ] {
        let refused = parse(text).expect_err(text);
        let shown = refused.to_string();
        assert!(
            shown
                .chars()
                .all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')),
            "{shown:?}"
        );
        assert_eq!(shown.lines().count(), 2 * refused.len(), "{shown}");
    }
}

/// Deterministic and coarse: each piece of the example is lost, doubled or replaced once.
#[test]
fn a_damaged_file_is_read_or_refused_but_never_panics() {
    let text = example();
    let places: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    for (index, &at) in places.iter().enumerate().step_by(23) {
        let end = places
            .get(index + 1 + index % 40)
            .copied()
            .unwrap_or(text.len());
        let (before, piece, after) = (&text[..at], &text[at..end], &text[end..]);
        for replacement in [
            "",
            "\0",
            "- ",
            ": ",
            "[",
            "{a: ",
            "\n",
            "*a",
            "&a ",
            "'",
            "\u{202e}",
            "99999999999999999999",
        ] {
            let _ = parse(&format!("{before}{replacement}{after}"));
        }
        let _ = parse(&format!("{before}{piece}{piece}{after}"));
        let _ = parse(before);
    }
}
