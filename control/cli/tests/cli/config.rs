//! `corinth config`.

use super::support::{Folder, Ran, command, corinth};

#[test]
fn the_example_is_the_one_of_the_gateway_and_has_no_mistake_of_its_own() {
    let example = corinth(&["config", "example"]).result();
    assert_eq!(
        example,
        include_str!("../../../../gateway/server/src/settings/example.yaml")
    );
    let folder = Folder::new();
    let path = folder.put("example.yaml", &example);
    let ran = corinth(&["config", "validate", &path, "-o", "json"]);
    let codes: Vec<_> = ran.envelope("ConfigReports")["items"][0]["mistakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mistake| mistake["code"].as_str().unwrap().to_owned())
        .collect();
    // The roots of its two peers are not in the directory.
    assert_eq!((ran.code, codes), (10, vec!["CRN940".to_owned(); 2]));
}

#[test]
fn the_schema_is_json() {
    let schema = corinth(&["config", "schema"]).result();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["title"], "Corinth gateway");
}

#[test]
fn a_good_configuration_is_told_so() {
    let folder = Folder::new();
    let path = folder.put("good.yaml", "cluster: east\n");
    let validate = ["config", "validate", &path];
    assert_eq!(
        corinth(&validate).result(),
        format!("✓ {path}: can be used\n")
    );
    let plain = Ran::of(command(&validate).env("LC_ALL", "C").output().unwrap());
    assert_eq!(plain.stdout, format!("ok {path}: can be used\n"));
    let envelope = corinth(&["config", "validate", "-o", "json", &path]).envelope("ConfigReports");
    assert_eq!(
        envelope["items"],
        serde_json::json!([{ "file": path, "valid": true, "mistakes": [] }])
    );
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let folder = Folder::new();
    let good = folder.put("good.yaml", "cluster: east\n");
    let wrong = folder.put(
        "wrong.yaml",
        "cluster: East-\nwrokers: 2\ntimeouts:\n  open: 5\n",
    );
    let ran = corinth(&["config", "validate", &wrong, &good]);
    assert_eq!((ran.code, ran.stderr.as_str()), (10, ""));
    let told = ran.stdout.replace(&folder.named(""), "");
    assert_eq!(told, include_str!("golden/mistakes.txt"));
}

#[test]
fn broken_yaml_is_a_mistake() {
    let folder = Folder::new();
    for text in [
        "cluster: [east\n",
        "cluster: east\n\tworkers: 2\n",
        "cluster: \"east\n",
        "- a\n- b\n",
    ] {
        let path = folder.put("broken.yaml", text);
        let ran = corinth(&["config", "validate", &path]);
        assert_eq!(ran.code, 10, "{text}");
        assert!(
            ran.stdout.contains("CRN90") && ran.stdout.contains("hint:"),
            "{}",
            ran.stdout
        );
    }
    std::fs::write(folder.file("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let ran = corinth(&["config", "validate", &folder.named("binary.yaml")]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
}

#[test]
fn what_cannot_be_read_is_not_called_wrong() {
    let folder = Folder::new();
    let remedy =
        "check the path and who may read the file; `corinth config example` prints a beginning";
    let missing = folder.named("missing.yaml");
    corinth(&["config", "validate", &missing]).trouble(
        3,
        &format!("the configuration {missing} cannot be read"),
        "No such file or directory (os error 2)",
        remedy,
    );
    let directory = folder.path().to_str().unwrap();
    corinth(&["config", "validate", directory]).trouble(
        3,
        &format!("the configuration {directory} cannot be read"),
        "not a regular file",
        remedy,
    );
    // What could be read is reported all the same.
    let good = folder.put("good.yaml", "cluster: east\n");
    let ran = corinth(&["config", "validate", &missing, &good, "-o", "json"]);
    assert_eq!(ran.code, 3);
    let envelope = ran.envelope("ConfigReports");
    assert_eq!(envelope["partial"], true);
    assert_eq!(envelope["items"][0]["valid"], true);
    assert_eq!(envelope["errors"].as_array().unwrap().len(), 1);
}
