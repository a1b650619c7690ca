//! The sizes that are explored. Each gives the surroundings a little of a few things, since everything at once has too many states.

use super::{Elections, Limits, Start};
use crate::model::Wanted;
use crate::model::explorer::{Bounds, Report, explore};

/// One size to explore.
struct Size {
    name: &'static str,
    incoming: &'static [u64],
    outgoing: Option<&'static [u64]>,
    start: Start,
    limits: Limits,
}

const NOTHING: Limits = Limits {
    term_max: 2,
    elections: 2,
    proposals: 0,
    crashes: 0,
    reads: 0,
    transfers: 0,
    step_downs: 0,
    heartbeats: 0,
    reconnects: 0,
    snapshots: 0,
    duplicates: 0,
    pre_votes: false,
    forgets_vote: false,
    slow_disks: false,
};

/// Three voters that start with nothing.
const fn three(name: &'static str, limits: Limits) -> Size {
    started(name, Start::Fresh, limits)
}

/// Three voters.
const fn started(name: &'static str, start: Start, limits: Limits) -> Size {
    Size {
        name,
        incoming: &[1, 2, 3],
        outgoing: None,
        start,
        limits,
    }
}

/// What a test can afford: seconds.
const SMALL: &[Size] = &[
    three(
        "consensus: crashes, slow disks",
        Limits {
            term_max: 1,
            crashes: 1,
            slow_disks: true,
            ..NOTHING
        },
    ),
    three(
        "consensus: a crash in 2 terms",
        Limits {
            crashes: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: two reads in a term",
        Limits {
            term_max: 1,
            elections: 1,
            reads: 2,
            ..NOTHING
        },
    ),
    three(
        "consensus: reconnects",
        Limits {
            term_max: 1,
            elections: 1,
            crashes: 1,
            reconnects: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: transfer",
        Limits {
            elections: 1,
            transfers: 1,
            step_downs: 1,
            ..NOTHING
        },
    ),
    Size {
        name: "consensus: joint 123 + 234",
        incoming: &[1, 2, 3],
        outgoing: Some(&[2, 3, 4]),
        start: Start::Fresh,
        limits: Limits {
            term_max: 1,
            ..NOTHING
        },
    },
];

/// What a run in CI can afford: minutes.
const MEDIUM: &[Size] = &[
    three(
        "consensus: a command",
        Limits {
            proposals: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: a read",
        Limits {
            reads: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: step down, heartbeat",
        Limits {
            step_downs: 1,
            heartbeats: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: snapshot, crash",
        Limits {
            snapshots: 1,
            crashes: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: pre-votes",
        Limits {
            term_max: 1,
            pre_votes: true,
            ..NOTHING
        },
    ),
    three(
        "consensus: duplicates",
        Limits {
            duplicates: 1,
            ..NOTHING
        },
    ),
    started(
        "consensus: diverged logs, 4 terms",
        Start::Diverged,
        Limits {
            term_max: 4,
            ..NOTHING
        },
    ),
    started(
        "consensus: diverged logs, heartbeat",
        Start::Diverged,
        Limits {
            term_max: 3,
            elections: 1,
            heartbeats: 1,
            ..NOTHING
        },
    ),
    started(
        "consensus: a longer, older log",
        Start::Longer,
        Limits {
            term_max: 4,
            ..NOTHING
        },
    ),
    started(
        "consensus: an answer of long ago",
        Start::Answered,
        Limits {
            term_max: 4,
            ..NOTHING
        },
    ),
    started(
        "consensus: a late snapshot",
        Start::Arrived,
        Limits {
            term_max: 5,
            ..NOTHING
        },
    ),
];

/// What takes a big machine, or an evening.
const DEEP: &[Size] = &[
    three(
        "consensus: pre-votes, 2 terms",
        Limits {
            pre_votes: true,
            ..NOTHING
        },
    ),
    three(
        "consensus: a command, a crash",
        Limits {
            proposals: 1,
            crashes: 1,
            ..NOTHING
        },
    ),
    three(
        "consensus: slow disks, 2 terms",
        Limits {
            slow_disks: true,
            ..NOTHING
        },
    ),
    three(
        "consensus: 3 terms",
        Limits {
            term_max: 3,
            elections: 3,
            ..NOTHING
        },
    ),
    Size {
        name: "consensus: joint, 2 terms",
        incoming: &[1, 2, 3],
        outgoing: Some(&[2, 3, 4]),
        start: Start::Fresh,
        limits: NOTHING,
    },
];

fn run_sizes<'a>(sizes: impl Iterator<Item = &'a Size>) -> Vec<Report> {
    sizes
        .map(|size| {
            let Size {
                name,
                incoming,
                outgoing,
                start,
                limits,
            } = *size;
            let model = Elections::new(incoming, outgoing, start, limits);
            explore(name, &model, Bounds::default())
        })
        .collect()
}

/// Explores a small size with a disk that forgets the vote in a crash: the model must notice.
#[must_use]
pub fn run_forgetful() -> Report {
    let limits = Limits {
        term_max: 1,
        crashes: 1,
        forgets_vote: true,
        ..NOTHING
    };
    let size = three("consensus: forgetful disks", limits);
    run_sizes(std::iter::once(&size)).remove(0)
}

/// Explores the sizes that a test can afford.
#[must_use]
pub fn run_small() -> Vec<Report> {
    run_sizes(SMALL.iter())
}

/// Explores the sizes that are wanted.
#[must_use]
pub fn run(wanted: &Wanted) -> Vec<Report> {
    let deep = DEEP.iter().filter(|_| wanted.is_deep);
    let all = SMALL.iter().chain(MEDIUM).chain(deep);
    run_sizes(all.filter(|size| wanted.has(size.name)))
}
