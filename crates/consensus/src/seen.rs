//! A disk that went back in time is told its own future by its peers (protocol, section 7).

use quorate_types::{LogIndex, ReplicaId, Term};

use crate::{AppendOutcome, Consensus, FatalError, LogPosition, Message, Output, Payload};

/// What a peer was seen to have made durable. Only facts that its messages promise count, so none of them can ever
/// exceed what a healthy disk holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    term: Term,
    /// Its vote in `term`, where seen.
    vote: Option<ReplicaId>,
    /// The highest index it acknowledged in the newest term in which it did.
    matched: LogPosition,
}

impl Seen {
    fn note_term(&mut self, term: Term) {
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
    }

    fn note_vote(&mut self, term: Term, vote: ReplicaId) {
        self.note_term(term);
        if term == self.term {
            self.vote = Some(vote);
        }
    }

    fn note_match(&mut self, term: Term, through: LogIndex) {
        // Compared by term first: after a change of leader a healthy replica may lawfully truncate what it acknowledged.
        self.matched = self.matched.max(LogPosition {
            term,
            index: through,
        });
    }
}

impl<C: Payload> Consensus<C> {
    /// Remembers what `message` promises of its sender.
    pub(crate) fn note_seen(&mut self, from: ReplicaId, message: &Message<C>) {
        let Some(term) = message.sender_term() else {
            return;
        };
        let own = self.config.id;
        // Only members are remembered, which bounds the memory.
        let configuration = self.configuration();
        if !configuration.is_voter(from) && !configuration.is_learner(from) {
            return;
        }
        let seen = self.seen.entry(from).or_default();
        seen.note_term(term);
        match message {
            Message::VoteRequest { .. } => seen.note_vote(term, from),
            Message::VoteResponse { granted: true, .. } => seen.note_vote(term, own),
            Message::AppendResponse {
                outcome: AppendOutcome::Matched { through },
                ..
            } => {
                seen.note_match(term, *through);
            }
            _ => {}
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

    /// Stops this replica if `message` shows that it once held more than it does.
    ///
    /// No healthy replica stops: each fact was ordered to disk here before the message that promised it left, so this
    /// replica's state in memory, which only moves forward from what it read at start, holds it too. (Memory and not what
    /// was reported durable is compared, because such a message may be answered before the report of its write arrives.)
    /// - A term never falls.
    /// - Within a term the vote never changes.
    /// - Within a term nothing acknowledged is truncated: it equals the log of that term's leader, which only grows. In a
    ///   later term it lawfully may be, so only the same term is compared. A snapshot counts through its last index.
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
        let term = self.hard_state.term;
        let vote_differs =
            seen_term == term && seen_vote.is_some() && seen_vote != self.hard_state.voted_for;
        let log_is_shorter = seen_match.term == term && self.log.last().index < seen_match.index;
        if seen_term <= term && seen_match.term <= term && !vote_differs && !log_is_shorter {
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
