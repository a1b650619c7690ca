//! The small sizes of the exhaustive model check of elections; `quorate-model consensus` runs the bigger ones.

use quorate_sim::model::consensus::sizes;

#[test]
fn small_sizes_are_exhausted_without_a_violation() {
    let reports = sizes::run_small();
    for report in &reports {
        if let Some(violation) = &report.violation {
            panic!("{}: {violation}", report.name);
        }
        assert!(report.is_exhausted, "{} reached a bound", report.name);
        assert!(
            report.states > 1_000,
            "{} has only {} states: it explores nothing",
            report.name,
            report.states
        );
    }
    // Every guarantee was looked at somewhere.
    for (guarantee, count) in reports.iter().flat_map(|report| &report.counts) {
        let looked_at: u64 = reports
            .iter()
            .flat_map(|report| &report.counts)
            .filter(|(name, _)| name == guarantee)
            .map(|(_, count)| count)
            .sum();
        assert!(looked_at > 0, "{guarantee}: {count} times");
    }
}

#[test]
fn a_disk_that_forgets_the_vote_is_found_by_a_second_vote_in_its_term() {
    let report = sizes::run_forgetful();
    let violation = report.violation.expect("two votes in one term");
    assert!(
        violation.what.starts_with("a vote once per term"),
        "{violation}"
    );
    // The start, two candidacies with a request delivered each, and the crash in between.
    assert!(violation.steps.len() <= 6, "{violation}");
}
