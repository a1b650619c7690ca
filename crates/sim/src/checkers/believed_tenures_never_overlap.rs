//! At most one believed tenure per group at any real time (guarantee 3).
//!
//! Belief is a set of intervals in true time, not samples: from each event at a node until its lease's `valid_until` on its own
//! clock, mapped to true time, or until a later event ends it earlier. A pause changes nothing about that: a holder that read
//! its clock just before may act.

use std::collections::BTreeMap;

use quorate_types::GroupName;
use quorate_wire::api::TenureId;

use super::{Verdict, Violation};
use crate::clock::Moment;

/// One process of a service: the node, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// The node.
    pub node: usize,
    /// Which of its lives.
    pub life: u32,
}

/// Who believes, and until when.
#[derive(Debug, Default)]
pub struct Beliefs {
    by_group: BTreeMap<GroupName, Vec<(Process, TenureId, Moment)>>,
    /// How many beliefs were looked at.
    pub checked: u64,
}

impl Beliefs {
    /// From `now` on, unless another event comes, this process believes the tenure until `until`; until `now` where it does
    /// not believe it (any more).
    ///
    /// # Errors
    /// Another process, or the same one under another tenure, believes too.
    pub fn on_belief(
        &mut self,
        now: Moment,
        process: Process,
        tenure: &TenureId,
        until: Moment,
    ) -> Verdict {
        self.checked += 1;
        let beliefs = match self.by_group.get_mut(&tenure.group) {
            Some(beliefs) => beliefs,
            None if until <= now => return Ok(()),
            None => self.by_group.entry(tenure.group.clone()).or_default(),
        };
        beliefs.retain(|(who, of, end)| *end > now && !(*who == process && of == tenure));
        if until <= now {
            return Ok(());
        }
        if let Some((other, of, end)) = beliefs.first() {
            return Err(Violation {
                checker: "believed_tenures_never_overlap",
                guarantee: "3: at most one believed tenure per group at any real time",
                what: format!(
                    "at {now:?} node {} (life {}) believes {tenure:?} until {until:?}, while node {} (life {}) believes {of:?} \
                     until {end:?}",
                    process.node, process.life, other.node, other.life
                ),
            });
        }
        beliefs.push((process, tenure.clone(), until));
        Ok(())
    }

    /// A process died: it can act no more.
    pub fn on_death(&mut self, process: Process) {
        for beliefs in self.by_group.values_mut() {
            beliefs.retain(|(who, _, _)| *who != process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Revision, TenureNumber};

    fn tenure(number: u64) -> TenureId {
        let group = GroupName::new("g").unwrap();
        TenureId {
            group,
            incarnation: Revision(1),
            number: TenureNumber(number),
        }
    }

    #[test]
    fn overlapping_beliefs_are_reported_however_short() {
        let (a, b) = (Process { node: 0, life: 1 }, Process { node: 1, life: 1 });
        let mut beliefs = Beliefs::default();
        assert!(
            beliefs
                .on_belief(Moment(10), a, &tenure(1), Moment(100))
                .is_ok()
        );
        assert!(
            beliefs
                .on_belief(Moment(50), a, &tenure(1), Moment(150))
                .is_ok(),
            "extended"
        );
        assert!(
            beliefs
                .on_belief(Moment(149), b, &tenure(2), Moment(200))
                .is_err(),
            "one nanosecond too early"
        );
        let mut beliefs = Beliefs::default();
        assert!(
            beliefs
                .on_belief(Moment(10), a, &tenure(1), Moment(100))
                .is_ok()
        );
        assert!(
            beliefs
                .on_belief(Moment(100), b, &tenure(2), Moment(200))
                .is_ok()
        );
        assert!(
            beliefs
                .on_belief(Moment(150), a, &tenure(1), Moment(300))
                .is_err(),
            "revived after it ended"
        );
        let mut beliefs = Beliefs::default();
        assert!(
            beliefs
                .on_belief(Moment(10), a, &tenure(1), Moment(100))
                .is_ok()
        );
        assert!(
            beliefs
                .on_belief(Moment(20), a, &tenure(1), Moment(20))
                .is_ok(),
            "released"
        );
        assert!(
            beliefs
                .on_belief(Moment(21), b, &tenure(2), Moment(200))
                .is_ok()
        );
    }
}
