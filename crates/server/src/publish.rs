//! Published versions of the state, and the ring of what led from one to the next.
//!
//! Owns: what reads and streams see. They never block apply: a reader holds a version, a stream a place in the ring, and who falls
//! out of the ring starts over from a version (ADR published-versions).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arc_swap::ArcSwap;
use quorate_coord::{Directive, Event, GroupKey, SessionKey, State};
use quorate_replica::{AppliedEntry, Published};
use quorate_types::{LogIndex, Revision};
use quorate_wire::api::GroupState;
use tokio::sync::watch;

use crate::api::deltas::{self, Delta};

/// Events kept for streams that are a little behind.
const RING_EVENTS_MAX: usize = 262_144;
/// Batches kept, however few events they hold.
const RING_BATCHES_MAX: usize = 16_384;

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

/// A place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// What a stream finds at its place.
pub(crate) enum Next {
    /// The batch there; its new place is the next.
    Batch(Arc<Batch>),
    /// Nothing yet.
    Pending,
    /// What was there is gone: take a new version and start over from it.
    Lagged,
}

struct Ring {
    batches: VecDeque<Arc<Batch>>,
    /// The place of the first batch.
    first: u64,
    events: usize,
}

/// Publishes versions.
///
/// # Invariants
/// - A version and the ring change together under the ring's lock, so that a stream that takes both misses nothing.
pub(crate) struct Publisher {
    version: ArcSwap<Version>,
    ring: Mutex<Ring>,
    applied: watch::Sender<(LogIndex, Revision)>,
}

impl Publisher {
    pub(crate) fn new(state: State) -> Self {
        let applied = state.applied().0;
        let revision = state.revision();
        Self {
            version: ArcSwap::from_pointee(Version { state, applied }),
            ring: Mutex::new(Ring {
                batches: VecDeque::new(),
                first: 0,
                events: 0,
            }),
            applied: watch::Sender::new((applied, revision)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no holder of this lock panics")
    }

    /// The newest version.
    pub(crate) fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// The newest version, and the place right after it.
    pub(crate) fn subscribe(&self) -> (Arc<Version>, Place) {
        let ring = self.lock();
        (
            self.version.load_full(),
            Place(ring.first + ring.batches.len() as u64),
        )
    }

    /// What is at a place.
    pub(crate) fn at(&self, place: Place) -> Next {
        let ring = self.lock();
        if place.0 < ring.first {
            return Next::Lagged;
        }
        let offset = usize::try_from(place.0 - ring.first).expect("the ring is short");
        ring.batches
            .get(offset)
            .map_or(Next::Pending, |batch| Next::Batch(Arc::clone(batch)))
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
                    place.0 += 1;
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
                Some(batch) => ring.push(batch),
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

impl Ring {
    fn push(&mut self, batch: Arc<Batch>) {
        self.events += batch.events;
        self.batches.push_back(batch);
        // The newest stays whatever its size: it is shared, and streams take it right away.
        while self.batches.len() > 1
            && (self.events > RING_EVENTS_MAX || self.batches.len() > RING_BATCHES_MAX)
        {
            let dropped = self.batches.pop_front().expect("more than one is kept");
            self.events -= dropped.events;
            self.first += 1;
        }
    }

    fn reset(&mut self) {
        // One place more than the batches: a stream right at the end must start over, too.
        self.first += self.batches.len() as u64 + 1;
        self.batches.clear();
        self.events = 0;
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
        let many = vec![Event::SessionRevoked { session }; RING_EVENTS_MAX / 2 + 1];
        publisher.publish(applied(1, many.clone()));
        assert!(matches!(publisher.at(place), Next::Batch(_)));
        publisher.publish(applied(2, many));
        assert!(matches!(publisher.at(place), Next::Lagged));
        let (_, end) = publisher.subscribe();
        assert!(
            matches!(publisher.at(Place(end.0 - 1)), Next::Batch(_)),
            "the newest is kept whatever its size"
        );
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
