//! One linked cluster, and what its words lead to.

use std::time::Instant;

use corinth_api::HostPort;
use corinth_identity::Bundle;
use corinth_model::{ClusterName, Condition, OFFERS_MAX};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Effect, Now, Plane};
use crate::cluster::DeclaredLink;
use crate::conditions::About;
use crate::link::address;
use crate::peering::{Limits, Relation, RelationEvent, SavedRelation};
use crate::trust;

/// A linked cluster.
pub struct Peer {
    /// What we tell each other.
    pub relation: Relation,
    /// Roots it told that are newer than those it was linked with.
    pub learned: Option<Learned>,
    /// Gateway addresses it announced that may be used.
    pub announced: Vec<String>,
    /// It has ended the link.
    pub is_unlinked: bool,
    /// Not before then is it asked for a stream.
    pub dial_at: Option<Instant>,
}

/// Roots that were learned from a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// DER certificates.
    pub roots: Vec<Vec<u8>>,
    /// Their sequence.
    pub sequence: u64,
}

/// What is kept of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptPeer {
    relation: SavedRelation,
    learned: Option<Learned>,
    announced: Vec<String>,
}

impl Peer {
    /// A peer as it begins.
    #[must_use]
    pub fn new(relation: Relation, kept: Option<(Option<Learned>, Vec<String>)>) -> Self {
        let (learned, announced) = kept.unwrap_or_default();
        Self {
            relation,
            learned,
            announced,
            is_unlinked: false,
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
        Some(Self::new(relation, Some((kept.learned, kept.announced))))
    }

    /// What is to be kept of it.
    #[must_use]
    pub fn kept(&self, now: Instant) -> KeptPeer {
        KeptPeer {
            relation: self.relation.saved(now),
            learned: self.learned.clone(),
            announced: self.announced.clone(),
        }
    }

    /// Whether its control plane is connected.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.relation.session().is_some()
    }
}

/// How much a peer may tell.
pub(super) fn limits(link: &DeclaredLink) -> Limits {
    Limits {
        quota: link.quota.map_or(OFFERS_MAX, |quota| quota as usize),
    }
}

/// The newest roots of a peer: those it was linked with, or those it told since.
pub(super) fn roots(link: &DeclaredLink, peer: Option<&Peer>) -> (Vec<Vec<u8>>, u64) {
    let learned = peer.and_then(|peer| peer.learned.as_ref());
    match learned.filter(|learned| learned.sequence > link.bundle_sequence) {
        Some(learned) => (learned.roots.clone(), learned.sequence),
        None => {
            let roots = link.roots.iter().map(|root| root.as_ref().to_vec());
            (roots.collect(), link.bundle_sequence)
        }
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
        RelationEvent::TrustTold { sequence, roots } => {
            hear_roots(plane, cluster, sequence, roots.to_vec(), now, effects);
        }
        RelationEvent::GatewaysTold { addresses, .. } => {
            hear_addresses(plane, cluster, &addresses, now, effects);
        }
        RelationEvent::Condition {
            condition,
            about,
            stands,
        } => {
            let about = About {
                peer: Some(cluster.clone()),
                service: about,
            };
            note(plane, condition, about, stands, "", now, effects);
        }
        RelationEvent::EndSession(session) => {
            effects.push(Effect::EndSession(cluster.clone(), session));
        }
        RelationEvent::BeganNewInstance => effects.push(Effect::BeginAnew),
        RelationEvent::PeerUnlinked => {
            if let Some(peer) = plane.peers.get_mut(cluster) {
                peer.is_unlinked = true;
                let offered = peer.relation.offers().map(|(id, ..)| id.clone());
                plane.dirty.services.extend(offered);
            }
            let about = About::peer(cluster);
            note(
                plane,
                Condition::PeerUnlinked,
                about,
                true,
                "",
                now,
                effects,
            );
        }
        RelationEvent::DialAllowedAt(at) => {
            if let Some(peer) = plane.peers.get_mut(cluster) {
                peer.dial_at = Some(at);
            }
        }
    }
}

fn note(
    plane: &mut Plane,
    condition: Condition,
    about: About,
    stands: bool,
    words: &str,
    now: Now,
    effects: &mut Vec<Effect>,
) {
    let is_news = match stands {
        true => plane
            .conditions
            .raise(condition, about.clone(), words, now.unix_ms),
        false => plane.conditions.clear(condition, &about),
    };
    if is_news {
        effects.push(Effect::Condition {
            condition,
            about,
            stands,
        });
    }
}

fn hear_roots(
    plane: &mut Plane,
    cluster: &ClusterName,
    sequence: u64,
    told: Vec<Vec<u8>>,
    now: Now,
    effects: &mut Vec<Effect>,
) {
    let declared = std::sync::Arc::clone(&plane.declared);
    let (Some(link), Some(peer)) = (declared.links.get(cluster), plane.peers.get_mut(cluster))
    else {
        return;
    };
    let (held, held_sequence) = roots(link, Some(peer));
    let about = About::peer(cluster);
    let bundle = |roots: &[Vec<u8>], sequence| {
        let roots = roots.iter().cloned().map(CertificateDer::from).collect();
        Bundle::new(link.trust_domain.clone(), roots, sequence)
    };
    let (Ok(held), Ok(offered)) = (bundle(&held, held_sequence), bundle(&told, sequence)) else {
        note(
            plane,
            Condition::EntryInvalid,
            about,
            true,
            "its roots",
            now,
            effects,
        );
        return;
    };
    match trust::judge(&held, &offered) {
        trust::Verdict::Held => {}
        trust::Verdict::Newer => {
            peer.learned = Some(Learned {
                roots: told,
                sequence,
            });
            plane.dirty.has_links = true;
            effects.push(Effect::KeepPeer(cluster.clone()));
            for condition in [
                Condition::BundleOlder,
                Condition::BundleConflict,
                Condition::BundleUnrelated,
            ] {
                note(plane, condition, about.clone(), false, "", now, effects);
            }
        }
        trust::Verdict::Refused(condition) => {
            note(plane, condition, about, true, "", now, effects);
        }
    }
}
