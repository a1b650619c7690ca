//! Queues and memory of a server are bounded (guarantee 8 rests on it), by what its configuration and constants say:
//!
//! - calls that wait, keep-alives included: twice `calls_max` (keep-alives have as much room again);
//! - appends in flight to one peer: `appends_in_flight_max`;
//! - uncommitted bytes at a leader: `uncommitted_bytes_max`, and one proposal that finds the log empty;
//! - entries in memory: what was applied since the last snapshot was ordered (`snapshot_entries`), `snapshot_retain` before that
//!   snapshot, and what is not applied yet;
//! - batches and events of the ring that streams read: its limits;
//! - past tenures and cool-downs of a group: `HISTORY_MAX` and `COOLDOWNS_MAX`;
//! - messages that wait for a sync: as many as a few heartbeats and the appends in flight can cause.

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// Counts of one server at one moment, and their bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is counted, how much there is, and how much there may be.
    pub counts: Vec<(&'static str, u64, u64)>,
}

/// All looks.
#[derive(Debug, Default)]
pub struct Queues {
    /// The most that was seen of each.
    pub peaks: BTreeMap<&'static str, u64>,
    /// How many counts were looked at.
    pub checked: u64,
}

impl Queues {
    /// A look at a server, between steps.
    ///
    /// # Errors
    /// Something is over its bound.
    pub fn on_look(&mut self, server: usize, look: &Look) -> Verdict {
        for (what, found, bound) in &look.counts {
            self.checked += 1;
            let peak = self.peaks.entry(what).or_default();
            *peak = (*peak).max(*found);
            if found > bound {
                return Err(Violation {
                    checker: "bounded_queues",
                    guarantee: "8: latency under overload: every queue has a bound",
                    what: format!("server {}: {found} {what}, bound {bound}", server + 1),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_over_its_bound_is_reported() {
        let look = |found| Look {
            counts: vec![("calls", 1, 10), ("appends in flight", found, 16)],
        };
        let mut queues = Queues::default();
        assert!(queues.on_look(0, &look(16)).is_ok());
        assert!(queues.on_look(0, &look(17)).is_err());
        assert_eq!(queues.peaks["appends in flight"], 17);
    }
}
