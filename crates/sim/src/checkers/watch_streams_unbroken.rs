//! Watch streams have no gap, no repetition and the log's order, over reconnects and from server to server (guarantee 2); who falls
//! behind is told to start over, and nothing is skipped in silence (ADR published-versions).
//!
//! The truth is the committed log: the checker keeps, for each watcher, the picture that the log gives up to where its stream is,
//! and every piece of the stream must be exactly what the log adds to it.

use std::collections::BTreeMap;

use quorate_coord::{Event, GroupKey, Phase};
use quorate_types::{GroupName, LogIndex, Revision, TenureNumber};

use super::logs_agree::Log;
use super::{Verdict, Violation};

/// A group, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub group: GroupKey,
    /// Its phase.
    pub phase: Phase,
    /// Its tenure, if it has one.
    pub tenure: Option<TenureNumber>,
}

/// One change, as watchers are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The revision after it.
    pub revision: Revision,
    /// The group after it.
    pub seen: Seen,
    /// The group is gone.
    pub deleted: bool,
}

/// All groups at once.
pub type Picture = BTreeMap<GroupName, Seen>;

/// What an entry's events are to watchers.
pub fn deltas_of(revision: Revision, events: &[Event]) -> impl Iterator<Item = Delta> + '_ {
    events.iter().filter_map(move |event| {
        let vacant = |group: &GroupKey| Seen {
            group: group.clone(),
            phase: Phase::Vacant,
            tenure: None,
        };
        let (seen, deleted) = match event {
            Event::GroupCreated { group } => (vacant(group), false),
            Event::GroupDeleted { group } => (vacant(group), true),
            Event::Transition {
                group, to, tenure, ..
            } => {
                let seen = Seen {
                    group: group.clone(),
                    phase: *to,
                    tenure: (*to != Phase::Vacant).then_some(tenure.key.number),
                };
                (seen, false)
            }
            _ => return None,
        };
        Some(Delta {
            revision,
            seen,
            deleted,
        })
    })
}

fn draw(picture: &mut Picture, delta: &Delta) {
    let name = delta.seen.group.name.clone();
    if delta.deleted {
        picture.remove(&name);
    } else {
        picture.insert(name, delta.seen.clone());
    }
}

#[derive(Debug, Default)]
struct Watching {
    /// What the log gives up to `at`.
    picture: Picture,
    at: LogIndex,
    /// The newest revision that it was told.
    revision: Revision,
}

impl Watching {
    /// What the log adds up to `through`.
    fn follow(&mut self, through: LogIndex, log: &Log) -> Result<Vec<Delta>, Violation> {
        let mut deltas = Vec::new();
        while self.at < through {
            let next = self.at.next();
            let Some(entry) = log.get(next) else {
                return Err(violation(format!(
                    "a stream is at entry {through}, but nothing after {} is committed",
                    self.at
                )));
            };
            for delta in deltas_of(entry.revision, &entry.events) {
                draw(&mut self.picture, &delta);
                deltas.push(delta);
            }
            self.revision = self.revision.max(entry.revision);
            self.at = next;
        }
        Ok(deltas)
    }
}

/// All watchers.
#[derive(Debug, Default)]
pub struct Watches {
    watchers: BTreeMap<usize, Watching>,
    /// How many changes were looked at.
    pub checked: u64,
    /// How many snapshots were compared.
    pub snapshots: u64,
    /// How often somebody was told to start over.
    pub lagged: u64,
}

impl Watches {
    /// A stream begins, or starts over: a server sent this picture, at this index and revision.
    ///
    /// # Errors
    /// It is not the log's, or older than what the watcher was told before.
    pub fn on_snapshot(
        &mut self,
        watcher: usize,
        index: LogIndex,
        revision: Revision,
        picture: &Picture,
        log: &Log,
    ) -> Verdict {
        self.snapshots += 1;
        let watching = self.watchers.entry(watcher).or_default();
        if revision < watching.revision {
            return Err(violation(format!(
                "watcher {watcher} was at revision {} and starts over at {revision}",
                watching.revision
            )));
        }
        // Entries that change nothing share a revision: the server may be a little before where the stream was.
        watching.follow(index, log)?;
        if watching.revision == revision && watching.picture == *picture {
            return Ok(());
        }
        let differs = picture
            .iter()
            .find(|(name, seen)| watching.picture.get(*name) != Some(*seen));
        let missing = watching
            .picture
            .keys()
            .find(|name| !picture.contains_key(*name));
        Err(violation(format!(
            "watcher {watcher} starts over at revision {revision} (the log's at {index}: {}) with {differs:?}, without {missing:?}",
            watching.revision
        )))
    }

