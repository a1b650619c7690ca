//! Watches of the key space: which watch is told of which change, when, and from where one that fell behind goes on.
//!
//! Owns: the watches of one server, the index that finds those of a key, bounded queues to their streams, and catching up. No change is
//! copied into a ring of its own: each version of the key space brings its change log along, and a watch is little more than the next
//! revision that it has not seen (ADR change-log-is-the-ring). Deliberately absent: waiting, sockets, threads, and the messages of any API.
//!
//! A watch is either *synced*: [`KvWatches::dispatch`] finds it by the index when a version is published; or *behind*: it was created in
//! the past, or its stream's queue was full. Then its stream's task lets it catch up from the newest version, piece by piece, by
//! [`KvCatchUp::scan`], which needs no lock: a slow stream costs nobody else anything, and never holds an old version.

use std::collections::{BTreeMap, BTreeSet};

use quorate_coord::kv::{Blob, KeyRange, KeyValue, KvChange, KvStore};

mod catch_up;
mod index;
mod notice;
mod piece;
mod stream;
#[cfg(test)]
mod tests;

pub use catch_up::{KvCatchUp, KvCaught};
use index::{End, Index, Keys};
pub use notice::{
    KvEvent, KvNotice, KvWatchLimits, KvWatchRefusal, KvWatchSpec, KvWatchStats, NO_WATCH_ID,
};
use piece::Piece;
use stream::Stream;

/// What watches read of one version of the key space.
pub trait KvLog {
    /// The newest revision.
    fn revision(&self) -> u64;
    /// Through where it was compacted. The changes of this very revision are still there, as in etcd.
    fn compacted(&self) -> u64;
    /// The changes from a revision on (not before [`compacted`](Self::compacted)), in their order.
    fn changes(&self, from: u64) -> impl Iterator<Item = &KvChange>;
    /// A key as it was at a revision; nothing if that was compacted.
    fn at(&self, key: &[u8], revision: u64) -> Option<KeyValue>;
}

impl KvLog for KvStore {
    fn revision(&self) -> u64 {
        self.revision()
    }

    fn compacted(&self) -> u64 {
        self.compacted()
    }

    fn changes(&self, from: u64) -> impl Iterator<Item = &KvChange> {
        self.changes(from)
    }

    fn at(&self, key: &[u8], revision: u64) -> Option<KeyValue> {
        self.get_at(key, revision)
    }
}

/// One stream of watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KvStreamId(u64);

/// One watch, of whatever stream; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WatchKey(u64);

/// What of a watch decides about a change.
#[derive(Clone, Debug)]
struct Filter {
    /// Changes before it are not told: they were, or they are before the start.
    next_revision: u64,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
}

impl Filter {
    fn wants(&self, change: &KvChange) -> bool {
        change.mod_revision() >= self.next_revision
            && !match change {
                KvChange::Put(_) => self.no_put,
                KvChange::Delete { .. } => self.no_delete,
            }
    }
}

#[derive(Debug)]
struct Watch {
    stream: KvStreamId,
    id: i64,
    keys: Keys,
    filter: Filter,
    synced: bool,
    progress: bool,
    fragment: bool,
    /// Told nothing since the last time that progress was due.
    quiet: bool,
}

/// The watches of one server. `W` wakes whoever serves a stream.
///
/// # Invariants
/// - `index` holds exactly the synced watches, `behind` of each stream exactly its others.
/// - A synced watch has been told, or has in its stream's queue, all that it wants through `dispatched`; one that is behind, all before
///   its next revision, which is at most `dispatched`: no change is skipped, none is told twice.
/// - Byte counts are the sums over the queues, and within the limits.
#[derive(Debug)]
pub struct KvWatches<W> {
    limits: KvWatchLimits,
    /// Synced watches were told everything through this revision.
    dispatched: u64,
    streams: BTreeMap<KvStreamId, Stream<W>>,
    watches: BTreeMap<WatchKey, Watch>,
    index: Index,
    /// Streams that asked for progress and were not answered yet.
    asking: BTreeSet<KvStreamId>,
    behind: usize,
    queued_events: usize,
    queued_bytes: usize,
    ids_given: u64,
}

/// What is for a stream now.
#[derive(Debug, Default)]
pub struct KvTaken {
    /// What it is told.
    pub notices: Vec<KvNotice>,
    /// To be done after that was sent, if some watches are behind: scan with the newest version, then [`KvWatches::settle`].
    pub catch_up: Option<KvCatchUp>,
}

