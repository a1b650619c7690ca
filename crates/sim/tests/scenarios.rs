//! Every named scenario is clean, and what its story tells happens.

use quorate_sim::scenarios::ALL;

#[test]
fn scenarios_are_clean_and_show_what_they_tell() {
    let mut wrong = Vec::new();
    for scenario in ALL {
        let outcome = scenario.run();
        if let Some((seed, violation)) = outcome.failure {
            wrong.push(format!("{} seed {seed}: {violation}", scenario.name));
        }
        for missing in outcome.missing {
            wrong.push(format!("{}: {missing}", scenario.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
