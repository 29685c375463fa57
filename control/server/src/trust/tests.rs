use std::fs;

use corinth_identity::Authority;
use corinth_model::{Accepted, Carriage};
use tempfile::TempDir;

use super::*;
use crate::cluster::{Declared, DeclaredLink, LinkMode};

const NOW: u64 = 1_900_000_000;
const DAY: Duration = Duration::from_hours(24);

#[test]
fn told_bundles_are_judged_by_sequence_and_keys() {
    let [a, b, c] = ["1", "2", "3"].map(|_| authority());
    let held = bundle(&[&a], 5);
    for (told, verdict) in [
        (bundle(&[&a], 5), Verdict::Held),
        (bundle(&[&a, &b], 6), Verdict::Next),
        (bundle(&[&a], 6), Verdict::Next),
        (
            bundle(&[&a, &b], 4),
            Verdict::Refused(Condition::BundleOlder),
        ),
        (bundle(&[&a], 0), Verdict::Refused(Condition::BundleOlder)),
        (
            bundle(&[&a, &b], 5),
            Verdict::Refused(Condition::BundleConflict),
        ),
        (
            bundle(&[&b], 5),
            Verdict::Refused(Condition::BundleConflict),
        ),
        (
            bundle(&[&b, &c], 6),
            Verdict::Refused(Condition::BundleUnrelated),
        ),
        (bundle(&[], 6), Verdict::Refused(Condition::BundleUnrelated)),
        (bundle(&[], 5), Verdict::Refused(Condition::BundleConflict)),
    ] {
        assert_eq!(judge(&held, Origin::Told, &told), verdict, "{told:?}");
    }
    // Another certificate of the same key is the same root.
    let again = Authority::from_key_pem(domain(), &a.key_pem(), at(NOW + 60)).unwrap();
    let again = bundle(&[&again], 5);
    assert_eq!(judge(&held, Origin::Told, &again), Verdict::Held);
    let foreign = Bundle::new(
        TrustDomain::parse("b.test").unwrap(),
        vec![a.root().clone()],
        6,
    );
    let unrelated = Verdict::Refused(Condition::BundleUnrelated);
    assert_eq!(judge(&held, Origin::Told, &foreign.unwrap()), unrelated);
}

#[test]
fn a_declared_sequence_that_was_too_high_gives_way_to_that_of_the_same_roots() {
    let [a, b] = ["1", "2"].map(|_| authority());
    let declared = bundle(&[&a], 5);
    let older = Verdict::Refused(Condition::BundleOlder);
    for (told, verdict) in [
        (bundle(&[&a], 0), Verdict::Next),
        (bundle(&[&a, &b], 0), older),
        (bundle(&[&b], 4), older),
    ] {
        assert_eq!(judge(&declared, Origin::Declared, &told), verdict);
    }
}

#[test]
fn told_roots_are_used_while_they_are_newer_and_survive_a_restart() {
    let [a, b] = ["1", "2"].map(|_| authority());
    let (dir, mut learned) = learned();
    let link = link(&[&a], 1);
    assert_eq!(roots(&learned, &link), (1, 1));
    learned.keep(&link, bundle(&[&a, &b], 2));
    assert_eq!(roots(&learned, &link), (2, 2));
    // The declared root may be gone by now: what counts is what followed from it.
    learned.keep(&link, bundle(&[&b], 3));
    learned.store(&state_dir(&dir)).unwrap();
    let again = Learned::load(&state_dir(&dir)).unwrap();
    assert_eq!(roots(&again, &link), (3, 1));
    let (bundle, origin) = again.bundle_of(&link).unwrap();
    assert_eq!(
        (bundle.roots(), origin),
        (&[b.root().clone()][..], Origin::Told)
    );
}

