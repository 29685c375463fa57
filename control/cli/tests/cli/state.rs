//! `corinth bundle`, `backup` and `restore`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::support::{Folder, Ran, corinth};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A node that has its state.
fn node() -> (Folder, String, String) {
    let folder = Folder::new();
    let config = folder.put("east.yaml", "cluster: east\nstateDir: state\n");
    let bundle = corinth(&["bundle", "--config", &config]);
    assert_eq!(bundle.code, 0, "{}", bundle.stderr);
    (folder, config, bundle.stdout)
}

fn backup(config: &str, output: &str, more: &[&str]) -> Ran {
    let arguments = ["backup", "--config", config, "--output", output];
    corinth(&[&arguments, more].concat())
}

fn restore(config: &str, input: &str, more: &[&str]) -> Ran {
    let arguments = ["restore", "--config", config, "--input", input];
    corinth(&[&arguments, more].concat())
}

#[test]
fn the_bundle_is_made_once_and_holds_no_secret() {
    let folder = Folder::new();
    let config = folder.put("east.yaml", "cluster: east\nstateDir: state\n");
    let first = corinth(&["bundle", "--config", &config]);
    assert_eq!(first.code, 0);
    assert_eq!(
        first.stderr,
        format!(
            "made the authority of east.corinth.internal in {}\n",
            folder.named("state")
        )
    );
    assert!(first.stdout.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(!first.stdout.contains("KEY"));
    assert_eq!(mode(&folder.file("state")), 0o700);
    assert_eq!(mode(&folder.file("state/ca.key")), 0o600);
    assert_eq!(
        corinth(&["bundle", "--config", &config]).result(),
        first.stdout
    );
}

#[test]
fn a_bundle_is_not_made_where_the_state_is_open_to_others() {
    let (folder, config, _) = node();
    fs::set_permissions(folder.file("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let state = folder.named("state");
    corinth(&["bundle", "--config", &config]).trouble(
        1,
        "the roots of this node cannot be printed",
        &format!("{state} is open to others (mode 0755); run: chmod 0700 {state}"),
        "run that command, then try again",
    );
}

#[test]
fn a_node_comes_back_from_its_backup() {
    let (folder, config, bundle) = node();
    let archive = folder.named("east.backup");
    let ran = backup(&config, &archive, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("keep it secret"), "{}", ran.stderr);
    assert_eq!(mode(&folder.file("east.backup")), 0o600);

    fs::remove_dir_all(folder.file("state")).unwrap();
    let ran = restore(&config, &archive, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert_eq!(corinth(&["bundle", "--config", &config]).result(), bundle);
    assert_eq!(mode(&folder.file("state/ca.key")), 0o600);
}

#[test]
fn a_control_plane_comes_back_as_another_instance_with_its_links() {
    let (folder, config, _) = node();
    let kept = [
        "cluster.yaml",
        "cluster.yaml.last-good",
        "invitations.json",
        "bundles.json",
        "control/import-ports.json",
        "control/peers/west.json",
    ];
    fs::create_dir_all(folder.file("state/control/peers")).unwrap();
    for name in kept.iter().chain(&["control/instance.json"]) {
        let file = folder.put(&format!("state/{name}"), name);
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let archive = folder.named("east.backup");
    assert_eq!(backup(&config, &archive, &[]).code, 0);
    for overwrite in [&["--overwrite"][..], &[]] {
        let ran = restore(&config, &archive, overwrite);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for name in kept {
            let restored = fs::read_to_string(folder.file(&format!("state/{name}")));
            assert_eq!(restored.unwrap(), name);
        }
        assert!(!folder.file("state/control/instance.json").exists());
        fs::remove_dir_all(folder.file("state")).unwrap();
    }
}

#[test]
fn the_node_of_a_control_plane_of_its_own_is_backed_up_and_restored() {
    let folder = Folder::new();
    let config = folder.put(
        "control.yaml",
        "cluster: east\nstateDir: control\nsocket: shared/control.sock\nobjects: links.yaml\nleafLifetime: 24h\n",
    );
    let bundle = corinth(&["bundle", "--config", &config]);
    assert_eq!(bundle.code, 0, "{}", bundle.stderr);
    assert!(bundle.stdout.starts_with("-----BEGIN CERTIFICATE-----\n"));
    let archive = folder.named("east.backup");
    let ran = backup(&config, &archive, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let beside = format!(
        "declared in {}, which is not in it",
        folder.named("links.yaml")
    );
    assert!(ran.stderr.contains(&beside), "{}", ran.stderr);
    fs::remove_dir_all(folder.file("control")).unwrap();
    let ran = restore(&config, &archive, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let again = corinth(&["bundle", "--config", &config]).result();
    assert_eq!(again, bundle.stdout);
}

#[test]
fn a_gateway_without_an_authority_says_where_it_is_and_a_wrong_control_plane_what_is_wrong() {
    let folder = Folder::new();
    let gateway = folder.put(
        "gateway.yaml",
        "cluster: east\nstateDir: gateway\ncontrol: {socket: c.sock}\nidentity: {issuer: control}\n",
    );
    let archive = folder.named("east.backup");
    corinth(&["bundle", "--config", &gateway]).trouble(
        10,
        "the roots of this node cannot be printed",
        "its certificate is issued by its control plane, which has the roots",
        "name the configuration of the control plane with --config",
    );
    backup(&gateway, &archive, &[]).trouble(
        10,
        &format!("no backup was written to {archive}"),
        "the certificate of this gateway is issued by its control plane",
        "name the configuration of the control plane with --config; everything here grows anew",
    );
    let control = folder.put(
        "control.yaml",
        "cluster: east\nstateDir: control\nleafLifetime: 1d\n",
    );
    corinth(&["bundle", "--config", &control]).trouble(
        10,
        &format!("{control} cannot be used"),
        &format!("{control}: leafLifetime: write a time from 10s to 30 days, such as 24h"),
        "correct the file; corinth-control reads the same one",
    );
}

#[test]
fn neither_a_backup_nor_a_state_is_overwritten_without_being_told() {
    let (folder, config, bundle) = node();
    let archive = folder.put("east.backup", "precious");
    let refused = format!("no backup was written to {archive}");
    let remedy = "choose another name, or replace it with --overwrite";
    backup(&config, &archive, &[]).trouble(1, &refused, "it already exists", remedy);
    assert_eq!(fs::read_to_string(&archive).unwrap(), "precious");
    assert_eq!(backup(&config, &archive, &["--overwrite"]).code, 0);
    assert_eq!(mode(Path::new(&archive)), 0o600);

    let other = folder.put("other.yaml", "cluster: east\nstateDir: other\n");
    let younger = corinth(&["bundle", "--config", &other]).stdout;
    assert_ne!(younger, bundle);
    let state = folder.named("other");
    restore(&other, &archive, &[]).trouble(
        1,
        &format!("{state} was not restored"),
        &format!("{state}/bundle.pem already exists; restore into an empty state directory"),
        "restore with --overwrite to move what is there aside first",
    );
    assert_eq!(corinth(&["bundle", "--config", &other]).result(), younger);

    assert_eq!(restore(&other, &archive, &["--overwrite"]).code, 0);
    assert_eq!(corinth(&["bundle", "--config", &other]).result(), bundle);
    let aside = folder
        .list("")
        .into_iter()
        .find(|name| name.starts_with("other.before-restore-"));
    let aside = folder.file(&aside.unwrap());
    assert_eq!(
        fs::read_to_string(aside.join("bundle.pem")).unwrap(),
        younger
    );
}

#[test]
fn what_is_no_backup_of_this_node_changes_nothing() {
    let (folder, config, bundle) = node();
    let archive = folder.named("east.backup");
    backup(&config, &archive, &[]);
    let stranger = folder.put("west.yaml", "cluster: west\nstateDir: west\n");
    let ran = restore(&stranger, &archive, &[]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(!folder.file("west/ca.key").exists());

    let whole = fs::read_to_string(&archive).unwrap();
    let broken = folder.put("broken.backup", &whole[..whole.len() / 2]);
    for more in [&[][..], &["--overwrite"]] {
        let ran = restore(&config, &broken, more);
        assert_eq!((ran.code, ran.stdout.as_str()), (10, ""), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("not a Corinth backup"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("PRIVATE"), "{}", ran.stderr);
    }
    assert_eq!(corinth(&["bundle", "--config", &config]).result(), bundle);
    let names = folder.list("");
    assert!(
        names.iter().all(|name| !name.contains("restor")),
        "{names:?}"
    );
}

#[test]
fn missing_things_are_named() {
    let folder = Folder::new();
    let config = folder.put("east.yaml", "cluster: east\nstateDir: state\n");
    let (state, archive) = (folder.named("state"), folder.named("east.backup"));
    backup(&config, &archive, &[]).trouble(
        3,
        &format!("no backup was written to {archive}"),
        &format!("there is no state directory {state}"),
        "check `stateDir` in the configuration; a node that never ran has nothing to back up",
    );
    for (input, why) in [
        (archive, "No such file or directory (os error 2)"),
        (
            folder.path().to_str().unwrap().to_owned(),
            "not a regular file",
        ),
    ] {
        restore(&config, &input, &[]).trouble(
            3,
            &format!("the backup {input} cannot be read"),
            why,
            "check the path and who may read the file",
        );
    }
    assert!(!Path::new(&state).exists());
    assert_eq!(corinth(&["bundle", "--config", "/nowhere.yaml"]).code, 3);
    let wrong = folder.put("wrong.yaml", "cluster: [\n");
    assert_eq!(corinth(&["bundle", "--config", &wrong]).code, 10);
    let (folder, config, _) = node();
    let nowhere = folder.named("no/such/place");
    let ran = backup(&config, &nowhere, &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
}
