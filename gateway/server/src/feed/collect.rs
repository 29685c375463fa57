//! Gathers the messages of one change until it is complete.

use corinth_api::{Entry, EntryKey, RoutesError, Update, wire::routes as wire};
use corinth_model::{ClusterName, Instance};

/// Most entries of one change: several times the largest tables we are made for.
const STEPS_MAX: usize = 500_000;

/// A complete change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) instance: Instance,
    pub(super) revision: u64,
    /// What is not in it is gone.
    pub(super) whole: bool,
    pub(super) steps: Vec<Step>,
}

/// One step of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Put(Entry),
    Remove(EntryKey),
}

/// A change that is complete and has something in it that is not understood here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spoiled {
    pub(super) revision: u64,
    pub(super) why: String,
}

/// What a message led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// More is to come.
    More,
    /// A change is complete.
    Change(Change),
    /// A change is complete, and of no use.
    Spoiled(Spoiled),
    /// A stream to a peer's control plane is asked for.
    OpenPeering { cluster: ClusterName, ticket: u64 },
}

/// Messages in an order that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Breach {
    /// An entry, or the end of a change, that belongs to none.
    #[error("it sent an entry outside of a change")]
    Outside,
    /// A change within a change.
    #[error("it began a change within another")]
    Within,
    /// The end of another change.
    #[error("it ended a change that it did not begin")]
    OtherEnd,
}

/// Gathers the messages of one change.
#[derive(Debug, Default)]
pub(super) struct Collector {
    change: Option<Change>,
    /// The first thing in it that was not understood.
    spoiled: Option<String>,
}

impl Collector {
    /// Takes the next message.
    pub(super) fn take(&mut self, update: wire::Update) -> Result<Collected, Breach> {
        match Update::decode(update) {
            Ok(Update::Begin {
                instance,
                revision,
                whole,
            }) => {
                if self.change.is_some() {
                    return Err(Breach::Within);
                }
                self.spoiled = None;
                self.change = Some(Change {
                    instance,
                    revision,
                    whole,
                    steps: Vec::new(),
                });
                Ok(Collected::More)
            }
            Ok(Update::Put(entry)) => self.step(Step::Put(entry)),
            Ok(Update::Removed(key)) => self.step(Step::Remove(key)),
            Ok(Update::Commit { revision }) => self.commit(revision),
            Ok(Update::OpenPeering { cluster, ticket }) => {
                Ok(Collected::OpenPeering { cluster, ticket })
            }
            Err(error) => Ok(self.misunderstood(&error)),
        }
    }

    fn step(&mut self, step: Step) -> Result<Collected, Breach> {
        let change = self.change.as_mut().ok_or(Breach::Outside)?;
        if self.spoiled.is_some() {
            return Ok(Collected::More);
        }
        if change.steps.len() >= STEPS_MAX {
            self.spoiled = Some(format!("it has more than {STEPS_MAX} entries"));
            change.steps = Vec::new();
            return Ok(Collected::More);
        }
        change.steps.push(step);
        Ok(Collected::More)
    }

    fn commit(&mut self, revision: u64) -> Result<Collected, Breach> {
        let change = self.change.take().ok_or(Breach::Outside)?;
        if change.revision != revision {
            return Err(Breach::OtherEnd);
        }
        Ok(match self.spoiled.take() {
            Some(why) => Collected::Spoiled(Spoiled { revision, why }),
            None => Collected::Change(change),
        })
    }

    /// Within a change it spoils the change. Beside one it is of a later version, and not for us.
    fn misunderstood(&mut self, error: &RoutesError) -> Collected {
        if let Some(change) = &mut self.change {
            change.steps = Vec::new();
            self.spoiled.get_or_insert_with(|| error.to_string());
        }
        Collected::More
    }
}

#[cfg(test)]
mod tests {
    use corinth_api::LinkedPeer;
    use corinth_model::TrustDomain;

    use super::*;

    const INSTANCE: Instance = Instance([7; 16]);

    fn peer(name: &str) -> Entry {
        let linked = LinkedPeer {
            trust_domain: TrustDomain::parse(&format!("{name}.corinth.internal")).unwrap(),
            max_streams: 10,
            addresses: Vec::new(),
            roots: Vec::new(),
            bundle_sequence: 1,
            carriage: corinth_model::Carriage::default(),
        };
        Entry::Peer(ClusterName::parse(name).unwrap(), linked)
    }

    fn begin(revision: u64) -> Update {
        Update::Begin {
            instance: INSTANCE,
            revision,
            whole: true,
        }
    }

    fn collect(collector: &mut Collector, updates: &[Update]) -> Result<Collected, Breach> {
        let mut last = Ok(Collected::More);
        for update in updates {
            last = collector.take(update.into());
        }
        last
    }

    #[test]
    fn a_change_counts_when_it_is_committed() {
        let mut collector = Collector::default();
        let steps = [peer("west"), peer("north")].map(Step::Put).to_vec();
        let updates = [
            begin(3),
            Update::Put(peer("west")),
            Update::Put(peer("north")),
        ];
        assert_eq!(collect(&mut collector, &updates), Ok(Collected::More));
        let change = Change {
            instance: INSTANCE,
            revision: 3,
            whole: true,
            steps,
        };
        assert_eq!(
            collect(&mut collector, &[Update::Commit { revision: 3 }]),
            Ok(Collected::Change(change))
        );
    }

    #[test]
    fn what_is_not_understood_spoils_its_change_and_no_other() {
        let mut collector = Collector::default();
        assert_eq!(collect(&mut collector, &[begin(3)]), Ok(Collected::More));
        let unknown = wire::Update { kind: None };
        assert_eq!(collector.take(unknown), Ok(Collected::More));
        let Ok(Collected::Spoiled(spoiled)) = collect(
            &mut collector,
            &[Update::Put(peer("west")), Update::Commit { revision: 3 }],
        ) else {
            panic!("the change is spoiled");
        };
        assert_eq!(spoiled.revision, 3);
        let next = [begin(4), Update::Commit { revision: 4 }];
        assert!(matches!(
            collect(&mut collector, &next),
            Ok(Collected::Change(Change { revision: 4, .. }))
        ));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_a_breach() {
        let rows = [
            (vec![Update::Put(peer("west"))], Breach::Outside),
            (vec![Update::Commit { revision: 1 }], Breach::Outside),
            (vec![begin(1), begin(2)], Breach::Within),
            (
                vec![begin(1), Update::Commit { revision: 2 }],
                Breach::OtherEnd,
            ),
        ];
        for (updates, breach) in rows {
            assert_eq!(collect(&mut Collector::default(), &updates), Err(breach));
        }
    }

    #[test]
    fn a_stream_can_be_asked_for_at_any_time() {
        let cluster = ClusterName::parse("west").unwrap();
        let open = Update::OpenPeering {
            cluster: cluster.clone(),
            ticket: 9,
        };
        let asked = Ok(Collected::OpenPeering { cluster, ticket: 9 });
        let mut collector = Collector::default();
        assert_eq!(collect(&mut collector, std::slice::from_ref(&open)), asked);
        assert_eq!(collect(&mut collector, &[begin(1), open]), asked);
    }
}
