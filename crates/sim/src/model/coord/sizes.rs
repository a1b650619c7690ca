//! The sizes that are run, the liveness properties, and how.

use std::collections::BTreeMap;

use quorate_coord::{ElectionPolicy, GroupSpec, NodeSpec, OverduePolicy};
use quorate_types::{ContractVersion, GroupName, NodeName};

use super::actions::class;
use super::canon::Scale;
use super::checks::Tally;
use super::{Allowed, Coord, Promise, TICK_MS};
use crate::model::Wanted;
use crate::model::explorer::{Bounds, Report, explore};
use crate::model::liveness::{Property, check};

/// A spec whose durations are ticks, and which does nothing on its own but what a size is about.
#[must_use]
pub fn plain() -> GroupSpec {
    GroupSpec {
        prepare_deadline_ms: TICK_MS,
        handover_deadline_ms: TICK_MS,
        minimum_tenure_ms: 0,
        cooldown_ms: 0,
        cooldown_max_ms: 0,
        spread: false,
        depose_window_ms: TICK_MS,
        ..GroupSpec::default()
    }
}

/// One that polls.
#[must_use]
pub fn freshest(answers_min: Option<u32>) -> GroupSpec {
    GroupSpec {
        policy: ElectionPolicy::Freshest { answers_min },
        ..plain()
    }
}

/// A cool-down of one tick, then two.
#[must_use]
pub fn cooling(spec: GroupSpec) -> GroupSpec {
    GroupSpec {
        cooldown_ms: TICK_MS,
        cooldown_max_ms: 2 * TICK_MS,
        ..spec
    }
}

fn node(at: usize) -> NodeSpec {
    NodeSpec {
        name: NodeName::new(["a", "b", "c", "d"][at]).expect("a short name"),
        labels: BTreeMap::new(),
        weight: 1,
        max_tenures: 0,
        max_preparing: 0,
        contract_min: ContractVersion(1),
        contract_max: ContractVersion(1),
    }
}

impl Coord {
    /// A size of so many nodes, and a group of each spec.
    #[must_use]
    pub fn new(nodes: usize, specs: Vec<GroupSpec>) -> Self {
        let longest = |of: fn(&GroupSpec) -> u64| specs.iter().map(of).max().unwrap_or(0);
        let scale = Scale {
            minimum_tenure_ms: longest(|spec| spec.minimum_tenure_ms),
            depose_window_ms: longest(|spec| spec.depose_window_ms),
            // `plain` has no cool-down, `cooling` reaches its bound with the second failure.
            failures_max: 1,
        };
        let name = |at| GroupName::new(["g", "h", "i"][at]).expect("a short name");
        Self {
            groups: specs
                .into_iter()
                .enumerate()
                .map(|(at, spec)| (name(at), spec))
                .collect(),
            nodes: (0..nodes).map(node).collect(),
            priorities: vec![0],
            positions: vec![0],
            allowed: Allowed::default(),
            promise: None,
            is_time_frozen: false,
            scale,
            tally: Tally::default(),
        }
    }

    /// With these priorities to stand with.
    #[must_use]
    pub fn priorities(mut self, priorities: &[i32]) -> Self {
        self.priorities = priorities.to_vec();
        self
    }

    /// With these positions to report.
    #[must_use]
    pub fn positions(mut self, positions: &[u64]) -> Self {
        self.positions = positions.to_vec();
        self
    }

