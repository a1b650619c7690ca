//! The key space inside the state: leases and their keys, groups as keys, alarms, compaction.

use quorate_types::{ReplicaId, RequestId};

use super::world::{World, done, group, plain};
use crate::keys::SWEPT_MAX;
use crate::kv::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KvChange, KvError, KvOp,
    KvOpReply, Put, Range, Txn,
};
use crate::*;

pub(super) fn range(key: &str, range_end: &str) -> KeyRange {
    KeyRange {
        key: key.into(),
        range_end: range_end.into(),
    }
}

pub(super) fn put(key: &str, value: &str, lease: u64) -> KvOp {
    KvOp::Put(Put {
        key: key.into(),
        value: value.into(),
        lease: lease.cast_signed(),
        ..Put::default()
    })
}

fn delete(key: &str, range_end: &str) -> KvOp {
    KvOp::DeleteRange(DeleteRange {
        range: range(key, range_end),
        prev_kv: false,
    })
}

fn kv(w: &mut World, op: KvOp) -> Result<(u64, KvOpReply), KvError> {
    let command = Command::Kv { caller: None, op };
    match w.request(RequestKey::Unkeyed, command) {
        Ok(Reply::Kv { revision, reply }) => Ok((revision, *reply)),
        Err(Rejection::Kv(error)) => Err(error),
        other => panic!("unexpected: {other:?}"),
    }
}

fn lease(w: &mut World, id: u64) -> SessionKey {
    let command = Command::GrantLease {
        caller: None,
        id,
        ttl_ms: 5_000,
    };
    match w.request(RequestKey::Unkeyed, command) {
        Ok(Reply::LeaseGranted { session, .. }) => session,
        other => panic!("not granted: {other:?}"),
    }
}

fn value(w: &World, key: &str) -> Option<String> {
    let kv = w.state.kv().get(key.as_bytes())?;
    Some(String::from_utf8(kv.value.to_vec()).unwrap())
}

fn group_key(w: &World, name: &str) -> Option<String> {
    value(w, &format!("{GROUP_KEYS_PREFIX}{name}"))
}

/// The changes since a revision: revision, key, and whether it was put.
fn changes(w: &World, from: u64) -> Vec<(u64, String, bool)> {
    let told = |change: &KvChange| {
        let key = String::from_utf8(change.key().to_vec()).unwrap();
        let is_put = matches!(change, KvChange::Put(_));
        (change.mod_revision(), key, is_put)
    };
    w.state.kv().changes(from).map(told).collect()
}

#[test]
fn one_expiry_makes_one_revision_for_each_session_that_had_keys_and_then_one_for_groups() {
    let mut w = World::new();
    let holder = w.open("a");
    w.create("g", plain());
    w.contend(holder, "g");
    let with_two = lease(&mut w, 90);
    let without = lease(&mut w, 80);
    let with_one = lease(&mut w, 70);
    for (key, lease) in [("x", 90), ("y", 90), ("z", 70), ("h", holder.id.0)] {
        kv(&mut w, put(key, "1", lease)).unwrap();
    }
    let before = w.state.kv().revision();
    w.expire(&[with_two, without, holder, with_one]);
    let deleted = |at: u64, key: &str| (before + at, key.to_owned(), false);
    assert_eq!(
        changes(&w, before + 1),
        [
            deleted(1, "x"),
            deleted(1, "y"),
            deleted(2, "h"),
            deleted(3, "z"),
            (before + 4, format!("{GROUP_KEYS_PREFIX}g"), true),
        ]
    );
}

#[test]
fn sessions_without_keys_never_move_the_revision() {
    let mut w = World::new();
    let before = w.state.kv().revision();
    assert_eq!(before, 1);
    let native = w.open("a");
    let leased = lease(&mut w, 50);
    w.expire(&[leased]);
    done(&w.apply(Command::CloseSession { session: native }));
    assert_eq!(w.state.kv().revision(), before);
}

