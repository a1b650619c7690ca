//! Watchers: clients that follow all groups over one server's stream at a time, at their own pace.
//!
//! Runs the replicas' ring and its rule of who goes on and who starts over ([`Feed`](quorate_replica::Feed)); what surrounds it (taking a
//! version together with a place, asking a new server for at least what was seen) is done as the server and the SDK do it.

use std::sync::Arc;
use std::time::Duration;

use quorate_replica::{AppliedEntry, Feed, FeedLimits, Next, Place};
use quorate_types::{LogIndex, Revision};

use crate::checkers::watch_streams_unbroken::{Picture, Seen, deltas_of};
use crate::plant::Plant;
use crate::world::{Event, World};

/// A server's ring.
pub(crate) type Ring = Feed<Arc<Vec<AppliedEntry>>>;

/// How many watchers there are.
pub(crate) const WATCHERS: usize = 2;
/// Most batches that a watcher takes at once.
const TAKE_MAX: usize = 16;

/// A small ring, so that slow watchers fall out of it.
pub(crate) fn ring(random: &mut fastrand::Rng) -> Ring {
    Feed::new(FeedLimits {
        events_max: random.usize(10..400),
        batches_max: random.usize(4..64),
    })
}

/// One watcher.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    /// The server that its stream is at, which life of it, and where in its ring.
    stream: Option<(usize, u32, Place)>,
}

impl World {
    /// A watcher looks.
    pub(crate) fn on_watch(&mut self, watcher: usize) {
        let calm = self.is_calm();
        match self.watchers[watcher].stream {
            None => self.start_watch(watcher),
            Some(_) if !calm && self.random.u8(..50) == 0 => {
                // The connection broke; what was taken out of the ring arrived before.
                self.watchers[watcher].stream = None;
            }
            Some((server, boot, place)) => self.follow_watch(watcher, server, boot, place),
        }
        let wait = match self.random.u8(..24) {
            // Busy with something else: it falls behind.
            0 if !calm => self.random.u64(300..4_000),
            _ => self.random.u64(10..250),
        };
        let at = self.now + Duration::from_millis(wait);
        self.at(at, Event::Watch { watcher });
    }

    fn start_watch(&mut self, watcher: usize) {
        let server = self.random.usize(..self.servers.len());
        let boot = self.servers[server].boot;
        if self.servers[server].paused.is_some() {
            return;
        }
        let Some(running) = &self.servers[server].running else {
            return;
        };
        let state = running.replica.state();
        let (index, revision) = (state.applied().0, state.revision());
        let at_least = if self.is_planted(Plant::WatchForgetsRevision) {
            Revision::ZERO
        } else {
            self.checkers.watches.revision(watcher)
        };
        if revision < at_least {
            // This server is behind what was seen: it says so, and another is asked.
            return;
        }
        let picture: Picture = state
            .groups()
            .map(|group| {
                let seen = Seen {
                    group: group.key.clone(),
                    phase: group.phase,
                    tenure: group.tenure_key().map(|key| key.number),
                };
                (group.key.name.clone(), seen)
            })
            .collect();
        // Version and place belong together.
        let place = running.feed.end();
        self.watchers[watcher].stream = Some((server, boot, place));
        let log = &self.checkers.log;
        let verdict = self
            .checkers
            .watches
            .on_snapshot(watcher, index, revision, &picture, log);
        self.judge(verdict);
    }

    fn follow_watch(&mut self, watcher: usize, server: usize, boot: u32, mut place: Place) {
        let this = &self.servers[server];
        if this.paused.is_some() {
            return;
        }
        let Some(running) = this.running.as_ref().filter(|_| this.boot == boot) else {
            self.watchers[watcher].stream = None;
            return;
        };
        let mut deltas = Vec::new();
        let mut through = LogIndex::ZERO;
        let mut lagged = false;
        for _ in 0..TAKE_MAX {
            match running.feed.at(place) {
                Next::Pending => break,
                Next::Lagged => {
                    lagged = true;
                    break;
                }
                Next::Batch(batch) => {
                    place = place.next();
                    for entry in batch.iter() {
                        deltas.extend(deltas_of(entry.revision, &entry.events));
                        through = entry.index;
                    }
                }
            }
        }
        if lagged && self.is_planted(Plant::WatchSkipsLagged) {
            place = running.feed.end();
            lagged = false;
        }
        if through > LogIndex::ZERO {
            let log = &self.checkers.log;
            let verdict = self
                .checkers
                .watches
                .on_deltas(watcher, through, &deltas, log);
            self.judge(verdict);
        }
        self.watchers[watcher].stream = Some((server, boot, place));
        if lagged {
            self.checkers.watches.lagged += 1;
            self.watchers[watcher].stream = None;
            self.start_watch(watcher);
        }
    }
}
