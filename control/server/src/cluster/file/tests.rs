//! The file through reading, changes by hand, changes by us, damage and restarts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use corinth_identity::Authority;
use corinth_model::{Accepted, Carriage, ClusterName, Denied, ServiceId, TrustDomain};
use rustls_pki_types::UnixTime;
use tempfile::TempDir;

use super::*;
use crate::cluster::{Audience, DeclaredExport, DeclaredLink, DeclaredService, LinkMode};

mod forms;

#[tokio::test]
async fn absent_file_declares_nothing_and_the_first_change_makes_it() {
    let lab = Lab::new();
    let objects = lab.open();
    assert_eq!(*lab.declared(&objects), Declared::default());
    assert!(!objects.state().borrow().is_unreadable());
    objects.write(export("web.shop", &["west"])).unwrap();
    let mode = fs::metadata(&lab.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(lab.declared(&objects).exports.len(), 1);
    drop(objects);
    assert_eq!(lab.declared(&lab.open()).exports.len(), 1);
}

#[tokio::test]
async fn change_has_effect_when_write_returns() {
    let lab = Lab::new();
    let objects = lab.open();
    let mut declared = objects.declared();
    declared.mark_unchanged();
    let link = link("west");
    objects
        .write(Write::Link(cluster("west"), Box::new(link.clone())))
        .unwrap();
    assert!(declared.has_changed().unwrap());
    assert_eq!(
        declared.borrow().links,
        BTreeMap::from([(cluster("west"), link)])
    );
    // Looking at what we wrote ourselves is no change.
    declared.mark_unchanged();
    objects.look();
    assert!(!declared.has_changed().unwrap());
}

#[tokio::test]
async fn change_that_cannot_be_written_is_taken_back() {
    let lab = Lab::new();
    let objects = lab.open();
    fs::remove_dir_all(lab.path.parent().unwrap()).unwrap();
    let refused = objects.write(export("web.shop", &["west"]));
    assert!(matches!(refused, Err(WriteError::Io { .. })), "{refused:?}");
    assert_eq!(*lab.declared(&objects), Declared::default());
}

#[tokio::test]
async fn changes_add_replace_and_remove() {
    let lab = Lab::new();
    let objects = lab.open();
    let west = Write::Link(cluster("west"), Box::new(link("west")));
    objects.write(west).unwrap();
    let paused = DeclaredLink {
        mode: LinkMode::Paused,
        ..link("west")
    };
    objects
        .write(Write::Link(cluster("west"), Box::new(paused.clone())))
        .unwrap();
    assert_eq!(lab.declared(&objects).links[&cluster("west")], paused);
    objects
        .write(export("web.shop", &["west", "south"]))
        .unwrap();
    objects.write(export("pay.shop", &["west"])).unwrap();
    let service = Write::Service(service("web.shop"), DeclaredService::default());
    assert!(
        matches!(objects.write(service), Err(WriteError::Conflict(_))),
        "it has no port"
    );
    let denied = Denied::TrustDomain(TrustDomain::parse("south.test").unwrap());
    objects.write(Write::Deny(denied.clone())).unwrap();
    assert!(lab.declared(&objects).denied.contains(&denied));
    objects.write(Write::Lift(denied.clone())).unwrap();
    objects.write(Write::Unlink(cluster("west"))).unwrap();
    let declared = lab.declared(&objects);
    let to = |name: &str| declared.exports[&self::service(name)].to.clone();
    assert_eq!(to("web.shop"), Audience::Only([cluster("south")].into()));
    assert_eq!(to("pay.shop"), Audience::Only([].into()));
    objects
        .write(Write::Export(self::service("web.shop"), None))
        .unwrap();
    for unknown in [
        Write::Unlink(cluster("west")),
        Write::Export(self::service("web.shop"), None),
        Write::Lift(denied),
    ] {
        assert!(matches!(
            objects.write(unknown),
            Err(WriteError::Unknown(_))
        ));
    }
}

#[tokio::test]
async fn change_keeps_what_somebody_wrote_a_moment_ago() {
    let lab = Lab::new();
    let objects = lab.open();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    objects.write(export("pay.shop", &["west"])).unwrap();
    assert_eq!(lab.declared(&objects).exports.len(), 2);
}

#[tokio::test]
async fn what_is_declared_elsewhere_wins_and_is_not_written() {
    let lab = Lab::new();
    let fixed = fixed();
    let objects = lab.open_with(fixed.clone());
    let elsewhere = [
        Write::Link(cluster("west"), Box::new(link("west"))),
        Write::Unlink(cluster("west")),
        Write::Service(service("web.shop"), DeclaredService::default()),
        Write::Export(service("web.shop"), None),
    ];
    for change in elsewhere {
        let refused = objects.write(change).unwrap_err();
        assert!(
            matches!(&refused, WriteError::ElsewhereDeclared { place, .. } if place == "node.yaml"),
            "{refused:?}"
        );
    }
    assert!(!lab.path.exists());
    // In both: told, and the other one is used.
    lab.put("exports: [{service: web.shop, to: []}, {service: pay.shop, to: []}]\n");
    objects.look();
    let state = Arc::clone(&objects.state().borrow());
    assert!(!state.is_unreadable());
    assert_eq!(
        state.doubles,
        [
            "the export of `web.shop` stands here and in node.yaml, which is used; remove one of the two"
        ]
    );
    let declared = lab.declared(&objects);
    let kept = &fixed.declared.exports[&service("web.shop")];
    assert_eq!(declared.exports[&service("web.shop")], *kept);
    assert!(declared.exports.contains_key(&service("pay.shop")));
    // Until it is no longer declared there.
    objects.set_static(Fixed::default());
    assert_eq!(objects.state().borrow().doubles, [""; 0]);
    assert_ne!(lab.declared(&objects).exports[&service("web.shop")], *kept);
}

#[tokio::test]
async fn trust_domain_that_is_linked_elsewhere_is_not_linked_twice() {
    let lab = Lab::new();
    let objects = lab.open_with(fixed());
    let twin = DeclaredLink {
        trust_domain: link("west").trust_domain,
        ..link("twin")
    };
    let refused = objects.write(Write::Link(cluster("twin"), Box::new(twin.clone())));
    assert!(
        matches!(refused, Err(WriteError::Conflict(_))),
        "{refused:?}"
    );
    let mut file = Declared::default();
    file.links.insert(cluster("twin"), twin);
    lab.put(&render::render(&file).unwrap());
    objects.look();
    assert!(!lab.declared(&objects).links.contains_key(&cluster("twin")));
    assert_eq!(objects.state().borrow().doubles.len(), 1);
}

#[tokio::test]
async fn mistake_changes_nothing_and_is_told_until_it_is_mended() {
    let lab = Lab::new();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    let objects = lab.open();
    let before = lab.declared(&objects);
    lab.put("exports:\n  - service: web.shop\n    to: [west]\n    form: [east]\n");
    objects.look();
    assert_eq!(lab.declared(&objects), before);
    let state = Arc::clone(&objects.state().borrow());
    assert!(state.is_unreadable());
    assert_eq!(
        state.mistakes[0].to_string(),
        "4:5 unknown key `form` in `exports[0]`\n  hint: known here are service, to, since"
    );
    // Nor is it written over.
    let refused = objects.write(export("pay.shop", &[]));
    assert!(matches!(refused, Err(WriteError::Io { .. })), "{refused:?}");
    assert!(fs::read_to_string(&lab.path).unwrap().contains("form"));
    lab.put("exports: []\n");
    objects.look();
    assert!(!objects.state().borrow().is_unreadable());
    assert_eq!(lab.declared(&objects).exports.len(), 0);
}

#[tokio::test]
async fn start_with_a_broken_or_missing_file_goes_on_with_what_it_said_before() {
    let lab = Lab::new();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    let before = lab.declared(&lab.open());
    lab.put("exports: [\n");
    let objects = lab.open();
    assert_eq!(lab.declared(&objects), before);
    assert!(objects.state().borrow().is_unreadable());
    drop(objects);
    fs::remove_file(&lab.path).unwrap();
    let objects = lab.open();
    assert_eq!(lab.declared(&objects), before);
    assert_eq!(
        objects.state().borrow().mistakes[0].message,
        "the file is gone"
    );
    // An empty file is meant.
    lab.put("");
    objects.look();
    assert!(!objects.state().borrow().is_unreadable());
    assert_eq!(*lab.declared(&objects), Declared::default());
}

#[tokio::test]
async fn file_that_vanishes_and_one_that_cannot_be_read_change_nothing() {
    let lab = Lab::new();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    let objects = lab.open();
    let before = lab.declared(&objects);
    fs::remove_file(&lab.path).unwrap();
    objects.look();
    assert!(objects.state().borrow().is_unreadable());
    fs::create_dir(&lab.path).unwrap();
    objects.look();
    assert!(objects.state().borrow().is_unreadable());
    assert_eq!(lab.declared(&objects), before);
    fs::remove_dir(&lab.path).unwrap();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    objects.look();
    assert!(!objects.state().borrow().is_unreadable());
}

#[tokio::test]
async fn change_by_hand_is_noticed_by_itself() {
    let lab = Lab::new();
    lab.put("exports: []\n");
    let objects = lab.open();
    let mut declared = objects.declared();
    lab.put("exports: [{service: web.shop, to: [west]}]\n");
    let noticed = declared.wait_for(|declared| !declared.exports.is_empty());
    tokio::time::timeout(Duration::from_secs(30), noticed)
        .await
        .expect("noticed")
        .expect("the file is followed");
}

#[tokio::test]
async fn left_over_of_a_crash_is_of_no_consequence() {
    let lab = Lab::new();
    let objects = lab.open();
    let left_over = lab.path.with_extension("yaml.new");
    fs::write(&left_over, "half a fi").unwrap();
    objects.write(export("web.shop", &[])).unwrap();
    assert!(!left_over.exists());
}

#[tokio::test]
async fn parallel_changes_are_all_made() {
    let lab = Lab::new();
    let objects = lab.open();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let objects = &objects;
            scope.spawn(move || {
                objects
                    .write(export(&format!("s{index}.shop"), &[]))
                    .unwrap()
            });
        }
    });
    assert_eq!(lab.declared(&objects).exports.len(), 8);
}

