//! Reads and conditional writes of one key are linearizable (guarantee 2), by search for an order that explains all answers.
//!
//! The keys are groups that nobody stands in: created, changed and deleted under the condition that their spec is as the caller last
//! saw it, by all callers at once. Complements `reads_are_linearizable`, which judges by log indexes that the servers
//! themselves report: this judges by values alone.

use std::collections::BTreeMap;

use quorate_types::Revision;

use super::wgl::{Model, Refused, Search, Timed};
use super::{Verdict, Violation};
use crate::clock::Moment;

/// Most configurations looked at for one part of a key's history.
const SEARCH_MAX: usize = 50_000;
/// A part is searched once it has so many calls and nothing is under way.
const PART_MIN: usize = 12;

/// A key's value: every write has a tag of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The write.
    pub tag: u64,
    /// The revision of that write; none where the model does not know it.
    pub revision: Option<Revision>,
}

/// What was asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Create it with this value.
    Create(u64),
    /// Give it this value, if its revision is still this.
    Update(u64, Option<Revision>),
    /// Delete it, if its revision is still this.
    Delete(Option<Revision>),
    /// Read it.
    Read,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It took effect, at this revision.
    Done(Revision),
    /// It exists.
    Exists,
    /// It does not exist.
    Missing,
    /// Its revision is this one.
    Mismatch(Revision),
    /// Refused for another reason, without effect.
    Refused,
    /// The value read.
    Read(Option<(u64, Revision)>),
}

/// A call of a key, with its answer where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub ask: Ask,
    /// What was answered.
    pub told: Option<Told>,
}

/// One key.
#[derive(Debug)]
pub struct Key;

/// The value with its revision, if that can be so.
fn at(value: Value, revision: Revision) -> Option<Value> {
    let is_so = value.revision.is_none_or(|known| known == revision);
    is_so.then_some(Value {
        revision: Some(revision),
        ..value
    })
}

fn meets(value: Value, expected: Option<Revision>) -> bool {
    expected.is_none_or(|expected| at(value, expected).is_some())
}

impl Model for Key {
    type State = Option<Value>;
    type Call = Call;

    fn after(state: &Option<Value>, call: &Call) -> Vec<Option<Value>> {
        let next = match (&call.ask, &call.told) {
            (_, Some(Told::Refused)) => Some(*state),
            (Ask::Create(_), Some(Told::Exists)) => state.map(Some),
            (Ask::Create(tag), Some(Told::Done(revision))) if state.is_none() => {
                Some(Some(Value {
                    tag: *tag,
                    revision: Some(*revision),
                }))
            }
            (Ask::Create(tag), None) if state.is_none() => Some(Some(Value {
                tag: *tag,
                revision: None,
            })),
            (Ask::Update(..) | Ask::Delete(_), Some(Told::Missing)) => {
                state.is_none().then_some(None)
            }
            (
                Ask::Update(_, Some(expected)) | Ask::Delete(Some(expected)),
                Some(Told::Mismatch(found)),
            ) if expected != found => state.and_then(|value| at(value, *found)).map(Some),
            (Ask::Update(tag, expected), told @ (None | Some(Told::Done(_)))) => {
                let revision = match told {
                    Some(Told::Done(revision)) => Some(*revision),
                    _ => None,
                };
                state.filter(|value| meets(*value, *expected)).map(|_| {
                    Some(Value {
                        tag: *tag,
                        revision,
                    })
                })
            }
            (Ask::Delete(expected), None | Some(Told::Done(_))) => {
                state.filter(|value| meets(*value, *expected)).map(|_| None)
            }
            (Ask::Read, Some(Told::Read(found))) => match (state, found) {
                (None, None) => Some(None),
                (Some(value), Some((tag, revision))) if value.tag == *tag => {
                    at(*value, *revision).map(Some)
                }
                _ => None,
            },
            _ => None,
        };
        next.into_iter().collect()
    }
}

#[derive(Debug)]
struct History {
    search: Search<Key>,
    /// The part that is not searched yet.
    part: Vec<Timed<Call>>,
    /// How many calls of it are under way.
    under_way: usize,
    /// How many calls' outcomes stayed unknown.
    unknown: usize,
}

/// A call's place in the history at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    key: usize,
    at: usize,
}

/// All keys' histories.
#[derive(Debug, Default)]
pub struct Keys {
    histories: BTreeMap<usize, History>,
    /// How many calls were looked at.
    pub checked: u64,
    /// How many calls' outcomes stayed unknown.
    pub unknown: u64,
}

impl Keys {
    /// A call begins.
    pub fn begin(&mut self, now: Moment, key: usize, ask: Ask) -> Place {
        let history = self.histories.entry(key).or_insert_with(|| History {
            search: Search::new(None, SEARCH_MAX),
            part: Vec::new(),
            under_way: 0,
            unknown: 0,
        });
        history.under_way += 1;
        history.part.push(Timed {
            began: now,
            ended: None,
            call: Call { ask, told: None },
        });
        let at = history.part.len() - 1;
        Place { key, at }
    }

    /// A read is asked again: what was asked before has no effect and gave no answer.
    pub fn begin_again(&mut self, now: Moment, place: Place) {
        self.timed(place).began = now;
    }

    fn timed(&mut self, place: Place) -> &mut Timed<Call> {
        let history = self
            .histories
            .get_mut(&place.key)
            .expect("a call's key has a history");
        &mut history.part[place.at]
    }

