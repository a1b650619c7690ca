//! Handovers, revocation, releases, withdrawal, node drains.

use super::world::{World, done, group, node, node_spec, plain};
use crate::*;

fn transfer(to: Option<&str>, mode: TransferMode) -> Command {
    Command::Transfer {
        group: group("g"),
        to: to.map(node),
        mode,
    }
}

/// Nodes a (the holder), b and c, all standing in group g.
fn three(spec: GroupSpec) -> (World, [SessionKey; 3]) {
    let mut w = World::new();
    w.create("g", spec);
    let nodes = ["a", "b", "c"].map(|n| w.open(n));
    for (at, n) in nodes.into_iter().enumerate() {
        w.contend(n, "g");
        if at == 0 && w.group("g").spec.readiness {
            w.report_done(
                n,
                "g",
                Report::Ready {
                    position: Position(0),
                },
            );
        }
    }
    w.check("g", Phase::Active, Some(nodes[0]));
    (w, nodes)
}

#[test]
fn the_named_successor_catches_up_and_is_granted_in_the_apply_of_the_release() {
    let (mut w, [a, _, c]) = three(GroupSpec {
        readiness: true,
        ..plain()
    });
    done(&w.apply(transfer(Some("c"), TransferMode::Handover)));
    w.check("g", Phase::Draining, Some(a));
    assert_eq!(w.group("g").successor().unwrap().session, c.id);
    w.report_done(
        c,
        "g",
        Report::Ready {
            position: Position(10),
        },
    );
    w.release(a, "g", Some(10));
    w.check("g", Phase::Active, Some(c));
    assert_eq!(
        w.causes(),
        [
            (Phase::Draining, Phase::Vacant, Cause::Released),
            (Phase::Vacant, Phase::Active, Cause::Elected)
        ]
    );
    assert!(w.group("g").pending.is_none());
    assert_eq!(
        w.group("g").predecessor.unwrap().position,
        Some(Position(10))
    );
}

