//! Who is elected, limits, cool-downs, preparation, deletion, explanations.

use super::world::{World, done, group, node, node_spec, plain};
use crate::*;

fn zoned(name: &str, zone: &str) -> NodeSpec {
    NodeSpec {
        labels: [("zone".into(), zone.into())].into(),
        ..node_spec(name)
    }
}

#[test]
fn priority_then_locality_then_load_decide() {
    let mut w = World::new();
    let (a, b, c) = (
        w.open_spec(zoned("a", "x")),
        w.open_spec(zoned("b", "y")),
        w.open_spec(zoned("c", "y")),
    );
    let spec = GroupSpec {
        prefer: vec![("zone".into(), "y".into())],
        ..plain()
    };
    // All stand before the group may elect: they are cordoned, and opened together by the holder's end.
    let d = w.open("d");
    let elect = |w: &mut World, name: &str, priorities: [i32; 3]| {
        w.create(name, spec.clone());
        w.contend_at(d, name, 99);
        for (session, priority) in [a, b, c].into_iter().zip(priorities) {
            w.contend_at(session, name, priority);
        }
        w.release(d, name, None);
        let tenure = w.group(name).tenure.clone().unwrap();
        (tenure.holder.unwrap(), tenure.won_by.unwrap())
    };
    assert_eq!(elect(&mut w, "p", [5, 0, 0]), (a.id, Criterion::Priority));
    assert_eq!(elect(&mut w, "q", [0, 0, -1]), (b.id, Criterion::Locality));
    assert_eq!(
        elect(&mut w, "r", [0, 0, 0]),
        (c.id, Criterion::Load),
        "b carries one already"
    );
    assert_eq!(elect(&mut w, "s", [-1, 0, 0]).1, Criterion::Hash);
}

