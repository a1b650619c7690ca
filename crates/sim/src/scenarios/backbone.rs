//! Terms, rounds and expiry: protocol.md, sections 1 and 2.

use super::{Scenario, again, checked, ms, peaceful, struck, together};
use crate::faults::{Fault, Shape};

/// The leader is cut off with calls still coming in: it appends what it can never commit. The others elect, commit other entries at
/// the same places, and the old leader's suffix must give way without any of it having been acknowledged (Raft, figure 8).
pub(super) const UNACKNOWLEDGED_SUFFIX: Scenario = Scenario {
    name: "unacknowledged-suffix",
    rule: "1",
    setup: || {
        let off = Fault::Shaped {
            shape: Shape::Mute,
            server: 0,
            one_way: false,
            seed: 1,
            breaks: false,
            lasts: ms(1_200),
        };
        let off = Fault::OnLeader(Box::new(off));
        let mut setup = peaceful(5, again(ms(3_000), ms(2_500), 5, &off));
        setup.think_max = ms(60);
        setup
    },
    shows: |stats| {
        vec![
            ("leader mute", struck(stats, "partition: mute"), 40..),
            ("leaders", stats.leaders, 60..),
            (
                "acknowledged",
                checked(stats, "acknowledged_writes_survive"),
                1_000..,
            ),
        ]
    },
};

/// A leader that is about to expire sessions is deposed. Its expiry, appended and not committed, may reach the log under the next
/// leader, which has granted all sessions their whole time again: apply drops it for its stamp.
pub(super) const STALE_EXPIRY: Scenario = Scenario {
    name: "stale-expiry",
    rule: "2",
    setup: || {
        // Nodes stand still for about their TTL, so that expiries are under way when the leader goes.
        let pauses = (0..4).flat_map(|node| {
            let pause = Fault::PauseNode {
                node,
                lasts: ms(1_100 + node as u64 * 50),
            };
            again(ms(3_000 + node as u64 * 30), ms(2_500), 5, &pause)
        });
        let slow = Fault::OnLeader(Box::new(Fault::SlowDisk {
            server: 0,
            latency: ms(60),
            lasts: ms(1_500),
        }));
        let off = Fault::OnLeader(Box::new(Fault::Shaped {
            shape: Shape::Mute,
            server: 0,
            one_way: false,
            seed: 1,
            breaks: false,
            lasts: ms(900),
        }));
        let plan = together([
            pauses.collect(),
            again(ms(3_500), ms(2_500), 5, &slow),
            again(ms(4_020), ms(2_500), 5, &off),
        ]);
        let mut setup = peaceful(3, plan);
        setup.ttl_ms = (900, 1_000);
        setup
    },
    shows: |stats| {
        vec![
            ("leaders", stats.leaders, 50..),
            (
                "nodes paused",
                struck(stats, "node paused for a TTL or more"),
                150..,
            ),
            (
                "sessions judged",
                checked(stats, "sessions_never_expire_early"),
                100..,
            ),
        ]
    },
};

/// Keep-alives arrive while the end of their session is being appended: none that comes after the append may be answered, whether
/// the end is applied yet or not. Disks are slow, so that the two take long to meet.
pub(super) const KEEP_ALIVE_AROUND_EXPIRY: Scenario = Scenario {
    name: "keep-alive-around-expiry",
    rule: "2",
    setup: || {
        let pauses = (0..4).flat_map(|node| {
            // Just below, at and above the TTL and the server's stretched one.
            let pause = Fault::PauseNode {
                node,
                lasts: ms(780 + node as u64 * 12),
            };
            again(ms(2_500 + node as u64 * 200), ms(1_500), 9, &pause)
        });
        let slow = (0..3).flat_map(|server| {
            let slow = Fault::SlowDisk {
                server,
                latency: ms(120),
                lasts: ms(20_000),
            };
            again(ms(2_000), ms(1), 1, &slow)
        });
        let mut setup = peaceful(3, together([pauses.collect(), slow.collect()]));
        setup.ttl_ms = (800, 802);
        setup.habits.wander = true;
        setup
    },
    shows: |stats| {
        vec![
            ("keep-alives answered", stats.keep_alives, 500..),
            (
                "sessions judged",
                checked(stats, "sessions_never_expire_early"),
                100..,
            ),
        ]
    },
};
