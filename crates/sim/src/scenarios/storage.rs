//! Disks: protocol.md, section 7.

use super::{Scenario, again, checked, ms, peaceful, struck, together};
use crate::faults::{CrashPoint, Fault, Shape, SnapshotCut};

/// A member is started from an old disk while the leader, which remembers its acknowledgements, is cut off. It first meets the third
/// one, and with it a newer term. When the leader is back, it must still be told and stop: what it now has in memory is newer than
/// what it forgot (ADR rolled-back-disk-judged-by-boot). Clients are nearly idle, so that nothing is on its way that only the two hold.
pub(super) const RESTORED_DISK_ADOPTS_TERM: Scenario = Scenario {
    name: "restored-disk-adopts-term",
    rule: "7",
    setup: || {
        let old = Fault::OldDisk {
            server: 1,
            age: ms(3_010),
            sure: false,
        };
        let off = Fault::OnLeader(Box::new(Fault::Shaped {
            shape: Shape::OneOff,
            server: 0,
            one_way: false,
            seed: 1,
            breaks: true,
            lasts: ms(2_000),
        }));
        let plan = together([
            again(ms(3_000), ms(1), 1, &old),
            again(ms(6_000), ms(1), 1, &off),
        ]);
        let mut setup = peaceful(3, plan);
        setup.think_max = ms(1_500);
        setup
    },
    shows: |stats| {
        vec![
            ("restored", struck(stats, "started from an old disk"), 12..),
            // Where it led itself, it was the witness that was restored: what it acknowledged, nobody else saw.
            (
                "told",
                struck(stats, "an old disk was told by its peers"),
                6..,
            ),
        ]
    },
};

/// The third member is off while the first two commit, and the second is then started from a disk older than that. The first must
/// tell it, so that it stops: when the first goes off in turn, the other two would be a quorum that knows nothing of what was
/// acknowledged. Where the second led itself and its term did not change meanwhile, nobody can tell it. Then the first, which holds
/// everything, is elected and brings it up to date before it goes; little jitter leaves it the time.
pub(super) const RESTORED_DISK_WAS_IN_THE_QUORUM: Scenario = Scenario {
    name: "restored-disk-was-in-the-quorum",
    rule: "7",
    setup: || {
        let off = |server, lasts| Fault::Shaped {
            shape: Shape::OneOff,
            server,
            one_way: false,
            seed: 1,
            breaks: true,
            lasts,
        };
        let old = Fault::OldDisk {
            server: 1,
            age: ms(3_000),
            sure: false,
        };
        let plan = together([
            again(ms(4_000), ms(1), 1, &old),
            again(ms(4_100), ms(1), 1, &off(2, ms(3_700))),
            again(ms(7_650), ms(1), 1, &off(0, ms(2_000))),
        ]);
        let mut setup = peaceful(3, plan);
        setup.timing.election_jitter = ms(10);
        setup.think_max = ms(60);
        setup
    },
    shows: |stats| {
        vec![
            ("restored", struck(stats, "started from an old disk"), 12..),
            (
                "told",
                struck(stats, "an old disk was told by its peers"),
                6..,
            ),
            ("off", struck(stats, "partition: one server off"), 24..),
        ]
    },
};

/// A member that was away for long is sent a snapshot, and the transfer breaks off in each way; it must go on or begin again, and the
/// member must come to the same state as the others.
pub(super) const SNAPSHOT_CUT_MIDWAY: Scenario = Scenario {
    name: "snapshot-cut-midway",
    rule: "7",
    setup: || {
        let cuts = [
            SnapshotCut::Connection,
            SnapshotCut::Sender,
            SnapshotCut::Receiver,
        ];
        let plan = cuts.into_iter().enumerate().map(|(at, cut)| {
            let cut = Fault::CutSnapshot {
                server: at,
                down: ms(2_500),
                cut,
            };
            again(ms(3_000 + at as u64 * 6_000), ms(1), 1, &cut)
        });
        let mut setup = peaceful(3, together(plan));
        setup.chunk_bytes = 256;
        setup.snapshot_entries = 16;
        setup.snapshot_retain = 0;
        setup.think_max = ms(60);
        setup
    },
    shows: |stats| {
        vec![
            (
                "connection",
                struck(stats, "snapshot cut midway: connection"),
                3..,
            ),
            ("sender", struck(stats, "snapshot cut midway: sender"), 3..),
            (
                "receiver",
                struck(stats, "snapshot cut midway: receiver"),
                3..,
            ),
            ("installed", struck(stats, "snapshot installed"), 12..),
        ]
    },
};

/// The power goes everywhere at once, and at each point around a write: what was acknowledged was durable at a quorum by then.
pub(super) const POWER_LOST_AROUND_WRITES: Scenario = Scenario {
    name: "power-lost-around-writes",
    rule: "7",
    setup: || {
        let points = [
            CrashPoint::BeforeWrite,
            CrashPoint::DuringSync,
            CrashPoint::AfterSync,
            CrashPoint::AfterPromises,
        ];
        let crashes = points.into_iter().enumerate().map(|(at, point)| {
            let crash = Fault::CrashAt {
                server: at % 3,
                point,
                passes: 3,
                power: true,
            };
            again(ms(2_500 + at as u64 * 400), ms(2_600), 4, &crash)
        });
        let everywhere = Fault::PowerLoss { down: ms(40) };
        let plan = crashes.chain([again(ms(2_900), ms(1_700), 6, &everywhere)]);
        let mut setup = peaceful(3, together(plan));
        setup.sync = ms(8);
        setup.think_max = ms(40);
        setup
    },
    shows: |stats| {
        vec![
            ("power cuts", struck(stats, "power cut everywhere"), 60..),
            ("before", struck(stats, "crash before a write"), 20..),
            ("during", struck(stats, "crash before its sync ended"), 20..),
            (
                "after",
                struck(stats, "crash after a sync, before its promises left"),
                20..,
            ),
            (
                "reported",
                struck(stats, "crash after a sync, before it was reported"),
                5..,
            ),
            (
                "acknowledged",
                checked(stats, "acknowledged_writes_survive"),
                500..,
            ),
        ]
    },
};
