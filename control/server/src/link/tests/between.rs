//! Those who stand between the two, or in for one of them.

use std::collections::BTreeSet;

use corinth_api::link::{Answer, Join, LinkMac, RootPin};
use corinth_identity::{
    LinkBinding, LinkKey, LinkMessage, link_client_config, link_server_config, root_pin,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

#[tokio::test]
async fn inviter_with_another_root_hears_nothing() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let mut token = east.invite(1);
    token.root_pins = vec![RootPin([7; 32])];
    assert_eq!(west.refused(&token).await, Some(Condition::InviterUnproven));
    let heard = east.outcomes().await;
    assert!(matches!(&heard[..], [Err(InviteError::Io(_))]), "{heard:?}");
    assert_eq!(east.invitations.list(now()).len(), 1);
}

#[tokio::test]
async fn whoever_ends_tls_with_a_certificate_of_its_own_is_told_nothing() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    // It calls itself what the inviter is, under a root of its own.
    let forger = Authority::create(east.own.party.trust_domain.clone(), now()).unwrap();
    let (address, heard) = stand_between(forger, east.address.clone(), None).await;
    let mut token = east.invite(1);
    token.addresses = vec![address];
    assert_eq!(west.refused(&token).await, Some(Condition::InviterUnproven));
    assert_eq!(heard.await.expect("no panic"), None);
    assert_eq!((east.links(), west.links()), (0, 0));
}

#[tokio::test]
async fn whoever_ends_tls_with_a_stolen_certificate_cannot_pass_the_proof_on() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let (address, heard) = stand_between(stolen(&east), east.address.clone(), None).await;
    let mut token = east.invite(1);
    token.addresses = vec![address, east.address.clone()];
    assert_eq!(west.refused(&token).await, Some(Condition::TokenRefused));
    assert!(
        heard.await.expect("no panic").is_some(),
        "it did hear the joiner"
    );
    assert_eq!((east.links(), west.links()), (0, 0));
    // The token is as good as before.
    token.addresses.remove(0);
    west.join(&token).await.expect("a good token");
}

#[tokio::test]
async fn answer_of_somebody_who_does_not_know_the_secret_is_refused() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let party = east.own.party.encode().unwrap();
    let mac = LinkMac([0; 32]);
    let answer = Answer::Linked { party, mac };
    let (address, _) = stand_between(stolen(&east), east.address.clone(), Some(answer)).await;
    let mut token = east.invite(1);
    token.addresses = vec![address];
    assert_eq!(west.refused(&token).await, Some(Condition::InviterUnproven));
    assert_eq!(west.links(), 0);
}

#[tokio::test]
async fn inviter_that_is_not_what_its_token_says_is_refused() {
    let west = Side::new("west").await;
    for change in [
        (|party: &mut Party| party.cluster = ClusterName::parse("other").unwrap()) as fn(&mut _),
        |party| party.trust_domain = TrustDomain::parse("other.test").unwrap(),
        |party| {
            let other = Authority::create(party.trust_domain.clone(), now()).unwrap();
            party.roots = vec![other.root().to_vec()];
        },
    ] {
        let mut east = Side::new("east").await;
        let token = east.invite(1);
        east.become_party(change);
        assert_eq!(west.refused(&token).await, Some(Condition::InviterUnproven));
        assert_eq!(west.links(), 0);
    }
}

#[tokio::test]
async fn proof_of_another_connection_is_refused() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let token = east.invite(1);
    let recorded = {
        let stream = connect(&east, &token).await;
        said(&stream, &token, &west.own.party)
    };
    let mut stream = connect(&east, &token).await;
    assert_eq!(
        ask(&mut stream, &recorded).await,
        Some(Condition::TokenRefused)
    );
    assert_eq!(east.links(), 0);
}

