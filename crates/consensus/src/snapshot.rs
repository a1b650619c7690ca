//! Snapshots: compacting the log, and bringing a follower whose next entry was compacted up to date, piece by piece
//! (thesis, chapter 5). The bytes are the surroundings' business.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::fingerprint::hash_snapshot;
use crate::history::History;
use crate::progress::Sending;
use crate::{
    Consensus, LogPosition, Message, Output, Payload, Rename, Role, RoundId, SnapshotMeta,
};

/// A snapshot on its way here.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    from: ReplicaId,
    meta: SnapshotMeta,
    /// Where the next piece starts.
    next: u64,
    /// Whether a piece is being written or the file verified; what arrives meanwhile is dropped, and sent again.
    is_busy: bool,
}

impl Incoming {
    /// Hashes it; see `fingerprint.rs`.
    pub(crate) fn hash_state(&self, rename: Rename, to: &mut impl Hasher) {
        let Self {
            from,
            meta,
            next,
            is_busy,
        } = self;
        hash_snapshot(meta, to);
        (rename(*from), next, is_busy).hash(to);
    }
}

impl<C: Payload> Consensus<C> {
    /// Takes the news that a snapshot of the applied state is durable. Memory and log are compacted up to it, but for the
    /// last `retain` entries, which spare followers that are a little slow the snapshot.
    ///
    /// # Panics
    /// When the snapshot covers more than is committed.
    pub fn on_snapshot_saved(
        &mut self,
        _now: Time,
        meta: SnapshotMeta,
        retain: u64,
        out: &mut Vec<Output<C>>,
    ) {
        if self.stopped || meta.last.index <= self.snapshot.last.index {
            return;
        }
        assert!(
            meta.last.index <= self.commit,
            "a snapshot at {:?}, beyond the commit {:?}",
            meta.last,
            self.commit
        );
        assert_eq!(
            self.log.term_at(meta.last.index),
            Some(meta.last.term),
            "a snapshot at {:?}",
            meta.last
        );
        let through = LogIndex(meta.last.index.0.saturating_sub(retain));
        self.snapshot = meta;
        if through > self.log.base().index {
            let base = self.log.compact_through(through);
            self.history.note_compacted(base.index);
            self.persist(None, Some(base), Vec::new(), out);
        }
        self.flush(out);
    }

