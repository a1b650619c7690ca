//! What must never happen. One file per property, each citing the guarantee it stands for (docs/guarantees.md).
//!
//! Owns: the list, and the record of what was committed that several of them read. Checkers see only what an outside
//! observer with true time could see: published versions, answers, beliefs, writes at the resource.

use std::collections::BTreeMap;
use std::fmt;

use quorate_consensus::{Body, Entry};
use quorate_coord::Envelope;
use quorate_replica::AppliedEntry;
use quorate_types::Term;

use crate::clock::Moment;

pub mod acknowledged_writes_survive;
pub mod at_most_one_leader_per_term;
pub mod believed_tenures_never_overlap;
pub mod bounded_queues;
pub mod changes_hands_bounded;
pub mod deposed_by_quorum;
pub mod drained_work_is_settled;
pub mod exactly_once;
pub mod key_space_follows_rules;
pub mod key_watches_unbroken;
pub mod keys_are_linearizable;
pub mod lifecycle_follows_table;
pub mod logs_agree;
pub mod polls_are_answered;
pub mod reads_are_linearizable;
pub mod released_positions_reached;
pub mod sessions_end_in_time;
pub mod sessions_never_expire_early;
pub mod snapshots_equal_log;
pub mod state_digests_agree;
pub mod tokens_rise;
pub mod watch_streams_unbroken;
pub mod wgl;

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
    /// Whose violations are none in this world.
    pub excused: &'static [&'static str],
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
    /// Elections by position.
    pub polls: polls_are_answered::Polls,
    /// Handovers from the released position.
    pub positions: released_positions_reached::Positions,
    /// Guarantees 2 and 5: the state of the whole log.
    pub full: snapshots_equal_log::FullLog,
    /// Guarantee 2, by values.
    pub keys: keys_are_linearizable::Keys,
    /// Guarantee 2, for the key space.
    pub key_space: key_space_follows_rules::KeySpace,
    /// Guarantee 2, for watches of keys.
    pub key_watches: key_watches_unbroken::KeyWatches,
    /// Guarantee 2, for watches.
    pub watches: watch_streams_unbroken::Watches,
    /// Guarantee 9, for sessions.
    pub ends: sessions_end_in_time::Ends,
    /// Handovers of work.
    pub work: drained_work_is_settled::Work,
    /// Depositions.
    pub deposals: deposed_by_quorum::Deposals,
    /// Guarantee 8.
    pub queues: bounded_queues::Queues,
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
        body: Option<&Entry<Envelope>>,
    ) -> Verdict {
        if !self.log.on_applied(server, entry, logged)? {
            return Ok(());
        }
        // The first to apply it: what follows happens once per entry.
        self.acknowledged.on_committed(entry.index, entry.trace)?;
        let body = body.expect("who applies an entry first holds it in memory");
        let outcome = self.full.on_committed(entry, body)?;
        let envelope = match &body.body {
            Body::Command(envelope) => Some(envelope),
            Body::OwnTerm | Body::Configuration(_) => None,
        };
        let state = self.full.state();
        // Each sees every entry, whatever the others say.
        let verdicts = [
            self.ends.on_committed(now, entry),
            match (envelope, &outcome) {
                (Some(envelope), Some(outcome)) => self.once.on_committed(entry, envelope, outcome),
                _ => Ok(()),
            },
            self.sessions.on_committed(now, entry),
            self.tokens.on_committed(entry),
            self.lifecycle.on_committed(entry, envelope),
            self.changes.on_committed(now, entry, state),
            self.deposals.on_committed(entry, state),
            self.positions.on_committed(entry, state),
            self.polls.on_committed(entry, state),
            self.key_space.on_committed(entry, envelope, state),
        ];
        verdicts
            .into_iter()
            .filter_map(Result::err)
            .find(|violation| !self.excused.contains(&violation.checker))
            .map_or(Ok(()), Err)
    }

    /// The run is over, and all replicas have settled.
    ///
    /// # Errors
    /// The guarantee that does not hold.
    pub fn on_end(&mut self) -> Verdict {
        self.keys.on_end()?;
        self.acknowledged.on_end(self.full.state(), &self.log)
    }

    /// How often each checker looked.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let tokens = self.tokens.granted_count + self.tokens.written_count;
        let repeats = self.once.session_repeats + self.once.caller_repeats;
        [
            ("acknowledged_writes_survive", self.acknowledged.count()),
            ("at_most_one_leader_per_term", self.leaders.count()),
            ("believed_tenures_never_overlap", self.beliefs.checked),
            ("bounded_queues", self.queues.checked),
            ("changes_hands_bounded", self.changes.checked),
            ("deposed_by_quorum", self.deposals.checked),
            ("deposed_by_quorum: reports", self.deposals.reported),
            ("drained_work_is_settled", self.work.begun),
            ("drained_work_is_settled: inherited", self.work.inherited),
            ("exactly_once", self.once.count()),
            ("exactly_once: repeated in the log", repeats),
            (
                "exactly_once: sessions' repeated",
                self.once.session_repeats,
            ),
            ("key_space_follows_rules", self.key_space.checked),
            (
                "key_space_follows_rules: leases with keys ended",
                self.key_space.ended,
            ),
            ("key_watches_unbroken", self.key_watches.checked),
            (
                "key_watches_unbroken: compacted",
                self.key_watches.compacted,
            ),
            ("key_watches_unbroken: progress", self.key_watches.progress),
            ("keys_are_linearizable", self.keys.checked),
            ("keys_are_linearizable: never known", self.keys.unknown),
            ("lifecycle_follows_table", self.lifecycle.checked),
            ("logs_agree", self.log.last().0),
            ("polls_are_answered", self.polls.checked),
            ("reads_are_linearizable", self.reads.checked),
            ("released_positions_reached", self.positions.checked),
            (
                "released_positions_reached: prepared",
                self.positions.prepared,
            ),
            ("sessions_end_in_time", self.ends.checked),
            ("sessions_never_expire_early", self.sessions.checked),
            ("snapshots_equal_log", self.full.checked),
            ("state_digests_agree", self.digests.compared()),
            ("tokens_rise", tokens),
            ("watch_streams_unbroken", self.watches.checked),
            ("watch_streams_unbroken: lagged", self.watches.lagged),
            ("watch_streams_unbroken: snapshots", self.watches.snapshots),
        ]
        .into()
    }
}
