use corinth_identity::{Authority, LEAF_LIFETIME};
use corinth_model::TrustDomain;

use super::*;

const NOW: u64 = 1_900_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn id(slot: &str) -> SpiffeId {
    SpiffeId::parse(&format!(
        "spiffe://east.corinth.internal/corinth/gateway/{slot}"
    ))
    .unwrap()
}

fn leaf(slot: &str) -> Leaf {
    let domain = TrustDomain::parse("east.corinth.internal").unwrap();
    let authority = Authority::create(domain, at(NOW)).unwrap();
    authority
        .issue(&id(slot), &[], at(NOW), LEAF_LIFETIME)
        .unwrap()
}

fn state_dir(folder: &tempfile::TempDir) -> StateDir {
    StateDir::open(folder.path().join("state")).unwrap()
}

#[test]
fn only_a_certificate_of_ours_is_taken_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = state_dir(&folder);
    let end = NOW + LEAF_LIFETIME.as_secs();
    let found = |now| kept(&state_dir, &id("0"), at(now)).not_after();
    assert_eq!(found(NOW), at(0), "there is none");
    let write = |text: &str| state_dir.write(FILE, text.as_bytes()).unwrap();
    write(&leaf("0").to_pem());
    assert_eq!([found(NOW), found(end + 1)], [at(end); 2]);
    write(&leaf("1").to_pem());
    assert_eq!(found(NOW), at(0), "it is another gateway's");
    write("no certificate");
    assert_eq!(found(NOW), at(0), "it is damaged");
}

#[test]
fn what_is_pending_says_why_since_when_and_what_to_do() {
    let socket = Path::new("/run/control.sock");
    let own = OwnIdentity::awaiting(id("0"));
    let pending = |own: &OwnIdentity, now| pending(own, socket, at(now));
    let none = "certificate: none on disk, and none from the control plane yet";
    assert_eq!(pending(&own, NOW).as_deref(), Some(none));
    own.replace(&leaf("0")).unwrap();
    let end = NOW + LEAF_LIFETIME.as_secs();
    assert_eq!(pending(&own, end), None);
    let expired = "certificate: expired at 2030-03-18T17:46:40Z, so that no peer can be reached (CRN041); \
                   start the control plane at /run/control.sock, which issues the next one";
    assert_eq!(pending(&own, end + 1).as_deref(), Some(expired));
}

#[test]
fn words_say_how_long_the_certificate_holds() {
    let own = OwnIdentity::awaiting(id("0"));
    assert_eq!(words(&own, at(NOW)), "certificate: none yet");
    own.replace(&leaf("0")).unwrap();
    let end = NOW + LEAF_LIFETIME.as_secs();
    let until = "2030-03-18T17:46:40Z";
    for (now, rest) in [
        (NOW, format!("until {until}, 86400 s left")),
        (end, format!("until {until}, only 0 s left (CRN706)")),
        (end + 1, format!("expired at {until}")),
    ] {
        assert_eq!(words(&own, at(now)), format!("certificate: {rest}"));
    }
}

#[test]
fn refusal_is_told_with_its_code_and_no_other() {
    let status = |code: &'static str| {
        let mut status = tonic::Status::failed_precondition("it is not ours");
        let code = tonic::metadata::MetadataValue::from_static(code);
        status.metadata_mut().insert("corinth-code", code);
        status
    };
    let told = |status| refused(&status).to_string();
    let words = "FailedPrecondition: it is not ours";
    assert_eq!(
        told(status("CRN703")),
        format!("it refuses (CRN703): {words}")
    );
    assert_eq!(told(status("CRN000")), format!("it refuses: {words}"));
}
