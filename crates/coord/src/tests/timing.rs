//! What a re-election costs. Not run by default: `cargo test -p quorate-coord -- --ignored --nocapture timing`.

use std::time::Duration;

use super::world::{World, done, group, plain};
use crate::*;

const GROUPS: usize = 100_000;

/// The processor time that this thread has had: a crowded machine does not lengthen it.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// One node leads all groups and another stands in all: the first one's end re-elects them in one apply.
#[test]
#[ignore = "it prints times and checks nothing"]
fn timing_of_reelecting_100_000_groups() {
    let mut w = World::new();
    w.checked = false;
    let names: Vec<_> = (0..GROUPS)
        .map(|at| group(&format!("orders/shard-{at:06}")))
        .collect();
    let begun = spent();
    for names in names.chunks(BATCH_MAX) {
        let groups = names.iter().map(|name| (name.clone(), plain())).collect();
        done(&w.apply(Command::CreateGroups { groups }));
    }
    println!("created: {:?}", spent() - begun);
    let nodes = [w.open("node-a"), w.open("node-b"), w.open("node-c")];
    let begun = spent();
    for session in nodes {
        for names in names.chunks(BATCH_MAX) {
            let spec = ContenderSpec {
                priority: 0,
                configuration: ProposedConfiguration {
                    endpoints: vec![format!("10.0.0.{}:6379", session.id.0)],
                    metadata: [("zone".to_owned(), "eu-1".to_owned())].into(),
                },
            };
            let groups = names
                .iter()
                .map(|name| (name.clone(), spec.clone()))
                .collect();
            done(&w.apply(Command::Contend { session, groups }));
        }
    }
    println!("contended, elected: {:?}", spent() - begun);
    for (at, session) in nodes.iter().take(2).enumerate() {
        let held = w.state.groups_held(session.id).count();
        let version = w.state.clone();
        w.index = w.index.next();
        let command = Command::ExpireSessions {
            term: w.term,
            sessions: vec![*session],
        };
        let envelope = w.envelope(RequestKey::Internal, command);
        let mut events = Vec::new();
        let begun = spent();
        done(&w.state.apply(w.index, w.term, &envelope, &mut events));
        println!(
            "end {at}: {held} groups re-elected in {:?}, {} events",
            spent() - begun,
            events.len()
        );
        drop(version);
    }
}
