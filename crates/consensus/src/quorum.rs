//! Quorum arithmetic, and nothing else: majorities today, so that other shapes have one place to go.
//!
//! An election quorum E meets every other E, and every commit quorum C: `2E > n`, `E + C > n` (protocol, section 1).
//! With majorities the two are the same; callers still say which they mean.

use std::collections::BTreeSet;

use quorate_types::ReplicaId;

use crate::{Configuration, VoterSet};

impl Configuration {
    /// Whether `id` votes: in a joint configuration, in either half.
    #[must_use]
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.halves().any(|half| half.voters.contains(&id))
    }

    /// Whether `id` receives the log without a vote.
    #[must_use]
    pub fn is_learner(&self, id: ReplicaId) -> bool {
        self.learners.contains(&id) && !self.is_voter(id)
    }

    /// Whether `id` belongs to the configuration at all.
    #[must_use]
    pub fn is_member(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everyone who votes, both halves of a joint configuration together.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<ReplicaId> {
        self.halves()
            .flat_map(|half| half.voters.iter().copied())
            .collect()
    }

    /// Everyone who receives the log.
    #[must_use]
    pub fn replicas(&self) -> BTreeSet<ReplicaId> {
        self.voters()
            .into_iter()
            .chain(self.learners.iter().copied())
            .collect()
    }

    fn halves(&self) -> impl Iterator<Item = &VoterSet> {
        std::iter::once(&self.incoming).chain(&self.outgoing)
    }

    /// Whether the replicas that satisfy `is_in` can elect.
    pub(crate) fn has_election_quorum(&self, is_in: impl Fn(ReplicaId) -> bool) -> bool {
        self.halves().all(|half| half.has_majority(&is_in))
    }

    /// Whether the replicas that satisfy `is_in` can commit, or confirm that a leader still leads.
    pub(crate) fn has_commit_quorum(&self, is_in: impl Fn(ReplicaId) -> bool) -> bool {
        self.halves().all(|half| half.has_majority(&is_in))
    }

    /// The highest value that a commit quorum has reached: in a joint configuration, that both halves have.
    pub(crate) fn commit_quorum_reached<T: Ord + Copy + Default>(
        &self,
        reached: impl Fn(ReplicaId) -> T,
    ) -> T {
        self.halves()
            .map(|half| half.majority_reached(&reached))
            .min()
            .unwrap_or_default()
    }
}

impl VoterSet {
    fn has_majority(&self, is_in: impl Fn(ReplicaId) -> bool) -> bool {
        // Nobody is no quorum: a replica without a configuration decides nothing.
        self.voters.iter().filter(|id| is_in(**id)).count() > self.voters.len() / 2
    }

