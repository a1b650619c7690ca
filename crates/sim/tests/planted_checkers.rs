//! More planted mistakes, of what surrounds handovers, watches, snapshots and keys; and that no checker is idle.

use std::collections::BTreeSet;

use quorate_coord::TRANSITIONS;
use quorate_sim::plant::Plant;
use quorate_sim::run::{guard, hunt};
use quorate_sim::setup::Setup;
use quorate_sim::stats::Stats;
use quorate_sim::world::World;

/// Runs seeds with the mistake until the checker reports it.
fn check(plant: Plant, checker: &str, seeds_max: u64, bend: impl Fn(&mut Setup)) {
    hunt(plant, checker, seeds_max, |seed| {
        let mut setup = Setup::from_seed(seed, Some(3));
        bend(&mut setup);
        setup
    });
}

#[test]
fn a_release_with_work_in_flight_is_caught() {
    check(
        Plant::ReleaseWithOpenWork,
        "drained_work_is_settled",
        20,
        |setup| setup.habits.resign = 10,
    );
}

#[test]
fn a_watcher_that_goes_back_in_time_is_caught() {
    check(
        Plant::WatchForgetsRevision,
        "watch_streams_unbroken",
        40,
        |_| {},
    );
}

#[test]
fn a_watcher_that_is_not_told_of_a_gap_is_caught() {
    check(
        Plant::WatchSkipsLagged,
        "watch_streams_unbroken",
        20,
        |_| {},
    );
}

#[test]
fn a_snapshot_of_another_state_is_caught_on_its_disk() {
    check(Plant::SnapshotIsEmpty, "snapshots_equal_log", 40, |setup| {
        setup.snapshot_entries = 24;
    });
}

#[test]
fn servers_that_expire_sessions_late_are_caught() {
    check(
        Plant::ServersCountSlowly,
        "sessions_end_in_time",
        20,
        |_| {},
    );
}

#[test]
fn conditional_writes_without_their_conditions_are_caught() {
    check(Plant::DropConditions, "keys_are_linearizable", 40, |_| {});
}

#[test]
fn a_watcher_of_keys_that_forgets_where_it_was_is_caught() {
    check(
        Plant::KeyWatchForgetsRevision,
        "key_watches_unbroken",
        20,
        |_| {},
    );
}

#[test]
fn no_checker_is_idle_and_the_whole_table_is_met() {
    let mut stats = Stats::default();
    for seed in 0..160 {
        let ended = guard(|| World::new(seed, None, false).run());
        assert_eq!(ended.violation, None, "seed {seed}");
        stats += &ended.stats;
    }
    for (checker, count) in &stats.checks {
        assert!(*count > 0, "{checker} looked at nothing");
    }
    let missing: BTreeSet<_> = (0..TRANSITIONS.len())
        .filter(|row| !stats.rows.contains_key(row))
        .collect();
    for row in &missing {
        println!("not met: {:?}", TRANSITIONS[*row]);
    }
    assert!(
        missing.len() <= 4,
        "{} of {} rows of the table were not met",
        missing.len(),
        TRANSITIONS.len()
    );
}
