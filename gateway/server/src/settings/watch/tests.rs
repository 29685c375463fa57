use std::fs;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

const NEVER: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn start(path: &Path, poll: Duration) -> ConfigWatch {
    let current = Settings::read(path).expect("a good configuration");
    ConfigWatch::every(&current, poll)
}

async fn next(watch: &mut ConfigWatch) -> Result<Settings, Mistakes> {
    let change = timeout(PATIENCE, watch.next())
        .await
        .expect("a change is seen in time");
    change.expect("the watch goes on")
}

async fn cluster(watch: &mut ConfigWatch) -> String {
    next(watch).await.expect("good").cluster.to_string()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[tokio::test]
async fn a_file_written_or_renamed_over_is_seen() {
    let directory = directory();
    let path = directory.path().join("config.yaml");
    fs::write(&path, "cluster: a\n").expect("written");
    let mut watch = start(&path, NEVER);
    fs::write(&path, "cluster: b\n").expect("written");
    assert_eq!(cluster(&mut watch).await, "b");
    let new = directory.path().join("config.yaml.tmp");
    fs::write(&new, "cluster: c\n").expect("written");
    fs::rename(&new, &path).expect("renamed");
    assert_eq!(cluster(&mut watch).await, "c");
}

#[tokio::test]
async fn a_swap_of_the_data_link_is_seen() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    for (generation, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(at(generation)).expect("made");
        fs::write(
            at(generation).join("config.yaml"),
            format!("cluster: {name}\n"),
        )
        .expect("written");
    }
    symlink("..1", at("..data")).expect("linked");
    symlink("..data/config.yaml", at("config.yaml")).expect("linked");
    let mut watch = start(&at("config.yaml"), NEVER);
    symlink("..2", at("..data_tmp")).expect("linked");
    fs::rename(at("..data_tmp"), at("..data")).expect("swapped");
    assert_eq!(cluster(&mut watch).await, "b");
}

#[tokio::test]
async fn mistakes_come_once_and_the_repair_after_them() {
    let directory = directory();
    let path = directory.path().join("config.yaml");
    fs::write(&path, "cluster: a\n").expect("written");
    let mut watch = start(&path, Duration::from_millis(50));
    fs::write(&path, "cluster: a\nclutser: b\n").expect("written");
    let mistakes = next(&mut watch).await.expect_err("an unknown key");
    assert!(mistakes.to_string().contains("CRN904"), "{mistakes}");
    fs::write(&path, "cluster: c\n").expect("written");
    assert_eq!(cluster(&mut watch).await, "c");
}

#[tokio::test]
async fn a_file_that_goes_is_told_and_seen_again() {
    let directory = directory();
    let path = directory.path().join("config.yaml");
    fs::write(&path, "cluster: a\n").expect("written");
    let mut watch = start(&path, NEVER);
    fs::remove_file(&path).expect("removed");
    let mistakes = next(&mut watch).await.expect_err("gone");
    assert!(mistakes.to_string().contains("CRN940"), "{mistakes}");
    fs::write(&path, "cluster: a\n").expect("written");
    assert_eq!(cluster(&mut watch).await, "a");
}

#[tokio::test]
async fn a_change_of_a_named_file_is_a_change() {
    let (directory, elsewhere) = (directory(), directory());
    let path = directory.path().join("config.yaml");
    let bundle = elsewhere.path().join("west.pem");
    fs::write(&bundle, "one").expect("written");
    let text = format!(
        "cluster: a\npeers: [{{name: west, bundle: {}, acceptOnly: true}}]\n",
        bundle.display()
    );
    fs::write(&path, text).expect("written");
    let mut watch = start(&path, NEVER);
    fs::write(&bundle, "two").expect("written");
    assert_eq!(cluster(&mut watch).await, "a");
}

#[tokio::test]
async fn what_changed_before_the_watch_began_is_seen() {
    let directory = directory();
    let path = directory.path().join("config.yaml");
    fs::write(&path, "cluster: a\n").expect("written");
    let current = Settings::read(&path).expect("a good configuration");
    fs::write(&path, "cluster: b\n").expect("written");
    let mut watch = ConfigWatch::every(&current, NEVER);
    assert_eq!(cluster(&mut watch).await, "b");
}

#[tokio::test]
async fn touching_without_changing_is_no_change() {
    let directory = directory();
    let path = directory.path().join("config.yaml");
    fs::write(&path, "cluster: a\n").expect("written");
    let mut watch = start(&path, Duration::from_millis(20));
    fs::write(&path, "cluster: a\n").expect("written");
    let quiet = timeout(Duration::from_millis(500), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
