//! Each checker catches the bug that it is there for: a mistake is planted in the surroundings (the shell, the disk, a node, a
//! client, never the shipping code), and the named checker must report it within a few seeds.
//!
//! The checkers that no mistake of the surroundings can trip are shown bad histories in their own files.

use std::time::Duration;

use quorate_sim::case::Case;
use quorate_sim::faults::{Fault, plan};
use quorate_sim::plant::Plant;
use quorate_sim::run::{guard, hunt};
use quorate_sim::setup::{Clocks, Setup};
use quorate_sim::shrink::shrink;
use quorate_sim::world::World;

/// Runs seeds with the mistake until the checker reports it; the worlds are bent towards where it shows.
fn check(
    plant: Plant,
    checker: &str,
    seeds_max: u64,
    bend: impl Fn(&mut Setup, &mut fastrand::Rng),
) {
    hunt(plant, checker, seeds_max, |seed| {
        let mut setup = Setup::from_seed(seed, Some(3));
        setup.faulty_for = Duration::from_secs(45);
        // A longer plan than the seed's; clocks as the guarantee wants them.
        setup.clocks = Clocks::WithinBound;
        setup.plan = plan(&mut fastrand::Rng::with_seed(seed), &setup);
        bend(&mut setup, &mut fastrand::Rng::with_seed(seed));
        setup
    });
}