    /// Takes the news that a piece ordered by [`Output::WriteSnapshotChunk`] was written; `next` is where the next starts.
    pub fn on_snapshot_chunk_written(
        &mut self,
        _now: Time,
        meta: &SnapshotMeta,
        next: u64,
        out: &mut Vec<Output<C>>,
    ) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        if self.stopped || incoming.meta.last != meta.last {
            return;
        }
        incoming.is_busy = false;
        incoming.next = next;
        let from = incoming.from;
        self.ask_for_chunk(from, meta.last, next, out);
    }

    /// Takes the news that a snapshot has arrived whole, was verified and is durable. True: log and commit now start at
    /// `meta`, and the caller replaces its state. False: it is stale, the caller drops it.
    pub fn on_snapshot_installed(
        &mut self,
        _now: Time,
        meta: SnapshotMeta,
        out: &mut Vec<Output<C>>,
    ) -> bool {
        if self.stopped {
            return false;
        }
        let from = self.incoming.take().map(|incoming| incoming.from);
        let last = meta.last;
        let is_news = last.index > self.commit && self.role != Role::Leader;
        if is_news {
            self.install(meta, out);
        }
        // Committed entries are in every later leader's log, so it matches whoever leads by now.
        if let Some(leader) = self.leader
            && Some(leader) == from
            && self.role == Role::Follower
        {
            self.verified = self.verified.max(last.index);
            self.send_matched(leader, last.index, RoundId::default(), out);
        }
        self.flush(out);
        is_news
    }

    /// Takes the news that an arrived snapshot did not verify, or could not be written: it is fetched anew.
    pub fn on_snapshot_failed(
        &mut self,
        _now: Time,
        meta: &SnapshotMeta,
        out: &mut Vec<Output<C>>,
    ) {
        let Some(incoming) = &self.incoming else {
            return;
        };
        if self.stopped || incoming.meta.last != meta.last {
            return;
        }
        let from = incoming.from;
        self.incoming = None;
        self.ask_for_chunk(from, meta.last, 0, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_snapshot_chunk(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        meta: SnapshotMeta,
        offset: u64,
        total: u64,
        data: Arc<[u8]>,
        out: &mut Vec<Output<C>>,
    ) {
        let last = meta.last;
        if term < self.hard_state.term {
            self.ask_for_chunk(from, last, offset, out); // For its term: a deposed leader steps down by it.
            return;
        }
        let fits = offset
            .checked_add(data.len() as u64)
            .is_some_and(|end| end <= total);
        let is_empty = data.is_empty() && total > 0;
        if !fits
            || is_empty
            || last.index == LogIndex::ZERO
            || last.term > term
            || last.term == Term::ZERO
        {
            return;
        }
        if !self.hear_leader(now, from, out) {
            return;
        }
        if self.has_already(last, out) {
            self.verified = self.verified.max(last.index);
            self.send_matched(from, last.index, RoundId::default(), out);
            return;
        }
        let expected = match &self.incoming {
            Some(incoming) if incoming.is_busy => return,
            Some(incoming) if incoming.from == from && incoming.meta.last == last => incoming.next,
            _ => 0,
        };
        if offset != expected {
            self.ask_for_chunk(from, last, expected, out);
            return;
        }
        self.incoming = Some(Incoming {
            from,
            meta: meta.clone(),
            next: expected,
            is_busy: true,
        });
        // The term first: a snapshot must not outlive the term it came in.
        self.flush(out);
        out.push(Output::WriteSnapshotChunk {
            from,
            meta,
            offset,
            total,
            data,
        });
    }

    /// Whether this log holds what a leader's snapshot ends with. Then it holds the rest too (log matching), and all of
    /// it is committed, since nothing else goes into a snapshot.
    fn has_already(&mut self, last: LogPosition, out: &mut Vec<Output<C>>) -> bool {
        if last.index <= self.commit {
            return true;
        }
        if self.log.term_at(last.index) != Some(last.term) {
            return false;
        }
        self.commit = last.index;
        out.push(Output::Committed {
            through: last.index,
        });
        true
    }

    fn install(&mut self, meta: SnapshotMeta, out: &mut Vec<Output<C>>) {
        let last = meta.last;
        let end = self.log.last().index;
        let keeps_rest = self.log.term_at(last.index) == Some(last.term);
        let truncate_from = (!keeps_rest && end >= last.index).then_some(last.index);
        if keeps_rest {
            self.log.compact_through(last.index);
            self.history.note_compacted(last.index);
        } else {
            // What was committed here agrees with the snapshot; beyond, this is another log.
            self.log.restart_after(last, self.commit);
            self.history = History::new(last.index, meta.configuration.clone());
        }
        self.commit = last.index;
        self.verified = self.verified.max(last.index).min(self.log.last().index);
        self.snapshot = meta;
        self.persist(truncate_from, Some(last), Vec::new(), out);
    }

    fn ask_for_chunk(
        &mut self,
        from: ReplicaId,
        last: LogPosition,
        next: u64,
        out: &mut Vec<Output<C>>,
    ) {
        let term = self.hard_state.term;
        self.send(
            from,
            Message::SnapshotChunkResponse { term, last, next },
            out,
        );
    }

    /// Begins to send the newest snapshot to `peer`.
    pub(crate) fn begin_snapshot(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        let meta = self.snapshot.clone();
        assert!(
            meta.last.index >= self.log.base().index,
            "compacted through {:?} without a snapshot",
            self.log.base()
        );
        self.send_chunk(now, peer, meta, 0, out);
    }

    /// Orders the piece that `peer` awaits again, or the first of a newer snapshot: the old file may be gone.
    pub(crate) fn resend_snapshot(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        let Some(progress) = self
            .leading
            .as_ref()
            .and_then(|leading| leading.progress.get(&peer))
        else {
            return;
        };
        let Sending::Snapshot { meta, offset } = &progress.sending else {
            return;
        };
        let offset = if meta.last == self.snapshot.last {
            *offset
        } else {
            0
        };
        self.send_chunk(now, peer, self.snapshot.clone(), offset, out);
    }

    pub(crate) fn on_snapshot_chunk_response(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        last: LogPosition,
        next: u64,
        out: &mut Vec<Output<C>>,
    ) {
        if !self.note_answer(now, from, term) {
            return;
        }
        let Some(progress) = self
            .leading
            .as_ref()
            .and_then(|leading| leading.progress.get(&from))
        else {
            return;
        };
        let Sending::Snapshot { meta, offset } = &progress.sending else {
            return;
        };
        // A repeated or overtaken answer asks for what was sent already; only a restart goes back.
        let asks_for_news = next > *offset || (next == 0 && *offset > 0);
        if meta.last == last && asks_for_news {
            let meta = meta.clone();
            self.send_chunk(now, from, meta, next, out);
        }
    }

    fn send_chunk(
        &mut self,
        now: Time,
        to: ReplicaId,
        meta: SnapshotMeta,
        offset: u64,
        out: &mut Vec<Output<C>>,
    ) {
        let term = self.hard_state.term;
        let leading = self
            .leading
            .as_mut()
            .expect("only a leader sends snapshots");
        let Some(progress) = leading.progress.get_mut(&to) else {
            return;
        };
        progress.sending = Sending::Snapshot {
            meta: meta.clone(),
            offset,
        };
        progress.waiting_since = now;
        self.note_told_term(to);
        out.push(Output::SendSnapshotChunk {
            to,
            term,
            meta,
            offset,
        });
    }
}