impl<W: Clone> KvWatches<W> {
    /// No watches yet; the newest version is at `revision`.
    #[must_use]
    pub fn new(revision: u64, limits: KvWatchLimits) -> Self {
        assert!(
            limits.piece_changes_max > 0 && limits.piece_watches_max > 0,
            "a piece of work does something"
        );
        Self {
            limits,
            dispatched: revision,
            streams: BTreeMap::new(),
            watches: BTreeMap::new(),
            index: Index::default(),
            asking: BTreeSet::new(),
            behind: 0,
            queued_events: 0,
            queued_bytes: 0,
            ids_given: 0,
        }
    }

    fn draw_id(&mut self) -> u64 {
        self.ids_given += 1;
        self.ids_given
    }

    /// Opens a stream. Whoever serves it calls [`take`](Self::take) once now, and whenever it is woken.
    pub fn open(&mut self, waker: W) -> KvStreamId {
        let id = KvStreamId(self.draw_id());
        self.streams.insert(id, Stream::new(waker));
        id
    }

    /// Closes a stream, with its watches.
    pub fn close(&mut self, id: KvStreamId) {
        let stream = self.streams.remove(&id).expect("a stream is closed once");
        self.queued_bytes -= stream.queued_bytes;
        self.queued_events -= stream.queued_events;
        self.behind -= stream.behind.len();
        self.asking.remove(&id);
        for key in stream.watches.into_values() {
            let watch = self.watches.remove(&key).expect("its stream names it");
            if watch.synced {
                self.index.remove(&watch.keys, key);
            }
        }
    }

    fn stream(&mut self, id: KvStreamId) -> &mut Stream<W> {
        self.streams
            .get_mut(&id)
            .expect("only an open stream is used")
    }

    /// Creates a watch, or refuses it. `newest` is the revision of the newest published version.
    pub fn create(&mut self, stream: KvStreamId, spec: &KvWatchSpec, newest: u64) {
        let Some(keys) = keys_of(&spec.range) else {
            return self.refuse(stream, KvWatchRefusal::EmptyRange, newest);
        };
        let dispatched = self.dispatched;
        let key = WatchKey(self.draw_id());
        let into = self.stream(stream);
        let Some(id) = into.choose_id(spec.id) else {
            return self.refuse(stream, KvWatchRefusal::DuplicateId, newest);
        };
        let next_revision = match u64::try_from(spec.start_revision) {
            Ok(0) => newest + 1,
            Ok(start) => start,
            Err(_) => 1,
        };
        let synced = next_revision > dispatched;
        into.watches.insert(id, key);
        if synced {
            self.index.insert(&keys, key);
        } else {
            into.behind.insert(key);
            self.behind += 1;
        }
        let watch = Watch {
            stream,
            id,
            keys,
            filter: Filter {
                next_revision,
                prev_kv: spec.prev_kv,
                no_put: spec.no_put,
                no_delete: spec.no_delete,
            },
            synced,
            progress: spec.progress,
            fragment: spec.fragment,
            quiet: true,
        };
        self.watches.insert(key, watch);
        self.stream(stream).answer(KvNotice::Created {
            id,
            revision: newest,
        });
    }

    /// Tells a stream that a watch was not created.
    pub fn refuse(&mut self, stream: KvStreamId, why: KvWatchRefusal, newest: u64) {
        self.stream(stream).answer(KvNotice::Refused {
            why,
            revision: newest,
        });
    }

    /// Cancels a watch; one that is not there is no error, and not answered.
    pub fn cancel(&mut self, stream: KvStreamId, id: i64, newest: u64) {
        let Some(key) = self.stream(stream).watches.get(&id).copied() else {
            return;
        };
        self.remove(key);
        self.stream(stream).answer(KvNotice::Canceled {
            id,
            revision: newest,
        });
        self.answer_progress(stream);
    }

    fn remove(&mut self, key: WatchKey) {
        let watch = self.watches.remove(&key).expect("its stream names it");
        let stream = self.stream(watch.stream);
        stream.watches.remove(&watch.id);
        if watch.synced {
            self.index.remove(&watch.keys, key);
        } else {
            stream.behind.remove(&key);
            self.behind -= 1;
        }
    }

    /// Tells a stream how far it is, once none of its watches is behind and all of `newest` was dispatched.
    pub fn ask_progress(&mut self, stream: KvStreamId, newest: u64) {
        self.stream(stream).asked = Some(newest);
        self.asking.insert(stream);
        self.answer_progress(stream);
    }

