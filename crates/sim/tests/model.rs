//! The small sizes of the exhaustive model check of the state machine; `quorate-model coord` runs the bigger ones.

use quorate_sim::model::coord::sizes::{self, live_one};
use quorate_sim::model::coord::{Coord, Promise};
use quorate_sim::model::explorer::{Bounds, explore};
use quorate_sim::model::liveness::Property;

#[test]
fn small_sizes_are_exhausted_without_a_violation() {
    for (name, size) in sizes::small() {
        let report = explore(name, &size, Bounds::default());
        if let Some(violation) = &report.violation {
            panic!("{name}: {violation}");
        }
        assert!(report.is_exhausted, "{name} reached a bound");
        assert!(
            report.states > 100,
            "{name} has only {} states: it explores nothing",
            report.states
        );
    }
}

fn smallest_liveness() -> (Coord, Property) {
    sizes::small_liveness()
}

#[test]
fn a_group_with_a_live_and_ready_contender_is_eventually_led() {
    let (size, property) = smallest_liveness();
    let report = live_one("liveness", &size, property);
    assert!(report.is_exhausted, "no bound");
    if let Some(violation) = &report.violation {
        panic!("{violation}");
    }
}

#[test]
fn a_leader_that_forgets_deadlines_is_caught_by_a_fair_cycle() {
    let (mut size, property) = smallest_liveness();
    size.is_time_frozen = true;
    let report = live_one("frozen", &size, property);
    let violation = report
        .violation
        .expect("who prepares and is silent is waited for");
    assert!(violation.what.contains("fair cycle"), "{violation}");
    assert!(
        violation.steps.iter().any(|step| step.starts_with("--")),
        "a prefix and a cycle: {violation}"
    );
}

#[test]
fn a_silent_contender_blocks_a_poll_of_all_after_an_unclean_end_as_documented() {
    let (size, property) = sizes::silent();
    let after_release = live_one("after a release", &size, property);
    if let Some(violation) = &after_release.violation {
        panic!("ADR silent-contenders: {violation}");
    }
    let Some(promise) = size.promise else {
        panic!("liveness needs a promise");
    };
    let after_any_end = size.promising(Promise {
        after_release: false,
        ..promise
    });
    let report = live_one("after any end", &after_any_end, property);
    assert!(
        report.violation.is_some(),
        "it may hold what nobody else does"
    );
}
