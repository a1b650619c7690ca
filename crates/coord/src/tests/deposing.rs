//! Peers may depose: who may report a holder, what counts, when a quorum revokes, and what becomes of who was deposed.

use super::world::{World, done, group, node, plain};
use crate::*;

/// So many nodes `a`, `b`, ..; the first holds group g.
fn many<const N: usize>(spec: GroupSpec) -> (World, [SessionKey; N]) {
    let mut w = World::new();
    w.create("g", spec);
    let mut at = 0;
    let nodes = [(); N].map(|()| {
        let name = char::from(b'a' + at);
        at += 1;
        let session = w.open(&name.to_string());
        w.contend(session, "g");
        session
    });
    w.check("g", Phase::Active, Some(nodes[0]));
    (w, nodes)
}

fn reporters(w: &World) -> Vec<(quorate_types::SessionId, String)> {
    let group = w.group("g");
    let reports = w.state.fault_reports(group);
    reports.map(|r| (r.session, r.reason.clone())).collect()
}

fn withdraw(w: &mut World, session: SessionKey) -> Outcome {
    let tenure = w.group("g").tenure_key().unwrap();
    w.apply(Command::WithdrawReport { session, tenure })
}

#[test]
fn the_report_that_completes_the_quorum_revokes_and_the_record_says_who_and_why() {
    let (mut w, [a, b, c]) = many(plain());
    done(&w.report_faulty(b, "g", "writes fail"));
    w.check("g", Phase::Active, Some(a));
    assert_eq!(reporters(&w), [(b.id, "writes fail".to_owned())]);
    done(&w.report_faulty(c, "g", "probe timed out"));
    w.check("g", Phase::Revoking, Some(a));
    assert_eq!(
        w.causes(),
        [(Phase::Active, Phase::Revoking, Cause::Deposed)]
    );
    let deposed = w.events.iter().find_map(|event| match event {
        Event::HolderDeposed { tenure, reports } => Some((tenure.clone(), reports.clone())),
        _ => None,
    });
    let (tenure, reports) = deposed.expect("the event of the record");
    assert_eq!(Some(tenure), w.group("g").tenure_key());
    assert_eq!(reports.len(), 2);
    let why = w.state.explain(&group("g")).unwrap().tenure.unwrap();
    assert_eq!(why.reports, reports);

    // Never at once: by release, or by the wait.
    w.vacate("g");
    let holder = w.group("g").holder();
    assert!(holder == Some(b.id) || holder == Some(c.id), "{holder:?}");
    let past = w.group("g").history.last().unwrap().clone();
    assert_eq!(past.cause, Cause::WaitedOut);
    assert_eq!(past.revoked_for, Some(Cause::Deposed));
    assert_eq!(*past.reports, reports);
    assert_eq!(past.reports[1].node, node("c"));
}

#[test]
fn by_default_more_than_half_of_the_live_contenders_must_report_and_at_least_two() {
    let needed = |n| DeposeQuorum::Majority.reports_needed(n);
    assert_eq!(
        [1, 2, 3, 4, 5, 6, 7].map(needed),
        [2, 2, 2, 3, 3, 4, 4].map(Some)
    );
    assert_eq!(DeposeQuorum::Off.reports_needed(9), None);
    assert_eq!(DeposeQuorum::Reports { min: 3 }.reports_needed(2), Some(3));

    let (mut w, [a, b]) = many(plain());
    done(&w.report_faulty(b, "g", "it is in my way"));
    done(&w.report_faulty(b, "g", "it still is"));
    w.check("g", Phase::Active, Some(a));
    let why = w.state.explain(&group("g")).unwrap().tenure.unwrap();
    assert_eq!(why.reports_needed, Some(2), "a pair cannot depose");
}