    /// A stream goes on with everything up to and with entry `through`.
    ///
    /// # Errors
    /// It is not exactly what the log adds.
    pub fn on_deltas(
        &mut self,
        watcher: usize,
        through: LogIndex,
        deltas: &[Delta],
        log: &Log,
    ) -> Verdict {
        let watching = self.watchers.entry(watcher).or_default();
        let at = watching.at;
        let expected = watching.follow(through, log)?;
        self.checked += deltas.len() as u64;
        if expected == deltas {
            return Ok(());
        }
        let differs = expected.iter().zip(deltas).position(|(a, b)| a != b);
        let place = differs.unwrap_or(expected.len().min(deltas.len()));
        Err(violation(format!(
            "watcher {watcher} was at entry {at} and was told {} changes up to {through}, not {}; the {place}th is {:?}, not {:?}",
            deltas.len(),
            expected.len(),
            deltas.get(place),
            expected.get(place)
        )))
    }

    /// The newest revision that a watcher was told.
    #[must_use]
    pub fn revision(&self, watcher: usize) -> Revision {
        self.watchers
            .get(&watcher)
            .map_or(Revision::ZERO, |watching| watching.revision)
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "watch_streams_unbroken",
        guarantee: "2: every answer carries the revision it saw; watches have no gap, no repetition, and the log's order",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_replica::AppliedEntry;
    use quorate_types::{ClusterTime, Term, TraceId};

    fn group(index: u64) -> GroupKey {
        GroupKey {
            name: GroupName::new(&format!("g{index}")).unwrap(),
            created: Revision(index),
        }
    }

    fn created(index: u64) -> AppliedEntry {
        AppliedEntry {
            index: LogIndex(index),
            term: Term(1),
            revision: Revision(index),
            cluster_time: ClusterTime(0),
            trace: TraceId(0),
            events: vec![Event::GroupCreated {
                group: group(index),
            }],
        }
    }

    fn log() -> Log {
        let mut log = Log::default();
        for index in 1..=4 {
            log.on_applied(0, &created(index), None).unwrap();
        }
        log
    }

    fn deltas(indexes: &[u64]) -> Vec<Delta> {
        let entries = indexes.iter().map(|index| created(*index));
        entries
            .flat_map(|entry| deltas_of(entry.revision, &entry.events).collect::<Vec<_>>())
            .collect()
    }

    fn picture(indexes: &[u64]) -> Picture {
        let mut picture = Picture::new();
        for delta in deltas(indexes) {
            draw(&mut picture, &delta);
        }
        picture
    }

    fn started() -> Watches {
        let mut watches = Watches::default();
        watches
            .on_snapshot(0, LogIndex(1), Revision(1), &picture(&[1]), &log())
            .unwrap();
        watches
    }

    #[test]
    fn gaps_repetitions_and_another_order_are_reported() {
        let log = log();
        assert!(
            started()
                .on_deltas(0, LogIndex(3), &deltas(&[2, 3]), &log)
                .is_ok()
        );
        for wrong in [&[3][..], &[2, 2, 3], &[3, 2], &[1, 2, 3], &[2]] {
            assert!(
                started()
                    .on_deltas(0, LogIndex(3), &deltas(wrong), &log)
                    .is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn starting_over_in_the_past_or_with_another_picture_is_reported() {
        let log = log();
        let start = |index, indexes: &[u64]| {
            let mut watches = started();
            watches
                .on_deltas(0, LogIndex(2), &deltas(&[2]), &log)
                .unwrap();
            watches.on_snapshot(0, LogIndex(index), Revision(index), &picture(indexes), &log)
        };
        assert!(start(4, &[1, 2, 3, 4]).is_ok());
        assert!(start(1, &[1]).is_err(), "the past");
        assert!(start(4, &[1, 2, 4]).is_err(), "a group is missing");
    }
}
