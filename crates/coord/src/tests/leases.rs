//! Leases: sessions without a node under ids of the callers' choice.

use quorate_types::SessionId;

use super::world::{World, node};
use crate::kv::KvError;
use crate::*;

fn grant(w: &mut World, id: u64, ttl_ms: u64) -> Outcome {
    let caller = None;
    w.request(
        RequestKey::Unkeyed,
        Command::GrantLease { caller, id, ttl_ms },
    )
}

fn revoke(w: &mut World, id: u64) -> Outcome {
    let caller = None;
    w.request(RequestKey::Unkeyed, Command::RevokeLease { caller, id })
}

fn granted(outcome: Outcome) -> SessionKey {
    match outcome {
        Ok(Reply::LeaseGranted { session, .. }) => session,
        other => panic!("not granted: {other:?}"),
    }
}

fn refused(outcome: &Outcome, error: KvError) {
    assert_eq!(*outcome, Err(Rejection::Kv(error)));
}

#[test]
fn lease_is_a_session_without_a_node_under_the_id_asked_for() {
    let mut w = World::new();
    let key = granted(grant(&mut w, 1 << 62, 5_000));
    assert_eq!(key.id, SessionId(1 << 62));
    let session = w.state.session(key.id).unwrap();
    assert_eq!((session.ttl_ms, &session.node), (5_000, &None));
    refused(
        &grant(&mut w, 1 << 62, 5_000),
        KvError::LeaseExists { lease: 1 << 62 },
    );
    assert_eq!(w.stored().digest(), w.state.digest());
}

#[test]
fn native_sessions_skip_ids_that_leases_have() {
    let mut w = World::new();
    for id in [1, 2, 4] {
        granted(grant(&mut w, id, 5_000));
    }
    assert_eq!(w.open("a").id, SessionId(3));
    assert_eq!(w.open("b").id, SessionId(5));
    refused(&grant(&mut w, 3, 5_000), KvError::LeaseExists { lease: 3 });
}

#[test]
fn id_granted_again_is_another_session() {
    let mut w = World::new();
    let first = granted(grant(&mut w, 7, 5_000));
    assert!(matches!(revoke(&mut w, 7), Ok(Reply::LeaseRevoked { .. })));
    let second = granted(grant(&mut w, 7, 5_000));
    assert!(second.created > first.created);
    // An expiry that meant the first does not end the second.
    w.expire(&[first]);
    assert!(w.state.session(SessionId(7)).is_some());
    w.expire(&[second]);
    refused(&revoke(&mut w, 7), KvError::LeaseNotFound { lease: 7 });
}

#[test]
fn ttl_is_raised_to_the_least_and_refused_over_the_most() {
    let mut w = World::new();
    let granted = grant(&mut w, 1, 1);
    assert!(
        matches!(granted, Ok(Reply::LeaseGranted { ttl_ms, .. }) if ttl_ms == LEASE_TTL_MS_MIN)
    );
    assert!(grant(&mut w, 2, LEASE_TTL_MS_MAX).is_ok());
    refused(
        &grant(&mut w, 3, LEASE_TTL_MS_MAX + 1),
        KvError::TtlTooLarge,
    );
    for found in [0, LEASE_ID_MAX + 1, u64::MAX] {
        let max = LEASE_ID_MAX;
        refused(
            &grant(&mut w, found, 5_000),
            KvError::LeaseIdOutOfBounds { found, max },
        );
    }
}

#[test]
fn session_of_a_node_is_not_revoked_as_a_lease() {
    let mut w = World::new();
    let session = w.open("a");
    let error = KvError::LeaseIsNode {
        lease: session.id.0,
        node: "a".into(),
    };
    refused(&revoke(&mut w, session.id.0), error);
    assert_eq!(w.state.node(&node("a")).unwrap().session, Some(session.id));
}

#[test]
fn alarm_of_space_refuses_leases_until_it_is_cleared() {
    let mut w = World::new();
    let member = quorate_types::ReplicaId(2);
    let alarm = |w: &mut World, action| {
        let kind = AlarmKind::NoSpace;
        let command = Command::Alarm {
            action,
            member,
            kind,
        };
        w.request(RequestKey::Unkeyed, command)
    };
    let was_on = |was_on| Ok(Reply::Alarmed { was_on });
    assert_eq!(alarm(&mut w, AlarmAction::Raise), was_on(false));
    assert_eq!(alarm(&mut w, AlarmAction::Raise), was_on(true));
    assert_eq!(
        w.state.alarms().collect::<Vec<_>>(),
        [(AlarmKind::NoSpace, member)]
    );
    assert!(matches!(
        grant(&mut w, 1, 5_000),
        Err(Rejection::Kv(KvError::NoSpace { .. }))
    ));
    assert_eq!(alarm(&mut w, AlarmAction::Clear), was_on(true));
    assert_eq!(alarm(&mut w, AlarmAction::Clear), was_on(false));
    granted(grant(&mut w, 1, 5_000));
}
