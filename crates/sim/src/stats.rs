//! What a run did, to show that it met what it claims to have met.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Seeds run.
    pub seeds: u64,
    /// True time simulated.
    pub simulated: Duration,
    /// Events handled.
    pub events: u64,
    /// Steps of replicas.
    pub steps: u64,
    /// Operations of callers and nodes that were answered.
    pub operations: u64,
    /// Keep-alives answered.
    pub keep_alives: u64,
    /// Entries committed.
    pub entries: u64,
    /// Tenures granted.
    pub tenures: u64,
    /// Backbone leaders elected.
    pub leaders: u64,
    /// Writes that the fenced resources took and refused.
    pub writes_taken: u64,
    /// Writes that the fenced resources refused for their tokens.
    pub writes_fenced: u64,
    /// How many worlds there were of each sort.
    pub worlds: BTreeMap<&'static str, u64>,
    /// How often each checker looked.
    pub checks: BTreeMap<&'static str, u64>,
    /// How often each row of the contract's table was met, by its place there.
    pub rows: BTreeMap<usize, u64>,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts faults.
    pub fn faults(&mut self, kind: &'static str, count: u64) {
        if count > 0 {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl AddAssign<&Stats> for Stats {
    fn add_assign(&mut self, other: &Stats) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.events += other.events;
        self.steps += other.steps;
        self.operations += other.operations;
        self.keep_alives += other.keep_alives;
        self.entries += other.entries;
        self.tenures += other.tenures;
        self.leaders += other.leaders;
        self.writes_taken += other.writes_taken;
        self.writes_fenced += other.writes_fenced;
        for (kind, count) in &other.worlds {
            *self.worlds.entry(kind).or_default() += count;
        }
        for (kind, count) in &other.checks {
            *self.checks.entry(kind).or_default() += count;
        }
        for (row, count) in &other.rows {
            *self.rows.entry(*row).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}