/// The same kind of fault, again and again.
fn every(setup: &mut Setup, step: Duration, mut fault: impl FnMut() -> Fault) {
    setup.plan.clear();
    let mut at = Duration::from_millis(1_500);
    while at < setup.faulty_for {
        setup.plan.push((at, fault()));
        at += step;
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn power_cuts(setup: &mut Setup, random: &mut fastrand::Rng) {
    setup.sync = ms(8);
    every(setup, ms(700), || match random.u8(..3) {
        0 => Fault::PowerLoss {
            down: ms(1 + random.u64(..60)),
        },
        1 => Fault::CrashAtOutput {
            server: random.usize(..3),
            outputs: random.u32(..20),
            power: true,
        },
        _ => Fault::Crash {
            server: random.usize(..3),
            power: true,
            down: ms(1 + random.u64(..200)),
        },
    });
}

#[test]
fn a_message_sent_before_its_write_is_durable_is_caught() {
    check(Plant::SendBeforePersist, "logs_agree", 100, power_cuts);
}

#[test]
fn a_vote_sent_before_it_is_durable_is_caught() {
    check(
        Plant::SendBeforePersist,
        "at_most_one_leader_per_term",
        300,
        |setup, random| {
            setup.sync = ms(8);
            every(setup, ms(400), || match random.u8(..2) {
                0 => Fault::PowerLoss {
                    down: ms(1 + random.u64(..60)),
                },
                _ => Fault::CrashAtOutput {
                    server: random.usize(..3),
                    outputs: random.u32(..8),
                    power: true,
                },
            });
        },
    );
}

#[test]
fn a_write_reported_durable_before_its_sync_is_caught() {
    check(Plant::PersistedBeforeSync, "logs_agree", 100, power_cuts);
}

#[test]
fn a_forgotten_vote_is_caught() {
    check(
        Plant::ForgetVote,
        "at_most_one_leader_per_term",
        300,
        |setup, random| {
            every(setup, ms(250), || {
                let server = random.usize(..3);
                match random.u8(..3) {
                    0 => Fault::CrashAtOutput {
                        server,
                        outputs: random.u32(..8),
                        power: false,
                    },
                    _ => Fault::Crash {
                        server,
                        power: false,
                        down: ms(1 + random.u64(..20)),
                    },
                }
            });
        },
    );
}

#[test]
fn a_dropped_synced_suffix_is_caught() {
    check(Plant::DropSyncedSuffix, "logs_agree", 100, power_cuts);
}

#[test]
fn an_entry_rewritten_at_rest_is_caught() {
    check(Plant::RewriteEntries, "logs_agree", 100, power_cuts);
}

#[test]
fn a_snapshot_that_lost_its_state_is_caught() {
    check(
        Plant::SnapshotSkipsGroups,
        "logs_agree",
        100,
        |setup, random| {
            setup.snapshot_entries = 32;
            power_cuts(setup, random);
        },
    );
}

fn pauses(setup: &mut Setup, random: &mut fastrand::Rng) {
    let nodes = setup.nodes;
    every(setup, ms(500), || Fault::PauseNode {
        node: random.usize(..nodes),
        lasts: ms(500 + random.u64(..5_000)),
    });
}

#[test]
fn a_ttl_counted_from_the_reply_is_caught() {
    check(
        Plant::TtlFromReply,
        "believed_tenures_never_overlap",
        50,
        pauses,
    );
    check(
        Plant::TtlFromReply,
        "sessions_never_expire_early",
        50,
        pauses,
    );
}

#[test]
fn a_holder_that_ignores_its_revocation_is_caught() {
    check(
        Plant::IgnoreRevoke,
        "believed_tenures_never_overlap",
        50,
        |setup, _| setup.habits.violence = 40,
    );
}

#[test]
fn a_keep_alive_answered_without_the_directive_counter_is_caught() {
    check(
        Plant::NoDirectiveCounter,
        "believed_tenures_never_overlap",
        50,
        |setup, random| {
            setup.habits.violence = 40;
            every(setup, ms(1_000), || Fault::LateDirectives {
                server: random.usize(..3),
                by: ms(8_000),
                lasts: ms(8_000),
            });
        },
    );
}

#[test]
fn a_session_expired_by_hand_is_caught() {
    check(
        Plant::ExpireEarly,
        "sessions_never_expire_early",
        20,
        |_, _| {},
    );
}

#[test]
fn a_release_before_belief_ends_is_caught() {
    check(
        Plant::ReleaseBeforeBeliefEnds,
        "believed_tenures_never_overlap",
        20,
        |setup, _| setup.habits.resign = 20,
    );
}

#[test]
fn a_clock_beyond_the_bound_is_caught() {
    check(
        Plant::ClockBeyondBound,
        "sessions_never_expire_early",
        50,
        pauses,
    );
}

#[test]
fn a_resource_that_checks_no_tokens_is_caught() {
    check(Plant::NoFence, "tokens_rise", 50, pauses);
}

#[test]
fn a_retry_under_a_new_key_is_caught() {
    check(Plant::RetryWithNewKey, "exactly_once", 50, |setup, _| {
        setup.quality.loss_ppm = 100_000;
    });
}

#[test]
fn an_unknown_outcome_told_as_applied_is_caught() {
    check(
        Plant::UnknownAsApplied,
        "acknowledged_writes_survive",
        50,
        power_cuts,
    );
}

#[test]
fn a_read_without_a_round_is_caught() {
    check(
        Plant::ReadWithoutRound,
        "reads_are_linearizable",
        20,
        |_, _| {},
    );
}

#[test]
fn a_position_that_was_not_reached_is_caught() {
    check(
        Plant::LieAboutPosition,
        "released_positions_reached",
        50,
        |_, _| {},
    );
}

#[test]
fn a_service_that_does_not_come_back_is_caught() {
    check(Plant::NeverHeals, "progress", 20, |setup, _| {
        let cuts = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).collect();
        setup.plan = vec![(
            ms(20_000),
            Fault::Partition {
                kind: "all",
                cuts,
                breaks: true,
                lasts: ms(1),
            },
        )];
    });
}

#[test]
fn a_failure_is_shrunk_to_fewer_faults_that_still_fail_the_same_checker() {
    // A holder that stands still is what shows this mistake: few of a plan's faults are needed for it.
    let run = |case: &Case| {
        let world = || World::with_setup(case.seed, case.setup(), false, Some(Plant::TtlFromReply));
        guard(|| world().run()).violation
    };
    let checker = "believed_tenures_never_overlap";
    let (case, violation) = (0..500)
        .map(|seed| Case::whole(seed, Some(3)))
        .filter(|case| case.setup().plan.len() > 15)
        .find_map(|case| {
            run(&case)
                .filter(|violation| violation.checker == checker)
                .map(|violation| (case, violation))
        })
        .expect("some long plan shows the mistake");
    let before = case.setup();
    let shrunk = shrink(&case, violation, run);
    let after = shrunk.case.setup();
    println!("{}: {}\n{}", shrunk.case, shrunk.violation, shrunk.plan());
    assert!(
        after.plan.len() * 2 < before.plan.len(),
        "{} of {} faults are left",
        after.plan.len(),
        before.plan.len()
    );
    // What the replay command names fails in the same way.
    let again = run(&shrunk.case).expect("a shrunk case fails");
    assert_eq!(again, shrunk.violation);
    assert_eq!(again.checker, checker);
}
