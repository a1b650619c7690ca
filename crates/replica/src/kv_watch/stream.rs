//! One stream's part: its watches, what waits for it, and whose turn it is to catch up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::{KvEvent, KvNotice, WatchKey};

/// Answers to a client's own requests that may wait; then it is not read from.
pub(super) const ANSWERS_MAX: usize = 256;

/// # Invariants
/// - Counts are those of the events in `queue`.
/// - For a watch in `behind`, everything in `queue` is older than what it will catch up on.
#[derive(Debug)]
pub(super) struct Stream<W> {
    pub(super) waker: W,
    /// Woken since it last took.
    pub(super) awake: bool,
    pub(super) watches: BTreeMap<i64, WatchKey>,
    pub(super) behind: BTreeSet<WatchKey>,
    /// The last that had its turn to catch up.
    turn: WatchKey,
    id_next: i64,
    pub(super) queue: VecDeque<KvNotice>,
    pub(super) queued_bytes: usize,
    pub(super) queued_events: usize,
    pub(super) answers: usize,
    /// Progress was asked for when the newest revision was this.
    pub(super) asked: Option<u64>,
}

impl<W> Stream<W> {
    pub(super) fn new(waker: W) -> Self {
        Self {
            waker,
            awake: false,
            watches: BTreeMap::new(),
            behind: BTreeSet::new(),
            turn: WatchKey(0),
            id_next: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_events: 0,
            answers: 0,
            asked: None,
        }
    }

    /// The id of a new watch: the one asked for unless it is taken, or for 0 the next free one, from 0.
    pub(super) fn choose_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watches.contains_key(&asked)).then_some(asked);
        }
        while self.watches.contains_key(&self.id_next) {
            self.id_next += 1;
        }
        self.id_next += 1;
        Some(self.id_next - 1)
    }

    pub(super) fn answer(&mut self, notice: KvNotice) {
        self.answers += 1;
        self.queue.push_back(notice);
    }

    /// Whose turn it is to catch up, at most so many, in turn.
    pub(super) fn next_behind(&mut self, most: usize) -> Vec<WatchKey> {
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let keys: Vec<_> = self
            .behind
            .range(after)
            .chain(self.behind.range(..=self.turn))
            .take(most)
            .copied()
            .collect();
        if let Some(last) = keys.last() {
            self.turn = *last;
        }
        keys
    }

    /// The bytes and number of the events in the queue.
    pub(super) fn measure(&self) -> (usize, usize) {
        let events = self.queue.iter().flat_map(|notice| match notice {
            KvNotice::Events { events, .. } => events.as_slice(),
            _ => &[],
        });
        events.fold((0, 0), |(bytes, count), event| {
            (bytes + KvEvent::size_bytes(event), count + 1)
        })
    }
}