    /// With these commands.
    #[must_use]
    pub fn allowing(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// With a contender that can be relied on.
    #[must_use]
    pub fn promising(mut self, promise: Promise) -> Self {
        self.promise = Some(promise);
        self
    }

    /// With limits on each node; 0: none.
    #[must_use]
    pub fn limited(mut self, max_tenures: u32, max_preparing: u32) -> Self {
        for node in &mut self.nodes {
            node.max_tenures = max_tenures;
            node.max_preparing = max_preparing;
        }
        self
    }
}

/// What is allowed in most sizes: everything but nodes' admission, closing and lateness.
const MOST: Allowed = Allowed {
    revoke_session: true,
    close: false,
    withdraw: true,
    transfer: true,
    force: true,
    delete: true,
    cordon: false,
    drain: false,
    depose: false,
    fail: true,
    late: false,
};

/// Most states of one size without `--deep`: keeps the whole run within minutes. What reaches it is said not to be exhausted.
const STATES_MAX: usize = 150_000;

/// The sizes explored for safety beyond the small ones.
#[must_use]
pub fn safety(is_deep: bool) -> Vec<(&'static str, Coord)> {
    let prepared = GroupSpec {
        readiness: true,
        handover_overdue: OverduePolicy::Revoke,
        ..plain()
    };
    let mut sizes = vec![
        (
            "plain, 2 nodes",
            Coord::new(2, vec![plain()]).allowing(Allowed {
                close: true,
                late: true,
                ..MOST
            }),
        ),
        (
            "plain, admission, 2 nodes",
            Coord::new(2, vec![cooling(plain())]).allowing(Allowed {
                cordon: true,
                drain: true,
                ..Allowed::default()
            }),
        ),
        (
            "prepared, 2 nodes",
            Coord::new(2, vec![prepared.clone()])
                .positions(&[0, 1])
                .allowing(Allowed {
                    revoke_session: false,
                    ..MOST
                }),
        ),
        (
            // Deadlines elect within the entry of a command that ends who was elected.
            "prepared, late, 2 nodes",
            Coord::new(2, vec![prepared.clone()]).allowing(Allowed {
                withdraw: true,
                fail: true,
                late: true,
                ..Allowed::default()
            }),
        ),
        (
            "freshest of all, 2 nodes",
            Coord::new(2, vec![freshest(None)])
                .positions(&[0, 1, 2])
                .allowing(Allowed {
                    withdraw: true,
                    force: true,
                    fail: true,
                    ..Allowed::default()
                }),
        ),
        (
            "freshest of 2, 3 nodes",
            Coord::new(3, vec![freshest(Some(2))])
                .positions(&[0, 1])
                .allowing(Allowed::default()),
        ),
        (
            "deposed by peers, 3 nodes",
            Coord::new(3, vec![cooling(plain())]).allowing(Allowed {
                depose: true,
                ..Allowed::default()
            }),
        ),
        (
            "2 groups, limits, 2 nodes",
            Coord::new(2, vec![plain(), prepared.clone()])
                .limited(1, 1)
                .allowing(Allowed {
                    force: true,
                    ..Allowed::default()
                }),
        ),
    ];
    if is_deep {
        sizes.push((
            "deep: plain, 2 nodes, everything",
            Coord::new(2, vec![cooling(plain())])
                .priorities(&[0, 1])
                .allowing(Allowed {
                    close: true,
                    cordon: true,
                    drain: true,
                    depose: true,
                    late: true,
                    ..MOST
                }),
        ));
        sizes.push((
            "deep: plain, 3 nodes",
            Coord::new(3, vec![plain()])
                .priorities(&[0, 1])
                .allowing(MOST),
        ));
        sizes.push((
            "deep: prepared, 3 nodes",
            Coord::new(3, vec![cooling(prepared)])
                .positions(&[0, 1])
                .allowing(MOST),
        ));
        sizes.push((
            "deep: freshest of all, 3 nodes",
            Coord::new(3, vec![cooling(freshest(None))])
                .positions(&[0, 1])
                .allowing(MOST),
        ));
    }
    sizes
}

/// Explores those of them that are wanted.
#[must_use]
pub fn run(wanted: &Wanted) -> Vec<Report> {
    let is_deep = wanted.is_deep;
    let bounds = if is_deep {
        Bounds::default()
    } else {
        Bounds {
            states_max: STATES_MAX,
            ..Bounds::default()
        }
    };
    let explored = small()
        .into_iter()
        .chain(safety(is_deep))
        .map(|(name, size)| (format!("coord: {name}"), size))
        .filter(|(name, _)| wanted.has(name))
        .inspect(|(name, _)| eprintln!("{name}"))
        .map(|(name, size)| explore(&name, &size, bounds));
    let mut reports: Vec<_> = explored.collect();
    reports.extend(live(wanted));
    reports
}

const FAIR: u64 = 1 << class::TIME | 1 << class::VACATE | 1 << class::GOOD;
const OTHERS: u64 = 0xff << class::OTHERS;

/// What is asked of every policy.
const ANY: Property = Property {
    name: "a group with a live, ready contender is eventually led, whatever others do",
    wants: u64::MAX,
    fair: FAIR,
    stops: 1 << class::OPERATOR,
};

/// The sizes explored for liveness, with what is asked of each.
#[must_use]
pub fn liveness() -> Vec<(Coord, Property)> {
    let prepared = GroupSpec {
        readiness: true,
        ..plain()
    };
    let churn = Allowed {
        fail: true,
        withdraw: true,
        force: true,
        ..Allowed::default()
    };
    vec![
        (
            Coord::new(3, vec![cooling(prepared.clone())])
                .priorities(&[0, 1])
                .allowing(churn)
                .promising(ALONE),
            ANY,
        ),
        (
            Coord::new(2, vec![cooling(prepared.clone()), cooling(prepared)])
                .limited(0, 1)
                .allowing(churn)
                .promising(ALONE),
            ANY,
        ),
        (
            Coord::new(3, vec![cooling(freshest(Some(1)))])
                .positions(&[0, 1])
                .allowing(churn)
                .promising(ALONE),
            ANY,
        ),
        (
            Coord::new(2, vec![cooling(freshest(None))])
                .positions(&[0, 1])
                .allowing(churn)
                .promising(Promise {
                    after_release: true,
                    ..ALONE
                }),
            Property {
                name: "freshest of all, released at a known position: a silent contender blocks nobody",
                ..ANY
            },
        ),
        (
            Coord::new(3, vec![cooling(freshest(None))])
                .positions(&[0, 1])
                .allowing(churn)
                .promising(Promise {
                    others_answer: true,
                    ..ALONE
                }),
            Property {
                name: "freshest of all, after any end: led once those who stand stay and answer",
                fair: FAIR | OTHERS,
                stops: ANY.stops | 1 << class::CHURN,
                ..ANY
            },
        ),
    ]
}

/// Explores those that are wanted with their graphs, and looks for fair cycles.
#[must_use]
pub fn live(wanted: &Wanted) -> Vec<Report> {
    let mut reports = Vec::new();
    let small = ("coord: liveness, small".to_owned(), small_liveness());
    // Their graphs are kept whole, and have no bound.
    let others = liveness()
        .into_iter()
        .enumerate()
        .filter(|_| wanted.is_deep)
        .map(|(at, size)| (format!("coord: liveness {}", at + 1), size));
    for (name, (size, property)) in std::iter::once(small).chain(others) {
        if wanted.has(&name) {
            eprintln!("{name}");
            reports.push(live_one(&name, &size, property));
        }
    }
    reports
}

/// One of them.
#[must_use]
pub fn live_one(name: &str, size: &Coord, property: Property) -> Report {
    let bounds = Bounds {
        graph: true,
        ..Bounds::default()
    };
    let mut report = explore(name, size, bounds);
    if report.is_exhausted {
        // Each group on its own: a cycle that starves one may lead the other now and then.
        for group in 0..size.groups.len() {
            let lives = check(
                size,
                &report,
                Property {
                    wants: 1 << group,
                    ..property
                },
            );
            report.counts.push((property.name, lives.wanting as u64));
            if let Some(violation) = lives.violation {
                report.violation = Some(violation);
                break;
            }
        }
    }
    report.graph = None;
    report
}

/// Sizes small enough for a test.
#[must_use]
pub fn small() -> Vec<(&'static str, Coord)> {
    let prepared = GroupSpec {
        readiness: true,
        ..plain()
    };
    vec![
        (
            "plain, 2 nodes, small",
            Coord::new(2, vec![plain()]).allowing(Allowed {
                force: true,
                fail: true,
                ..Allowed::default()
            }),
        ),
        (
            "prepared, 2 nodes, small",
            Coord::new(2, vec![prepared]).allowing(Allowed {
                withdraw: true,
                fail: true,
                ..Allowed::default()
            }),
        ),
        (
            "freshest of all, 2 nodes, small",
            Coord::new(2, vec![freshest(None)])
                .positions(&[0, 1])
                .allowing(Allowed {
                    fail: true,
                    ..Allowed::default()
                }),
        ),
    ]
}

/// The promise that one contender can be relied on, and no other.
const ALONE: Promise = Promise {
    good: 0,
    others_answer: false,
    after_release: false,
};

/// The liveness of a size small enough for a test: two nodes, one of which can be relied on.
#[must_use]
pub fn small_liveness() -> (Coord, Property) {
    let prepared = GroupSpec {
        readiness: true,
        ..plain()
    };
    let size = Coord::new(2, vec![cooling(prepared)])
        .priorities(&[0, 1])
        .allowing(Allowed {
            fail: true,
            ..Allowed::default()
        })
        .promising(ALONE);
    (size, ANY)
}

/// One that can be relied on beside one that is silent, under the freshest policy, after a release at a known position.
#[must_use]
pub fn silent() -> (Coord, Property) {
    let size = Coord::new(2, vec![freshest(None)])
        .positions(&[0, 1])
        .allowing(Allowed {
            force: true,
            ..Allowed::default()
        })
        .promising(Promise {
            after_release: true,
            ..ALONE
        });
    (size, ANY)
}
