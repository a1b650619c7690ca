//! The search for a linearization: is there an order of all calls, each at an instant between its beginning and its end, in which
//! a sequential model explains every answer?
//!
//! Wing & Gong, *Testing and Verifying Concurrent Objects* (1993), in the breadth-first, just-in-time form of Lowe, *Testing for
//! Linearizability* (2017): configurations (a state, and which calls under way have taken effect) are kept as a set, so none is
//! explored twice. Calls whose outcome is not known stay open to the end: they may take effect at any later time, or never. A
//! history is cut where nothing else is under way; the configurations there are where the next part begins, so neither memory nor
//! search grows with the run. The search is bounded, and says so when it gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::clock::Moment;

/// A sequential object.
pub trait Model {
    /// What it is, between calls.
    type State: Clone + Ord + Debug;
    /// A call, with its answer where one is known.
    type Call: Clone + Debug;

    /// What it may be after the call; empty where the answer cannot be given there. Of a call without an answer, only what it may
    /// change to: that it may change nothing goes without saying.
    fn after(state: &Self::State, call: &Self::Call) -> Vec<Self::State>;
}

/// One call of a history.
#[derive(Clone, Debug)]
pub struct Timed<C> {
    /// When it began.
    pub began: Moment,
    /// When its answer was heard; none where it never was.
    pub ended: Option<Moment>,
    /// What was asked and answered.
    pub call: C,
}

/// Why a history was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No order explains this call's answer.
    NotLinearizable(String),
    /// The search is longer than its bound.
    GaveUp,
}

type Configuration<M> = (<M as Model>::State, BTreeSet<u64>);

/// A search that goes on from part to part of one object's history.
#[derive(Debug)]
pub struct Search<M: Model> {
    configurations: BTreeSet<Configuration<M>>,
    /// Calls that began and did not end: those of the part at hand, and those that never will.
    under_way: BTreeMap<u64, M::Call>,
    next: u64,
    /// Most configurations looked at for one part.
    bound: usize,
    looked_at: usize,
}

impl<M: Model> Search<M> {
    /// A search from the object's first state.
    #[must_use]
    pub fn new(initial: M::State, bound: usize) -> Self {
        Self {
            configurations: BTreeSet::from([(initial, BTreeSet::new())]),
            under_way: BTreeMap::new(),
            next: 0,
            bound,
            looked_at: 0,
        }
    }

    /// Goes through the next part of the history. Every call in it that has an end must have begun after the part before.
    ///
    /// # Errors
    /// No linearization was found.
    pub fn extend(&mut self, part: Vec<Timed<M::Call>>) -> Result<(), Refused> {
        self.looked_at = 0;
        // Beginnings before ends at the same instant: such calls are concurrent.
        let mut events: Vec<(Moment, bool, u64)> = Vec::with_capacity(part.len() * 2);
        let first = self.next;
        for (id, timed) in (first..).zip(&part) {
            events.push((timed.began, false, id));
            if let Some(ended) = timed.ended {
                events.push((ended, true, id));
            }
        }
        self.next += part.len() as u64;
        events.sort_unstable();
        let mut calls: BTreeMap<u64, M::Call> = (first..)
            .zip(part.into_iter().map(|timed| timed.call))
            .collect();
        for (_, is_end, id) in events {
            if is_end {
                self.end(id)?;
            } else {
                let call = calls.remove(&id).expect("each call begins once");
                self.under_way.insert(id, call);
            }
        }
        Ok(())
    }

