//! What a leader knows of one peer: how far its log matches, what is in flight to it, when it was heard.

use std::collections::VecDeque;

use quorate_types::{LogIndex, ReplicaId, Time};

use crate::{RoundId, SnapshotMeta};

/// How a leader sends to a peer, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Looking for where the logs match, one append at a time.
    Probe,
    /// Appends are pipelined.
    Replicate {
        /// How many are unanswered.
        in_flight: usize,
    },
    /// A snapshot is on its way.
    Snapshot {
        /// How many bytes have arrived.
        offset: u64,
    },
}

/// How far a leader has brought a peer, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: ReplicaId,
    /// Its log durably equals the leader's through here.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How it is sent to.
    pub state: PeerState,
    /// When it last answered; the election, if it has not since.
    pub heard_at: Time,
}

/// One peer of a leader.
///
/// # Invariants
/// - `matched` never falls within a term, and `matched < next`.
/// - In flight are entries in `matched + 1 ..= next - 1` only.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) matched: LogIndex,
    pub(crate) next: LogIndex,
    pub(crate) sending: Sending,
    /// The newest round it has answered in this term.
    pub(crate) round_acked: RoundId,
    pub(crate) heard_at: Time,
    /// Since when an answer is awaited: the last time one brought progress, or something was sent to an idle peer.
    pub(crate) waiting_since: Time,
    /// The commit index that it was last told.
    pub(crate) commit_told: LogIndex,
}

/// How a peer is sent to.
#[derive(Clone, Debug)]
pub(crate) enum Sending {
    /// One append at a time until one matches.
    Probe {
        /// Whether one is unanswered.
        awaiting: bool,
    },
    /// Appends are pipelined: `next` runs ahead of the answers.
    Replicate(InFlight),
    /// It needs entries that were compacted.
    Snapshot {
        /// What is being sent.
        meta: SnapshotMeta,
        /// How far it has arrived.
        offset: u64,
    },
}

/// The unanswered appends, oldest first: the last entry and the size of each.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct InFlight {
    appends: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl InFlight {
    pub(crate) fn has_room(&self, appends_max: usize, bytes_max: usize) -> bool {
        self.appends.is_empty() || (self.appends.len() < appends_max && self.bytes < bytes_max)
    }

    pub(crate) fn push(&mut self, last: LogIndex, bytes: usize) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_through(&mut self, matched: LogIndex) {
        while let Some((last, bytes)) = self.appends.front().copied()
            && last <= matched
        {
            self.appends.pop_front();
            self.bytes -= bytes;
        }
    }
}

impl Progress {
    /// A peer of a new leader, believed to match up to `next - 1` until it says otherwise.
    pub(crate) fn new(next: LogIndex, now: Time) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next,
            sending: Sending::Probe { awaiting: false },
            round_acked: RoundId::default(),
            heard_at: now,
            waiting_since: now,
            commit_told: LogIndex::ZERO,
        }
    }

    /// Takes the news that the peer's log matches through `through`; says whether that is progress.
    pub(crate) fn on_matched(&mut self, through: LogIndex, now: Time) -> bool {
        let rose = through > self.matched;
        if rose {
            self.matched = through;
            self.waiting_since = now;
        }
        self.next = self.next.max(self.matched.next());
        if let Sending::Replicate(in_flight) = &mut self.sending {
            in_flight.free_through(self.matched);
        }
        rose
    }

    pub(crate) fn become_probe(&mut self, next: LogIndex) {
        self.next = next;
        self.sending = Sending::Probe { awaiting: false };
    }

    pub(crate) fn become_replicate(&mut self) {
        if !matches!(self.sending, Sending::Replicate(_)) {
            self.next = self.matched.next();
            self.sending = Sending::Replicate(InFlight::default());
        }
    }

    /// Whether an answer is due.
    pub(crate) fn is_awaiting(&self) -> bool {
        match &self.sending {
            Sending::Probe { awaiting } => *awaiting,
            Sending::Replicate(in_flight) => !in_flight.appends.is_empty(),
            Sending::Snapshot { .. } => true,
        }
    }

    pub(crate) fn report(&self, id: ReplicaId) -> PeerProgress {
        let state = match &self.sending {
            Sending::Probe { .. } => PeerState::Probe,
            Sending::Replicate(in_flight) => PeerState::Replicate {
                in_flight: in_flight.appends.len(),
            },
            Sending::Snapshot { offset, .. } => PeerState::Snapshot { offset: *offset },
        };
        PeerProgress {
            id,
            matched: self.matched,
            next: self.next,
            state,
            heard_at: self.heard_at,
        }
    }

    pub(crate) fn check_invariants(&self, last: LogIndex) {
        assert!(
            self.matched < self.next,
            "matched {:?}, but next is {:?}",
            self.matched,
            self.next
        );
        assert!(
            self.next.0 <= last.0 + 1,
            "next {:?} is beyond the log's end {last:?}",
            self.next
        );
        if let Sending::Replicate(in_flight) = &self.sending {
            for (sent, _) in &in_flight.appends {
                assert!(
                    *sent > self.matched,
                    "{sent:?} in flight, though matched through {:?}",
                    self.matched
                );
                assert!(
                    *sent < self.next,
                    "{sent:?} in flight, though next is {:?}",
                    self.next
                );
            }
            assert_eq!(
                in_flight.bytes,
                in_flight
                    .appends
                    .iter()
                    .map(|(_, bytes)| bytes)
                    .sum::<usize>()
            );
        }
    }
}
