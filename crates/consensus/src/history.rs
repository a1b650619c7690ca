//! Which configuration is in force at which index of the log.

use quorate_types::LogIndex;

use crate::{Body, Configuration, Entry};

/// The configurations of the log. The newest is in force as soon as it is appended (thesis, section 4.1), so a truncation
/// brings an earlier one back.
///
/// # Invariants
/// - Never empty; indexes rise. The first is in force at the log's base (or since the snapshot booted from).
#[derive(Clone, Debug)]
pub(crate) struct History(Vec<(LogIndex, Configuration)>);

impl History {
    pub(crate) fn new(since: LogIndex, configuration: Configuration) -> Self {
        Self(vec![(since, configuration)])
    }

    /// Takes up the configurations among entries just appended.
    pub(crate) fn note_appended<C>(&mut self, entries: &[Entry<C>]) {
        for entry in entries {
            if let Body::Configuration(configuration) = &entry.body {
                self.0.push((entry.index, configuration.clone()));
            }
        }
    }

    /// Forgets the configurations of entries from `from` on.
    pub(crate) fn note_truncated(&mut self, from: LogIndex) {
        let keep = self.0.partition_point(|(since, _)| *since < from);
        assert!(
            keep > 0,
            "the configuration in force at the log's base was truncated at {from}"
        );
        self.0.truncate(keep);
    }

    /// Forgets what was superseded at or before `base`.
    pub(crate) fn note_compacted(&mut self, base: LogIndex) {
        let superseded = self
            .0
            .partition_point(|(since, _)| *since <= base)
            .saturating_sub(1);
        self.0.drain(..superseded);
    }

    pub(crate) fn newest(&self) -> &Configuration {
        &self.0.last().expect("a history is never empty").1
    }

    pub(crate) fn at(&self, index: LogIndex) -> &Configuration {
        let count = self.0.partition_point(|(since, _)| *since <= index);
        &self.0[count.saturating_sub(1)].1
    }

    /// Every configuration, with the index since when it is in force.
    pub(crate) fn all(&self) -> &[(LogIndex, Configuration)] {
        &self.0
    }

    pub(crate) fn check_invariants(&self) {
        assert!(!self.0.is_empty(), "a history without a configuration");
        assert!(
            self.0.is_sorted_by(|a, b| a.0 < b.0),
            "configurations out of order: {:?}",
            self.0
        );
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{ConfigEpoch, Term};

    use super::*;

    fn configuration(epoch: u64) -> Configuration {
        Configuration {
            epoch: ConfigEpoch(epoch),
            ..Configuration::default()
        }
    }

    fn history() -> History {
        let mut history = History::new(LogIndex(2), configuration(1));
        let entry = |index: u64, epoch: u64| Entry::<()> {
            index: LogIndex(index),
            term: Term(1),
            body: Body::Configuration(configuration(epoch)),
        };
        history.note_appended(&[entry(4, 2), entry(7, 3)]);
        history
    }

    #[test]
    fn a_configuration_is_in_force_from_its_entry_on() {
        let epochs: Vec<u64> = (2..=8)
            .map(|index| history().at(LogIndex(index)).epoch.0)
            .collect();
        assert_eq!(epochs, [1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(history().newest().epoch, ConfigEpoch(3));
    }

    #[test]
    fn a_truncation_brings_the_earlier_configuration_back() {
        let mut history = history();
        history.note_truncated(LogIndex(7));
        assert_eq!(history.newest().epoch, ConfigEpoch(2));
        history.note_truncated(LogIndex(3));
        assert_eq!(history.newest().epoch, ConfigEpoch(1));
    }

    #[test]
    fn compaction_keeps_the_configuration_in_force() {
        let mut history = history();
        history.note_compacted(LogIndex(5));
        assert_eq!(history.at(LogIndex(5)).epoch, ConfigEpoch(2));
        history.note_compacted(LogIndex(9));
        assert_eq!(history.newest().epoch, ConfigEpoch(3));
        history.check_invariants();
    }
}