    /// A call is answered.
    ///
    /// # Errors
    /// No order of the calls explains their answers.
    pub fn end(&mut self, now: Moment, place: Place, told: Told) -> Verdict {
        let timed = self.timed(place);
        timed.ended = Some(now);
        timed.call.told = Some(told);
        self.over(place.key)
    }

    /// A call's outcome will never be known.
    ///
    /// # Errors
    /// No order of the other calls explains their answers.
    pub fn abandon(&mut self, place: Place) -> Verdict {
        self.unknown += 1;
        if let Some(history) = self.histories.get_mut(&place.key) {
            history.unknown += 1;
        }
        self.over(place.key)
    }

    /// How many calls of a key may yet take effect, for all that is known.
    #[must_use]
    pub fn unknown_of(&self, key: usize) -> usize {
        self.histories
            .get(&key)
            .map_or(0, |history| history.unknown)
    }

    fn over(&mut self, key: usize) -> Verdict {
        let history = self
            .histories
            .get_mut(&key)
            .expect("a call's key has a history");
        history.under_way -= 1;
        if history.under_way == 0 && history.part.len() >= PART_MIN {
            self.checked += history.part.len() as u64;
            return search(key, history);
        }
        Ok(())
    }

    /// The run is over: what is not answered stays unknown.
    ///
    /// # Errors
    /// No order of the calls explains their answers.
    pub fn on_end(&mut self) -> Verdict {
        for (key, history) in &mut self.histories {
            self.checked += history.part.len() as u64;
            search(*key, history)?;
        }
        Ok(())
    }
}

fn search(key: usize, history: &mut History) -> Verdict {
    let part = std::mem::take(&mut history.part);
    // A read that was never answered says nothing.
    let part = part
        .into_iter()
        .filter(|timed| timed.ended.is_some() || timed.call.ask != Ask::Read);
    history.search.extend(part.collect()).map_err(|refused| {
        let what = match refused {
            Refused::NotLinearizable(why) => format!("key r{key}: {why}"),
            Refused::GaveUp => format!("key r{key}: gave up after {SEARCH_MAX} configurations"),
        };
        Violation {
            checker: "keys_are_linearizable",
            guarantee: "2: governance reads and writes are linearizable",
            what,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(calls: &[(u64, u64, Ask, Option<Told>)]) -> Verdict {
        let mut keys = Keys::default();
        let mut events = Vec::new();
        for (at, (began, ended, _, told)) in calls.iter().enumerate() {
            events.push((*began, at, false));
            events.push((if told.is_some() { *ended } else { u64::MAX }, at, true));
        }
        events.sort_unstable();
        let mut places = BTreeMap::new();
        for (when, at, is_end) in events {
            let (_, _, ask, told) = &calls[at];
            if is_end {
                match told {
                    Some(told) => keys.end(Moment(when), places[&at], told.clone())?,
                    None => keys.abandon(places[&at])?,
                }
            } else {
                places.insert(at, keys.begin(Moment(when), 0, ask.clone()));
            }
        }
        keys.on_end()
    }

    fn done(revision: u64) -> Option<Told> {
        Some(Told::Done(Revision(revision)))
    }

    fn read(tag: u64, revision: u64) -> Option<Told> {
        Some(Told::Read(Some((tag, Revision(revision)))))
    }

    #[test]
    fn two_conditional_writes_of_one_revision_cannot_both_succeed() {
        let update = |tag| Ask::Update(tag, Some(Revision(5)));
        let mut calls = vec![
            (1, 2, Ask::Create(1), done(5)),
            (3, 9, update(2), done(6)),
            (4, 8, update(3), done(7)),
        ];
        assert!(run(&calls).is_err());
        calls[2].3 = Some(Told::Mismatch(Revision(6)));
        assert!(run(&calls).is_ok());
        calls[2].3 = Some(Told::Mismatch(Revision(9)));
        assert!(run(&calls).is_err(), "nobody wrote revision 9");
    }

    #[test]
    fn a_read_that_misses_an_acknowledged_write_or_sees_a_deleted_value_is_reported() {
        let created = (1, 2, Ask::Create(1), done(5));
        assert!(run(&[created.clone(), (3, 4, Ask::Read, read(1, 5))]).is_ok());
        assert!(run(&[created.clone(), (3, 4, Ask::Read, Some(Told::Read(None)))]).is_err());
        let deleted = (3, 4, Ask::Delete(Some(Revision(5))), done(6));
        assert!(run(&[created, deleted, (5, 6, Ask::Read, read(1, 5))]).is_err());
    }

    #[test]
    fn an_unknown_outcome_explains_what_it_may_have_done_and_no_more() {
        let created = (1, 2, Ask::Create(1), done(5));
        let lost = (3, 0, Ask::Update(2, Some(Revision(5))), None);
        assert!(run(&[created.clone(), lost.clone(), (4, 5, Ask::Read, read(2, 6))]).is_ok());
        assert!(run(&[created.clone(), lost.clone(), (4, 5, Ask::Read, read(1, 5))]).is_ok());
        assert!(run(&[created.clone(), lost.clone(), (4, 5, Ask::Read, read(3, 6))]).is_err());
        let changed = (4, 5, Ask::Update(4, Some(Revision(5))), done(7));
        assert!(
            run(&[created, lost, changed, (8, 9, Ask::Read, read(2, 8))]).is_err(),
            "its condition no longer holds"
        );
    }
}
