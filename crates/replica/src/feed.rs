//! What led from one published version to the next, kept for streams that are a little behind: a bounded ring of batches.
//!
//! Owns: places, and the decision whether a stream goes on or starts over from a version. Deliberately absent: what a batch holds,
//! locks and waiting, which are the shell's (ADR published-versions).

use std::collections::VecDeque;

/// A place in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// The place after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a stream finds at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<B> {
    /// The batch there; its new place is the next.
    Batch(B),
    /// Nothing yet.
    Pending,
    /// What was there is gone: take a new version and start over from it.
    Lagged,
}

/// How much a feed keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Events, save that the newest batch is kept whatever its size.
    pub events_max: usize,
    /// Batches, however few events they hold.
    pub batches_max: usize,
}

/// A bounded ring of batches.
///
/// # Invariants
/// - `first` is the place of the first batch, and never decreases; a place is never given to two batches.
/// - `events` is the sum over the batches; with more than one batch, both limits hold.
#[derive(Clone, Debug)]
pub struct Feed<B> {
    limits: FeedLimits,
    batches: VecDeque<(usize, B)>,
    first: u64,
    events: usize,
}

impl<B: Clone> Feed<B> {
    /// A feed without batches.
    #[must_use]
    pub fn new(limits: FeedLimits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            first: 0,
            events: 0,
        }
    }

    /// The place right after the newest batch: whoever takes it together with the version there misses nothing.
    #[must_use]
    pub fn end(&self) -> Place {
        Place(self.first + self.batches.len() as u64)
    }

    /// What is at a place.
    #[must_use]
    pub fn at(&self, place: Place) -> Next<B> {
        let Some(offset) = place.0.checked_sub(self.first) else {
            return Next::Lagged;
        };
        let offset = usize::try_from(offset).expect("a feed is short");
        self.batches
            .get(offset)
            .map_or(Next::Pending, |(_, batch)| Next::Batch(batch.clone()))
    }

    /// Appends a batch of so many events, and drops what is over the limits.
    pub fn push(&mut self, batch: B, events: usize) {
        self.events += events;
        self.batches.push_back((events, batch));
        // The newest stays whatever its size: it is shared, and streams take it right away.
        while self.batches.len() > 1
            && (self.events > self.limits.events_max
                || self.batches.len() > self.limits.batches_max)
        {
            let (dropped, _) = self
                .batches
                .pop_front()
                .expect("more than one batch is kept");
            self.events -= dropped;
            self.first += 1;
        }
    }

    /// What led to the newest version is not known (a snapshot replaced the state): every place before becomes `Lagged`.
    pub fn reset(&mut self) {
        // One place more than the batches: a stream right at the end must start over, too.
        self.first += self.batches.len() as u64 + 1;
        self.batches.clear();
        self.events = 0;
    }

    /// How many batches and events are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.batches.len(), self.events)
    }

    /// Asserts what must hold between changes.
    ///
    /// # Panics
    /// When an invariant is broken: our own bug.
    pub fn check_invariants(&self) {
        let events: usize = self.batches.iter().map(|(events, _)| events).sum();
        assert_eq!(self.events, events, "events were counted wrongly");
        if self.batches.len() > 1 {
            assert!(
                self.events <= self.limits.events_max,
                "{} events are kept",
                self.events
            );
            assert!(
                self.batches.len() <= self.limits.batches_max,
                "{} batches are kept",
                self.batches.len()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Feed<char> {
        Feed::new(FeedLimits {
            events_max: 10,
            batches_max: 3,
        })
    }

    #[test]
    fn a_place_at_the_end_misses_nothing_and_repeats_nothing() {
        let mut feed = feed();
        feed.push('a', 1);
        let place = feed.end();
        assert_eq!(feed.at(place), Next::Pending);
        feed.push('b', 1);
        feed.push('c', 1);
        assert_eq!(feed.at(place), Next::Batch('b'));
        assert_eq!(feed.at(place.next()), Next::Batch('c'));
        assert_eq!(feed.at(place.next().next()), Next::Pending);
    }

    #[test]
    fn who_is_behind_either_limit_is_told() {
        let mut feed = feed();
        let place = feed.end();
        for batch in ['a', 'b', 'c'] {
            feed.push(batch, 1);
        }
        assert_eq!(feed.at(place), Next::Batch('a'));
        feed.push('d', 1);
        assert_eq!(feed.at(place), Next::Lagged, "too many batches");
        feed.push('e', 9);
        assert_eq!(feed.kept(), (2, 10));
        feed.push('f', 11);
        assert_eq!(feed.kept(), (1, 11), "the newest is kept whatever its size");
        feed.check_invariants();
    }

    #[test]
    fn after_a_reset_everybody_starts_over() {
        let mut feed = feed();
        feed.push('a', 1);
        let end = feed.end();
        feed.reset();
        assert_eq!(feed.at(end), Next::Lagged);
        assert_eq!(feed.at(feed.end()), Next::Pending);
    }
}