    fn answer_progress(&mut self, id: KvStreamId) -> bool {
        let revision = self.dispatched;
        let stream = self.stream(id);
        let due = stream.asked.is_some_and(|asked| asked <= revision) && stream.behind.is_empty();
        if due {
            stream.asked = None;
            stream.answer(KvNotice::Progress {
                id: NO_WATCH_ID,
                revision,
            });
            self.asking.remove(&id);
        }
        due
    }

    /// The stream's periodic progress is due: those that asked for it, are synced and were told nothing since the last time, are told.
    pub fn tick_progress(&mut self, id: KvStreamId) {
        let revision = self.dispatched;
        let stream = self
            .streams
            .get_mut(&id)
            .expect("only an open stream is used");
        for key in stream.watches.values() {
            let watch = self.watches.get_mut(key).expect("its stream names it");
            if watch.progress && watch.synced && watch.quiet {
                let id = watch.id;
                stream.queue.push_back(KvNotice::Progress { id, revision });
            }
            watch.quiet = true;
        }
    }

    /// Whether a stream's client should be read from: answers to what it asked do not pile up.
    #[must_use]
    pub fn has_room(&self, stream: KvStreamId) -> bool {
        self.streams
            .get(&stream)
            .is_none_or(|stream| stream.answers < stream::ANSWERS_MAX)
    }

    /// Tells synced watches of what a newer version brings, one bounded piece of it. `woken` gets who has something to do now.
    /// True: there is more; call it again, with that version or a newer one.
    pub fn dispatch(&mut self, log: &impl KvLog, woken: &mut Vec<W>) -> bool {
        let newest = log.revision();
        if newest <= self.dispatched {
            return false;
        }
        if self.dispatched + 1 < log.compacted() {
            self.leap(log.compacted(), woken);
        }
        let watches = &self.watches;
        let Piece {
            found,
            through,
            more,
        } = Piece::read(
            log,
            self.dispatched + 1,
            self.limits,
            &self.index,
            |watch| &watches[&watch].filter,
        );
        for (key, events) in found {
            self.deliver(key, events, woken);
        }
        self.dispatched = through;
        for id in Vec::from_iter(self.asking.iter().copied()) {
            if self.answer_progress(id) {
                self.wake(id, woken);
            }
        }
        more
    }

