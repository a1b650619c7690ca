//! Tenures whose sessions live on, and who leads next: protocol.md, sections 2 to 4.

use super::{Scenario, again, checked, ms, peaceful, struck, together};
use crate::faults::{Fault, Whose};
use crate::setup::Clocks;

/// A holder stands still while its group is forced away from it. It cannot release, and wakes up believing: the successor may be
/// granted only when that belief has ended, a stretched TTL after the order.
pub(super) const PAUSED_HOLDER_FORCED: Scenario = Scenario {
    name: "paused-holder-forced",
    rule: "3",
    setup: || {
        let force = Fault::ForcePausedHolder { lasts: ms(700) };
        peaceful(3, again(ms(4_000), ms(1_300), 10, &force))
    },
    shows: |stats| {
        vec![
            (
                "forced",
                struck(stats, "holder paused under a forced transfer"),
                80..,
            ),
            (
                "beliefs",
                checked(stats, "believed_tenures_never_overlap"),
                1_000..,
            ),
            ("tenures", stats.tenures, 150..),
        ]
    },
};

/// Directives reach nodes long after the tenures they are about have ended, while keep-alives are answered in time: a keep-alive's
/// answer extends nothing until every directive up to its counter was processed, and what comes past its release is ignored.
pub(super) const LATE_DIRECTIVE: Scenario = Scenario {
    name: "late-directive",
    rule: "3",
    setup: || {
        let late = (0..3).flat_map(|server| {
            let late = Fault::LateDirectives {
                server,
                by: ms(2_500),
                lasts: ms(9_000),
            };
            again(ms(2_000), ms(1), 1, &late)
        });
        let mut setup = peaceful(3, late.collect());
        setup.faulty_for = ms(12_000);
        setup.callers = 5;
        setup.habits.violence = 80;
        setup.habits.resign = 10;
        setup
    },
    shows: |stats| {
        vec![
            ("late", struck(stats, "late directives"), 36..),
            ("tenures", stats.tenures, 150..),
        ]
    },
};

/// Disks are slow and one server's directives late while a group is forced away: keep-alives are answered between the proposal of the
/// revocation and its apply, and their answers, which know nothing of it, extend the belief. So the wait counts from the apply.
pub(super) const SLOW_REVOCATION: Scenario = Scenario {
    name: "slow-revocation",
    rule: "3",
    setup: || {
        let (every, times) = (ms(2_000), 9);
        let slow = (0..3).flat_map(|server| {
            let slow = Fault::SlowDisk {
                server,
                latency: ms(180),
                lasts: ms(600),
            };
            again(ms(3_000), every, times, &slow)
        });
        let late = Fault::LateDirectives {
            server: 0,
            by: ms(4_000),
            lasts: ms(600),
        };
        // For a moment only: what matters is the forced transfer.
        let force = Fault::ForcePausedHolder { lasts: ms(1) };
        let plan = together([
            slow.collect(),
            again(ms(3_000), every, times, &late),
            again(ms(3_010), every, times, &force),
        ]);
        let mut setup = peaceful(3, plan);
        setup.ttl_ms = (800, 900);
        // The one who forces is free to do so.
        setup.callers = 1;
        setup.think_max = ms(20);
        setup
    },
    shows: |stats| {
        vec![
            ("slow disks", struck(stats, "slow disk"), 300..),
            ("late", struck(stats, "late directives"), 100..),
            (
                "forced",
                struck(stats, "holder paused under a forced transfer"),
                80..,
            ),
            ("tenures", stats.tenures, 150..),
        ]
    },
};

/// A holder stands still while its group is forced away, and all servers lose power: they come back from snapshots that say that a
/// tenure is revoked, and not since when. The wait starts over.
pub(super) const REVOKED_IN_SNAPSHOT: Scenario = Scenario {
    name: "revoked-in-snapshot",
    rule: "3",
    setup: || {
        let force = Fault::ForcePausedHolder { lasts: ms(3_500) };
        let lost = Fault::PowerLoss { down: ms(40) };
        let plan = together([
            again(ms(4_000), ms(6_500), 2, &force),
            again(ms(5_000), ms(6_500), 2, &lost),
        ]);
        let mut setup = peaceful(3, plan);
        setup.ttl_ms = (4_000, 5_000);
        setup.snapshot_entries = 8;
        setup.snapshot_retain = 0;
        setup.think_max = ms(40);
        setup
    },
    shows: |stats| {
        vec![
            (
                "forced",
                struck(stats, "holder paused under a forced transfer"),
                20..,
            ),
            ("power cuts", struck(stats, "power cut everywhere"), 24..),
            ("tenures", stats.tenures, 150..),
        ]
    },
};

/// The node with the newest data leads as many groups as it may. A freshest-policy group's leadership must not go to a node behind the
/// released position for that (ADR freshest-data-before-limits): it waits, or the full node gives something up.
pub(super) const FRESHEST_ON_FULL_NODE: Scenario = Scenario {
    name: "freshest-on-full-node",
    rule: "4",
    setup: || {
        let kill = Fault::KillNode {
            node: 1,
            down: ms(900),
        };
        let mut setup = peaceful(3, again(ms(4_000), ms(2_000), 5, &kill));
        setup.groups = 24;
        setup.tenures_max = Some(5);
        setup.habits.resign = 4;
        setup
    },
    shows: |stats| {
        vec![
            (
                "positions",
                checked(stats, "released_positions_reached"),
                20..,
            ),
            ("killed", struck(stats, "node killed"), 40..),
        ]
    },
};

/// A hypervisor holds a holder with its `CLOCK_BOOTTIME` frozen for longer than its TTL. It wakes up believing, its successor writes
/// already: guarantee 3 does not hold, the fencing token does its work (guarantee 4).
pub(super) const FROZEN_HOLDER: Scenario = Scenario {
    name: "frozen-holder",
    rule: "2",
    setup: || {
        let plan = (0..4).flat_map(|node| {
            let freeze = Fault::ClockFrozen {
                whose: Whose::Node(node),
                paused: true,
                lasts: ms(2_800),
            };
            again(ms(4_000 + node as u64 * 400), ms(5_000), 2, &freeze)
        });
        let mut setup = peaceful(3, together([plan.collect()]));
        setup.clocks = Clocks::BeyondBound;
        setup
    },
    shows: |stats| {
        vec![
            ("frozen", struck(stats, "clock frozen"), 90..),
            ("fenced writes", stats.writes_fenced, 1..),
        ]
    },
};
