//! Roots: those that peers tell, and which of ours they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use corinth_identity::Bundle;
use corinth_model::{ClusterName, Condition};
use rustls_pki_types::CertificateDer;

use super::peer::note;
use super::{Effect, Now, Plane};
use crate::cluster::DeclaredLink;
use crate::conditions::About;
use crate::trust::{self, Learned};

impl Plane {
    /// Our roots are these from now on.
    pub fn set_own_roots(&mut self, roots: Arc<[Vec<u8>]>, sequence: u64) -> Vec<Effect> {
        (self.own.roots, self.own.bundle_sequence) = (roots, sequence);
        for peer in self.peers.values_mut() {
            let roots = Arc::clone(&self.own.roots);
            peer.relation.set_trust(sequence, roots);
        }
        self.peers.keys().cloned().map(Effect::Wake).collect()
    }

    /// Which of our roots each linked peer holds.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<ClusterName, Option<u64>> {
        let peers = self.peers.iter();
        peers
            .map(|(cluster, peer)| (cluster.clone(), peer.holds_ours))
            .collect()
    }

    /// What is to be kept of roots, and what to tell [`Self::handle_roots_kept`] then.
    #[must_use]
    pub fn learned(&self) -> (Learned, u64) {
        (self.learned.clone(), self.learned_changes)
    }

    /// Roots are written down: peers hear that they can rely on it.
    pub fn handle_roots_kept(&mut self, changes: u64) -> Vec<Effect> {
        self.learned_kept = self.learned_kept.max(changes);
        let clusters: Vec<_> = self.peers.keys().cloned().collect();
        clusters
            .iter()
            .for_each(|cluster| self.say_trusted(cluster));
        clusters.into_iter().map(Effect::Wake).collect()
    }

    /// The roots of this sequence that a peer told are those in use.
    fn trust(&mut self, cluster: &ClusterName, sequence: u64) {
        if let Some(peer) = self.peers.get_mut(cluster) {
            peer.trusted = Some(sequence);
        }
        self.say_trusted(cluster);
    }

    fn say_trusted(&mut self, cluster: &ClusterName) {
        if self.learned_kept == self.learned_changes
            && let Some(peer) = self.peers.get_mut(cluster)
        {
            peer.relation.set_held_trust(peer.trusted);
        }
    }

    /// The newest roots of a peer.
    #[must_use]
    pub fn roots(&self, cluster: &ClusterName) -> (Vec<Vec<u8>>, u64) {
        let link = self.declared.links.get(cluster);
        link.map(|link| self.roots_of(link)).unwrap_or_default()
    }

    pub(super) fn roots_of(&self, link: &DeclaredLink) -> (Vec<Vec<u8>>, u64) {
        let ders = |roots: &[CertificateDer<'_>]| {
            let roots = roots.iter().map(|root| root.as_ref().to_vec());
            roots.collect()
        };
        match self.learned.bundle_of(link) {
            Ok((bundle, _)) => (ders(bundle.roots()), bundle.sequence()),
            // Whoever uses them sees what is wrong.
            Err(_) => (ders(&link.roots), link.bundle_sequence),
        }
    }

    /// Takes the roots that a peer tells, if they follow from those that are held.
    pub(super) fn hear_roots(
        &mut self,
        cluster: &ClusterName,
        sequence: u64,
        told: &[Vec<u8>],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let declared = Arc::clone(&self.declared);
        let Some(link) = declared.links.get(cluster) else {
            return;
        };
        let roots = told.iter().cloned().map(CertificateDer::from).collect();
        let offered = Bundle::new(link.trust_domain.clone(), roots, sequence);
        let about = About::peer(cluster);
        let (Ok((held, origin)), Ok(offered)) = (self.learned.bundle_of(link), offered) else {
            let (condition, words) = (Condition::EntryInvalid, "its roots");
            return note(self, condition, about, true, words, now, effects);
        };
        match trust::judge(&held, origin, &offered) {
            trust::Verdict::Held => {}
            trust::Verdict::Next => {
                self.learned.keep(link, offered);
                self.learned_changes += 1;
                self.dirty.has_links = true;
                effects.push(Effect::KeepRoots);
            }
            trust::Verdict::Refused(condition) => {
                return note(self, condition, about, true, "", now, effects);
            }
        }
        self.trust(cluster, sequence);
        for condition in [
            Condition::BundleOlder,
            Condition::BundleConflict,
            Condition::BundleUnrelated,
        ] {
            note(self, condition, about.clone(), false, "", now, effects);
        }
    }
}