#[test]
fn link_that_is_declared_anew_begins_with_its_declared_roots() {
    let [a, b, c] = ["1", "2", "3"].map(|_| authority());
    let (_dir, mut learned) = learned();
    let first = link(&[&a], 1);
    learned.keep(&first, bundle(&[&a, &b], 9));
    // The peer lost everything and was linked again, with a sequence from the beginning.
    let second = link(&[&c], 0);
    let (bundle, origin) = learned.bundle_of(&second).unwrap();
    assert_eq!(
        (bundle.roots(), origin),
        (&[c.root().clone()][..], Origin::Declared)
    );
    // A declaration that has caught up counts itself.
    let third = link(&[&a, &b], 9);
    assert_eq!(roots(&learned, &third), (9, 2));
}

#[test]
fn roots_of_links_that_are_gone_are_forgotten() {
    let [a, b] = ["1", "2"].map(|_| authority());
    let (_dir, mut learned) = learned();
    let link = link(&[&a], 1);
    learned.keep(&link, bundle(&[&a, &b], 2));
    let mut declared = Declared::default();
    declared.links.insert(cluster("west"), link.clone());
    assert!(!learned.forget_others(&declared));
    assert_eq!(roots(&learned, &link), (2, 2));
    assert!(learned.forget_others(&Declared::default()));
    assert_eq!(roots(&learned, &link), (1, 1));
}

#[test]
fn damaged_file_of_told_roots_holds_nothing() {
    let [a, b] = ["1", "2"].map(|_| authority());
    let (dir, mut learned) = learned();
    let link = link(&[&a], 1);
    learned.keep(&link, bundle(&[&a, &b], 2));
    learned.store(&state_dir(&dir)).unwrap();
    let path = dir.path().join("state").join(LEARNED_FILE);
    let good = fs::read_to_string(&path).unwrap();
    for text in [
        "",
        "{}",
        &good.replacen("MII", "!II", 1),
        &good.replacen("\"roots\"", "\"r\"", 1),
    ] {
        fs::write(&path, text).unwrap();
        let again = Learned::load(&state_dir(&dir)).unwrap();
        assert_eq!(roots(&again, &link), (1, 1), "{text}");
    }
}

#[test]
fn new_root_issues_once_every_peer_holds_it_or_by_force() {
    let (_dir, own) = own();
    own.begin(at(NOW)).unwrap();
    let mut peers = BTreeMap::from([(cluster("west"), Some(1)), (cluster("south"), None)]);
    let refused = own.switch(&peers, false, at(NOW)).unwrap_err();
    assert_eq!(refused.condition(), Some(Condition::RootInUse));
    assert!(
        matches!(&refused, RotateError::NotHeld(lacking) if *lacking == [cluster("south")].into())
    );
    assert!(refused.to_string().contains("south"), "{refused}");
    peers.insert(cluster("south"), Some(0));
    assert!(own.switch(&peers, false, at(NOW)).is_err());
    let before = own.current(at(NOW)).unwrap();
    let forced = own.switch(&peers, true, at(NOW)).unwrap();
    assert_ne!(forced.authority.root(), before.authority.root());
}

#[test]
fn new_root_issues_at_once_where_nobody_is_linked() {
    let (_dir, own) = own();
    let no_peers = BTreeMap::new();
    assert!(matches!(
        own.switch(&no_peers, false, at(NOW)),
        Err(RotateError::State(_))
    ));
    let begun = own.begin(at(NOW)).unwrap();
    let switched = own.switch(&no_peers, false, at(NOW)).unwrap();
    let new = begun.rotation.unwrap().new;
    assert_eq!(switched.authority.root(), &new);
}

