//! A disk that went back in time is told its own future by its peers (protocol, section 7).
//!
//! Two memories, compared when a connection is made: what this replica saw of each peer, and what it itself can have
//! promised. ADR `2026-11-23-rolled-back-disk-judged-by-boot` holds the trace behind the second.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{LogIndex, ReplicaId, Term};

use crate::{
    AppendOutcome, Consensus, FatalError, HardState, LogPosition, Message, Output, Payload,
};

/// How many terms back a replica remembers what it told a peer. It changes term at an election only, so a replica that ran
/// through this many is not judged by what it said so long ago; it is never accused instead.
const TERMS_REMEMBERED_MAX: usize = 256;

/// What one message promises of its sender for ever: it left only once all of this was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) term: Term,
    /// Its vote in `term`.
    pub(crate) vote: Option<ReplicaId>,
    /// What it acknowledged to the leader of `term`.
    pub(crate) matched: Option<LogIndex>,
}

impl Promise {
    /// What `message` from `from` to `to` promises. The one reading of it, so that sender and receiver agree.
    fn of<C>(message: &Message<C>, from: ReplicaId, to: ReplicaId) -> Option<Self> {
        let term = message.sender_term()?;
        let (mut vote, mut matched) = (None, None);
        match message {
            Message::VoteRequest { .. } => vote = Some(from),
            Message::VoteResponse { granted: true, .. } => vote = Some(to),
            Message::AppendResponse {
                outcome: AppendOutcome::Matched { through },
                ..
            } => matched = Some(*through),
            _ => {}
        }
        Some(Self {
            term,
            vote,
            matched,
        })
    }
}

/// What a peer was seen to have made durable. Only facts that its messages promise count, so none of them can ever
/// exceed what a healthy disk holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) term: Term,
    /// Its vote in `term`, where seen.
    pub(crate) vote: Option<ReplicaId>,
    /// The highest index it acknowledged in the newest term in which it did.
    pub(crate) matched: LogPosition,
}

impl Seen {
    fn note(&mut self, promise: Promise) {
        let Promise {
            term,
            vote,
            matched,
        } = promise;
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        if term == self.term {
            self.vote = vote.or(self.vote);
        }
        if let Some(index) = matched {
            // Compared by term first: after a change of leader a healthy replica may lawfully truncate what it acknowledged.
            self.matched = self.matched.max(LogPosition { term, index });
        }
    }
}

/// What this replica can have promised: what it found on its disk, and what it has told each peer since. Whatever else a
/// peer saw of it, an earlier incarnation said, and the disk no longer knows.
///
/// # Invariants
/// - `found` and `found_last` never change.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) found: HardState,
    /// The end of the log that was found, the newest snapshot included.
    pub(crate) found_last: LogIndex,
    pub(crate) told: BTreeMap<ReplicaId, Told>,
}

/// What one peer was told since the start.
///
/// # Invariants
/// - `promises` rise by term, and all terms are beyond `forgotten`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) promises: VecDeque<Promise>,
    /// What was told in terms up to here is no longer known.
    pub(crate) forgotten: Term,
}

impl Told {
    fn note(&mut self, promise: Promise) {
        match self.promises.back_mut() {
            Some(newest) if newest.term == promise.term => {
                newest.vote = promise.vote.or(newest.vote);
                newest.matched = promise.matched.max(newest.matched);
            }
            _ => self.promises.push_back(promise),
        }
        if self.promises.len() > TERMS_REMEMBERED_MAX
            && let Some(oldest) = self.promises.pop_front()
        {
            self.forgotten = oldest.term;
        }
    }

    fn in_term(&self, term: Term) -> Option<&Promise> {
        let at = self.promises.binary_search_by_key(&term, |told| told.term);
        at.ok().map(|at| &self.promises[at])
    }
}

impl Past {
    pub(crate) fn new(found: HardState, found_last: LogIndex) -> Self {
        Self {
            found,
            found_last,
            told: BTreeMap::new(),
        }
    }

    /// Whether this replica can have promised all of `seen` to `peer`.
    ///
    /// Never false for a healthy disk. What an earlier incarnation promised was durable before it was said, so `found` holds
    /// it: a term never falls, within a term the vote never changes, and within a term nothing acknowledged is truncated,
    /// since it equals the log of that term's leader, which only grows. (In a later term it lawfully may be; hence an
    /// acknowledgement of a term before the one found proves nothing.) What this incarnation promised is in `told`.
    fn explains(&self, peer: ReplicaId, seen: &Seen) -> bool {
        let told = self.told.get(&peer);
        let forgotten = told.map_or(Term::ZERO, |told| told.forgotten);
        let told_in = |term| told.and_then(|told| told.in_term(term));
        // Of these terms neither the disk nor the memory knows more than that they were passed.
        let is_past = |term| term < self.found.term || term <= forgotten;

        let term_fits =
            seen.term <= self.found.term || is_past(seen.term) || told_in(seen.term).is_some();
        let vote_fits = seen.vote.is_none()
            || is_past(seen.term)
            || (seen.term == self.found.term && seen.vote == self.found.voted_for)
            || told_in(seen.term).is_some_and(|told| told.vote == seen.vote);
        let LogPosition { term, index } = seen.matched;
        let match_fits = index == LogIndex::ZERO
            || is_past(term)
            || (term == self.found.term && index <= self.found_last)
            || told_in(term).is_some_and(|told| told.matched >= Some(index));
        term_fits && vote_fits && match_fits
    }
}

