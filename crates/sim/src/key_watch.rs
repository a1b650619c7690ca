//! Watchers of keys: clients with two watches on one stream, at their own pace, that go on at another server where they left off.
//!
//! Runs the replicas' watches ([`KvWatches`]), with bounds so small that streams fall behind; when what is dispatched, taken and caught up
//! is drawn, as the server's tasks may run at any time.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_coord::kv::KeyRange;
use quorate_replica::{
    KvCatchUp, KvNotice, KvStreamId, KvWatchLimits, KvWatchSpec, KvWatches, NO_WATCH_ID,
};

use crate::checkers::key_watches_unbroken::PREVIOUS;
use crate::plant::Plant;
use crate::world::{Event, World};

/// How many watchers of keys there are.
pub(crate) const KEY_WATCHERS: usize = 2;
/// The watch of all keys.
const ALL: i64 = 1;

/// A server's watches.
pub(crate) type Watches = KvWatches<()>;

/// Small bounds.
pub(crate) fn watches(revision: u64, random: &mut fastrand::Rng) -> Watches {
    let limits = KvWatchLimits {
        stream_bytes_max: random.usize(200..6_000),
        total_bytes_max: random.usize(200..12_000),
        piece_changes_max: random.usize(1..24),
        piece_bytes_max: random.usize(100..4_000),
        piece_watches_max: random.usize(1..4),
    };
    KvWatches::new(revision, limits)
}

/// One watcher of keys.
#[derive(Debug, Default)]
pub(crate) struct KeyWatcher {
    /// The server that its stream is at, and which life of it.
    stream: Option<(usize, u32, KvStreamId)>,
    /// To be done next.
    catch_up: Option<KvCatchUp>,
    /// The watches that it knows to be there: what is said of all of a stream is said of these.
    created: BTreeSet<i64>,
}

fn range(watcher: usize, id: i64) -> KeyRange {
    let (key, range_end) = match (id, watcher) {
        (ALL, _) => ("\0", "\u{7f}"),
        (_, 0) => ("l", "m"),
        (_, _) => ("/quorate/", "/quorate0"),
    };
    KeyRange {
        key: key.into(),
        range_end: range_end.into(),
    }
}

impl World {
    /// A server's watches are told of the newest version, now or later.
    pub(crate) fn dispatch_keys(&mut self, server: usize, always: bool) {
        if !always && self.random.bool() {
            return;
        }
        let Some(running) = self.running(server) else {
            return;
        };
        let mut woken = Vec::new();
        let state = running.replica.state();
        while running.key_watches.dispatch(state.kv(), &mut woken) {}
        running.key_watches.check_invariants();
    }

    /// A watcher of keys looks.
    pub(crate) fn on_key_watch(&mut self, watcher: usize) {
        let calm = self.is_calm();
        match self.key_watchers[watcher].stream {
            None => self.start_key_watch(watcher),
            Some(stream) => self.follow_key_watch(watcher, stream),
        }
        let wait = match self.random.u8(..24) {
            // Busy with something else: it falls behind.
            0 if !calm => self.random.u64(300..4_000),
            _ => self.random.u64(10..250),
        };
        let at = self.now + Duration::from_millis(wait);
        self.at(at, Event::KeyWatch { watcher });
    }

    fn start_key_watch(&mut self, watcher: usize) {
        let server = self.random.usize(..self.servers.len());
        let boot = self.servers[server].boot;
        if self.servers[server].paused.is_some() {
            return;
        }
        let Some(running) = self.running(server) else {
            return;
        };
        let stream = running.key_watches.open(());
        self.key_watchers[watcher] = KeyWatcher {
            stream: Some((server, boot, stream)),
            ..KeyWatcher::default()
        };
        for id in [ALL, PREVIOUS] {
            self.create_key_watch(watcher, server, stream, id);
        }
    }