#[test]
fn required_labels_keep_others_out() {
    let mut w = World::new();
    let (a, b) = (w.open_spec(zoned("a", "x")), w.open_spec(zoned("b", "y")));
    w.create(
        "g",
        GroupSpec {
            require: [("zone".into(), "y".into())].into(),
            ..plain()
        },
    );
    match w.apply(Command::Contend {
        session: a,
        groups: vec![(group("g"), ContenderSpec::default())],
    }) {
        Ok(Reply::Partly { refused, .. }) => {
            assert!(matches!(refused[0].1, Rejection::NotEligible { .. }));
        }
        other => panic!("{other:?}"),
    }
    w.contend(b, "g");
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn a_full_node_gets_no_more_and_room_is_used_at_once() {
    let mut w = World::new();
    let a = w.open_spec(NodeSpec {
        max_tenures: 2,
        ..node_spec("a")
    });
    for g in ["g", "h", "i", "j"] {
        w.create(g, plain());
        w.contend(a, g);
    }
    assert_eq!(w.load("a"), 2);
    w.check("i", Phase::Vacant, None);
    let why = w.state.explain(&group("i")).unwrap();
    assert_eq!(
        why.others[0].excluded,
        Some(Exclusion::TenuresMax { limit: 2 })
    );
    done(&w.apply(Command::Withdraw {
        session: a,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Draining, Some(a));
    w.release(a, "g", None);
    w.catch_up();
    w.check("i", Phase::Active, Some(a));
    w.check("j", Phase::Vacant, None);
    assert_eq!(w.load("a"), 2);
}

#[test]
fn preparations_are_limited_at_once_and_go_on_as_they_end() {
    let mut w = World::new();
    let a = w.open_spec(NodeSpec {
        max_preparing: 2,
        ..node_spec("a")
    });
    for g in 0..6 {
        w.create(
            &format!("g{g}"),
            GroupSpec {
                readiness: true,
                ..plain()
            },
        );
        w.contend(a, &format!("g{g}"));
    }
    for g in 0..6 {
        assert!(w.state.node(&node("a")).unwrap().load.preparing <= 2);
        w.report_done(
            a,
            &format!("g{g}"),
            Report::Ready {
                position: Position(0),
            },
        );
        w.catch_up();
    }
    assert!(w.state.groups().all(|g| g.phase == Phase::Active));
}

#[test]
fn an_unready_contender_is_replaced_at_its_deadline_under_a_new_token() {
    let mut w = World::new();
    let spec = GroupSpec {
        readiness: true,
        prepare_deadline_ms: 500,
        cooldown_ms: 10_000,
        cooldown_max_ms: 10_000,
        ..plain()
    };
    w.create("g", spec);
    let (a, b) = (w.open("a"), w.open("b"));
    w.contend(a, "g");
    w.check("g", Phase::Preparing, Some(a));
    let first = w.group("g").tenure.clone().unwrap();
    w.contend(b, "g");
    w.advance(499);
    w.check("g", Phase::Preparing, Some(a));
    assert_eq!(w.state.next_deadline(), Some(w.now.plus_ms(1)));
    w.advance(1);
    w.check("g", Phase::Preparing, Some(b));
    let second = w.group("g").tenure.clone().unwrap();
    assert!(second.token > first.token && second.number > first.number);
    w.report_done(b, "g", Report::Failed);
    w.check("g", Phase::Vacant, None);
    w.advance(9_999);
    w.check("g", Phase::Vacant, None);
    w.advance(1);
    w.check("g", Phase::Preparing, Some(a));
}

#[test]
fn cool_downs_double_up_to_their_bound_and_end_with_a_tenure_that_lasts() {
    let mut w = World::new();
    let spec = GroupSpec {
        minimum_tenure_ms: 1_000,
        cooldown_ms: 100,
        cooldown_max_ms: 300,
        readiness: true,
        ..plain()
    };
    w.create("g", spec);
    let a = w.open("a");
    w.contend(a, "g");
    for wait in [100, 200, 300, 300] {
        w.report_done(a, "g", Report::Failed);
        w.advance(wait - 1);
        w.check("g", Phase::Vacant, None);
        w.advance(1);
        w.check("g", Phase::Preparing, Some(a));
    }
    w.report_done(
        a,
        "g",
        Report::Ready {
            position: Position(0),
        },
    );
    w.advance(1_000);
    w.expire(&[a]);
    assert_eq!(
        w.group("g").cooldown(&node("a")).unwrap().failures,
        1,
        "counted afresh after a tenure that lasted"
    );
}

#[test]
fn the_old_holder_is_elected_again_where_nobody_else_is_and_only_there() {
    let mut w = World::new();
    w.create(
        "g",
        GroupSpec {
            cooldown_ms: 1_000,
            cooldown_max_ms: 1_000,
            ..plain()
        },
    );
    let a = w.open("a");
    w.contend(a, "g");
    w.expire(&[a]);
    let a = w.open("a");
    w.contend(a, "g");
    w.check("g", Phase::Active, Some(a));
    let b = w.open("b");
    w.contend(b, "g");
    w.release(a, "g", None);
    w.check("g", Phase::Active, Some(b));
    w.expire(&[b]);
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_is_remembered_over_sessions() {
    let mut w = World::new();
    w.create("g", plain());
    let a = w.open("a");
    w.contend(a, "g");
    done(&w.apply(Command::AdmitNode {
        node: node("a"),
        admission: NodeAdmission::Cordoned,
    }));
    w.check("g", Phase::Active, Some(a));
    w.expire(&[a]);
    w.check("g", Phase::Vacant, None);
    let a = w.open("a");
    w.contend(a, "g");
    w.check("g", Phase::Vacant, None);
    done(&w.apply(Command::AdmitNode {
        node: node("a"),
        admission: NodeAdmission::Open,
    }));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_deleted_group_goes_when_its_tenure_has_ended_and_comes_back_as_another() {
    let mut w = World::new();
    w.create("g", plain());
    let (a, b) = (w.open("a"), w.open("b"));
    w.contend(a, "g");
    w.contend(b, "g");
    let before = w.group("g").key.clone();
    let token = w.group("g").token_last;
    let wrong = Command::DeleteGroup {
        group: group("g"),
        expected: Some(w.revision()),
    };
    assert!(matches!(
        w.apply(wrong),
        Err(Rejection::RevisionMismatch { .. })
    ));
    done(&w.apply(Command::DeleteGroup {
        group: group("g"),
        expected: Some(before.created),
    }));
    w.check("g", Phase::Revoking, Some(a));
    let create = Command::CreateGroups {
        groups: vec![(group("g"), plain())],
    };
    assert_eq!(
        w.apply(create),
        Err(Rejection::GroupDeleting { group: group("g") })
    );
    w.vacate("g");
    assert!(w.state.group(&group("g")).is_none());
    w.create("g", plain());
    assert_ne!(w.group("g").key, before);
    w.contend(a, "g");
    assert!(w.group("g").token_last > token);
    let old = TenureKey {
        group: before,
        number: w.group("g").number_last,
    };
    match w.apply(Command::Report {
        session: a,
        reports: vec![(old, Report::Released { position: None })],
    }) {
        Ok(Reply::Partly { refused, .. }) => {
            assert!(matches!(refused[0].1, Rejection::StaleTenure { .. }));
        }
        other => panic!("{other:?}"),
    }
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn an_update_is_conditional_on_the_revision_and_reweighs_what_is_held() {
    let mut w = World::new();
    w.create("g", plain());
    let a = w.open("a");
    w.contend(a, "g");
    let expected = Some(w.group("g").spec_revision);
    let update = |expected| Command::UpdateGroup {
        group: group("g"),
        spec: GroupSpec {
            weight: 7,
            ..plain()
        },
        expected,
    };
    done(&w.apply(update(expected)));
    assert_eq!(w.state.node(&node("a")).unwrap().load.weight, 7);
    assert!(matches!(
        w.apply(update(expected)),
        Err(Rejection::RevisionMismatch { .. })
    ));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn why_names_the_first_rule_that_keeps_each_contender_out() {
    let mut w = World::new();
    w.create("g", plain());
    let [a, b, c] = ["a", "b", "c"].map(|n| w.open(n));
    w.contend_at(a, "g", 5);
    w.contend(b, "g");
    w.contend(c, "g");
    done(&w.apply(Command::AdmitNode {
        node: node("c"),
        admission: NodeAdmission::Cordoned,
    }));
    let why = w.state.explain(&group("g")).unwrap();
    assert_eq!(why.tenure.unwrap().won_by, Some(Criterion::Only));
    assert_eq!(
        why.others[0].excluded,
        Some(Exclusion::Outranked {
            by: Criterion::Priority
        })
    );
    assert_eq!(
        why.others[1].excluded,
        Some(Exclusion::NotOpen {
            admission: NodeAdmission::Cordoned
        })
    );
    for _ in 0..12 {
        let holder = w.group("g").holder().unwrap();
        let holder = w.state.session(holder).unwrap().key;
        w.release(holder, "g", None);
    }
    let why = w.state.explain(&group("g")).unwrap();
    assert_eq!(why.history.len(), HISTORY_MAX);
    assert!(
        why.history
            .windows(2)
            .all(|pair| pair[0].number < pair[1].number && pair[0].token < pair[1].token)
    );
}

#[test]
fn groups_are_listed_by_name_and_prefix() {
    let mut w = World::new();
    for name in ["b/2", "a/1", "b/1", "c"] {
        w.create(name, plain());
    }
    let names = |prefix: &str| {
        w.state
            .groups_with_prefix(prefix)
            .map(|g| g.key.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("b/"), ["b/1", "b/2"]);
    assert_eq!(names(""), ["a/1", "b/1", "b/2", "c"]);
    assert!(names("z").is_empty() && names("\n").is_empty());
    assert_eq!(w.state.groups().count(), 4);
}

#[test]
fn room_for_a_tenure_is_used_while_the_room_to_prepare_is_taken() {
    let mut w = World::new();
    let n = w.open_spec(NodeSpec {
        max_tenures: 2,
        max_preparing: 1,
        ..node_spec("n")
    });
    let prepared = GroupSpec {
        readiness: true,
        ..plain()
    };
    w.create("active", plain());
    w.create("preparing", prepared);
    w.create("waiting", plain());
    for name in ["active", "preparing", "waiting"] {
        w.contend(n, name);
    }
    w.check("waiting", Phase::Vacant, None);
    done(&w.apply(Command::Withdraw {
        session: n,
        groups: vec![group("active")],
    }));
    w.release(n, "active", None);
    w.catch_up();
    w.check("preparing", Phase::Preparing, Some(n));
    w.check("waiting", Phase::Active, Some(n));
}
