//! One linked cluster, and what its words lead to.

use std::time::Instant;

use corinth_api::HostPort;
use corinth_model::{ClusterName, Condition, Instance, OFFERS_MAX, Version};
use serde::{Deserialize, Serialize};

use super::{Effect, Now, Plane};
use crate::cluster::DeclaredLink;
use crate::conditions::About;
use crate::link::address;
use crate::peering::{Limits, Relation, RelationEvent, SavedRelation};

/// A linked cluster.
pub struct Peer {
    /// What we tell each other.
    pub relation: Relation,
    /// The sequence of the roots it told that are used or were those of the link.
    pub trusted: Option<u64>,
    /// The sequence of our roots that it holds, if it said so.
    pub holds_ours: Option<u64>,
    /// It has told its whole state once; before that, imports declared here say what it offers.
    pub has_told: bool,
    /// Gateway addresses it announced that may be used.
    pub announced: Vec<String>,
    /// Not before then is it asked for a stream.
    pub dial_at: Option<Instant>,
}

/// What is kept of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptPeer {
    relation: SavedRelation,
    announced: Vec<String>,
}

impl Peer {
    /// A peer as it begins.
    #[must_use]
    pub fn new(relation: Relation, announced: Vec<String>) -> Self {
        Self {
            has_told: has_told(&relation),
            relation,
            trusted: None,
            holds_ours: None,
            announced,
            dial_at: None,
        }
    }

    /// What was kept of a peer, as far as it can be used.
    #[must_use]
    pub fn restore(
        kept: Option<KeptPeer>,
        own: &ClusterName,
        cluster: &ClusterName,
        limits: Limits,
        now: Now,
    ) -> Option<Self> {
        let kept = kept?;
        let relation = Relation::restore(
            kept.relation,
            own.clone(),
            cluster.clone(),
            limits,
            now.instant,
        )
        .ok()?;
        Some(Self::new(relation, kept.announced))
    }

    /// What is to be kept of it.
    #[must_use]
    pub fn kept(&self, now: Instant) -> KeptPeer {
        KeptPeer {
            relation: self.relation.saved(now),
            announced: self.announced.clone(),
        }
    }

    /// Of which instance is what it is told from a start on: of the one it was told before, which may have been begun for
    /// it alone, or else of the whole. That of before counts only in a later epoch; else versions could be used twice.
    pub(super) fn instance(&self, whole: Instance, version: Version) -> Instance {
        let told = self.relation.own_state();
        let told = told.filter(|told| told.version.epoch < version.epoch);
        told.map_or(whole, |told| told.instance)
    }

    /// Whether its control plane is connected.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.relation.session().is_some()
    }
}

/// Whether the peer has told its whole state.
pub(super) fn has_told(relation: &Relation) -> bool {
    let held = relation.held_state();
    held.is_some_and(|held| held.version > Version::default())
}

/// How much a peer may tell.
pub(super) fn limits(link: &DeclaredLink) -> Limits {
    Limits {
        quota: link.quota.map_or(OFFERS_MAX, |quota| quota as usize),
    }
}

/// Takes those of the announced addresses that are of the class the operator linked with.
fn hear_addresses(
    plane: &mut Plane,
    cluster: &ClusterName,
    addresses: &[String],
    now: Now,
    effects: &mut Vec<Effect>,
) {
    let declared = std::sync::Arc::clone(&plane.declared);
    let (Some(link), Some(peer)) = (declared.links.get(cluster), plane.peers.get_mut(cluster))
    else {
        return;
    };
    let parse = |texts: &[String]| -> Vec<HostPort> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let judged = address::judge(&parse(&link.addresses), &parse(addresses));
    let used: Vec<_> = judged.used.iter().map(ToString::to_string).collect();
    // A link that only the peer dials stays one.
    let used = match link.addresses.is_empty() {
        true => Vec::new(),
        false => used,
    };
    if peer.announced != used {
        peer.announced = used;
        plane.dirty.has_links = true;
        effects.push(Effect::KeepPeer(cluster.clone()));
    }
    let is_refused = !judged.refused.is_empty() && !link.addresses.is_empty();
    let words: Vec<_> = judged.refused.iter().map(ToString::to_string).collect();
    let about = About::peer(cluster);
    note(
        plane,
        Condition::AddressRefused,
        about,
        is_refused,
        &words.join(", "),
        now,
        effects,
    );
}

/// Draws the conclusions from one word of a peer.
pub(super) fn heed(
    plane: &mut Plane,
    cluster: &ClusterName,
    event: RelationEvent,
    now: Now,
    effects: &mut Vec<Effect>,
) {
    match event {
        RelationEvent::OffersChanged(services) => plane.dirty.services.extend(services),
        RelationEvent::TrustTold {
            sequence,
            roots,
            held,
        } => {
            if let Some(peer) = plane.peers.get_mut(cluster) {
                peer.holds_ours = held;
            }
            plane.hear_roots(cluster, sequence, &roots, now, effects);
        }
        RelationEvent::GatewaysTold { addresses, .. } => {
            hear_addresses(plane, cluster, &addresses, now, effects);
        }
        RelationEvent::Condition {
            condition,
            about,
            stands,
        } => {
            if condition == Condition::PeerUnlinked {
                plane.mark_offers(cluster);
            }
            let about = About {
                peer: Some(cluster.clone()),
                service: about,
                ..About::default()
            };
            note(plane, condition, about, stands, "", now, effects);
        }
        RelationEvent::EndSession(session) => {
            effects.push(Effect::EndSession(cluster.clone(), session));
        }
        RelationEvent::BeganNewInstance => effects.push(Effect::BeginAnew(cluster.clone())),
        // The condition says the same, and also when it is over.
        RelationEvent::PeerUnlinked => {}
        RelationEvent::DialAllowedAt(at) => {
            if let Some(peer) = plane.peers.get_mut(cluster) {
                peer.dial_at = Some(at);
            }
        }
    }
}

pub(super) fn note(
    plane: &mut Plane,
    condition: Condition,
    about: About,
    stands: bool,
    words: &str,
    now: Now,
    effects: &mut Vec<Effect>,
) {
    let conditions = &mut plane.conditions;
    if conditions.set(condition, about.clone(), stands, words, now.unix_ms) {
        effects.push(Effect::Condition {
            condition,
            about,
            stands,
        });
    }
}