    fn majority_reached<T: Ord + Copy + Default>(&self, reached: impl Fn(ReplicaId) -> T) -> T {
        let mut values: Vec<T> = self.voters.iter().map(|id| reached(*id)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values
            .get(self.voters.len() / 2)
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(incoming: &[u64], outgoing: Option<&[u64]>) -> Configuration {
        let set = |ids: &[u64]| VoterSet {
            voters: ids.iter().map(|id| ReplicaId(*id)).collect(),
        };
        Configuration {
            incoming: set(incoming),
            outgoing: outgoing.map(set),
            ..Configuration::default()
        }
    }

    fn reached(incoming: &[u64], outgoing: Option<&[u64]>, values: &[(u64, u64)]) -> u64 {
        let value = |id: ReplicaId| {
            values
                .iter()
                .find(|(of, _)| *of == id.0)
                .map_or(0, |(_, value)| *value)
        };
        configuration(incoming, outgoing).commit_quorum_reached(value)
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let has = |n: u64, present: u64| {
            let ids: Vec<u64> = (1..=n).collect();
            configuration(&ids, None).has_commit_quorum(|id| id.0 <= present)
        };
        for (n, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            assert!(has(n, needed), "{needed} of {n}");
            assert!(!has(n, needed - 1), "{} of {n}", needed - 1);
        }
    }

    #[test]
    fn an_empty_configuration_has_no_quorum() {
        assert!(!configuration(&[], None).has_election_quorum(|_| true));
        assert!(!configuration(&[1], Some(&[])).has_commit_quorum(|_| true));
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let joint = configuration(&[1, 2, 3], Some(&[3, 4, 5]));
        assert!(!joint.has_election_quorum(|id| id.0 <= 3));
        assert!(joint.has_election_quorum(|id| [1, 3, 4].contains(&id.0)));
    }

    #[test]
    fn what_a_quorum_reached_is_the_lower_median_of_each_half() {
        assert_eq!(reached(&[1, 2, 3], None, &[(1, 9), (2, 5)]), 5);
        assert_eq!(reached(&[1, 2, 3, 4], None, &[(1, 9), (2, 7), (3, 5)]), 5);
        assert_eq!(
            reached(
                &[1, 2, 3],
                Some(&[3, 4, 5]),
                &[(1, 9), (2, 9), (4, 2), (5, 3)]
            ),
            2
        );
        assert_eq!(reached(&[], None, &[]), 0);
    }

    /// Every non-empty set of up to four replicas as a bit mask.
    const SETS: std::ops::Range<u64> = 1..16;

    fn ids(mask: u64) -> Vec<u64> {
        (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
    }

    fn holds(mask: u64) -> impl Fn(ReplicaId) -> bool {
        move |id| mask >> id.0 & 1 == 1
    }

    /// Every plain and every joint configuration of those sets.
    fn all_configurations() -> Vec<Configuration> {
        let joint = SETS.flat_map(|incoming| {
            SETS.map(move |outgoing| configuration(&ids(incoming), Some(&ids(outgoing))))
        });
        SETS.map(|incoming| configuration(&ids(incoming), None))
            .chain(joint)
            .collect()
    }

    #[test]
    fn every_election_quorum_meets_every_election_and_commit_quorum() {
        for configuration in all_configurations() {
            let elects: Vec<u64> = (0..16)
                .filter(|set| configuration.has_election_quorum(holds(*set)))
                .collect();
            let commits: Vec<u64> = (0..16)
                .filter(|set| configuration.has_commit_quorum(holds(*set)))
                .collect();
            assert!(
                !elects.is_empty() && !commits.is_empty(),
                "{configuration:?} can do nothing"
            );
            for one in &elects {
                for other in elects.iter().chain(&commits) {
                    assert_ne!(one & other, 0, "{configuration:?}: {one:b} and {other:b}");
                }
            }
        }
    }

    #[test]
    fn a_joint_quorum_meets_every_quorum_of_either_half() {
        for joint in all_configurations() {
            let Some(outgoing) = &joint.outgoing else {
                continue;
            };
            for half in [&joint.incoming, outgoing] {
                let alone = Configuration {
                    incoming: half.clone(),
                    ..Configuration::default()
                };
                for (one, other) in (0..16).flat_map(|one| (0..16).map(move |other| (one, other))) {
                    let both = joint.has_election_quorum(holds(one))
                        && alone.has_commit_quorum(holds(other));
                    assert!(
                        !both || one & other != 0,
                        "{joint:?}: {one:b} and {other:b}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_a_commit_quorum_reached_is_the_most_that_one_has() {
        for configuration in all_configurations() {
            for code in 0..81_u64 {
                let value = |id: ReplicaId| code / 3_u64.pow(id.0 as u32) % 3;
                let most = (0..3)
                    .rev()
                    .find(|at| configuration.has_commit_quorum(|id| value(id) >= *at))
                    .unwrap_or(0);
                assert_eq!(
                    configuration.commit_quorum_reached(value),
                    most,
                    "{configuration:?}, code {code}"
                );
            }
        }
    }

    #[test]
    fn learners_and_strangers_count_nowhere() {
        for mut configuration in all_configurations() {
            configuration.learners = [8, 9].map(ReplicaId).into();
            let learners_only = holds(0b11 << 8);
            assert!(!configuration.has_election_quorum(&learners_only));
            assert!(!configuration.has_commit_quorum(learners_only));
            assert!(configuration.is_member(ReplicaId(8)) && !configuration.is_voter(ReplicaId(8)));
            assert!(!configuration.is_member(ReplicaId(12)));
        }
    }
}