#[test]
fn keys_go_with_their_session_however_it_ends() {
    let mut w = World::new();
    let (a, b) = (w.open("a"), w.open("b"));
    for (key, session) in [("a", a), ("b", b)] {
        kv(&mut w, put(key, "1", session.id.0)).unwrap();
    }
    lease(&mut w, 99);
    kv(&mut w, put("c", "1", 99)).unwrap();
    done(&w.apply(Command::CloseSession { session: a }));
    assert_eq!(value(&w, "a"), None);
    // A revoked session is waited out, and its keys with it; nothing is attached to it any more.
    done(&w.apply(Command::RevokeSession { session: b.id }));
    assert_eq!(value(&w, "b"), Some("1".into()));
    let gone = KvError::LeaseNotFound { lease: b.id.0 };
    assert_eq!(kv(&mut w, put("d", "1", b.id.0)), Err(gone));
    w.expire(&[b]);
    assert_eq!(value(&w, "b"), None);
    let revoked = w.request(
        RequestKey::Unkeyed,
        Command::RevokeLease {
            caller: None,
            id: 99,
        },
    );
    let revision = w.state.kv().revision();
    assert_eq!(revoked, Ok(Reply::LeaseRevoked { revision }));
    assert_eq!(value(&w, "c"), None);
    let gone = KvError::LeaseNotFound { lease: 99 };
    assert_eq!(kv(&mut w, put("c", "1", 99)), Err(gone));
}

#[test]
fn group_is_a_key_that_follows_its_leadership() {
    let mut w = World::new();
    w.create("a\"b", plain());
    let created = w.group("a\"b").key.created;
    let head = format!("{{\"group\":\"a\\\"b\",\"incarnation\":{created},\"phase\":");
    assert_eq!(group_key(&w, "a\"b"), Some(format!("{head}\"vacant\"}}")));
    let holder = w.open("n\\1");
    w.contend(holder, "a\"b");
    let tenure = w.group("a\"b").tenure.clone().unwrap();
    let active = format!(
        "{head}\"active\",\"tenure\":1,\"token\":{},\"session\":{},\"node\":\"n\\\\1\",\
         \"endpoints\":[\"host-{}:1\"],\"metadata\":{{}}}}",
        tenure.token, holder.id, holder.id
    );
    assert_eq!(group_key(&w, "a\"b"), Some(active));
    // What changes nothing of the leadership writes nothing.
    let before = w.state.kv().revision();
    let other = w.open("n2");
    w.contend(other, "a\"b");
    assert_eq!(w.state.kv().revision(), before);
    // The end of one tenure and the beginning of the next are one change.
    w.expire(&[holder]);
    assert_eq!(w.state.kv().revision(), before + 1);
    assert!(group_key(&w, "a\"b").unwrap().contains("\"node\":\"n2\""));
    w.expire(&[other]);
    assert_eq!(group_key(&w, "a\"b"), Some(format!("{head}\"vacant\"}}")));
    done(&w.apply(Command::DeleteGroup {
        group: group("a\"b"),
        expected: None,
    }));
    assert_eq!(group_key(&w, "a\"b"), None);
}

#[test]
fn keys_of_groups_are_written_by_nobody_else() {
    let mut w = World::new();
    w.create("g", plain());
    let key = format!("{GROUP_KEYS_PREFIX}g");
    let refused = KvError::ReadOnlyKey { key: key.clone() };
    for op in [
        put(&key, "mine", 0),
        delete(&key, ""),
        delete("/", "0"),
        delete("\0", "\0"),
        KvOp::Txn(Txn {
            success: vec![put("a", "1", 0), delete("/quorate/", "/quorate0")],
            ..Txn::default()
        }),
    ] {
        assert_eq!(kv(&mut w, op), Err(refused.clone()));
    }
    let other = KvError::ReadOnlyKey {
        key: "/quorate/x".into(),
    };
    assert_eq!(kv(&mut w, put("/quorate/x", "mine", 0)), Err(other));
    assert_eq!(value(&w, "a"), None);
    kv(&mut w, delete("/a", "/quorate/")).unwrap();
    kv(&mut w, put("/quorate", "fine", 0)).unwrap();
}

#[test]
fn transaction_sees_who_leads_when_it_is_applied() {
    let mut w = World::new();
    let (a, b) = (w.open("a"), w.open("b"));
    let spec = GroupSpec {
        readiness: true,
        prepare_deadline_ms: 50,
        ..plain()
    };
    w.create("g", spec);
    w.contend(a, "g");
    w.contend(b, "g");
    let key = format!("{GROUP_KEYS_PREFIX}g");
    let seen = w.state.kv().get(key.as_bytes()).unwrap().mod_revision;
    // The preparation is overdue in the very entry of the transaction: that fires first.
    w.now = w.now.plus_ms(50);
    let txn = Txn {
        compare: vec![Compare {
            result: CompareResult::Equal,
            target: CompareTarget::Mod(seen.cast_signed()),
            range: range(&key, ""),
        }],
        success: vec![put("x", "led by the first", 0)],
        failure: vec![put("x", "led by another", 0)],
    };
    kv(&mut w, KvOp::Txn(txn)).unwrap();
    assert_eq!(value(&w, "x"), Some("led by another".into()));
}

