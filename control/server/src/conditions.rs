//! What an operator should know now, and since when.

use std::collections::{BTreeMap, BTreeSet};

use corinth_model::{ClusterName, Condition, ServiceId};
use serde::Serialize;

/// Most conditions that are shown; a peer must not be able to fill memory with them.
const CONDITIONS_MAX: usize = 2_000;

/// What a condition is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct About {
    /// The peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ClusterName>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// The SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl About {
    /// A whole peer.
    #[must_use]
    pub fn peer(peer: &ClusterName) -> Self {
        Self {
            peer: Some(peer.clone()),
            ..Self::default()
        }
    }

    /// A service of ours.
    #[must_use]
    pub fn service(service: &ServiceId) -> Self {
        Self {
            service: Some(service.clone()),
            ..Self::default()
        }
    }

    /// One of our gateways.
    #[must_use]
    pub fn identity(id: &str) -> Self {
        Self {
            identity: Some(id.to_owned()),
            ..Self::default()
        }
    }
}

/// Conditions that stand, each with the Unix millisecond since which it does and what there is to say beyond its meaning.
#[derive(Debug, Default)]
pub struct Conditions {
    standing: BTreeMap<(Condition, About), (u64, String)>,
}

impl Conditions {
    /// Raises a condition. Returns whether it is news.
    pub fn raise(&mut self, condition: Condition, about: About, words: &str, unix_ms: u64) -> bool {
        let key = (condition, about);
        if let Some((_, said)) = self.standing.get_mut(&key) {
            words.clone_into(said);
            return false;
        }
        if self.standing.len() >= CONDITIONS_MAX {
            return false;
        }
        self.standing.insert(key, (unix_ms, words.to_owned()));
        true
    }

    /// Its cause has gone. Returns whether it stood.
    pub fn clear(&mut self, condition: Condition, about: &About) -> bool {
        self.standing.remove(&(condition, about.clone())).is_some()
    }

    /// Raises a condition if it `stands`, and clears it if not. Returns whether that is news.
    pub fn set(
        &mut self,
        condition: Condition,
        about: About,
        stands: bool,
        words: &str,
        unix_ms: u64,
    ) -> bool {
        if stands {
            return self.raise(condition, about, words, unix_ms);
        }
        self.clear(condition, &about)
    }

    /// Leaves exactly those of one kind whose subject is among `about`.
    pub fn replace(
        &mut self,
        condition: Condition,
        about: &BTreeSet<About>,
        words: &str,
        unix_ms: u64,
    ) {
        let about = about.iter().map(|about| (about.clone(), words.to_owned()));
        self.replace_each(condition, about.collect(), unix_ms);
    }

    /// Leaves exactly those of one kind whose subject is among `about`, each with words of its own.
    pub fn replace_each(
        &mut self,
        condition: Condition,
        about: BTreeMap<About, String>,
        unix_ms: u64,
    ) {
        self.standing
            .retain(|(held, subject), _| *held != condition || about.contains_key(subject));
        for (subject, words) in about {
            self.raise(condition, subject, &words, unix_ms);
        }
    }

    /// A peer is gone, and with it everything about it.
    pub fn forget_peer(&mut self, peer: &ClusterName) {
        self.standing
            .retain(|(_, about), _| about.peer.as_ref() != Some(peer));
    }

    /// All that stand, by code.
    pub fn iter(&self) -> impl Iterator<Item = (Condition, &About, u64, &str)> {
        self.standing
            .iter()
            .map(|((condition, about), (since, words))| (*condition, about, *since, words.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stands_since_it_was_first_raised_until_it_is_cleared() {
        let mut conditions = Conditions::default();
        let about = About::peer(&"west".parse().unwrap());
        assert!(conditions.raise(Condition::Flapping, about.clone(), "", 5));
        assert!(!conditions.raise(Condition::Flapping, about.clone(), "again", 9));
        let shown: Vec<_> = conditions.iter().collect();
        assert_eq!(shown, [(Condition::Flapping, &about, 5, "again")]);
        assert!(conditions.clear(Condition::Flapping, &about));
        assert!(!conditions.clear(Condition::Flapping, &about));
    }

    #[test]
    fn a_peer_cannot_raise_more_conditions_than_are_shown() {
        let mut conditions = Conditions::default();
        for number in 0..5_000 {
            let service = format!("s{number}.shop").parse().unwrap();
            conditions.raise(Condition::NotAccepted, About::service(&service), "", 0);
        }
        assert_eq!(conditions.iter().count(), CONDITIONS_MAX);
    }

    #[test]
    fn replacing_clears_what_is_no_longer_so() {
        let mut conditions = Conditions::default();
        let about = |text: &str| About::service(&text.parse().unwrap());
        conditions.replace(
            Condition::NoImportPort,
            &[about("a.x"), about("b.x")].into(),
            "",
            1,
        );
        conditions.replace(Condition::NoImportPort, &[about("b.x")].into(), "", 2);
        let shown: Vec<_> = conditions
            .iter()
            .map(|(_, about, since, _)| (about, since))
            .collect();
        assert_eq!(shown, [(&about("b.x"), 1)]);
    }
}
