//! Replicas that applied the same entries have the same state (guarantee 2 rests on it).

use std::collections::BTreeMap;

use quorate_coord::State;
use quorate_types::LogIndex;

use super::{Verdict, Violation};

/// Digests by the index up to which they are applied.
#[derive(Debug, Default)]
pub struct Digests {
    seen: BTreeMap<LogIndex, (u64, usize)>,
    compared: u64,
}

impl Digests {
    /// A server published this version.
    ///
    /// # Errors
    /// Another server had another state at the same index.
    pub fn on_state(&mut self, server: usize, state: &State) -> Verdict {
        self.on_digest(server, state.applied().0, state.digest())
    }

    fn on_digest(&mut self, server: usize, index: LogIndex, digest: u64) -> Verdict {
        match self.seen.insert(index, (digest, server)) {
            Some((before, other)) if before != digest => Err(Violation {
                checker: "state_digests_agree",
                guarantee: "2: governance reads and writes are linearizable",
                what: format!(
                    "at index {index} server {} has the state {digest:016x} and server {} had {before:016x}",
                    server + 1,
                    other + 1
                ),
            }),
            Some(_) => {
                self.compared += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// How many digests were compared.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_states_at_one_index_are_reported() {
        let mut digests = Digests::default();
        assert!(digests.on_digest(0, LogIndex(4), 1).is_ok());
        assert!(digests.on_digest(1, LogIndex(4), 1).is_ok());
        assert!(digests.on_digest(1, LogIndex(5), 2).is_ok());
        assert!(digests.on_digest(2, LogIndex(5), 3).is_err());
    }
}
