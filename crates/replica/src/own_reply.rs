//! Replies that are too large to be carried between servers: the asking server takes them from its own apply of the entry.
//!
//! A transaction may read megabytes. The leader then answers only where the entry is; what it comes to is the same on every server
//! (ADR large-replies-from-own-apply).

use std::collections::BTreeMap;

use quorate_coord::Outcome;
use quorate_types::{LogIndex, Time};

use crate::call::{CallId, Response};
use crate::output::Output;

/// Largest outcome that an answer carries between servers, in bytes: what it delays there is no more than an append does.
pub(crate) const CARRIED_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of outcomes kept for answers that are on their way; the oldest go first, and what was asked then ends as unknown.
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Large outcomes and those who wait for them.
///
/// # Invariants
/// - `bytes` is the sum over `kept`.
/// - An index is not in both maps.
#[derive(Debug, Default)]
pub(crate) struct OwnReplies {
    /// Applied here while an answer may be on its way.
    kept: BTreeMap<LogIndex, (Outcome, usize)>,
    bytes: usize,
    /// Answered by the leader, and not yet applied here.
    awaited: BTreeMap<LogIndex, (CallId, Time)>,
}

fn size_bytes(outcome: &Outcome) -> usize {
    outcome.as_ref().map_or(0, quorate_coord::Reply::size_bytes)
}

/// Whether an outcome is too large for an answer to another server.
pub(crate) fn is_large(outcome: &Outcome) -> bool {
    size_bytes(outcome) > CARRIED_BYTES_MAX
}

impl OwnReplies {
    /// How many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.awaited.len()
    }

    /// An entry that nobody here proposed was applied. `may_be_asked`: whether an answer about it may be on its way.
    pub(crate) fn applied(
        &mut self,
        index: LogIndex,
        outcome: Outcome,
        may_be_asked: bool,
        out: &mut Vec<Output>,
    ) {
        if let Some((call, _)) = self.awaited.remove(&index) {
            let response = Response::Applied { outcome, index };
            out.push(Output::Answer { call, response });
        } else if may_be_asked && is_large(&outcome) {
            let bytes = size_bytes(&outcome);
            self.kept.insert(index, (outcome, bytes));
            self.bytes += bytes;
            while self.bytes > KEPT_BYTES_MAX && self.kept.len() > 1 {
                let (_, (_, bytes)) = self.kept.pop_first().expect("there are several");
                self.bytes -= bytes;
            }
        }
    }

    /// The leader said that a call's entry is applied at `index`; `applied` is how far this replica is.
    pub(crate) fn answered(
        &mut self,
        call: CallId,
        index: LogIndex,
        (applied, deadline): (LogIndex, Time),
        out: &mut Vec<Output>,
    ) {
        if index > applied {
            self.awaited.insert(index, (call, deadline));
            return;
        }
        let response = match self.kept.remove(&index) {
            Some((outcome, bytes)) => {
                self.bytes -= bytes;
                Response::Applied { outcome, index }
            }
            // It was applied before this process kept it, or came with a snapshot, or had to make room.
            None => Response::Unknown,
        };
        out.push(Output::Answer { call, response });
    }

    /// No answer is on its way any more.
    pub(crate) fn forget_kept(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    /// A snapshot replaced the state at `index`: what entries up to there came to is not known here.
    pub(crate) fn skipped_to(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        self.give_up(|at, _| at <= index, out);
    }

    /// Calls that have waited too long.
    pub(crate) fn time_out(&mut self, now: Time, out: &mut Vec<Output>) {
        self.give_up(|_, deadline| deadline <= now, out);
    }

    fn give_up(&mut self, is_over: impl Fn(LogIndex, Time) -> bool, out: &mut Vec<Output>) {
        let over = self
            .awaited
            .extract_if(.., |index, (_, deadline)| is_over(*index, *deadline));
        out.extend(over.map(|(_, (call, _))| Output::Answer {
            call,
            response: Response::Unknown,
        }));
    }

    /// The earliest time at which a waiting call times out.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.awaited.values().map(|(_, deadline)| *deadline).min()
    }

    pub(crate) fn check_invariants(&self, applied: LogIndex) {
        assert_eq!(
            self.bytes,
            self.kept.values().map(|(_, bytes)| bytes).sum::<usize>(),
            "the sizes of kept outcomes do not add up"
        );
        assert!(
            self.awaited.keys().all(|index| *index > applied),
            "a call waits for what is applied: {:?}",
            self.awaited
        );
    }
}