    /// Creates a watch where the last one of that id ended; the first one starts with what comes next.
    fn create_key_watch(&mut self, watcher: usize, server: usize, stream: KvStreamId, id: i64) {
        let forgets = self.is_planted(Plant::KeyWatchForgetsRevision);
        let range = range(watcher, id);
        let known = self.checkers.key_watches.next((watcher, id));
        let running = self.running(server).expect("its stream is there");
        let newest = running.replica.state().kv().revision();
        let next = match known {
            Some(next) => next,
            None => {
                let watches = &mut self.checkers.key_watches;
                watches.on_begun((watcher, id), range.clone(), newest + 1);
                newest + 1
            }
        };
        let start = if forgets { 0 } else { next };
        let spec = KvWatchSpec {
            id,
            range,
            start_revision: i64::try_from(start).expect("a short run"),
            prev_kv: id == PREVIOUS,
            progress: id == ALL,
            ..KvWatchSpec::default()
        };
        let running = self.running(server).expect("its stream is there");
        running.key_watches.create(stream, &spec, newest);
    }

    fn follow_key_watch(
        &mut self,
        watcher: usize,
        (server, boot, stream): (usize, u32, KvStreamId),
    ) {
        let calm = self.is_calm();
        let breaks = !calm && self.random.u8(..50) == 0;
        let dice = self.random.u8(..32);
        let this = &self.servers[server];
        if this.paused.is_some() {
            return;
        }
        if this.boot != boot || this.running.is_none() {
            self.key_watchers[watcher] = KeyWatcher::default();
            return;
        }
        self.dispatch_keys(server, calm);
        let catch_up = self.key_watchers[watcher].catch_up.take();
        let running = self.running(server).expect("it was looked at just above");
        let state = running.replica.state();
        let watches = &mut running.key_watches;
        if breaks {
            // What was taken arrived before.
            watches.close(stream);
            self.key_watchers[watcher] = KeyWatcher::default();
            return;
        }
        let notices = match catch_up {
            Some(catch_up) => watches.settle(catch_up.scan(state.kv())),
            None => {
                let newest = state.kv().revision();
                match dice {
                    0 | 1 => watches.ask_progress(stream, newest),
                    2 | 3 => watches.tick_progress(stream),
                    4 => watches.cancel(stream, PREVIOUS, newest),
                    _ => {}
                }
                let taken = watches.take(stream);
                self.key_watchers[watcher].catch_up = taken.catch_up;
                taken.notices
            }
        };
        for notice in notices {
            self.on_key_notice(watcher, server, stream, notice);
        }
    }

    fn on_key_notice(
        &mut self,
        watcher: usize,
        server: usize,
        stream: KvStreamId,
        notice: KvNotice,
    ) {
        let now = self.now;
        self.trace
            .note(now, 31, [watcher as u64, server as u64, 0], || {
                format!(
                    "key watcher {watcher} hears from s{}: {notice:?}",
                    server + 1
                )
            });
        let (watches, space) = (&mut self.checkers.key_watches, &self.checkers.key_space);
        let verdict = match notice {
            KvNotice::Created { id, .. } => {
                self.key_watchers[watcher].created.insert(id);
                Ok(())
            }
            KvNotice::Refused { why, .. } => panic!("a watch was refused: {why:?}"),
            KvNotice::Canceled { id, .. } => {
                self.key_watchers[watcher].created.remove(&id);
                self.create_key_watch(watcher, server, stream, id);
                return;
            }
            KvNotice::Compacted { id, compacted } => {
                let verdict = watches.on_compacted((watcher, id), compacted, space);
                self.judge(verdict);
                self.key_watchers[watcher].created.remove(&id);
                self.create_key_watch(watcher, server, stream, id);
                return;
            }
            KvNotice::Events {
                id,
                events,
                revision,
                ..
            } => watches.on_events((watcher, id), &events, revision, space),
            KvNotice::Progress {
                id: NO_WATCH_ID,
                revision,
            } => self.key_watchers[watcher]
                .created
                .iter()
                .try_for_each(|id| watches.on_progress((watcher, *id), revision, space)),
            KvNotice::Progress { id, revision } => {
                watches.on_progress((watcher, id), revision, space)
            }
        };
        self.judge(verdict);
    }
}
