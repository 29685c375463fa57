use std::sync::Barrier;

use corinth_identity::Authority;
use corinth_model::{ClusterName, TrustDomain};
use tempfile::TempDir;

use super::*;

const NOW: u64 = 1_900_000_000;
const QUARTER: Duration = Duration::from_mins(15);

#[test]
fn token_says_who_invites_and_keeps_its_secret() {
    let (dir, invitations) = fresh();
    let token = create(&invitations, 1);
    assert_eq!(token.expires_at, NOW + 900);
    assert_eq!(token.root_pins.len(), 1);
    assert_eq!(Token::parse(&token.to_text().unwrap()), Ok(token.clone()));
    let text = std::fs::read_to_string(dir.path().join("state").join(FILE)).unwrap();
    assert!(text.contains(&HEXLOWER.encode(&token.id.0)));
    assert!(!text.contains(&HEXLOWER.encode(&token.secret.0)), "{text}");
    let key = LinkKey::of_secret(&token.secret.0);
    assert_eq!(invitations.key(&token.id), key);
    assert_ne!(invitations.key(&TokenId([0; 16])), key);
}

#[test]
fn fifty_parallel_redemptions_succeed_as_often_as_the_token_has_uses() {
    for uses in [1, 3] {
        let (_dir, invitations) = fresh();
        let token = create(&invitations, uses);
        let together = Barrier::new(50);
        let redeemed = std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..50)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        invitations.redeem(&token.id, at(NOW)).is_ok()
                    })
                })
                .collect();
            let outcomes = attempts.into_iter().map(|attempt| attempt.join().unwrap());
            outcomes.filter(|is_ok| *is_ok).count()
        });
        assert_eq!(redeemed, uses as usize);
        assert!(!invitations.is_open(at(NOW)));
    }
}

#[test]
fn used_expired_and_unknown_tokens_are_refused_alike() {
    let (_dir, invitations) = fresh();
    let (used, expired) = (create(&invitations, 1), create(&invitations, 1));
    invitations.redeem(&used.id, at(NOW + 899)).unwrap();
    for (id, now) in [
        (used.id, NOW + 899),
        (expired.id, NOW + 900),
        (TokenId([0; 16]), NOW),
    ] {
        let refused = invitations.redeem(&id, at(now)).unwrap_err();
        assert!(matches!(refused, RedeemError::Refused), "{refused:?}");
    }
}

#[test]
fn uses_are_remembered_over_a_restart() {
    let (dir, invitations) = fresh();
    let (once, twice) = (create(&invitations, 1), create(&invitations, 2));
    invitations.redeem(&once.id, at(NOW)).unwrap();
    invitations.redeem(&twice.id, at(NOW)).unwrap();
    drop(invitations);
    let again = load(&dir);
    assert!(again.redeem(&once.id, at(NOW)).is_err());
    assert_eq!(again.key(&twice.id), LinkKey::of_secret(&twice.secret.0));
    let expires_at = at(NOW + 900);
    let left = Open {
        id: twice.id,
        expires_at,
        uses_left: 1,
    };
    assert_eq!(again.list(at(NOW)), [left]);
}

#[test]
fn what_cannot_be_written_down_is_not_redeemed() {
    let (dir, invitations) = fresh();
    let token = create(&invitations, 1);
    // A directory in the way of the temporary file: also root cannot write through it.
    let temporary = dir.path().join("state").join(format!("{FILE}.new"));
    std::fs::create_dir(&temporary).unwrap();
    let failed = invitations.redeem(&token.id, at(NOW)).unwrap_err();
    assert!(matches!(failed, RedeemError::State(_)), "{failed:?}");
    std::fs::remove_dir(&temporary).unwrap();
    invitations.redeem(&token.id, at(NOW)).unwrap();
}

#[test]
fn revoked_and_purged_tokens_are_gone() {
    let (dir, invitations) = fresh();
    let (first, second) = (create(&invitations, 1), create(&invitations, 1));
    assert!(invitations.revoke(&first.id, at(NOW)).unwrap());
    assert!(!invitations.revoke(&first.id, at(NOW)).unwrap());
    assert!(invitations.redeem(&first.id, at(NOW)).is_err());
    assert!(invitations.is_open(at(NOW + 899)));
    assert!(!invitations.is_open(at(NOW + 900)));
    invitations.purge(at(NOW + 900)).unwrap();
    // Not even a clock that is set back opens it again.
    assert!(invitations.redeem(&second.id, at(NOW)).is_err());
    assert_eq!(load(&dir).list(at(NOW)), []);
}

#[test]
fn lives_uses_addresses_and_number_are_bounded() {
    let (_dir, invitations) = fresh();
    let make = |life, uses, addresses: &[HostPort]| {
        invitations.create(&party(), addresses, life, uses, at(NOW))
    };
    let address = [address()];
    let day = Duration::from_hours(24);
    for life in [Duration::ZERO, day + Duration::from_secs(1)] {
        assert!(matches!(make(life, 1, &address), Err(CreateError::Life)));
    }
    for uses in [0, USES_MAX + 1] {
        assert!(matches!(make(day, uses, &address), Err(CreateError::Uses)));
    }
    assert!(matches!(make(day, 1, &[]), Err(CreateError::NoAddress)));
    let long = vec![
        format!("{}:1", ["a".repeat(60).as_str(); 4].join("."))
            .parse()
            .unwrap();
        16
    ];
    assert!(matches!(make(day, 1, &long), Err(CreateError::Token(_))));
    for _ in 0..TOKENS_MAX {
        make(QUARTER, 1, &address).unwrap();
    }
    assert!(matches!(make(day, 1, &address), Err(CreateError::TooMany)));
    let later = at(NOW + 900);
    invitations
        .create(&party(), &address, day, 1, later)
        .unwrap();
}

#[test]
fn damaged_file_holds_no_tokens() {
    let (dir, invitations) = fresh();
    create(&invitations, 1);
    let path = dir.path().join("state").join(FILE);
    for text in [
        "",
        "{}",
        "{\"tokens\": [{}]}",
        "{\"tokens\": [{\"id\": \"00\", \"key\": \"\", \"expiresAt\": 1, \"usesLeft\": 1}]}",
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(!load(&dir).is_open(at(NOW)), "{text}");
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn fresh() -> (TempDir, Invitations) {
    let dir = TempDir::new().unwrap();
    let invitations = load(&dir);
    (dir, invitations)
}

fn load(dir: &TempDir) -> Invitations {
    Invitations::load(StateDir::open(dir.path().join("state")).unwrap()).unwrap()
}

fn create(invitations: &Invitations, uses: u32) -> Token {
    invitations
        .create(&party(), &[address()], QUARTER, uses, at(NOW))
        .unwrap()
}

fn address() -> HostPort {
    "gw.east.example:15443".parse().unwrap()
}

fn party() -> Party {
    let trust_domain = TrustDomain::parse("east.corinth.internal").unwrap();
    let authority = Authority::create(trust_domain.clone(), at(NOW)).unwrap();
    Party {
        cluster: ClusterName::parse("east").unwrap(),
        trust_domain,
        roots: vec![authority.root().to_vec()],
        bundle_sequence: 0,
        addresses: Vec::new(),
    }
}
