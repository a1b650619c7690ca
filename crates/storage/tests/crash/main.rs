//! The shipping storage code on a real file system: killed with SIGKILL at any point, and cut off from power.
//!
//! Reading order: `workload.rs` says what is written, `child.rs` writes it, `judge.rs` says what must be there afterwards; then the
//! rounds in this file. `disk.rs` dies in the middle of a write, `store.rs` and `rig.rs` are a disk that loses power; `simulated.rs`
//! has the one order of crashes that ext4 is too kind to show.
//!
//! `cargo xtask crashtest` runs many rounds, by `QUORATE_CRASH_ROUNDS` and `QUORATE_CRASH_SEED`.

mod child;
mod disk;
mod judge;
mod process;
mod rig;
mod simulated;
mod store;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use child::{Role, Task};
use judge::{Counts, Known};
use process::{Event, Report, Running, spin};
use rig::{Rig, in_own_mounts};

/// A directory's life, in rounds; then another one is created.
const ROUNDS_PER_DIRECTORY: u64 = 12;
const STEPS_MAX: u64 = 150;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number"))
    })
}

/// Whether somebody watches.
fn is_long() -> bool {
    std::env::var_os("QUORATE_CRASH_ROUNDS").is_some()
}

/// Something to see in a long run.
fn progress(what: &str, round: u64, counts: &Counts) {
    if (round + 1).is_multiple_of(ROUNDS_PER_DIRECTORY * 20) {
        println!("{what}: {counts} ...");
    }
}

/// The seed of one round: rounds must not share their random numbers.
fn seed_of(test: u64, round: u64) -> u64 {
    let seed = number("QUORATE_CRASH_SEED", 1);
    fastrand::Rng::with_seed(seed ^ (test << 56) ^ (round << 24)).u64(..)
}

/// When the parent strikes.
enum Strike {
    /// A moment after an acknowledgement (0: after its start).
    AfterAck(u64, Duration),
    /// Never: the child or the store does.
    Others,
}

fn strike_after_ack(random: &mut fastrand::Rng) -> Strike {
    let acks = match random.u8(..4) {
        // Its creation or its opening is what is hit.
        0 => 0,
        _ => random.u64(1..60),
    };
    let micros = if acks == 0 { 6_000 } else { 1_500 };
    Strike::AfterAck(acks, Duration::from_micros(random.u64(..micros)))
}

/// Lets a child write until it is to be struck, or something else has happened.
fn write_until(running: &mut Running, strike: &Strike, report: &mut Report) -> bool {
    loop {
        if let Strike::AfterAck(acks, moment) = strike
            && report.acked >= *acks
        {
            spin(*moment);
            return true;
        }
        match running.next() {
            Event::Line(line) => report.take(&line),
            Event::PowerCut => return true,
            Event::End => return false,
        }
    }
}

#[test]
#[ignore = "the body of the other tests' children"]
fn body_of_the_process_that_is_killed() {
    child::run();
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut counts = Counts::default();
    let mut known = Known::default();
    let mut path = PathBuf::new();
    for round in 0..number("QUORATE_CRASH_ROUNDS", 60) {
        if round % ROUNDS_PER_DIRECTORY == 0 {
            if round > 0 {
                std::fs::remove_dir_all(&path).unwrap();
            }
            path = folder.path().join(format!("member-{round}"));
            known = Known::default();
        }
        let seed = seed_of(1, round);
        if let Err(broken) = kill_round(&path, seed, &mut known, &mut counts) {
            panic!("round {round}, seed {seed}: {broken}");
        }
        progress("sigkill", round, &counts);
    }
    println!("sigkill: {counts}; {:.1?}", start.elapsed());
    assert!(counts.acked > counts.rounds, "it was killed while writing");
}

fn kill_round(
    path: &Path,
    seed: u64,
    known: &mut Known,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (strike, die_at) = if random.bool() {
        (strike_after_ack(&mut random), 0)
    } else {
        (Strike::Others, random.u64(1..600))
    };
    let mut running = Running::start(&Task {
        path: path.to_owned(),
        role: Role::Write {
            seed,
            steps_max: STEPS_MAX,
            die_at,
            syncs: true,
        },
    });
    let mut said = Report::default();
    write_until(&mut running, &strike, &mut said);
    let signal = running.kill(&mut said);
    if let Some(error) = &said.error {
        return Err(format!("the writer failed: {error}"));
    }
    if signal != Some(9) && !said.is_done {
        return Err("the writer ended by itself, see above".to_owned());
    }
    counts.rounds += 1;
    counts.kills += u64::from(!said.is_done);
    known.check(path, seed, STEPS_MAX, &said, counts)
}

/// What is wrong in a run on the disk that loses power, on purpose or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The writer leaves out its syncs.
    NoSyncs,
    /// The disk answers flushes without doing them.
    IgnoredFlushes,
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    in_own_mounts("acknowledged_writes_survive_power_cuts", || {
        let rounds = number("QUORATE_CRASH_ROUNDS", 36);
        let start = Instant::now();
        let (mut counts, mut shown) = (Counts::default(), Vec::new());
        for first in (0..rounds).step_by(ROUNDS_PER_DIRECTORY as usize) {
            let rounds = first..rounds.min(first + ROUNDS_PER_DIRECTORY);
            let file_system = power_rounds(rounds, Fault::None, &mut counts)
                .unwrap_or_else(|broken| panic!("{broken}"));
            progress("power cuts", counts.rounds - 1, &counts);
            if !shown.contains(&file_system) {
                shown.push(file_system);
            }
        }
        println!(
            "power cuts on {}: {counts}; {:.1?}",
            shown.join(", "),
            start.elapsed()
        );
        assert!(
            counts.acked > counts.rounds,
            "power went while it was writing"
        );
        assert!(
            counts.sectors_lost > 0,
            "the store has lost unsynced writes"
        );
    });
}

