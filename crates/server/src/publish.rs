//! Published versions of the state, and the ring of what led from one to the next.
//!
//! Owns: what reads and streams see. They never block apply: a reader holds a version, a stream a place in the ring, and who falls
//! out of the ring starts over from a version (ADR published-versions). The ring itself is the replica crate's [`Feed`], so that
//! the simulator runs it too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arc_swap::ArcSwap;
use quorate_coord::{Directive, Event, GroupKey, SessionKey, State};
use quorate_replica::{AppliedEntry, Feed, FeedLimits, Next, Place, Published};
use quorate_types::{LogIndex, Revision};
use quorate_wire::api::GroupState;
use tokio::sync::watch;

use crate::api::deltas::{self, Delta};

/// What is kept for streams that are a little behind.
const RING: FeedLimits = FeedLimits {
    events_max: 262_144,
    batches_max: 16_384,
};

/// One version: immutable.
pub(crate) struct Version {
    pub(crate) state: State,
    pub(crate) applied: LogIndex,
}

/// What led from one version to the next.
pub(crate) struct Batch {
    pub(crate) applied: Vec<AppliedEntry>,
    /// The directives in it by session, so that a stream finds its own without reading all.
    pub(crate) directives: HashMap<SessionKey, Vec<Directive>>,
    /// Sessions that ended in it.
    pub(crate) ended: HashMap<SessionKey, quorate_coord::Cause>,
    events: usize,
    /// What groups deleted in it were before it.
    deleted: HashMap<GroupKey, GroupState>,
    deltas: OnceLock<Vec<Delta>>,
}

/// Publishes versions.
///
/// # Invariants
/// - A version and the ring change together under the ring's lock, so that a stream that takes both misses nothing.
pub(crate) struct Publisher {
    version: ArcSwap<Version>,
    ring: Mutex<Feed<Arc<Batch>>>,
    applied: watch::Sender<(LogIndex, Revision)>,
}