    /// Some of what was to be dispatched was compacted meanwhile (a snapshot was installed): who needs it finds out by catching up.
    fn leap(&mut self, compacted: u64, woken: &mut Vec<W>) {
        let from = self.dispatched + 1;
        let lost: Vec<_> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.synced && watch.filter.next_revision < compacted)
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            self.fall_behind(key, from, woken);
        }
        self.dispatched = compacted - 1;
    }

    /// Queues events, or lets the watch fall behind.
    fn deliver(&mut self, key: WatchKey, events: Vec<KvEvent>, woken: &mut Vec<W>) {
        let first = events[0].change.mod_revision();
        let last = events[events.len() - 1].change.mod_revision();
        let bytes: usize = events.iter().map(KvEvent::size_bytes).sum();
        let watch = self.watches.get_mut(&key).expect("the index names it");
        let id = watch.stream;
        let stream = self.streams.get_mut(&id).expect("a watch has its stream");
        let full = stream.queued_bytes + bytes > self.limits.stream_bytes_max
            || self.queued_bytes + bytes > self.limits.total_bytes_max;
        if full {
            return self.fall_behind(key, first, woken);
        }
        watch.quiet = false;
        stream.queued_bytes += bytes;
        self.queued_bytes += bytes;
        stream.queued_events += events.len();
        self.queued_events += events.len();
        stream.queue.push_back(KvNotice::Events {
            id: watch.id,
            events,
            revision: last,
            fragment: watch.fragment,
        });
        self.wake(id, woken);
    }

    fn fall_behind(&mut self, key: WatchKey, next_revision: u64, woken: &mut Vec<W>) {
        let watch = self.watches.get_mut(&key).expect("the caller found it");
        assert!(watch.synced, "a watch falls behind once");
        watch.synced = false;
        watch.filter.next_revision = watch.filter.next_revision.max(next_revision);
        self.index.remove(&watch.keys, key);
        self.behind += 1;
        let id = watch.stream;
        self.stream(id).behind.insert(key);
        self.wake(id, woken);
    }

    fn wake(&mut self, id: KvStreamId, woken: &mut Vec<W>) {
        let stream = self.stream(id);
        if !std::mem::replace(&mut stream.awake, true) {
            woken.push(stream.waker.clone());
        }
    }

    /// What waits for a stream. Everything is to be sent before the catch-up it comes with is settled and sent, and all of that before
    /// the next call.
    pub fn take(&mut self, id: KvStreamId) -> KvTaken {
        let limits = self.limits;
        let stream = self
            .streams
            .get_mut(&id)
            .expect("only an open stream is used");
        stream.awake = false;
        let notices = Vec::from(std::mem::take(&mut stream.queue));
        self.queued_bytes -= std::mem::take(&mut stream.queued_bytes);
        self.queued_events -= std::mem::take(&mut stream.queued_events);
        stream.answers = 0;
        let watches: Vec<_> = stream
            .next_behind(limits.piece_watches_max)
            .into_iter()
            .map(|key| {
                let watch = &self.watches[&key];
                (key, watch.keys.clone(), watch.filter.clone())
            })
            .collect();
        KvTaken {
            notices,
            catch_up: (!watches.is_empty()).then(|| KvCatchUp::new(id, limits, watches)),
        }
    }

    /// Notes what a catch-up reached, and says what to send. Who is not behind any more is dispatched to from here on.
    pub fn settle(&mut self, caught: KvCaught) -> Vec<KvNotice> {
        let KvCaught {
            stream,
            through,
            compacted,
            found,
        } = caught;
        let mut notices = Vec::new();
        for (key, events) in found {
            // Cancelled meanwhile: the answer to that is in the queue.
            let Some(watch) = self.watches.get_mut(&key) else {
                continue;
            };
            let id = watch.id;
            if watch.filter.next_revision < compacted {
                self.remove(key);
                notices.push(KvNotice::Compacted { id, compacted });
                continue;
            }
            if !events.is_empty() {
                watch.quiet = false;
                notices.push(KvNotice::Events {
                    id,
                    events,
                    revision: through,
                    fragment: watch.fragment,
                });
            }
            watch.filter.next_revision = watch.filter.next_revision.max(through + 1);
            if watch.filter.next_revision > self.dispatched {
                watch.synced = true;
                self.index.insert(&watch.keys, key);
                self.behind -= 1;
                self.stream(stream).behind.remove(&key);
            }
        }
        self.answer_progress(stream);
        notices
    }

    /// The revision through which synced watches were told.
    #[must_use]
    pub fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self) -> KvWatchStats {
        KvWatchStats {
            streams: self.streams.len(),
            watches: self.watches.len(),
            behind: self.behind,
            queued_events: self.queued_events,
            queued_bytes: self.queued_bytes,
        }
    }

    /// Asserts what must hold between changes.
    ///
    /// # Panics
    /// When an invariant is broken: our own bug.
    pub fn check_invariants(&self) {
        let (mut behind, mut bytes, mut events) = (0, 0, 0);
        for stream in self.streams.values() {
            behind += stream.behind.len();
            bytes += stream.queued_bytes;
            events += stream.queued_events;
            assert_eq!(
                stream.measure(),
                (stream.queued_bytes, stream.queued_events)
            );
            assert!(stream.queued_bytes <= self.limits.stream_bytes_max);
        }
        assert_eq!(
            (behind, bytes, events),
            (self.behind, self.queued_bytes, self.queued_events)
        );
        assert!(bytes <= self.limits.total_bytes_max);
        for (key, watch) in &self.watches {
            let stream = &self.streams[&watch.stream];
            assert_eq!(stream.watches.get(&watch.id), Some(key));
            assert_eq!(stream.behind.contains(key), !watch.synced);
            let next = watch.filter.next_revision;
            assert!(
                watch.synced || next <= self.dispatched + 1,
                "a watch behind is at {next}"
            );
        }
        let named: usize = self.streams.values().map(|s| s.watches.len()).sum();
        assert_eq!(named, self.watches.len());
    }
}

/// The keys of a range, unless it holds none.
fn keys_of(range: &KeyRange) -> Option<Keys> {
    let smallest = [0_u8].as_slice();
    let start = if range.key.is_empty() {
        Blob::from(smallest)
    } else {
        range.key.clone()
    };
    match range.range_end.as_bytes() {
        [] => Some(Keys::One(start)),
        [0] => Some(Keys::From(start, End::Unbounded)),
        end if start.as_bytes() < end => {
            Some(Keys::From(start, End::Before(range.range_end.clone())))
        }
        _ => None,
    }
}