#[test]
fn a_successor_behind_the_released_position_prepares_until_it_reaches_it() {
    let (mut w, [a, b, _]) = three(GroupSpec {
        readiness: true,
        ..plain()
    });
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    w.report_done(
        b,
        "g",
        Report::Ready {
            position: Position(9),
        },
    );
    w.release(a, "g", Some(10));
    w.check("g", Phase::Preparing, Some(b));
    match w.report(
        b,
        "g",
        Report::Ready {
            position: Position(9),
        },
    ) {
        Ok(Reply::Partly { refused, .. }) => {
            assert!(matches!(refused[0].1, Rejection::NotEligible { .. }));
        }
        other => panic!("{other:?}"),
    }
    w.report_done(
        b,
        "g",
        Report::Ready {
            position: Position(10),
        },
    );
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn a_successor_that_dies_is_replaced_and_without_another_the_handover_is_off() {
    let (mut w, [a, b, c]) = three(plain());
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    w.expire(&[b]);
    w.check("g", Phase::Draining, Some(a));
    assert_eq!(w.group("g").successor().unwrap().session, c.id);
    w.expire(&[c]);
    w.check("g", Phase::Active, Some(a));
    assert!(
        w.group("g").pending.is_some(),
        "an ordered transfer waits for a contender"
    );
    let d = w.open("d");
    w.contend(d, "g");
    w.check("g", Phase::Draining, Some(a));
    w.release(a, "g", None);
    w.check("g", Phase::Active, Some(d));
}

#[test]
fn an_overdue_handover_is_called_off_and_a_late_release_still_applies() {
    let (mut w, [a, ..]) = three(GroupSpec {
        handover_deadline_ms: 500,
        ..plain()
    });
    let token = w.group("g").token_last;
    done(&w.apply(transfer(None, TransferMode::Handover)));
    let successor = w.group("g").successor().unwrap().session;
    w.advance(500);
    w.check("g", Phase::Active, Some(a));
    assert_eq!(w.group("g").token_last, token, "the same tenure goes on");
    assert!(w.group("g").pending.is_none());
    w.release(a, "g", Some(3));
    assert_eq!(w.group("g").phase, Phase::Active);
    assert_ne!(w.group("g").holder(), Some(a.id));
    assert!(w.state.standing(successor).unwrap().parts.len() <= 1);
}

#[test]
fn an_overdue_handover_is_revoked_where_the_policy_says_so() {
    let spec = GroupSpec {
        handover_deadline_ms: 500,
        handover_overdue: OverduePolicy::Revoke,
        ..plain()
    };
    let (mut w, [a, b, _]) = three(spec);
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    w.advance(500);
    w.check("g", Phase::Revoking, Some(a));
    w.advance(1_000_000);
    w.check("g", Phase::Revoking, Some(a));
    w.vacate("g");
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn a_forced_transfer_waits_for_the_release_the_session_or_the_leaders_wait() {
    for end in 0..3 {
        let (mut w, [a, _, c]) = three(plain());
        done(&w.apply(transfer(Some("c"), TransferMode::Force)));
        w.check("g", Phase::Revoking, Some(a));
        match end {
            0 => w.release(a, "g", None),
            1 => w.expire(&[a]),
            _ => w.vacate("g"),
        }
        w.check("g", Phase::Active, Some(c));
    }
}

#[test]
fn a_vacate_of_what_is_not_revoked_or_not_current_changes_nothing() {
    let (mut w, [a, ..]) = three(plain());
    w.vacate("g");
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_handover_can_be_declined_and_aborted() {
    let (mut w, [a, b, _]) = three(plain());
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    w.report_done(a, "g", Report::Declined);
    w.check("g", Phase::Active, Some(a));
    assert!(w.group("g").pending.is_none());
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    done(&w.apply(Command::AbortTransfer { group: group("g") }));
    w.check("g", Phase::Active, Some(a));
    let again = w.apply(Command::AbortTransfer { group: group("g") });
    assert!(
        matches!(again, Err(Rejection::WrongPhase { .. })),
        "{again:?}"
    );
    w.release(a, "g", None);
    let _ = b;
}

#[test]
fn another_successor_can_be_named_while_draining() {
    let (mut w, [a, b, c]) = three(plain());
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    done(&w.apply(transfer(Some("c"), TransferMode::Handover)));
    assert_eq!(w.group("g").successor().unwrap().session, c.id);
    w.release(a, "g", None);
    w.check("g", Phase::Active, Some(c));
    let _ = b;
}

#[test]
fn a_transfer_to_who_cannot_lead_is_refused() {
    let (mut w, _) = three(plain());
    w.open("d");
    let before = w.revision();
    for (to, phrase) in [("d", "does not stand"), ("e", "")] {
        match w.apply(transfer(Some(to), TransferMode::Handover)) {
            Err(Rejection::NotEligible { why, .. }) => assert!(why.contains(phrase)),
            Err(Rejection::UnknownNode { .. }) => assert_eq!(to, "e"),
            other => panic!("{other:?}"),
        }
    }
    done(&w.apply(transfer(Some("a"), TransferMode::Handover)));
    assert_eq!(w.revision(), before, "who leads already needs no transfer");
}

#[test]
fn a_preparing_contender_is_replaced_by_order_at_once() {
    let mut w = World::new();
    w.create(
        "g",
        GroupSpec {
            readiness: true,
            ..plain()
        },
    );
    let (a, b) = (w.open("a"), w.open("b"));
    w.contend(a, "g");
    w.contend(b, "g");
    w.check("g", Phase::Preparing, Some(a));
    done(&w.apply(transfer(None, TransferMode::Handover)));
    w.check("g", Phase::Preparing, Some(b));
}

#[test]
fn who_withdraws_hands_over_first_and_then_no_longer_stands() {
    let (mut w, [a, b, c]) = three(plain());
    done(&w.apply(Command::Withdraw {
        session: a,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Draining, Some(a));
    w.release(a, "g", None);
    assert!(!w.group("g").contenders.contains_key(&a.id));
    let holder = w.group("g").holder().unwrap();
    assert!(holder == b.id || holder == c.id);
    let (holder, other) = if holder == b.id { (b, c) } else { (c, b) };
    done(&w.apply(Command::Withdraw {
        session: other,
        groups: vec![group("g")],
    }));
    done(&w.apply(Command::Withdraw {
        session: holder,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Draining, Some(holder));
    assert!(
        w.group("g").successor().is_none(),
        "who leaves drains without a successor too"
    );
    w.release(holder, "g", None);
    w.check("g", Phase::Vacant, None);
    assert!(w.group("g").contenders.is_empty());
}

#[test]
fn standing_again_takes_a_withdrawal_back() {
    let (mut w, [a, ..]) = three(plain());
    done(&w.apply(Command::Withdraw {
        session: a,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Draining, Some(a));
    w.contend(a, "g");
    w.check("g", Phase::Active, Some(a));
    assert!(w.group("g").pending.is_none());
}

#[test]
fn a_drained_node_hands_over_all_it_holds_and_what_nobody_can_take_waits() {
    let mut w = World::new();
    let (a, b) = (w.open("a"), w.open("b"));
    for g in 0..20 {
        w.create(&format!("g{g}"), plain());
        w.contend(a, &format!("g{g}"));
        if g != 7 {
            w.contend(b, &format!("g{g}"));
        }
    }
    let drain = w.apply(Command::AdmitNode {
        node: node("a"),
        admission: NodeAdmission::Draining,
    });
    assert!(
        matches!(drain, Ok(Reply::Moving { moves: 20, .. })),
        "{drain:?}"
    );
    for g in (0..20).filter(|g| *g != 7) {
        w.check(&format!("g{g}"), Phase::Draining, Some(a));
        w.release(a, &format!("g{g}"), None);
        w.check(&format!("g{g}"), Phase::Active, Some(b));
    }
    w.check("g7", Phase::Active, Some(a));
    w.contend(b, "g7");
    w.check("g7", Phase::Draining, Some(a));
    done(&w.apply(Command::AdmitNode {
        node: node("a"),
        admission: NodeAdmission::Open,
    }));
    w.check("g7", Phase::Active, Some(a));
}

#[test]
fn a_drain_limited_by_the_receivers_preparations_goes_on_as_they_end() {
    let mut w = World::new();
    let a = w.open("a");
    let b = w.open_spec(NodeSpec {
        max_preparing: 2,
        ..node_spec("b")
    });
    for g in 0..8 {
        w.create(
            &format!("g{g}"),
            GroupSpec {
                readiness: true,
                ..plain()
            },
        );
        w.contend(a, &format!("g{g}"));
        w.report_done(
            a,
            &format!("g{g}"),
            Report::Ready {
                position: Position(0),
            },
        );
        w.contend(b, &format!("g{g}"));
    }
    done(&w.apply(Command::AdmitNode {
        node: node("a"),
        admission: NodeAdmission::Draining,
    }));
    for _ in 0..100 {
        let Some(g) = w.state.groups().find(|g| g.phase == Phase::Draining) else {
            break;
        };
        let name = g.key.name.to_string();
        assert!(w.state.node(&node("b")).unwrap().load.incoming <= 2);
        w.report_done(
            b,
            &name,
            Report::Ready {
                position: Position(1),
            },
        );
        w.release(a, &name, Some(1));
        w.catch_up();
    }
    assert_eq!(w.load("b"), 8);
}

#[test]
fn a_standing_says_all_that_a_reconnected_session_must_know() {
    let (mut w, [a, b, _]) = three(plain());
    done(&w.apply(transfer(Some("b"), TransferMode::Handover)));
    w.now = w.now.plus_ms(1_000);
    w.apply(Command::Advance).unwrap();
    let standing = w.state.standing(a.id).unwrap();
    assert_eq!(
        standing.directive_seq,
        w.state.session(a.id).unwrap().directive_seq
    );
    assert_eq!(standing.parts.len(), 1);
    let part = &standing.parts[0];
    assert_eq!(
        (part.part, part.deadline_left_ms),
        (Part::Draining, Some(29_000))
    );
    assert_eq!(part.successor, Some(node("b")));
    assert_eq!(
        w.state.standing(b.id).unwrap().parts[0].part,
        Part::Successor
    );
}

#[test]
fn a_revoked_holder_that_an_order_names_next_is_elected_and_stays() {
    let (mut w, [a, _, _]) = three(plain());
    w.check("g", Phase::Active, Some(a));
    done(&w.apply(transfer(None, TransferMode::Force)));
    done(&w.apply(transfer(Some("a"), TransferMode::Handover)));
    w.check("g", Phase::Revoking, Some(a));
    w.vacate("g");
    w.catch_up();
    w.check("g", Phase::Active, Some(a));
    assert_eq!(w.group("g").pending, None);
}

#[test]
fn the_successors_place_is_not_taken_by_another_group_released_with_it() {
    let mut w = World::new();
    let h = w.open("h");
    let x = w.open_spec(NodeSpec {
        max_tenures: 1,
        ..node_spec("x")
    });
    for name in ["a", "g"] {
        w.create(name, plain());
        w.contend(h, name);
        w.contend(x, name);
    }
    done(&w.apply(transfer(Some("x"), TransferMode::Handover)));
    let reports = ["a", "g"].map(|name| {
        let tenure = w.group(name).tenure_key().unwrap();
        (tenure, Report::Released { position: None })
    });
    done(&w.apply(Command::Report {
        session: h,
        reports: reports.to_vec(),
    }));
    w.check("g", Phase::Active, Some(x));
    w.check("a", Phase::Active, Some(h));
}

#[test]
fn who_withdrew_and_stands_again_is_not_asked_to_leave_again() {
    let mut w = World::new();
    w.create("g", plain());
    let (a, b) = (w.open("a"), w.open("b"));
    w.contend(a, "g");
    done(&w.apply(Command::Withdraw {
        session: a,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Draining, Some(a));
    w.release(a, "g", None);
    w.check("g", Phase::Vacant, None);
    w.contend(a, "g");
    w.check("g", Phase::Active, Some(a));
    // The withdrawal was fulfilled by the release: it is not about the new tenure.
    w.contend(b, "g");
    w.check("g", Phase::Active, Some(a));
    assert_eq!(w.group("g").pending, None);
}

#[test]
fn a_voluntary_wish_ends_with_the_tenure_that_it_was_about() {
    let mut w = World::new();
    w.create(
        "g",
        GroupSpec {
            readiness: true,
            ..plain()
        },
    );
    let ready = Report::Ready {
        position: Position(0),
    };
    let (a, b) = (w.open("a"), w.open("b"));
    w.contend(a, "g");
    w.report_done(a, "g", ready);
    w.contend_at(b, "g", 1);
    w.catch_up();
    w.check("g", Phase::Draining, Some(a));
    w.release(a, "g", None);
    w.check("g", Phase::Preparing, Some(b));
    done(&w.apply(Command::Withdraw {
        session: b,
        groups: vec![group("g")],
    }));
    w.check("g", Phase::Preparing, Some(a));
    // No better than `a`, and nobody ordered anything.
    w.contend(b, "g");
    w.check("g", Phase::Preparing, Some(a));
}