impl Publisher {
    pub(crate) fn new(state: State) -> Self {
        let applied = state.applied().0;
        let revision = state.revision();
        Self {
            version: ArcSwap::from_pointee(Version { state, applied }),
            ring: Mutex::new(Feed::new(RING)),
            applied: watch::Sender::new((applied, revision)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Feed<Arc<Batch>>> {
        self.ring.lock().expect("no holder of this lock panics")
    }

    /// The newest version.
    pub(crate) fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// The newest version, and the place right after it.
    pub(crate) fn subscribe(&self) -> (Arc<Version>, Place) {
        let ring = self.lock();
        (self.version.load_full(), ring.end())
    }

    /// What is at a place.
    pub(crate) fn at(&self, place: Place) -> Next<Arc<Batch>> {
        self.lock().at(place)
    }

    /// Waits until a place is no longer pending. `changes` comes from [`changes`](Self::changes).
    pub(crate) async fn next(
        &self,
        place: &mut Place,
        changes: &mut watch::Receiver<(LogIndex, Revision)>,
    ) -> Option<Arc<Batch>> {
        loop {
            // Seen before looking, so that what is published in between wakes the wait.
            changes.borrow_and_update();
            match self.at(*place) {
                Next::Batch(batch) => {
                    *place = place.next();
                    return Some(batch);
                }
                Next::Lagged => return None,
                Next::Pending => changes.changed().await.expect("self holds the sender"),
            }
        }
    }

    /// Tells of every new version.
    pub(crate) fn changes(&self) -> watch::Receiver<(LogIndex, Revision)> {
        self.applied.subscribe()
    }

    /// Waits for a version that holds `index` and is at or after `revision`.
    pub(crate) async fn reached(&self, index: LogIndex, revision: Revision) -> Arc<Version> {
        let mut changes = self.changes();
        let reached = changes
            .wait_for(|(applied, at)| *applied >= index && *at >= revision)
            .await;
        drop(reached.expect("self holds the sender"));
        self.version()
    }

    /// Publishes a version. Called by the step thread only.
    pub(crate) fn publish(&self, published: Published) {
        let applied = published.state.applied().0;
        let revision = published.state.revision();
        let batch = (!published.reset)
            .then(|| Arc::new(Batch::new(published.applied, &self.version.load().state)));
        {
            let mut ring = self.lock();
            self.version.store(Arc::new(Version {
                state: published.state,
                applied,
            }));
            match batch {
                Some(batch) => {
                    let events = batch.events;
                    ring.push(batch, events);
                }
                // What led here is not known: every place before becomes `Lagged`.
                None => ring.reset(),
            }
        }
        self.applied.send_replace((applied, revision));
    }
}

impl Batch {
    /// What watchers are told of it.
    pub(crate) fn deltas(&self) -> &[Delta] {
        self.deltas
            .get_or_init(|| deltas::of(&self.applied, self.deleted.clone()))
    }

    /// The revision after it.
    pub(crate) fn revision(&self) -> Revision {
        self.applied
            .last()
            .map_or(Revision::ZERO, |entry| entry.revision)
    }

    fn new(applied: Vec<AppliedEntry>, before: &State) -> Self {
        let deleted = deltas::before_deletion(&applied, before);
        let mut directives: HashMap<SessionKey, Vec<Directive>> = HashMap::new();
        let mut ended = HashMap::new();
        let mut events = 0;
        for event in applied.iter().flat_map(|entry| &entry.events) {
            events += 1;
            match event {
                Event::Directive { session, directive } => {
                    directives
                        .entry(*session)
                        .or_default()
                        .push(directive.clone());
                }
                Event::SessionEnded { session, cause } => {
                    ended.insert(*session, *cause);
                }
                _ => {}
            }
        }
        Self {
            applied,
            directives,
            ended,
            events,
            deleted,
            deltas: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{ClusterTime, Term, TraceId};

    use super::*;

    fn applied(index: u64, events: Vec<Event>) -> Published {
        let mut state = State::new();
        state.note_applied(LogIndex(index), Term(1));
        let entry = AppliedEntry {
            index: LogIndex(index),
            term: Term(1),
            revision: Revision(index),
            cluster_time: ClusterTime::ZERO,
            trace: TraceId(0),
            events,
        };
        Published {
            state,
            applied: vec![entry],
            reset: false,
        }
    }

    #[test]
    fn a_place_taken_with_a_version_misses_nothing_and_repeats_nothing() {
        let publisher = Publisher::new(State::new());
        publisher.publish(applied(1, Vec::new()));
        let (version, place) = publisher.subscribe();
        assert_eq!(version.applied, LogIndex(1));
        assert!(matches!(publisher.at(place), Next::Pending));
        publisher.publish(applied(2, Vec::new()));
        let Next::Batch(batch) = publisher.at(place) else {
            panic!("the batch is not there")
        };
        assert_eq!(batch.applied[0].index, LogIndex(2));
    }

    #[test]
    fn who_falls_out_of_the_ring_is_told_and_so_is_everybody_after_a_reset() {
        let publisher = Publisher::new(State::new());
        let (_, place) = publisher.subscribe();
        let session = SessionKey {
            id: quorate_types::SessionId(1),
            created: Revision(1),
        };
        let many = vec![Event::SessionRevoked { session }; RING.events_max / 2 + 1];
        publisher.publish(applied(1, many.clone()));
        assert!(matches!(publisher.at(place), Next::Batch(_)));
        publisher.publish(applied(2, many));
        assert!(matches!(publisher.at(place), Next::Lagged));
        let (_, end) = publisher.subscribe();
        publisher.publish(Published {
            reset: true,
            ..applied(9, Vec::new())
        });
        assert!(matches!(publisher.at(end), Next::Lagged));
        let (version, fresh) = publisher.subscribe();
        assert_eq!(version.applied, LogIndex(9));
        assert!(matches!(publisher.at(fresh), Next::Pending));
    }

    #[tokio::test]
    async fn waiting_for_a_version_ends_when_it_is_published() {
        let publisher = Arc::new(Publisher::new(State::new()));
        let waiting = {
            let publisher = Arc::clone(&publisher);
            tokio::spawn(
                async move { publisher.reached(LogIndex(3), Revision::ZERO).await.applied },
            )
        };
        for index in 1..=3 {
            publisher.publish(applied(index, Vec::new()));
        }
        assert_eq!(waiting.await.unwrap(), LogIndex(3));
    }
}
