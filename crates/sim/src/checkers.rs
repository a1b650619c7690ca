//! What must never happen. One file per property, each citing the guarantee it stands for (docs/guarantees.md).
//!
//! Owns: the list, and the record of what was committed that several of them read. Checkers see only what an outside
//! observer with true time could see: published versions, answers, beliefs, writes at the resource.

use std::fmt;

use quorate_coord::State;
use quorate_replica::AppliedEntry;
use quorate_types::Term;

use crate::clock::Moment;

pub mod acknowledged_writes_survive;
pub mod at_most_one_leader_per_term;
pub mod believed_tenures_never_overlap;
pub mod changes_hands_bounded;
pub mod exactly_once;
pub mod lifecycle_follows_table;
pub mod logs_agree;
pub mod reads_are_linearizable;
pub mod released_positions_reached;
pub mod sessions_never_expire_early;
pub mod state_digests_agree;
pub mod tokens_rise;

/// A guarantee that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker noticed.
    pub checker: &'static str,
    /// What it stands for.
    pub guarantee: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n  guarantee: {}",
            self.checker, self.what, self.guarantee
        )
    }
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

/// All checkers of one run.
#[derive(Debug, Default)]
pub struct Checkers {
    /// Guarantee 1.
    pub leaders: at_most_one_leader_per_term::Leaders,
    /// Guarantees 1 and 5.
    pub log: logs_agree::Log,
    /// Guarantee 2 rests on it.
    pub digests: state_digests_agree::Digests,
    /// Guarantee 5.
    pub acknowledged: acknowledged_writes_survive::Acknowledged,
    /// Guarantee 2.
    pub reads: reads_are_linearizable::Reads,
    /// Guarantee 3.
    pub beliefs: believed_tenures_never_overlap::Beliefs,
    /// Guarantee 3, from the session's side.
    pub sessions: sessions_never_expire_early::Sessions,
    /// Guarantee 4.
    pub tokens: tokens_rise::Tokens,
    /// The contract.
    pub lifecycle: lifecycle_follows_table::Lifecycle,
    /// Guarantee 9.
    pub changes: changes_hands_bounded::Changes,
    /// Exactly-once retries.
    pub once: exactly_once::Once,
    /// Handovers from the released position.
    pub positions: released_positions_reached::Positions,
}

impl Checkers {
    /// Looks at one entry that a server applied; `logged` is what its log holds there, where it still does.
    ///
    /// # Errors
    /// The guarantee that does not hold.
    pub fn on_applied(
        &mut self,
        now: Moment,
        server: usize,
        entry: &AppliedEntry,
        logged: Option<(Term, u64)>,
        state: &State,
    ) -> Verdict {
        if !self.log.on_applied(server, entry, logged)? {
            return Ok(());
        }
        // The first to apply it: what follows happens once per entry.
        self.acknowledged.on_committed(entry.index, entry.trace)?;
        if entry.events.is_empty() {
            return Ok(());
        }
        self.once.on_committed(entry)?;
        self.tokens.on_committed(entry)?;
        self.lifecycle.on_committed(entry)?;
        self.changes.on_committed(now, entry, state)?;
        self.positions.on_committed(entry, state)?;
        self.sessions.on_committed(now, entry)
    }
}