#[test]
fn without_syncs_a_power_cut_loses_acknowledged_writes() {
    in_own_mounts(
        "without_syncs_a_power_cut_loses_acknowledged_writes",
        || {
            assert_loses(Fault::NoSyncs);
        },
    );
}

#[test]
fn on_a_disk_that_ignores_flushes_a_power_cut_loses_acknowledged_writes() {
    in_own_mounts(
        "on_a_disk_that_ignores_flushes_a_power_cut_loses_acknowledged_writes",
        || {
            assert_loses(Fault::IgnoredFlushes);
        },
    );
}

/// The proof that the rounds above could fail.
fn assert_loses(fault: Fault) {
    let tries = 4;
    let lost: Vec<String> = (0..tries)
        .filter_map(|at| {
            let rounds = at * ROUNDS_PER_DIRECTORY..(at + 1) * ROUNDS_PER_DIRECTORY;
            power_rounds(rounds, fault, &mut Counts::default()).err()
        })
        .collect();
    println!(
        "{} of {tries} disks lost acknowledged writes: {lost:?}",
        lost.len()
    );
    assert!(!lost.is_empty(), "the loss of unsynced writes is noticed");
}

/// One disk's life; answers which file system was on it.
///
/// # Errors
/// Which promise was broken, and in which round.
fn power_rounds(
    rounds: std::ops::Range<u64>,
    fault: Fault,
    counts: &mut Counts,
) -> Result<String, String> {
    let first = rounds.start / ROUNDS_PER_DIRECTORY;
    let mut rig = Rig::new(first, fault != Fault::IgnoredFlushes);
    // At times it is the mount point itself, with its `lost+found`.
    let path = if first.is_multiple_of(2) {
        rig.path()
    } else {
        rig.path().join("member")
    };
    let mut known = Known::default();
    rig.mount()?;
    let mut done = Ok(());
    for round in rounds {
        let seed = seed_of(2, round);
        done = power_round(&mut rig, &path, seed, fault, &mut known, counts)
            .map_err(|broken| format!("round {round}, seed {seed}, {}: {broken}", rig.shown()));
        if done.is_err() {
            break;
        }
    }
    let lost = rig.store.lost();
    counts.sectors_unsynced += lost.sectors_unsynced;
    counts.sectors_lost += lost.sectors_lost;
    counts.repaired += rig.repaired;
    done.map(|()| rig.shown())
}

/// On a mounted file system: writes, loses power, comes back and looks; leaves it mounted.
fn power_round(
    rig: &mut Rig,
    path: &Path,
    seed: u64,
    fault: Fault,
    known: &mut Known,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let by_parent = fault != Fault::None || random.u8(..4) == 0;
    // At times the process dies first, is restarted, and only then the power goes: what a restart has answered must hold.
    let die_at = if !by_parent && random.u8(..4) == 0 {
        random.u64(1..500)
    } else {
        0
    };
    let mut running = Running::start(&Task {
        path: path.to_owned(),
        role: Role::Write {
            seed,
            steps_max: STEPS_MAX,
            die_at,
            syncs: fault != Fault::NoSyncs,
        },
    });
    let strike = if fault != Fault::None {
        Strike::AfterAck(40, Duration::ZERO)
    } else if by_parent {
        strike_after_ack(&mut random)
    } else {
        Strike::Others
    };
    if !by_parent && die_at == 0 {
        let changes = match random.u8(..4) {
            0 => random.u64(1..20),
            _ => random.u64(1..400),
        };
        rig.store.cut_power_after(changes, running.sender());
    }
    let mut said = Report::default();
    write_until(&mut running, &strike, &mut said);
    // The order is a power cut's: nothing that the process does from here on reaches the disk.
    if die_at == 0 {
        rig.store.cut_power();
    }
    let signal = running.kill(&mut said);
    if let Some(error) = &said.error {
        if error.contains("rotten") || !rig.store.is_cut() {
            return Err(format!("the writer failed: {error}"));
        }
    } else if signal != Some(9) && !said.is_done {
        return Err("the writer ended by itself, see above".to_owned());
    }
    counts.rounds += 1;
    counts.cuts += 1;
    if die_at > 0 {
        counts.kills += 1;
        known.check(path, seed, STEPS_MAX, &said, counts)?;
        rig.store.cut_power();
        come_back(rig, &mut random)?;
        return known.check_unchanged(path);
    }
    come_back(rig, &mut random)?;
    known.check(path, seed, STEPS_MAX, &said, counts)
}

/// Takes what is left of the disk and mounts it; at times the power goes again while the journal is replayed.
fn come_back(rig: &mut Rig, random: &mut fastrand::Rng) -> Result<(), String> {
    rig.unmount();
    rig.store.power_on();
    if random.u8(..4) == 0 {
        let (nobody, _) = std::sync::mpsc::channel();
        rig.store.cut_power_after(random.u64(1..25), nobody);
        rig.mount().ok();
        rig.store.cut_power();
        rig.unmount();
        rig.store.power_on();
    }
    rig.mount()
}
