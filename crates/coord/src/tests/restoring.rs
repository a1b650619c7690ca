//! What a restored state goes on with, and what it waits for.

use quorate_types::DriftBound;

use super::keys::put;
use super::world::{World, plain};
use crate::*;

fn restore(ttl_ms_longest: u64) -> Restore {
    Restore {
        ttl_ms_longest,
        drift: DriftBound::default(),
    }
}

fn put_key(w: &mut World, key: &str, lease: u64) {
    let command = Command::Kv {
        caller: None,
        op: put(key, "1", lease),
    };
    w.request(RequestKey::Unkeyed, command).unwrap();
}

/// A world with a led group, a lease and keys, restored.
fn restored(ttl_ms_longest: u64) -> (World, State) {
    let mut w = World::new();
    let holder = w.open("a");
    w.create("g", plain());
    w.contend(holder, "g");
    let grant = Command::GrantLease {
        caller: None,
        id: 77,
        ttl_ms: 5_000,
    };
    w.request(RequestKey::Unkeyed, grant).unwrap();
    put_key(&mut w, "of lease", 77);
    put_key(&mut w, "of node", holder.id.0);
    put_key(&mut w, "plain", 0);
    let before = w.state.clone();
    let mut after = World::new();
    (after.index, after.now) = (w.index, w.now);
    after.adopt(w.state.restored(&restore(ttl_ms_longest)));
    after.state.check_invariants();
    assert_eq!(after.stored().digest(), after.state.digest());
    (after, before)
}

#[test]
fn numbers_go_on_far_above_what_a_lost_history_used() {
    let (w, before) = restored(0);
    assert!(w.state.revision().0 >= before.revision().0 + (1 << 40));
    let kv = w.state.kv();
    assert!(kv.revision() >= before.kv().revision() + (1 << 40));
    // Whoever watched at a revision of the lost history is told that it is gone.
    assert!(kv.compacted() >= before.kv().revision() + (1 << 40));
    let group = w.group("g");
    assert_ne!(group.key, before.groups().next().unwrap().key);
}

#[test]
fn leases_live_on_with_their_keys_and_sessions_of_nodes_end_with_theirs() {
    let (w, before) = restored(0);
    let sessions: Vec<_> = w.state.sessions().map(|s| (s.key.id.0, s.ttl_ms)).collect();
    assert_eq!(sessions, [(77, 5_000)]);
    assert_eq!(before.session_count(), 2);
    assert_eq!(w.state.nodes().count(), 0);
    let kv = w.state.kv();
    for (key, is_there) in [("of lease", true), ("of node", false), ("plain", true)] {
        assert_eq!(kv.get(key.as_bytes()).is_some(), is_there, "{key}");
    }
    let key = format!("{GROUP_KEYS_PREFIX}g");
    let value = kv.get(key.as_bytes()).unwrap().value.to_vec();
    assert!(String::from_utf8(value).unwrap().contains("\"vacant\""));
}

#[test]
fn nothing_is_granted_before_the_longest_ttl_has_passed_stretched() {
    // The node's session has a second; the operator knows of one with two.
    for (known, wait) in [(0, 1_010), (2_000, 2_020)] {
        let (mut w, before) = restored(known);
        // The history that was given up is swept first.
        w.catch_up();
        let until = before.cluster_time().plus_ms(wait);
        assert_eq!(w.state.granting_from(), until);
        let next = w.open("b");
        w.contend(next, "g");
        w.check("g", Phase::Vacant, None);
        assert_eq!(w.state.next_deadline(), Some(until));
        w.advance(until.ms_since(w.now) - 1);
        w.check("g", Phase::Vacant, None);
        w.advance(1);
        w.check("g", Phase::Active, Some(next));
        let token = w.group("g").tenure.as_ref().unwrap().token;
        assert!(token.0 > before.revision().0 + (1 << 40));
    }
}

#[test]
fn group_whose_positions_count_polls_after_a_restore_even_if_its_last_tenure_was_released() {
    let mut w = World::new();
    let holder = w.open("a");
    let spec = GroupSpec {
        policy: ElectionPolicy::Freshest { answers_min: None },
        ..plain()
    };
    w.create("g", spec);
    w.contend(holder, "g");
    let polled = Report::Polled {
        position: Position(3),
    };
    w.report_done(holder, "g", polled);
    w.release(holder, "g", Some(9));
    let predecessor = w.group("g").predecessor.unwrap();
    assert_eq!(predecessor.outcome, Cause::Released);
    w.state = w.state.restored(&restore(0));
    w.state.check_invariants();
    let predecessor = w.group("g").predecessor.unwrap();
    assert_ne!(predecessor.outcome, Cause::Released);
    assert_eq!(w.group("g").required, Some(Position(9)));
}

#[test]
fn group_that_was_being_deleted_is_gone_and_its_key_with_it() {
    let mut w = World::new();
    let holder = w.open("a");
    w.create("g", plain());
    w.contend(holder, "g");
    w.apply(Command::DeleteGroup {
        group: super::world::group("g"),
        expected: None,
    })
    .unwrap();
    assert!(w.group("g").deleting);
    w.state = w.state.restored(&restore(0));
    w.state.check_invariants();
    assert_eq!(w.state.group_count(), 0);
    let key = format!("{GROUP_KEYS_PREFIX}g");
    assert_eq!(w.state.kv().get(key.as_bytes()), None);
}