impl<C: Payload> Consensus<C> {
    /// Remembers what `message` promises of its sender.
    pub(crate) fn note_seen(&mut self, from: ReplicaId, message: &Message<C>) {
        let Some(promise) = Promise::of(message, from, self.config.id) else {
            return;
        };
        // Only members are remembered, which bounds the memory.
        let configuration = self.configuration();
        if !configuration.is_member(from) {
            return;
        }
        self.seen.entry(from).or_default().note(promise);
    }

    /// Remembers what `message` promises to `to`. Noted when it is ordered: it may never leave, and then nobody has seen it.
    pub(crate) fn note_told(&mut self, to: ReplicaId, message: &Message<C>) {
        if let Some(promise) = Promise::of(message, self.config.id, to) {
            self.note_promise(to, promise);
        }
    }

    /// Remembers that `to` is told the current term, by a message that the surroundings put together.
    pub(crate) fn note_told_term(&mut self, to: ReplicaId) {
        let promise = Promise {
            term: self.hard_state.term,
            vote: None,
            matched: None,
        };
        self.note_promise(to, promise);
    }

    fn note_promise(&mut self, to: ReplicaId, promise: Promise) {
        // Members only, as above; what others see is not remembered there either.
        if self.past.told.contains_key(&to) || self.configuration().is_member(to) {
            self.past.told.entry(to).or_default().note(promise);
        }
    }

    /// Tells a peer what was seen of it, if anything was.
    pub(crate) fn send_seen(&mut self, to: ReplicaId, out: &mut Vec<Output<C>>) {
        let Some(seen) = self.seen.get(&to).copied() else {
            return;
        };
        let message = Message::SeenOfYou {
            term: self.hard_state.term,
            seen_term: seen.term,
            seen_vote: seen.vote,
            seen_match: seen.matched,
        };
        self.send(to, message, out);
    }

    /// Stops this replica if `message` shows that it once promised more than it can have.
    ///
    /// Its present term, vote and log are no measure: a rolled-back replica that hears of a newer term first adopts it, and
    /// would then seem to be past everything that it forgot.
    pub(crate) fn stops_for_rollback(
        &mut self,
        from: ReplicaId,
        message: &Message<C>,
        out: &mut Vec<Output<C>>,
    ) -> bool {
        let Message::SeenOfYou {
            seen_term,
            seen_vote,
            seen_match,
            ..
        } = *message
        else {
            return false;
        };
        let seen = Seen {
            term: seen_term,
            vote: seen_vote,
            matched: seen_match,
        };
        if self.past.explains(from, &seen) {
            return false;
        }
        self.stop(
            FatalError::RolledBack {
                peer: from,
                seen_term,
                seen_vote,
                seen_match,
            },
            out,
        );
        true
    }

    /// Stops for good.
    pub(crate) fn stop(&mut self, error: FatalError, out: &mut Vec<Output<C>>) {
        self.stopped = true;
        out.push(Output::Fatal(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(2);

    fn seen(term: u64, vote: Option<u64>, (match_term, index): (u64, u64)) -> Seen {
        Seen {
            term: Term(term),
            vote: vote.map(ReplicaId),
            matched: LogPosition {
                term: Term(match_term),
                index: LogIndex(index),
            },
        }
    }

    fn promise(term: u64, vote: Option<u64>, matched: Option<u64>) -> Promise {
        Promise {
            term: Term(term),
            vote: vote.map(ReplicaId),
            matched: matched.map(LogIndex),
        }
    }

    /// Found term 3, vote for 2 and four entries; the peer was then told of terms 5, with a vote and a match, and 7.
    fn past() -> Past {
        let found = HardState {
            term: Term(3),
            voted_for: Some(PEER),
        };
        let mut past = Past::new(found, LogIndex(4));
        let told = past.told.entry(PEER).or_default();
        told.note(promise(5, Some(2), None));
        told.note(promise(5, None, Some(6)));
        told.note(promise(5, None, Some(5)));
        told.note(promise(7, None, None));
        past
    }

    #[test]
    fn what_the_disk_held_or_the_peer_was_told_is_explained() {
        for explained in [
            seen(0, None, (0, 0)),
            seen(2, Some(9), (1, 90)), // Before the term found: neither vote nor match is known any more.
            seen(3, Some(2), (3, 4)),
            seen(5, None, (3, 4)),
            seen(5, Some(2), (5, 6)),
            seen(7, None, (5, 5)),
        ] {
            assert!(past().explains(PEER, &explained), "{explained:?}");
        }
    }

    #[test]
    fn what_neither_disk_nor_memory_knows_was_said_by_an_earlier_incarnation() {
        for unexplained in [
            seen(3, Some(3), (0, 0)),
            seen(3, None, (3, 5)),
            seen(4, None, (0, 0)), // Between what was found and what was told: the newer term does not hide it.
            seen(5, Some(3), (0, 0)),
            seen(7, None, (5, 7)),
            seen(7, None, (6, 1)),
            seen(7, Some(2), (0, 0)),
            seen(8, None, (0, 0)),
        ] {
            assert!(!past().explains(PEER, &unexplained), "{unexplained:?}");
        }
        assert!(
            !past().explains(ReplicaId(3), &seen(5, None, (0, 0))),
            "told to another peer only"
        );
    }

    #[test]
    fn what_was_told_too_long_ago_accuses_nobody() {
        let mut past = past();
        let told = past.told.entry(PEER).or_default();
        for term in 8..8 + TERMS_REMEMBERED_MAX as u64 {
            told.note(promise(term, None, None));
        }
        assert_eq!(told.promises.len(), TERMS_REMEMBERED_MAX);
        assert_eq!(told.forgotten, Term(7));
        assert!(past.explains(PEER, &seen(6, Some(9), (6, 90))));
        assert!(!past.explains(PEER, &seen(1_000, None, (0, 0))));
    }
}
