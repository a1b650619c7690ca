//! Sessions, their ends, exactly-once requests, refusals.

use quorate_types::{SessionId, Term};

use super::world::{World, done, group, node, node_spec, plain};
use crate::*;

#[test]
fn a_contender_is_elected_at_once_and_its_end_elects_the_next() {
    let mut w = World::new();
    w.create("g", plain());
    w.check("g", Phase::Vacant, None);
    let a = w.open("a");
    w.contend(a, "g");
    w.check("g", Phase::Active, Some(a));
    assert_eq!(
        w.group("g").tenure.as_ref().unwrap().token.0,
        w.revision().0,
        "the token is the grant's revision"
    );
    let b = w.open("b");
    w.contend(b, "g");
    w.check("g", Phase::Active, Some(a));
    w.expire(&[a]);
    w.check("g", Phase::Active, Some(b));
    assert_eq!(
        w.causes(),
        [
            (Phase::Active, Phase::Vacant, Cause::Expired),
            (Phase::Vacant, Phase::Active, Cause::Elected)
        ]
    );
    let predecessor = w.group("g").predecessor.unwrap();
    assert_eq!(
        (predecessor.number.0, predecessor.outcome),
        (1, Cause::Expired)
    );
    assert!(w.state.node(&node("a")).is_none());
}

#[test]
fn sessions_expired_together_are_never_elected_in_each_others_place() {
    let mut w = World::new();
    let nodes: Vec<_> = ["a", "b", "c"].map(|n| w.open(n)).into();
    for g in 0..30 {
        w.create(&format!("g{g}"), plain());
        for n in &nodes {
            w.contend(*n, &format!("g{g}"));
        }
    }
    let before = w.revision();
    w.expire(&nodes[..2]);
    assert_eq!(w.revision(), before.next());
    for g in 0..30 {
        w.check(&format!("g{g}"), Phase::Active, Some(nodes[2]));
        assert!(
            w.group(&format!("g{g}")).number_last.0 <= 2,
            "granted more than once"
        );
    }
}

#[test]
fn a_deposed_leaders_judgement_is_dropped() {
    let mut w = World::new();
    w.create("g", plain());
    let a = w.open("a");
    w.contend(a, "g");
    let before = w.revision();
    w.term = Term(2);
    let stale = w.apply(Command::ExpireSessions {
        term: Term(1),
        sessions: vec![a],
    });
    assert_eq!(stale, Err(Rejection::StaleTerm));
    assert_eq!(
        w.apply(Command::VacateTenures {
            term: Term(1),
            tenures: vec![]
        }),
        Err(Rejection::StaleTerm)
    );
    assert_eq!(w.revision(), before);
    w.check("g", Phase::Active, Some(a));
}

#[test]
fn a_reused_id_is_another_session_and_ids_are_not_reused() {
    let mut w = World::new();
    let a = w.open("a");
    let twin = SessionKey {
        created: a.created.next(),
        ..a
    };
    assert_eq!(
        w.apply(Command::CloseSession { session: twin }),
        Err(Rejection::UnknownSession { session: a.id })
    );
    done(&w.apply(Command::CloseSession { session: a }));
    assert!(w.open("a").id > a.id);
}

#[test]
fn a_node_name_is_live_once() {
    let mut w = World::new();
    let a = w.open("a");
    let again = w.apply(Command::OpenSession {
        ttl_ms: 1_000,
        node: Some(node_spec("a")),
    });
    assert_eq!(
        again,
        Err(Rejection::NodeLive {
            node: node("a"),
            session: a.id
        })
    );
    done(&w.apply(Command::RevokeSession { session: a.id }));
    assert!(
        w.apply(Command::OpenSession {
            ttl_ms: 1_000,
            node: Some(node_spec("a"))
        })
        .is_err(),
        "revoked is still there"
    );
    w.expire(&[a]);
    w.open("a");
}

#[test]
fn a_revoked_sessions_tenures_are_waited_out_and_it_gets_no_new_ones() {
    let mut w = World::new();
    let (a, b) = (w.open("a"), w.open("b"));
    for g in ["g", "h"] {
        w.create(g, plain());
        w.contend(a, g);
        w.contend(b, g);
        w.check(g, Phase::Active, Some(a));
    }
    done(&w.apply(Command::RevokeSession { session: a.id }));
    w.check("g", Phase::Revoking, Some(a));
    w.create("i", plain());
    let contend = Command::Contend {
        session: a,
        groups: vec![(group("i"), ContenderSpec::default())],
    };
    assert_eq!(
        w.apply(contend),
        Err(Rejection::SessionRevoked { session: a.id })
    );
    w.release(a, "g", None);
    w.check("g", Phase::Active, Some(b));
    w.vacate("h");
    w.check("h", Phase::Active, Some(b));
    w.expire(&[a]);
    assert!(w.events.contains(&Event::SessionEnded {
        session: a,
        cause: Cause::SessionRevoked
    }));
}