    /// A call has ended: in every configuration it has taken effect by now, together with others where they must come before it.
    fn end(&mut self, id: u64) -> Result<(), Refused> {
        let mut after = BTreeSet::new();
        let mut seen: BTreeSet<Configuration<M>> = BTreeSet::new();
        let mut todo: Vec<Configuration<M>> = Vec::new();
        let before = std::mem::take(&mut self.configurations);
        let example = before.first().map(|(state, _)| format!("{state:?}"));
        for (state, mut effective) in before {
            if effective.remove(&id) {
                after.insert((state, effective));
            } else {
                todo.push((state, effective));
            }
        }
        while let Some((state, effective)) = todo.pop() {
            self.looked_at += 1;
            if self.looked_at > self.bound {
                return Err(Refused::GaveUp);
            }
            for (other, call) in &self.under_way {
                if effective.contains(other) {
                    continue;
                }
                for next in M::after(&state, call) {
                    if *other == id {
                        after.insert((next, effective.clone()));
                        continue;
                    }
                    let mut effective = effective.clone();
                    effective.insert(*other);
                    let configuration = (next, effective);
                    if seen.insert(configuration.clone()) {
                        todo.push(configuration);
                    }
                }
            }
        }
        let call = self.under_way.remove(&id).expect("only what began ends");
        if after.is_empty() {
            let example = example.unwrap_or_default();
            return Err(Refused::NotLinearizable(format!(
                "no order explains {call:?}; before it the object was {example}, say; under way: {:?}",
                self.under_way
            )));
        }
        self.configurations = after;
        Ok(())
    }

    /// How many calls may yet take effect.
    #[must_use]
    pub fn open(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written and read.
    struct Register;

    #[derive(Clone, Debug)]
    enum Call {
        Write(u8),
        Read(u8),
    }

    impl Model for Register {
        type State = u8;
        type Call = Call;

        fn after(state: &u8, call: &Call) -> Vec<u8> {
            match call {
                Write(value) => vec![*value],
                Read(value) if value == state => vec![*state],
                Read(_) => Vec::new(),
            }
        }
    }

    fn check(history: &[(u64, u64, Call)]) -> Result<(), Refused> {
        let mut search = Search::<Register>::new(0, 10_000);
        let part = history.iter().map(|(began, ended, call)| Timed {
            began: Moment(*began),
            ended: (*ended > 0).then_some(Moment(*ended)),
            call: call.clone(),
        });
        search.extend(part.collect())
    }

    use Call::{Read, Write};

    #[test]
    fn concurrent_calls_may_take_effect_in_any_order() {
        assert_eq!(
            check(&[
                (1, 10, Write(1)),
                (2, 9, Write(2)),
                (3, 4, Read(2)),
                (5, 6, Read(1))
            ]),
            Ok(())
        );
    }

    #[test]
    fn a_stale_read_is_refused() {
        let stale = check(&[(1, 2, Write(1)), (3, 4, Read(0))]);
        assert!(matches!(stale, Err(Refused::NotLinearizable(_))));
    }

    #[test]
    fn two_reads_that_see_a_write_come_and_go_are_refused() {
        let gone = check(&[(1, 10, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))]);
        assert!(matches!(gone, Err(Refused::NotLinearizable(_))));
    }

    #[test]
    fn an_unknown_outcome_may_take_effect_late_or_never_but_not_twice() {
        let lost = Write(7);
        assert_eq!(
            check(&[(1, 0, lost.clone()), (2, 3, Read(0)), (4, 5, Read(7))]),
            Ok(())
        );
        assert_eq!(
            check(&[(1, 0, lost.clone()), (2, 3, Read(0)), (4, 5, Read(0))]),
            Ok(())
        );
        let twice = [
            (1, 0, lost),
            (2, 3, Read(7)),
            (4, 5, Write(1)),
            (6, 7, Read(7)),
        ];
        assert!(matches!(check(&twice), Err(Refused::NotLinearizable(_))));
    }

    #[test]
    fn an_unknown_outcome_reaches_into_later_parts() {
        let mut search = Search::<Register>::new(0, 10_000);
        let call = |began, ended, call| Timed {
            began: Moment(began),
            ended,
            call,
        };
        search.extend(vec![call(1, None, Write(7))]).unwrap();
        search
            .extend(vec![call(2, Some(Moment(3)), Read(0))])
            .unwrap();
        assert_eq!(search.open(), 1);
        search
            .extend(vec![call(4, Some(Moment(5)), Read(7))])
            .unwrap();
        assert!(
            search
                .extend(vec![call(6, Some(Moment(7)), Read(0))])
                .is_err()
        );
    }

    #[test]
    fn a_search_beyond_its_bound_gives_up_aloud() {
        let mut search = Search::<Register>::new(0, 50);
        let part = (0..12).map(|value| Timed {
            began: Moment(1),
            ended: Some(Moment(100 + u64::from(value))),
            call: Write(value),
        });
        assert_eq!(search.extend(part.collect()), Err(Refused::GaveUp));
    }
}