#[cfg(test)]
mod tests {
    use quorate_coord::Reply;
    use quorate_coord::kv::{KeyValue, KvOpReply};

    use super::*;

    fn outcome(bytes: usize) -> Outcome {
        let prev_kv = Some(KeyValue {
            value: vec![7; bytes].into(),
            ..KeyValue::default()
        });
        Ok(Reply::Kv {
            revision: 2,
            reply: Box::new(KvOpReply::Put { prev_kv }),
        })
    }

    fn answered(replies: &mut OwnReplies, index: u64, applied: u64) -> Vec<Output> {
        let mut out = Vec::new();
        let until = (LogIndex(applied), Time(100));
        replies.answered(CallId(1), LogIndex(index), until, &mut out);
        replies.check_invariants(LogIndex(applied));
        out
    }

    fn is_answered(out: &[Output], meant: &Response) -> bool {
        matches!(out, [Output::Answer { call: CallId(1), response }] if response == meant)
    }

    #[test]
    fn outcome_is_taken_from_an_apply_before_the_answer_or_after_it() {
        let large = outcome(CARRIED_BYTES_MAX);
        let meant = |index| Response::Applied {
            outcome: outcome(CARRIED_BYTES_MAX),
            index: LogIndex(index),
        };
        let mut replies = OwnReplies::default();
        let mut out = Vec::new();
        replies.applied(LogIndex(5), large.clone(), true, &mut out);
        assert!(out.is_empty(), "{out:?}");
        assert!(is_answered(&answered(&mut replies, 5, 6), &meant(5)));
        assert!(answered(&mut replies, 7, 6).is_empty());
        assert_eq!(replies.len(), 1);
        replies.applied(LogIndex(7), large, true, &mut out);
        assert!(is_answered(&out, &meant(7)));
        assert_eq!(replies.len(), 0);
    }

    #[test]
    fn outcome_that_is_not_to_be_had_here_ends_as_unknown() {
        let mut replies = OwnReplies::default();
        // Small ones are carried, and without a call on its way nothing is kept.
        let mut out = Vec::new();
        replies.applied(LogIndex(5), outcome(10), true, &mut out);
        replies.applied(LogIndex(6), outcome(CARRIED_BYTES_MAX), false, &mut out);
        for index in [5, 6] {
            assert!(is_answered(
                &answered(&mut replies, index, 6),
                &Response::Unknown
            ));
        }
        assert!(answered(&mut replies, 9, 6).is_empty());
        replies.skipped_to(LogIndex(9), &mut out);
        assert!(is_answered(&out, &Response::Unknown));
        out.clear();
        assert!(answered(&mut replies, 9, 6).is_empty());
        assert_eq!(replies.next_deadline(), Some(Time(100)));
        replies.time_out(Time(99), &mut out);
        assert!(out.is_empty(), "{out:?}");
        replies.time_out(Time(100), &mut out);
        assert!(is_answered(&out, &Response::Unknown));
    }

    #[test]
    fn kept_outcomes_are_bounded_in_bytes() {
        let mut replies = OwnReplies::default();
        let mut out = Vec::new();
        for index in 1..=5 {
            let large = outcome(KEPT_BYTES_MAX / 4);
            replies.applied(LogIndex(index), large, true, &mut out);
            replies.check_invariants(LogIndex(index));
        }
        assert!(replies.bytes <= KEPT_BYTES_MAX);
        assert!(is_answered(
            &answered(&mut replies, 1, 5),
            &Response::Unknown
        ));
        assert!(!is_answered(
            &answered(&mut replies, 5, 5),
            &Response::Unknown
        ));
        replies.forget_kept();
        replies.check_invariants(LogIndex(5));
    }
}