#[test]
fn a_session_without_a_node_cannot_contend() {
    let mut w = World::new();
    w.create("g", plain());
    let Ok(Reply::SessionOpened { session, .. }) = w.apply(Command::OpenSession {
        ttl_ms: 100,
        node: None,
    }) else {
        panic!("not opened");
    };
    let contend = Command::Contend {
        session,
        groups: vec![(group("g"), ContenderSpec::default())],
    };
    assert_eq!(
        w.apply(contend),
        Err(Rejection::NotANode {
            session: session.id
        })
    );
}

#[test]
fn a_session_request_has_its_effect_once_and_in_order() {
    let mut w = World::new();
    w.create("g", plain());
    let session = w.open("a");
    let contend = || Command::Contend {
        session,
        groups: vec![(group("g"), ContenderSpec::default())],
    };
    let first = w.request(RequestKey::Session { session, seq: 1 }, contend());
    let revision = w.revision();
    w.state = w.stored();
    assert_eq!(
        w.request(RequestKey::Session { session, seq: 1 }, contend()),
        first,
        "the retry is answered alike"
    );
    assert_eq!(w.revision(), revision);
    assert_eq!(
        w.state
            .dedup_lookup(&RequestKey::Session { session, seq: 1 }),
        Some(&first)
    );
    for seq in [0, 3] {
        let out = w.request(RequestKey::Session { session, seq }, contend());
        assert_eq!(
            out,
            Err(Rejection::RequestOutOfOrder {
                session: session.id,
                seq,
                expected: 2
            })
        );
    }
    done(&w.request(
        RequestKey::Session { session, seq: 2 },
        Command::CloseSession { session },
    ));
    let gone = w.request(
        RequestKey::Session { session, seq: 2 },
        Command::CloseSession { session },
    );
    assert_eq!(
        gone,
        Err(Rejection::UnknownSession {
            session: session.id
        })
    );
}

#[test]
fn a_callers_request_is_remembered_for_the_window() {
    let mut w = World::new();
    let create = || Command::CreateGroups {
        groups: vec![(group("g"), plain())],
    };
    let first = w.request_as(7, create());
    done(&first);
    w.state = w.stored();
    assert_eq!(w.request_as(7, create()), first);
    assert!(matches!(
        w.request_as(8, create()),
        Err(Rejection::GroupExists { .. })
    ));
    w.now = w.now.plus_ms(DEDUP_WINDOW_MS);
    assert!(
        matches!(
            w.request_as(7, create()),
            Err(Rejection::GroupExists { .. })
        ),
        "forgotten after the window"
    );
}

#[test]
fn a_full_window_refuses_only_while_its_oldest_request_is_young() {
    let mut w = World::new();
    w.checked = false;
    for id in 0..DEDUP_ENTRIES_MAX as u128 {
        done(&w.request_as(id, Command::Advance));
    }
    let full = Rejection::DedupWindowFull {
        count: DEDUP_ENTRIES_MAX as u64,
    };
    assert_eq!(w.request_as(1 << 100, Command::Advance), Err(full));
    w.now = w.now.plus_ms(DEDUP_KEPT_MS_MIN);
    done(&w.request_as(1 << 100, Command::Advance));
    w.state.check_invariants();
}