#[tokio::test]
async fn unknown_used_and_expired_tokens_and_wrong_proofs_are_answered_alike() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let (open, used) = (east.invite(1), east.invite(1));
    let expired = east.invite_for(Duration::from_secs(1), 1);
    west.join(&used).await.expect("a good token");
    east.clock.set(NOW + 2);
    let south = Side::new("south").await;
    let mut unknown = open.clone();
    unknown.id.0[0] ^= 1;
    let mut wrong = open.clone();
    wrong.secret.0[0] ^= 1;
    let mut answers = BTreeSet::new();
    for token in [&unknown, &used, &expired, &wrong] {
        let mut stream = connect(&east, token).await;
        let join = said(&stream, token, &south.own.party);
        wire::write(&mut stream, &join.encode()).await.unwrap();
        answers.insert(wire::read(&mut stream).await.unwrap());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    south.join(&open).await.expect("a good token");
}

/// Joins by hand as a party of any kind; what the inviter refuses with.
pub(super) async fn say(inviter: &Side, token: &Token, party: &Party) -> Option<Condition> {
    let mut stream = connect(inviter, token).await;
    let join = said(&stream, token, party);
    ask(&mut stream, &join).await
}

/// TLS with an inviter as a joiner with this token has it.
async fn connect(inviter: &Side, token: &Token) -> TlsStream<TcpStream> {
    let address = inviter.address.to_string();
    let stream = TcpStream::connect(address).await.expect("it listens");
    handshake(stream, token).await
}

pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    token: &Token,
) -> TlsStream<S> {
    let pins = token.root_pins.iter().map(|pin| pin.0).collect();
    let clock = Arc::new(Clock(AtomicU64::new(NOW)));
    let config = link_client_config(pins, token.trust_domain.clone(), clock);
    let name = ServerName::try_from("inviter.invalid").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("TLS")
}

/// What a joiner with this token says on this connection.
pub(super) fn said<S>(stream: &TlsStream<S>, token: &Token, party: &Party) -> Join {
    let binding = LinkBinding::of(stream.get_ref().1).expect("the handshake is done");
    let party = party.encode().expect("it is short");
    let message = LinkMessage::Join { one_way: false };
    let mac = LinkKey::of_secret(&token.secret.0).mac(message, &binding, &party);
    Join {
        token_id: token.id,
        party,
        mac: LinkMac(mac),
        one_way: false,
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, join: &Join) -> Option<Condition> {
    wire::write(stream, &join.encode())
        .await
        .expect("it listens");
    let answer = wire::read(stream).await.expect("an answer");
    match Answer::decode(&answer).expect("an answer") {
        Answer::Linked { .. } => None,
        Answer::Refused(condition) => Some(condition),
    }
}

/// Ends TLS of one joiner with a leaf of `authority`; answers with `answer`, or else passes what it hears on to the
/// inviter and the inviter's answer back. Says what it heard.
async fn stand_between(
    authority: Authority,
    inviter: HostPort,
    answer: Option<Answer>,
) -> (HostPort, JoinHandle<Option<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = address(&listener);
    let between = async move {
        let clock: Arc<Clock> = Arc::new(Clock(AtomicU64::new(NOW)));
        let slot = Slot::parse("0").unwrap();
        let shown = Arc::<Clock>::clone(&clock);
        let config = link_server_config(&authority, &slot, now(), shown).unwrap();
        let (stream, _) = listener.accept().await.ok()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut joiner = acceptor.accept(stream).await.ok()?;
        let heard = wire::read(&mut joiner).await.ok()?;
        let answer = match answer {
            Some(answer) => answer.encode(),
            None => {
                let pins = BTreeSet::from([root_pin(authority.root()).unwrap()]);
                let domain = authority.trust_domain().clone();
                let connector =
                    TlsConnector::from(Arc::new(link_client_config(pins, domain, clock)));
                let name = ServerName::try_from("inviter.invalid").unwrap();
                let stream = TcpStream::connect(inviter.to_string()).await.ok()?;
                let mut inviter = connector.connect(name, stream).await.ok()?;
                wire::write(&mut inviter, &heard).await.ok()?;
                wire::read(&mut inviter).await.ok()?
            }
        };
        wire::write(&mut joiner, &answer).await.ok()?;
        joiner.shutdown().await.ok()?;
        Some(heard)
    };
    (address, tokio::spawn(between))
}

/// The authority of a side in the hands of somebody else.
fn stolen(side: &Side) -> Authority {
    let authority = &side.own.authority;
    let domain = authority.trust_domain().clone();
    Authority::from_pem(domain, authority.certificate_pem(), &authority.key_pem()).unwrap()
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}