struct Lab {
    path: PathBuf,
    _dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            path: dir.path().join(DEFAULT_NAME),
            _dir: dir,
        }
    }

    fn open(&self) -> ObjectsFile {
        self.open_with(Fixed::default())
    }

    fn open_with(&self, fixed: Fixed) -> ObjectsFile {
        ObjectsFile::open(&self.path, own(), fixed).unwrap()
    }

    fn put(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    fn declared(&self, objects: &ObjectsFile) -> Arc<Declared> {
        Arc::clone(&objects.declared().borrow())
    }
}

fn own() -> Own {
    Own {
        cluster: cluster("east"),
        trust_domain: TrustDomain::parse("east.corinth.internal").unwrap(),
    }
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn link(name: &str) -> DeclaredLink {
    DeclaredLink {
        trust_domain: TrustDomain::of_cluster(&cluster(name)),
        roots: vec![root()],
        bundle_sequence: 3,
        addresses: vec!["gw.example:15443".to_owned()],
        accepted: Accepted::default(),
        max_streams: None,
        quota: None,
        mode: LinkMode::Active,
        carriage: Carriage::default(),
    }
}

fn root() -> rustls_pki_types::CertificateDer<'static> {
    use std::sync::OnceLock;
    static ROOT: OnceLock<rustls_pki_types::CertificateDer<'static>> = OnceLock::new();
    let make = || {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
        let domain = TrustDomain::parse("some.test").unwrap();
        Authority::create(domain, now).unwrap().root().clone()
    };
    ROOT.get_or_init(make).clone()
}

fn export(name: &str, to: &[&str]) -> Write {
    let to = to.iter().map(|name| cluster(name)).collect();
    let export = DeclaredExport {
        to: Audience::Only(to),
        since_ms: 5,
    };
    Write::Export(service(name), Some(export))
}

fn fixed() -> Fixed {
    let mut declared = Declared::default();
    declared.links.insert(cluster("west"), link("west"));
    declared
        .services
        .insert(service("web.shop"), DeclaredService::default());
    let export = DeclaredExport {
        to: Audience::All,
        since_ms: 0,
    };
    declared.exports.insert(service("web.shop"), export);
    Fixed {
        declared,
        place: "node.yaml".to_owned(),
    }
}
