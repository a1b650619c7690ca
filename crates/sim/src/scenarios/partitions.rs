//! The partial partitions of Omni-Paxos (EuroSys 2023, section 2): what Raft-like protocols may livelock in or stand still in. What is
//! claimed today is safety, and progress once the partition is over; where there is progress within it, the story says why.

use super::{Scenario, again, ms, peaceful, struck};
use crate::faults::{Fault, Shape};
use crate::setup::Setup;

/// One at the beginning of each of the twelve runs, one within each of its two partitions.
const ELECTIONS: u64 = 12 + 24;

fn partitioned(shape: Shape) -> Setup {
    let partition = Fault::Shaped {
        shape,
        server: 2,
        one_way: false,
        seed: 5,
        breaks: true,
        lasts: ms(5_000),
    };
    peaceful(5, again(ms(3_000), ms(7_000), 2, &partition))
}

/// The leader reaches only one follower, and so does everybody else. The leader counts answers (check-quorum), sees that it lost its
/// quorum and steps down, which clears the others' stickiness; only the hub can collect a quorum, and it does.
pub(super) const QUORUM_LOSS: Scenario = Scenario {
    name: "quorum-loss",
    rule: "1",
    setup: || partitioned(Shape::QuorumLoss),
    shows: |stats| {
        vec![
            ("partitions", struck(stats, "partition: quorum loss"), 24..),
            ("leaders", stats.leaders, ELECTIONS..),
        ]
    },
};

/// The leader is off, and the others reach one server only. Only that one can win; where its log is behind, those ahead of it refuse
/// it and cannot win themselves, until log adoption is built (protocol, section 5) or the partition ends. Here all are level, and it wins.
pub(super) const CONSTRAINED_ELECTION: Scenario = Scenario {
    name: "constrained-election",
    rule: "1",
    setup: || partitioned(Shape::Constrained),
    shows: |stats| {
        vec![
            (
                "partitions",
                struck(stats, "partition: constrained election"),
                24..,
            ),
            ("leaders", stats.leaders, ELECTIONS..),
        ]
    },
};

/// A chain with the leader at its end. Of five, the leader reaches one follower and loses its quorum; the middle of the chain reaches two,
/// which is a quorum with itself. Without pre-votes both ends would depose each other for ever; with them, who cannot win disturbs nobody.
pub(super) const CHAINED: Scenario = Scenario {
    name: "chained",
    rule: "1",
    setup: || partitioned(Shape::Chained),
    shows: |stats| {
        vec![
            ("partitions", struck(stats, "partition: chained"), 24..),
            ("leaders", stats.leaders, ELECTIONS..),
        ]
    },
};