#[test]
fn a_report_said_again_counts_once_with_its_newest_reason() {
    let (mut w, [a, b, c, _, _]) = many(plain());
    for reason in ["slow", "slower", "gone"] {
        done(&w.report_faulty(b, "g", reason));
    }
    assert_eq!(reporters(&w), [(b.id, "gone".to_owned())]);
    done(&w.report_faulty(c, "g", "slow"));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn only_another_live_contender_of_the_group_may_report() {
    let (mut w, [a, b, c]) = many(plain());
    let outsider = w.open("x");
    let revoked = w.open("y");
    w.contend(revoked, "g");
    done(&w.apply(Command::RevokeSession {
        session: revoked.id,
    }));
    let waiter = match w.apply(Command::OpenSession {
        ttl_ms: 1_000,
        node: None,
    }) {
        Ok(Reply::SessionOpened { session, .. }) => session,
        other => panic!("{other:?}"),
    };
    for stranger in [outsider, waiter, a] {
        let outcome = w.report_faulty(stranger, "g", "no");
        assert!(
            matches!(outcome, Err(Rejection::MayNotReport { .. })),
            "{outcome:?}"
        );
    }
    let outcome = w.report_faulty(revoked, "g", "no");
    assert_eq!(
        outcome,
        Err(Rejection::SessionRevoked {
            session: revoked.id
        })
    );
    let gone = SessionKey {
        created: quorate_types::Revision(b.created.0 + 1),
        ..b
    };
    let outcome = w.report_faulty(gone, "g", "no");
    assert!(
        matches!(outcome, Err(Rejection::UnknownSession { .. })),
        "{outcome:?}"
    );
    assert!(reporters(&w).is_empty());
    // The revoked contender does not raise the quorum either: two of the three others.
    done(&w.report_faulty(b, "g", "yes"));
    done(&w.report_faulty(c, "g", "yes"));
    w.check("g", Phase::Revoking, Some(a));
}

#[test]
fn a_report_of_an_older_tenure_or_of_who_does_not_lead_is_refused_by_name() {
    let (mut w, [a, b, c]) = many(plain());
    let old = w.group("g").tenure_key().unwrap();
    done(&w.report_faulty(c, "g", "slow"));
    done(&w.apply(Command::UpdateGroup {
        group: group("g"),
        spec: GroupSpec {
            readiness: true,
            ..plain()
        },
        expected: None,
    }));
    w.release(a, "g", None);
    let outcome = w.apply(Command::ReportFaulty {
        session: c,
        tenure: old.clone(),
        reason: "slow".into(),
    });
    let current = w.group("g").tenure.as_ref().map(|t| t.number);
    assert_eq!(
        outcome,
        Err(Rejection::StaleTenure {
            tenure: old,
            current
        })
    );
    assert!(reporters(&w).is_empty(), "a report outlived its tenure");
    assert_eq!(w.group("g").phase, Phase::Preparing);
    let others = [b, c].into_iter();
    for other in others
        .filter(|s| w.group("g").holder() != Some(s.id))
        .collect::<Vec<_>>()
    {
        let outcome = w.report_faulty(other, "g", "slow");
        assert!(
            matches!(outcome, Err(Rejection::WrongPhase { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn reports_lapse_after_their_window_so_that_old_grudges_do_not_add_up() {
    let (mut w, [a, b, c]) = many(GroupSpec {
        depose_window_ms: 1_000,
        ..plain()
    });
    done(&w.report_faulty(b, "g", "slow"));
    w.advance(1_000);
    assert!(reporters(&w).is_empty());
    done(&w.report_faulty(c, "g", "slow"));
    w.check("g", Phase::Active, Some(a));
    w.advance(999);
    done(&w.report_faulty(b, "g", "slow again"));
    w.check("g", Phase::Revoking, Some(a));
}

#[test]
fn a_withdrawn_report_does_not_count() {
    let (mut w, [a, b, c]) = many(plain());
    done(&w.report_faulty(b, "g", "slow"));
    done(&withdraw(&mut w, b));
    done(&withdraw(&mut w, b));
    done(&w.report_faulty(c, "g", "slow"));
    w.check("g", Phase::Active, Some(a));
    done(&w.report_faulty(b, "g", "slow after all"));
    w.check("g", Phase::Revoking, Some(a));
    let outcome = withdraw(&mut w, b);
    assert!(
        matches!(outcome, Err(Rejection::WrongPhase { .. })),
        "a revocation is never taken back: {outcome:?}"
    );
}

#[test]
fn a_report_goes_with_its_reporters_session_or_standing() {
    let (mut w, [a, b, c, d, _]) = many(plain());
    done(&w.report_faulty(b, "g", "slow"));
    done(&w.report_faulty(c, "g", "slow"));
    w.expire(&[b]);
    done(&w.apply(Command::Withdraw {
        session: c,
        groups: vec![group("g")],
    }));
    assert!(reporters(&w).is_empty());
    w.contend(c, "g");
    assert!(reporters(&w).is_empty(), "a report came back with standing");
    done(&w.report_faulty(c, "g", "slow"));
    done(&w.apply(Command::RevokeSession { session: c.id }));
    assert!(reporters(&w).is_empty(), "a revoked session has a say");
    done(&w.report_faulty(d, "g", "slow"));
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn who_deposed_stays_on_record_after_it_left() {
    let (mut w, [a, b, c]) = many(plain());
    done(&w.report_faulty(b, "g", "slow"));
    done(&w.report_faulty(c, "g", "slow"));
    w.expire(&[b]);
    w.check("g", Phase::Revoking, Some(a));
    assert_eq!(reporters(&w).len(), 2);
    w.release(a, "g", None);
    let past = w.group("g").history.last().unwrap();
    assert_eq!((past.cause, past.reports.len()), (Cause::Released, 2));
}

#[test]
fn a_draining_holder_is_deposed_too_and_its_successor_stands_by() {
    let (mut w, [a, b, c]) = many(plain());
    done(&w.apply(Command::Transfer {
        group: group("g"),
        to: Some(node("b")),
        mode: TransferMode::Handover,
    }));
    w.check("g", Phase::Draining, Some(a));
    done(&w.report_faulty(b, "g", "it does not drain"));
    done(&w.report_faulty(c, "g", "it does not drain"));
    w.check("g", Phase::Revoking, Some(a));
    assert_eq!(
        w.causes(),
        [(Phase::Draining, Phase::Revoking, Cause::Deposed)]
    );
    w.vacate("g");
    w.check("g", Phase::Active, Some(b));
}

#[test]
fn a_late_report_finds_its_wish_fulfilled() {
    let (mut w, [a, b, c, d]) = many(GroupSpec {
        depose_quorum: DeposeQuorum::Reports { min: 2 },
        ..plain()
    });
    done(&w.report_faulty(b, "g", "slow"));
    done(&w.report_faulty(c, "g", "slow"));
    let revision = w.revision();
    done(&w.report_faulty(d, "g", "slow"));
    assert_eq!(w.revision(), revision);
    w.check("g", Phase::Revoking, Some(a));
    assert_eq!(reporters(&w).len(), 2);
}

#[test]
fn a_group_may_forbid_it_or_let_one_report_do() {
    let (mut w, [a, b, _]) = many(GroupSpec {
        depose_quorum: DeposeQuorum::Off,
        ..plain()
    });
    let outcome = w.report_faulty(b, "g", "slow");
    assert!(
        matches!(outcome, Err(Rejection::MayNotReport { .. })),
        "{outcome:?}"
    );
    w.check("g", Phase::Active, Some(a));
    done(&w.apply(Command::UpdateGroup {
        group: group("g"),
        spec: GroupSpec {
            depose_quorum: DeposeQuorum::Reports { min: 1 },
            ..plain()
        },
        expected: None,
    }));
    done(&w.report_faulty(b, "g", "slow"));
    w.check("g", Phase::Revoking, Some(a));
}

#[test]
fn reasons_and_policies_are_bounded() {
    let (mut w, [_, b, _]) = many(plain());
    let long = "x".repeat(REASON_BYTES_MAX + 1);
    for bad in ["", &long, "two\nlines", "\u{1b}[31mred"] {
        let outcome = w.report_faulty(b, "g", bad);
        assert!(
            matches!(outcome, Err(Rejection::OutOfBounds { .. })),
            "{bad:?}: {outcome:?}"
        );
    }
    done(&w.report_faulty(b, "g", &long[..REASON_BYTES_MAX]));
    for spec in [
        GroupSpec {
            depose_quorum: DeposeQuorum::Reports { min: 0 },
            ..plain()
        },
        GroupSpec {
            depose_window_ms: 0,
            ..plain()
        },
        GroupSpec {
            depose_window_ms: DEADLINE_MS_MAX + 1,
            ..plain()
        },
    ] {
        let outcome = w.apply(Command::UpdateGroup {
            group: group("g"),
            spec,
            expected: None,
        });
        assert!(
            matches!(outcome, Err(Rejection::OutOfBounds { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn who_was_deposed_cools_down_even_alone_and_longer_each_time() {
    // The minimum tenure neither protects a faulty holder, nor does having outlasted it wash failures off.
    let (mut w, [a, b, c]) = many(GroupSpec {
        minimum_tenure_ms: 100,
        cooldown_ms: 1_000,
        cooldown_max_ms: 60_000,
        ..plain()
    });
    for wait in [1_000, 2_000, 4_000] {
        w.advance(500);
        done(&w.report_faulty(b, "g", "slow"));
        done(&w.report_faulty(c, "g", "slow"));
        w.check("g", Phase::Revoking, Some(a));
        for other in [b, c] {
            done(&w.apply(Command::Withdraw {
                session: other,
                groups: vec![group("g")],
            }));
        }
        w.release(a, "g", None);
        w.check("g", Phase::Vacant, None);
        w.advance(wait - 1);
        w.check("g", Phase::Vacant, None);
        w.advance(1);
        w.check("g", Phase::Active, Some(a));
        for other in [b, c] {
            w.contend(other, "g");
        }
    }
}

#[test]
fn where_data_count_first_who_was_deposed_may_still_hold_the_freshest() {
    let freshest = GroupSpec {
        policy: ElectionPolicy::Freshest { answers_min: None },
        cooldown_ms: 10_000,
        cooldown_max_ms: 10_000,
        ..plain()
    };
    let mut w = World::new();
    w.create("g", freshest);
    let nodes = ["a", "b", "c"].map(|n| w.open(n));
    for n in nodes {
        w.contend(n, "g");
    }
    let answer = |w: &mut World, positions: [u64; 3]| {
        assert_eq!(w.group("g").phase, Phase::Polling);
        for (n, at) in nodes.into_iter().zip(positions) {
            let report = Report::Polled {
                position: Position(at),
            };
            // Not all may be asked.
            let _ = w.report(n, "g", report);
            if w.group("g").phase != Phase::Polling {
                return;
            }
        }
    };
    answer(&mut w, [5, 1, 1]);
    let [a, b, c] = nodes;
    let depose = |w: &mut World| {
        done(&w.report_faulty(b, "g", "slow"));
        done(&w.report_faulty(c, "g", "slow"));
    };
    w.check("g", Phase::Active, Some(a));
    depose(&mut w);
    // It did not say where it stopped: what it acknowledged counts before what its peers think of it.
    w.vacate("g");
    answer(&mut w, [9, 5, 4]);
    w.check("g", Phase::Active, Some(a));
    depose(&mut w);
    // It did: who reaches that position leads, and it cools down.
    w.release(a, "g", Some(9));
    answer(&mut w, [9, 9, 4]);
    w.check("g", Phase::Active, Some(b));
}
