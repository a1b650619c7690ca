//! The freshest policy.

use super::world::{World, done, group, node, node_spec, plain};
use crate::*;

fn freshest() -> GroupSpec {
    GroupSpec {
        policy: ElectionPolicy::Freshest { answers_min: None },
        prepare_deadline_ms: 500,
        ..plain()
    }
}

fn at(position: u64) -> Report {
    Report::Polled {
        position: Position(position),
    }
}

fn three(spec: GroupSpec) -> (World, [SessionKey; 3]) {
    let mut w = World::new();
    w.create("g", spec);
    let nodes = ["a", "b", "c"].map(|n| w.open(n));
    for n in nodes {
        w.contend(n, "g");
    }
    (w, nodes)
}

#[test]
fn the_freshest_of_all_that_live_is_elected_under_the_polls_token() {
    let (mut w, [a, b, c]) = three(freshest());
    w.check("g", Phase::Polling, None);
    let token = w.group("g").token_last;
    w.report_done(a, "g", at(5));
    w.report_done(b, "g", at(9));
    w.check("g", Phase::Polling, None);
    w.report_done(c, "g", at(7));
    w.check("g", Phase::Active, Some(b));
    assert_eq!(w.group("g").token_last, token);
    assert_eq!(
        w.group("g").tenure.as_ref().unwrap().won_by,
        Some(Criterion::Position)
    );
    assert!(
        !w.group("g")
            .tenure
            .as_ref()
            .unwrap()
            .configuration
            .endpoints
            .is_empty()
    );
}

#[test]
fn a_full_node_leads_where_it_alone_holds_the_freshest_data() {
    let mut w = World::new();
    w.create("g", freshest());
    w.create("other", plain());
    let full = w.open_spec(NodeSpec {
        max_tenures: 1,
        ..node_spec("full")
    });
    w.contend(full, "other");
    w.check("other", Phase::Active, Some(full));
    let (holder, stale) = (w.open("holder"), w.open("stale"));
    w.contend(holder, "g");
    w.report_done(holder, "g", at(100));
    w.check("g", Phase::Active, Some(holder));
    w.contend(full, "g");
    w.contend(stale, "g");
    w.expire(&[holder]);
    w.report_done(full, "g", at(100));
    w.report_done(stale, "g", at(50));
    w.check("g", Phase::Active, Some(full));
}

#[test]
fn who_dies_is_no_longer_waited_for_and_the_last_answer_decides() {
    let (mut w, [a, b, c]) = three(freshest());
    w.report_done(a, "g", at(5));
    w.report_done(b, "g", at(4));
    w.expire(&[c]);
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_poll_that_nobody_is_left_to_answer_ends() {
    let (mut w, nodes) = three(freshest());
    w.expire(&nodes);
    w.check("g", Phase::Vacant, None);
}

#[test]
fn too_few_answers_start_another_round_and_enough_decide_at_once() {
    let (mut w, [a, b, _]) = three(GroupSpec {
        policy: ElectionPolicy::Freshest {
            answers_min: Some(2),
        },
        ..freshest()
    });
    w.report_done(a, "g", at(1));
    let number = w.group("g").number_last;
    w.advance(500);
    w.check("g", Phase::Polling, None);
    assert!(w.group("g").number_last > number, "a round of its own");
    w.report_done(a, "g", at(1));
    w.report_done(b, "g", at(2));
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn nobody_behind_the_released_position_is_activated() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.check("g", Phase::Active, Some(a));
    w.release(a, "g", Some(100));
    w.check("g", Phase::Polling, None);
    w.report_done(b, "g", at(99));
    w.report_done(c, "g", at(98));
    w.report_done(a, "g", at(99));
    w.check("g", Phase::Polling, None);
    w.advance(500);
    w.check("g", Phase::Polling, None);
    w.report_done(b, "g", at(99));
    w.report_done(c, "g", at(98));
    w.report_done(a, "g", at(100));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn after_a_release_at_a_known_position_others_that_reach_it_go_first() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.release(a, "g", Some(100));
    w.report_done(a, "g", at(101));
    w.report_done(b, "g", at(100));
    w.report_done(c, "g", at(99));
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn after_an_expiry_the_old_holders_data_count_as_much_as_anybodys() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.expire(&[a]);
    w.check("g", Phase::Polling, None);
    let a = w.open("a");
    w.contend(a, "g");
    w.report_done(a, "g", at(50));
    w.report_done(b, "g", at(49));
    w.report_done(c, "g", at(49));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_handover_needs_no_poll_its_successor_reaches_the_released_position() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    for reported in [None, Some(20)] {
        let holder = w.state.session(w.group("g").holder().unwrap()).unwrap().key;
        let to = if holder == a { b } else { c };
        let to_node = w.state.session(to.id).unwrap().node.clone();
        done(&w.apply(Command::Transfer {
            group: group("g"),
            to: to_node,
            mode: TransferMode::Handover,
        }));
        if let Some(reported) = reported {
            w.report_done(
                to,
                "g",
                Report::Ready {
                    position: Position(reported),
                },
            );
            w.release(holder, "g", Some(20));
        } else {
            w.release(holder, "g", Some(19));
            w.check("g", Phase::Preparing, Some(to));
            w.report_done(
                to,
                "g",
                Report::Ready {
                    position: Position(19),
                },
            );
        }
        w.check("g", Phase::Active, Some(to));
    }
}

#[test]
fn readiness_follows_the_poll_under_the_same_token() {
    let (mut w, [a, b, c]) = three(GroupSpec {
        readiness: true,
        ..freshest()
    });
    for n in [a, b, c] {
        w.report_done(n, "g", at(n.id.0));
    }
    w.check("g", Phase::Preparing, Some(c));
    let token = w.group("g").token_last;
    w.report_done(
        c,
        "g",
        Report::Ready {
            position: Position(3),
        },
    );
    w.check("g", Phase::Active, Some(c));
    assert_eq!(w.group("g").token_last, token);
    assert_eq!(w.state.node(&node("c")).unwrap().load.preparing, 0);
}

#[test]
fn after_a_release_at_a_known_position_a_silent_contender_blocks_nobody() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.release(a, "g", Some(100));
    w.report_done(b, "g", at(100));
    w.check("g", Phase::Polling, None);
    // `c` may yet be as fresh and rank higher: it has until the deadline.
    w.advance(500);
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn after_a_release_those_behind_it_are_not_elected_for_want_of_answers() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.release(a, "g", Some(100));
    w.report_done(b, "g", at(99));
    w.advance(500);
    w.check("g", Phase::Polling, None);
}

#[test]
fn after_any_other_end_a_silent_contender_may_hold_what_nobody_else_does() {
    let (mut w, [a, b, c]) = three(freshest());
    for n in [a, b, c] {
        w.report_done(n, "g", at(10 - n.id.0));
    }
    w.expire(&[a]);
    w.report_done(b, "g", at(100));
    w.advance(500);
    w.check("g", Phase::Polling, None);
    w.expire(&[c]);
    w.report_done(b, "g", at(100));
    w.check("g", Phase::Active, Some(b));
}