#[test]
fn values_out_of_bounds_are_refused_and_change_nothing() {
    let mut w = World::new();
    let a = w.open("a");
    w.create("g", plain());
    let revision = w.revision();
    let large = "x".repeat(SPEC_BYTES_MAX + 1);
    let refused = |w: &mut World, command: Command, what: &str| {
        let shown = format!("{command:.40?}");
        match w.apply(command) {
            Err(Rejection::OutOfBounds { what: found, .. }) => {
                assert!(found.contains(what), "{found}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    };
    refused(
        &mut w,
        Command::OpenSession {
            ttl_ms: 99,
            node: None,
        },
        "TTL",
    );
    refused(
        &mut w,
        Command::OpenSession {
            ttl_ms: TTL_MS_MAX + 1,
            node: None,
        },
        "TTL",
    );
    let weightless = NodeSpec {
        weight: 0,
        ..node_spec("b")
    };
    refused(
        &mut w,
        Command::OpenSession {
            ttl_ms: 100,
            node: Some(weightless),
        },
        "weight",
    );
    let labelled = NodeSpec {
        labels: [("k".into(), large.clone())].into(),
        ..node_spec("b")
    };
    refused(
        &mut w,
        Command::OpenSession {
            ttl_ms: 100,
            node: Some(labelled),
        },
        "size",
    );
    for (spec, what) in [
        (
            GroupSpec {
                prepare_deadline_ms: 0,
                ..plain()
            },
            "prepare",
        ),
        (
            GroupSpec {
                handover_deadline_ms: DEADLINE_MS_MAX + 1,
                ..plain()
            },
            "handover",
        ),
        (
            GroupSpec {
                weight: 0,
                ..plain()
            },
            "weight",
        ),
        (
            GroupSpec {
                cooldown_ms: 2,
                cooldown_max_ms: 1,
                ..plain()
            },
            "cool-down",
        ),
        (
            GroupSpec {
                prefer: vec![(String::new(), String::new()); PREFER_MAX + 1],
                ..plain()
            },
            "preferred",
        ),
        (
            GroupSpec {
                require: [("k".into(), large.clone())].into(),
                ..plain()
            },
            "size",
        ),
    ] {
        refused(
            &mut w,
            Command::CreateGroups {
                groups: vec![(group("ok"), plain()), (group("h"), spec)],
            },
            what,
        );
    }
    let many = (0..=BATCH_MAX)
        .map(|g| (group(&format!("m{g}")), plain()))
        .collect();
    refused(&mut w, Command::CreateGroups { groups: many }, "number");
    let spoken = NodeSpec {
        contract_min: 2.into_version(),
        contract_max: 3.into_version(),
        ..node_spec("b")
    };
    let mismatch = w.apply(Command::OpenSession {
        ttl_ms: 100,
        node: Some(spoken),
    });
    assert!(
        matches!(mismatch, Err(Rejection::ContractMismatch { .. })),
        "{mismatch:?}"
    );
    assert_eq!(w.revision(), revision);
    let configuration = ProposedConfiguration {
        endpoints: vec![large],
        ..Default::default()
    };
    let groups = vec![
        (
            group("g"),
            ContenderSpec {
                priority: 0,
                configuration,
            },
        ),
        (group("nil"), ContenderSpec::default()),
    ];
    match w.apply(Command::Contend { session: a, groups }) {
        Ok(Reply::Partly { refused, .. }) => {
            assert!(matches!(
                &refused[..],
                [
                    (0, Rejection::OutOfBounds { .. }),
                    (1, Rejection::UnknownGroup { .. })
                ]
            ));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        w.revision(),
        revision,
        "a batch refused as a whole changes nothing"
    );
}

trait IntoVersion {
    fn into_version(self) -> quorate_types::ContractVersion;
}

impl IntoVersion for u32 {
    fn into_version(self) -> quorate_types::ContractVersion {
        quorate_types::ContractVersion(self)
    }
}

#[test]
fn unknown_things_are_named() {
    let mut w = World::new();
    let unknown = Rejection::UnknownGroup { group: group("g") };
    assert_eq!(
        w.apply(Command::DeleteGroup {
            group: group("g"),
            expected: None
        }),
        Err(unknown.clone())
    );
    let transfer = Command::Transfer {
        group: group("g"),
        to: None,
        mode: TransferMode::Handover,
    };
    assert_eq!(w.apply(transfer), Err(unknown));
    let admit = Command::AdmitNode {
        node: node("n"),
        admission: NodeAdmission::Draining,
    };
    assert_eq!(
        w.apply(admit),
        Err(Rejection::UnknownNode { node: node("n") })
    );
    let revoke = Command::RevokeSession {
        session: SessionId(9),
    };
    assert_eq!(
        w.apply(revoke),
        Err(Rejection::UnknownSession {
            session: SessionId(9)
        })
    );
    assert_eq!(w.revision().0, 0);
}

#[test]
fn idle_entries_do_not_bump_the_revision() {
    let mut w = World::new();
    w.open("a");
    let before = w.revision();
    w.apply(Command::Advance).unwrap();
    w.expire(&[]);
    w.index = w.index.next();
    w.state.note_applied(w.index, w.term);
    assert_eq!(w.revision(), before);
    assert_eq!(w.state.applied(), (w.index, w.term));
}

#[test]
fn damaged_images_are_refused_without_a_panic() {
    let mut w = World::new();
    let (a, b) = (w.open("a"), w.open("b"));
    w.create(
        "g",
        GroupSpec {
            readiness: true,
            ..plain()
        },
    );
    w.contend(a, "g");
    w.contend(b, "g");
    let bytes = postcard::to_allocvec(&w.state).unwrap();
    let digest = w.state.digest();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for flip in [1_u8, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            match postcard::from_bytes::<State>(&damaged) {
                Ok(loaded) => {
                    loaded.check_invariants();
                    assert!(
                        loaded.digest() != digest
                            || postcard::to_allocvec(&loaded).unwrap() == bytes
                    );
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(
        refused > bytes.len(),
        "only {refused} of {} were refused",
        bytes.len() * 4
    );
}