#[test]
fn old_root_goes_when_nothing_uses_it_and_not_before() {
    let (_dir, own) = own();
    let held = BTreeMap::from([(cluster("west"), Some(1))]);
    let none = LeavesInUse::Known(Vec::new());
    let begun = own.begin(at(NOW)).unwrap();
    let rotation = begun.rotation.unwrap();
    assert_eq!(uses(&own, &none, &held, NOW), [RootUse::Issuing].into());
    own.switch(&held, false, at(NOW)).unwrap();

    // Nobody knows which leaves there are: the last of before the change ends a day later.
    let unknown = LeavesInUse::Unknown { life_max: DAY };
    let until_s = NOW + 86_400;
    assert_eq!(
        uses(&own, &unknown, &held, until_s),
        [RootUse::Leaves { until_s }].into()
    );

    let id = SpiffeId::parse("spiffe://a.test/corinth/gateway/0").unwrap();
    let leaf = |root: &CertificateDer<'static>| LeafInUse {
        id: id.clone(),
        root: root.clone(),
        not_after: at(NOW + 60),
    };
    let old = LeavesInUse::Known(vec![leaf(&rotation.old), leaf(&rotation.new)]);
    let not_after_s = NOW + 60;
    let in_use = RootUse::Leaf {
        id: id.clone(),
        not_after_s,
    };
    assert_eq!(uses(&own, &old, &held, NOW + 60), [in_use].into());

    // By force it issues although a peer lacks it; then it is not removed either.
    let lacking = BTreeMap::from([(cluster("west"), Some(0))]);
    assert_eq!(
        uses(&own, &none, &lacking, NOW),
        [RootUse::Peer(cluster("west"))].into()
    );

    let finished = own.finish(&unknown, &held, at(until_s + 1)).unwrap();
    assert_eq!(finished.bundle.roots(), [rotation.new]);
    assert_eq!(finished.bundle.sequence(), 2);
}

fn uses(
    own: &OwnRoots,
    leaves: &LeavesInUse,
    peers: &BTreeMap<ClusterName, Option<u64>>,
    now: u64,
) -> BTreeSet<RootUse> {
    let refused = own.finish(leaves, peers, at(now)).unwrap_err();
    assert_eq!(refused.condition(), Some(Condition::RootInUse));
    match refused {
        RotateError::InUse(uses) => {
            assert!(uses.iter().all(|one| !one.to_string().is_empty()));
            uses
        }
        other @ (RotateError::NotHeld(_) | RotateError::State(_)) => panic!("{other}"),
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn domain() -> TrustDomain {
    TrustDomain::parse("a.test").unwrap()
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn authority() -> Authority {
    Authority::create(domain(), at(NOW)).unwrap()
}

fn bundle(authorities: &[&Authority], sequence: u64) -> Bundle {
    let roots = authorities.iter().map(|one| one.root().clone()).collect();
    Bundle::new(domain(), roots, sequence).unwrap()
}

fn link(authorities: &[&Authority], sequence: u64) -> DeclaredLink {
    DeclaredLink {
        trust_domain: domain(),
        roots: authorities.iter().map(|one| one.root().clone()).collect(),
        bundle_sequence: sequence,
        addresses: Vec::new(),
        accepted: Accepted::default(),
        max_streams: None,
        quota: None,
        mode: LinkMode::Active,
        carriage: Carriage::default(),
    }
}

/// Sequence and number of the roots in use.
fn roots(learned: &Learned, link: &DeclaredLink) -> (u64, usize) {
    let (bundle, _) = learned.bundle_of(link).unwrap();
    (bundle.sequence(), bundle.roots().len())
}

fn state_dir(dir: &TempDir) -> StateDir {
    StateDir::open(dir.path().join("state")).unwrap()
}

fn learned() -> (TempDir, Learned) {
    let dir = TempDir::new().unwrap();
    let learned = Learned::load(&state_dir(&dir)).unwrap();
    (dir, learned)
}

fn own() -> (TempDir, OwnRoots) {
    let dir = TempDir::new().unwrap();
    let state_dir = state_dir(&dir);
    state_dir.load_or_create(&domain(), at(NOW)).unwrap();
    let own = OwnRoots::new(state_dir, domain());
    (dir, own)
}
