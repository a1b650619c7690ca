//! Watches of keys have no gap, no repetition and the key space's order, over reconnects, slow streams and compactions (guarantee 2);
//! who can no longer be told everything is told that, and only then (ADR change-log-is-the-ring).

use std::collections::BTreeMap;

use quorate_coord::kv::{KeyRange, KeyValue, KvChange};
use quorate_replica::KvEvent;

use super::key_space_follows_rules::{KeySpace, holds};
use super::{Verdict, Violation};

/// One watch, over all streams that it was on: a watcher's number and its own.
pub type WatchId = (usize, i64);

#[derive(Clone, Debug)]
struct Watching {
    range: KeyRange,
    /// The first revision that it has not been told.
    next: u64,
}

/// All watches of keys.
#[derive(Debug, Default)]
pub struct KeyWatches {
    watches: BTreeMap<WatchId, Watching>,
    /// How many changes were looked at.
    pub checked: u64,
    /// How often somebody was told that history is gone.
    pub compacted: u64,
    /// How often somebody was told how far it is, and nothing else.
    pub progress: u64,
}

impl KeyWatches {
    /// A watch begins; it is to be told of everything from revision `next` on.
    pub fn on_begun(&mut self, id: WatchId, range: KeyRange, next: u64) {
        self.watches.insert(id, Watching { range, next });
    }

    /// The first revision that a watch has not been told.
    #[must_use]
    pub fn next(&self, id: WatchId) -> Option<u64> {
        self.watches.get(&id).map(|watching| watching.next)
    }

    fn expected<'a>(
        &self,
        id: WatchId,
        through: u64,
        space: &'a KeySpace,
    ) -> Result<Vec<&'a KvChange>, Violation> {
        let Watching { range, next } = &self.watches[&id];
        if through > space.revision() {
            return Err(violation(format!(
                "watch {id:?} was told of revision {through}; {} is the newest committed",
                space.revision()
            )));
        }
        let told = space.changes(*next, through).iter();
        Ok(told
            .filter(|change| {
                let (KvChange::Put(KeyValue { key, .. }) | KvChange::Delete { key, .. }) = change;
                holds(range, key)
            })
            .collect())
    }

    /// A watch is told of changes, and that these are all through a revision.
    ///
    /// # Errors
    /// They are not exactly those of the key space.
    pub fn on_events(
        &mut self,
        id: WatchId,
        events: &[KvEvent],
        through: u64,
        space: &KeySpace,
    ) -> Verdict {
        let expected = self.expected(id, through, space)?;
        self.checked += events.len() as u64;
        let differs = (0..expected.len().max(events.len()))
            .find(|at| expected.get(*at).copied() != events.get(*at).map(|event| &event.change));
        if let Some(at) = differs {
            return Err(violation(format!(
                "watch {id:?}, to be told from revision {} on, was told {} changes through {through}, not {}; the {at}th is {:?}, not {:?}",
                self.watches[&id].next,
                events.len(),
                expected.len(),
                events.get(at).map(|event| &event.change),
                expected.get(at)
            )));
        }
        for event in events {
            check_previous(id, event, space)?;
        }
        self.told(id, through);
        Ok(())
    }

    fn told(&mut self, id: WatchId, through: u64) {
        let watching = self.watches.get_mut(&id).expect("it has begun");
        watching.next = watching.next.max(through + 1);
    }

    /// A watch is told that there was nothing more for it through a revision.
    ///
    /// # Errors
    /// There was.
    pub fn on_progress(&mut self, id: WatchId, through: u64, space: &KeySpace) -> Verdict {
        self.progress += 1;
        let missed = self.expected(id, through, space)?;
        if let Some(first) = missed.first() {
            return Err(violation(format!(
                "watch {id:?} is said to be at revision {through}, and was not told of {first:?}"
            )));
        }
        self.told(id, through);
        Ok(())
    }

    /// A watch is told that what it was to be told next is compacted. It begins anew from there.
    ///
    /// # Errors
    /// It is not.
    pub fn on_compacted(&mut self, id: WatchId, compacted: u64, space: &KeySpace) -> Verdict {
        self.compacted += 1;
        let watching = self.watches.get_mut(&id).expect("it has begun");
        if watching.next >= compacted || compacted > space.compacted() {
            return Err(violation(format!(
                "watch {id:?}, to be told from revision {} on, was cancelled for a compaction at {compacted}; the newest is at {}",
                watching.next,
                space.compacted()
            )));
        }
        watching.next = compacted;
        Ok(())
    }
}

/// What was there before a change is what the key space held; only a compaction excuses that it is missing.
fn check_previous(id: WatchId, event: &KvEvent, space: &KeySpace) -> Verdict {
    let (KvChange::Put(KeyValue { key, .. }) | KvChange::Delete { key, .. }) = &event.change;
    let revision = event.change.mod_revision();
    let held = match space.before(key, revision) {
        Some(KvChange::Put(kv)) => Some(kv),
        Some(KvChange::Delete { .. }) | None => None,
    };
    let is_right = match (&event.prev, held) {
        (None, None) => true,
        (None, Some(_)) => id.1 != PREVIOUS || revision <= space.compacted(),
        (Some(told), held) => Some(told) == held,
    };
    if is_right {
        return Ok(());
    }
    Err(violation(format!(
        "watch {id:?} was told that {:?} came before {:?}; it was {held:?}",
        event.prev, event.change
    )))
}

/// The watch of each watcher that asks for what was there before.
pub const PREVIOUS: i64 = 2;

fn violation(what: String) -> Violation {
    Violation {
        checker: "key_watches_unbroken",
        guarantee: "2: every answer carries the revision it saw; watches have no gap, no repetition, and the log's order",
        what,
    }
}
