//! Exactly-once: what recent requests came to, so that a retry has its effect once (protocol, section 7).

use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{ClusterTime, RequestId};
use serde::{Deserialize, Serialize};

use crate::command::RequestKey;
use crate::reply::{Outcome, Rejection, Reply};
use crate::state::State;

/// How long the request of a caller without a session is remembered, in milliseconds of cluster time.
pub const DEDUP_WINDOW_MS: u64 = 600_000;
/// Most such requests remembered; a reply that lists refusals counts each of them.
pub const DEDUP_ENTRIES_MAX: usize = 100_000;
/// An entry younger than this is never evicted to make room: the new request is refused instead.
pub const DEDUP_KEPT_MS_MIN: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    serial: u64,
    at: ClusterTime,
    outcome: Arc<Outcome>,
}

impl Remembered {
    fn cost(&self) -> usize {
        cost(&self.outcome)
    }
}

fn cost(outcome: &Outcome) -> usize {
    match outcome {
        Ok(Reply::Partly { refused, .. }) => 1 + refused.len(),
        _ => 1,
    }
}

/// The requests of callers without a session.
///
/// # Invariants
/// - `by_age` lists the entries by serial, which rises with time; `cost` is their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dedup {
    #[serde(deserialize_with = "crate::bounded::map")]
    entries: OrdMap<RequestId, Remembered>,
    serial_last: u64,
    #[serde(skip)]
    by_age: OrdMap<u64, RequestId>,
    #[serde(skip)]
    cost: usize,
}

impl Dedup {
    pub(crate) fn outcome(&self, id: RequestId) -> Option<&Outcome> {
        self.entries.get(&id).map(|entry| entry.outcome.as_ref())
    }

    /// The index and the sum, from the entries.
    pub(crate) fn rebuild(&mut self) {
        self.by_age = self
            .entries
            .iter()
            .map(|(id, entry)| (entry.serial, *id))
            .collect();
        self.cost = self.entries.values().map(Remembered::cost).sum();
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some((id, entry)) = self
            .entries
            .iter()
            .find(|(_, entry)| entry.serial > self.serial_last)
        {
            return Err(format!(
                "request {id} has serial {}, the last is {}",
                entry.serial, self.serial_last
            ));
        }
        if self.by_age.len() != self.entries.len() {
            return Err(format!(
                "{} requests have {} serials",
                self.entries.len(),
                self.by_age.len()
            ));
        }
        Ok(())
    }

    fn drop_oldest(&mut self) {
        let Some((serial, id)) = self.by_age.get_min().map(|(serial, id)| (*serial, *id)) else {
            return;
        };
        self.by_age.remove(&serial);
        let entry = self
            .entries
            .remove(&id)
            .expect("an entry listed by age exists");
        self.cost -= entry.cost();
    }

    fn oldest(&self) -> Option<&Remembered> {
        self.by_age
            .get_min()
            .and_then(|(_, id)| self.entries.get(id))
    }

    fn forget_old(&mut self, now: ClusterTime) {
        while self
            .oldest()
            .is_some_and(|entry| now.ms_since(entry.at) >= DEDUP_WINDOW_MS)
        {
            self.drop_oldest();
        }
    }

    /// Makes room for one more, if the rules allow it.
    fn make_room(&mut self, now: ClusterTime) -> Result<(), Rejection> {
        self.forget_old(now);
        while self.cost >= DEDUP_ENTRIES_MAX {
            if self
                .oldest()
                .is_some_and(|entry| now.ms_since(entry.at) < DEDUP_KEPT_MS_MIN)
            {
                return Err(Rejection::DedupWindowFull {
                    count: self.entries.len() as u64,
                });
            }
            self.drop_oldest();
        }
        Ok(())
    }

    fn remember(&mut self, now: ClusterTime, id: RequestId, outcome: &Outcome) {
        self.serial_last += 1;
        let entry = Remembered {
            serial: self.serial_last,
            at: now,
            outcome: Arc::new(outcome.clone()),
        };
        self.cost += entry.cost();
        self.by_age.insert(entry.serial, id);
        let before = self.entries.insert(id, entry);
        assert!(
            before.is_none(),
            "request {id} was remembered already and yet applied again"
        );
    }
}

/// What is known of a request before it is applied.
pub(crate) enum Recall {
    /// It is new.
    New,
    /// It was applied, or may not be: this is the answer.
    Answer(Outcome),
}

impl State {
    /// Whether a request was applied before.
    pub(crate) fn recall(&mut self, request: &RequestKey) -> Recall {
        match request {
            RequestKey::Internal | RequestKey::Unkeyed => Recall::New,
            RequestKey::Session { session, seq } => {
                let Some(found) = self.live(*session) else {
                    return Recall::Answer(Err(Rejection::UnknownSession {
                        session: session.id,
                    }));
                };
                if let Some(outcome) = found
                    .request_outcome
                    .as_ref()
                    .filter(|_| found.request_seq == *seq)
                {
                    return Recall::Answer((**outcome).clone());
                }
                let expected = found.request_seq.saturating_add(1);
                if *seq != expected {
                    return Recall::Answer(Err(Rejection::RequestOutOfOrder {
                        session: session.id,
                        seq: *seq,
                        expected,
                    }));
                }
                Recall::New
            }
            RequestKey::Caller(id) => {
                let now = self.cluster_time;
                self.dedup.forget_old(now);
                if let Some(outcome) = self.dedup.outcome(*id) {
                    return Recall::Answer(outcome.clone());
                }
                match self.dedup.make_room(now) {
                    Ok(()) => Recall::New,
                    Err(full) => Recall::Answer(Err(full)),
                }
            }
        }
    }

    /// Keeps what a request came to. A session that the request itself ended has nothing left to retry.
    pub(crate) fn remember(&mut self, request: &RequestKey, outcome: &Outcome) {
        match request {
            RequestKey::Internal | RequestKey::Unkeyed => {}
            RequestKey::Session { session, seq } => {
                if self.live(*session).is_some() {
                    let found = self
                        .sessions
                        .get_mut(&session.id)
                        .expect("the session was found live just above");
                    let found = Arc::make_mut(found);
                    found.request_seq = *seq;
                    found.request_outcome = Some(Arc::new(outcome.clone()));
                }
            }
            RequestKey::Caller(id) => self.dedup.remember(self.cluster_time, *id, outcome),
        }
    }
}
