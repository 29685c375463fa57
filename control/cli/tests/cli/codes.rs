//! `corinth explain`.

use super::support::corinth;

#[test]
fn all_codes_are_listed() {
    assert_eq!(
        corinth(&["explain"]).result(),
        include_str!("golden/codes.txt")
    );
    let headless = corinth(&["explain", "--no-headers"]).result();
    assert!(headless.starts_with("CRN000"), "{headless}");
    let names = corinth(&["explain", "-o", "name"]).result();
    assert_eq!(names.lines().count(), headless.lines().count());
}

#[test]
fn a_code_is_explained_by_code_and_by_name() {
    let expected = "CRN002 forbidden (refusal)
  means  the destination cluster does not export this service port to the caller's cluster
  do     export the service port to this cluster, in the destination cluster; \
unknown and forbidden names are answered alike
";
    for asked in ["CRN002", "crn002", "forbidden", "Forbidden"] {
        assert_eq!(corinth(&["explain", asked]).result(), expected);
    }
    assert_eq!(
        corinth(&["explain", "peer-unreachable"]).result(),
        "CRN023 peer_unreachable (failure)
  means  no gateway of the peer can be reached
  side   peer: the peer's gateway, or the network to it
  do     is port 15443 open between the networks, and do the peer's gateway addresses still hold?
"
    );
    assert_eq!(
        corinth(&["explain", "CRN904"]).result(),
        "CRN904 unknown_key (configuration)
  means  a key that does not exist
  do     run corinth config validate FILE, which names the line and what to write there
"
    );
}

#[test]
fn programs_get_codes_as_data() {
    let envelope = corinth(&["explain", "-o", "json"]).envelope("Codes");
    assert_eq!(envelope["partial"], false);
    let items = envelope["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["code"] == "CRN020").unwrap();
    assert_eq!(
        *found,
        serde_json::json!({
            "code": "CRN020",
            "name": "endpoint_refused",
            "class": "failure",
            "side": "endpoint",
            "meaning": "the endpoint refused the connection",
            "remedy": "check that the application listens on the endpoint's port",
        })
    );
    let lines = corinth(&["explain", "-o", "jsonl"]).result();
    assert_eq!(lines.lines().count(), items.len());
    let yaml = corinth(&["explain", "CRN000", "-o", "yaml"]).result();
    let yaml: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(yaml["items"][0]["name"], "completed");
}

#[test]
fn an_unknown_code_is_wrong_usage() {
    for code in ["CRN999", "nonsense", ""] {
        corinth(&["explain", code]).trouble(
            2,
            &format!("there is no code {code}"),
            "codes are CRN and three digits, such as CRN002, or their names",
            "run corinth explain for all of them",
        );
    }
    let hostile = corinth(&["explain", "\x1b[2J"]);
    assert!(hostile.stderr.contains("\\u{1b}[2J"), "{}", hostile.stderr);
}