#[test]
fn alarm_of_space_refuses_puts_and_lets_deletions_and_compactions_pass() {
    let mut w = World::new();
    kv(&mut w, put("a", "1", 0)).unwrap();
    let alarm = |kind| Command::Alarm {
        action: AlarmAction::Raise,
        member: ReplicaId(1),
        kind,
    };
    w.request(RequestKey::Unkeyed, alarm(AlarmKind::NoSpace))
        .unwrap();
    let full = KvError::NoSpace {
        found: w.state.kv().size_bytes(),
    };
    assert_eq!(kv(&mut w, put("b", "1", 0)), Err(full.clone()));
    let nested = KvOp::Txn(Txn {
        failure: vec![KvOp::Txn(Txn {
            success: vec![put("b", "1", 0)],
            ..Txn::default()
        })],
        ..Txn::default()
    });
    assert_eq!(kv(&mut w, nested), Err(full));
    kv(&mut w, KvOp::Txn(Txn::default())).unwrap();
    kv(&mut w, delete("a", "")).unwrap();
    let compact = Command::CompactKv {
        caller: None,
        revision: 3,
    };
    w.request(RequestKey::Unkeyed, compact.clone()).unwrap();
    // Groups are led whatever the space.
    w.create("g", plain());
    assert!(group_key(&w, "g").is_some());
    w.request(RequestKey::Unkeyed, alarm(AlarmKind::Corrupt))
        .unwrap();
    let closed = Err(Rejection::Kv(KvError::Corrupt));
    assert_eq!(w.request(RequestKey::Unkeyed, compact), closed);
    assert_eq!(kv(&mut w, delete("a", "")), Err(KvError::Corrupt));
}

#[test]
fn history_given_up_is_freed_in_pieces_by_later_entries() {
    let mut w = World::new();
    w.checked = false;
    let count = 3 * SWEPT_MAX as u64;
    for at in 0..count {
        kv(&mut w, put("hot", &at.to_string(), 0)).unwrap();
    }
    let before = w.state.kv().size_bytes();
    let revision = w.state.kv().revision();
    let compact = Command::CompactKv {
        caller: None,
        revision: revision.cast_signed(),
    };
    let compacted = w.request(RequestKey::Unkeyed, compact);
    assert_eq!(compacted, Ok(Reply::Compacted { revision }));
    assert_eq!(w.state.next_deadline(), Some(w.state.cluster_time()));
    let mut pieces = 0;
    while w.state.next_deadline().is_some() {
        done(&w.apply(Command::Advance));
        w.state.check_invariants();
        assert_eq!(w.stored().digest(), w.state.digest());
        pieces += 1;
    }
    assert!((2..=4).contains(&pieces), "{pieces} pieces");
    assert!(w.state.kv().size_bytes() < before / 100);
    let old = Range {
        range: range("hot", ""),
        revision: 2,
        ..Range::default()
    };
    assert!(matches!(
        w.state.kv().range(&old),
        Err(KvError::Compacted { .. })
    ));
}

#[test]
fn what_is_remembered_of_keyed_requests_is_never_a_reply_of_the_key_space() {
    let mut w = World::new();
    let command = Command::Kv {
        caller: None,
        op: put("a", "1", 0),
    };
    let refused = w.request(RequestKey::Caller(RequestId(1)), command);
    assert!(
        matches!(refused, Err(Rejection::OutOfBounds { .. })),
        "{refused:?}"
    );
    assert_eq!(value(&w, "a"), None);
}

#[test]
fn transactions_nested_without_end_are_refused_by_the_decoder() {
    let mut op = put("a", "1", 0);
    for _ in 0..300 {
        op = KvOp::Txn(Txn {
            success: vec![op],
            ..Txn::default()
        });
    }
    let bytes = postcard::to_allocvec(&op).unwrap();
    assert!(postcard::from_bytes::<KvOp>(&bytes).is_err());
    // The depth is not left behind.
    let flat = KvOp::Txn(Txn::default());
    let bytes = postcard::to_allocvec(&flat).unwrap();
    assert_eq!(postcard::from_bytes(&bytes), Ok(flat));
}
