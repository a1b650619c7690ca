//! Each rule of users and roles, as the real etcd answers it.

use super::*;
use crate::kv::{
    AuthError, Compare, CompareResult, CompareTarget, DeleteRange, KvCaller, KvOp, Put, Range, Txn,
};

fn secret(text: &str) -> Secret {
    Secret::from(text.as_bytes())
}

fn range(key: &str, range_end: &str) -> KeyRange {
    KeyRange {
        key: key.into(),
        range_end: range_end.into(),
    }
}

fn enable() -> AuthChange {
    AuthChange::Enable {
        token_key: secret("key"),
    }
}

fn add_user(name: &str) -> AuthChange {
    AuthChange::AddUser {
        name: name.into(),
        password: Some(secret("hash")),
    }
}

fn grant_role(user: &str, role: &str) -> AuthChange {
    AuthChange::GrantRole {
        user: user.into(),
        role: role.into(),
    }
}

fn revoke_role(user: &str, role: &str) -> AuthChange {
    AuthChange::RevokeRole {
        user: user.into(),
        role: role.into(),
    }
}

fn add_role(name: &str) -> AuthChange {
    AuthChange::AddRole { name: name.into() }
}

fn delete_role(name: &str) -> AuthChange {
    AuthChange::DeleteRole { name: name.into() }
}

fn delete_user(name: &str) -> AuthChange {
    AuthChange::DeleteUser { name: name.into() }
}

fn change_password(name: &str) -> AuthChange {
    AuthChange::ChangePassword {
        name: name.into(),
        password: secret("other"),
    }
}

fn grant(role: &str, access: Access, key: &str, range_end: &str) -> AuthChange {
    AuthChange::GrantPermission {
        role: role.into(),
        permission: Permission {
            access,
            range: range(key, range_end),
        },
    }
}

fn revoke(role: &str, key: &str, range_end: &str) -> AuthChange {
    AuthChange::RevokePermission {
        role: role.into(),
        range: range(key, range_end),
    }
}

/// What each change comes to, and the revision after it.
fn check(
    store: &mut AuthStore,
    caller: Option<&KvCaller>,
    change: &AuthChange,
    wanted: &Result<u64, AuthError>,
) {
    let before = store.clone();
    let found = store.change(caller, change).map(|()| store.revision());
    assert_eq!(found, *wanted, "{change:?}");
    if wanted.is_err() {
        assert_eq!(*store, before, "a refused change had an effect: {change:?}");
    }
    let bytes = postcard::to_allocvec(store).unwrap();
    assert_eq!(postcard::from_bytes(&bytes), Ok(store.clone()));
}

fn caller(store: &AuthStore, user: &str) -> KvCaller {
    KvCaller {
        user: user.into(),
        auth_revision: store.revision(),
    }
}

/// A user `app` that may read a..m and write k..z, and `root`; enabled.
fn enabled() -> AuthStore {
    let mut store = AuthStore::new();
    for change in [
        add_user("root"),
        grant_role("root", "root"),
        add_user("app"),
        add_user("idle"),
        add_role("reader"),
        add_role("writer"),
        grant("reader", Access::Read, "a", "m"),
        grant("writer", Access::Write, "k", "z"),
        grant_role("app", "reader"),
        grant_role("app", "writer"),
        enable(),
    ] {
        store.change(None, &change).unwrap();
    }
    store
}

#[test]
fn changes_are_refused_in_the_order_and_with_the_words_of_etcd() {
    use AuthError::{
        InvalidManagement, PermissionNotGranted, RoleEmpty, RoleExists, RoleNotFound,
        RoleNotGranted, RootRoleMissing, RootUserMissing, UserEmpty, UserExists, UserNotFound,
    };
    let mut store = AuthStore::new();
    let mut check = |change: AuthChange, wanted| check(&mut store, None, &change, &wanted);
    check(AuthChange::Disable, Ok(1));
    check(enable(), Err(RootUserMissing));
    check(add_user(""), Err(UserEmpty));
    check(add_user("root"), Ok(2));
    check(add_user("root"), Err(UserExists));
    check(enable(), Err(RootRoleMissing));
    check(delete_user("nobody"), Err(UserNotFound));
    check(change_password("nobody"), Err(UserNotFound));
    check(add_role(""), Err(RoleEmpty));
    check(add_role("r"), Ok(3));
    check(add_role("r"), Err(RoleExists));
    check(delete_role("none"), Err(RoleNotFound));
    check(grant_role("nobody", "none"), Err(UserNotFound));
    check(grant_role("root", "none"), Err(RoleNotFound));
    check(grant_role("root", "r"), Ok(4));
    check(grant_role("root", "r"), Ok(4));
    check(revoke_role("nobody", "r"), Err(UserNotFound));
    check(revoke_role("root", "none"), Err(RoleNotGranted));
    check(grant("r", Access::Read, "", "\0"), Err(InvalidManagement));
    check(
        grant("none", Access::Read, "m", "a"),
        Err(InvalidManagement),
    );
    check(grant("none", Access::Read, "a", "m"), Err(RoleNotFound));
    check(revoke("none", "a", "m"), Err(RoleNotFound));
    check(revoke("r", "a", "m"), Err(PermissionNotGranted));
    check(grant("r", Access::Read, "a", "m"), Ok(5));
    check(revoke("r", "a", ""), Err(PermissionNotGranted));
    check(revoke("r", "a", "m"), Ok(6));
    check(grant_role("root", "root"), Ok(7));
    check(enable(), Ok(7));
}

#[test]
fn a_permission_of_the_same_range_is_replaced_and_others_are_kept_by_key() {
    let mut store = AuthStore::new();
    for change in [
        add_role("r"),
        grant("r", Access::Read, "k", "l"),
        grant("r", Access::Read, "k", "m"),
        grant("r", Access::ReadWrite, "a", ""),
        grant("r", Access::Write, "k", "m"),
    ] {
        store.change(None, &change).unwrap();
    }
    let found: Vec<_> = store.role("r").unwrap().permissions().to_vec();
    let wanted = [
        (Access::ReadWrite, range("a", "")),
        (Access::Read, range("k", "l")),
        (Access::Write, range("k", "m")),
    ];
    let wanted = wanted.map(|(access, range)| Permission { access, range });
    assert_eq!(found, wanted);
}

#[test]
fn deleting_a_role_takes_it_from_its_users() {
    let mut store = enabled();
    let root = caller(&store, "root");
    check(&mut store, Some(&root), &delete_role("reader"), &Ok(12));
    let roles: Vec<_> = store.user("app").unwrap().roles.iter().collect();
    assert_eq!(roles, ["writer"]);
}

#[test]
fn root_cannot_be_taken_away_while_users_are_distinguished() {
    let mut store = enabled();
    let root = caller(&store, "root");
    let refused = Err(AuthError::InvalidManagement);
    for change in [
        delete_user("root"),
        revoke_role("root", "root"),
        delete_role("root"),
    ] {
        check(&mut store, Some(&root), &change, &refused);
    }
    check(&mut store, Some(&root), &AuthChange::Disable, &Ok(12));
    check(&mut store, None, &delete_user("root"), &Ok(13));
}

#[test]
fn only_root_changes_users_and_roles() {
    let mut store = enabled();
    let (app, root, gone) = (
        caller(&store, "app"),
        caller(&store, "root"),
        caller(&store, "gone"),
    );
    let change = add_user("new");
    check(&mut store, None, &change, &Err(AuthError::UserEmpty));
    let denied = Err(AuthError::PermissionDenied);
    check(&mut store, Some(&app), &change, &denied);
    check(&mut store, Some(&gone), &AuthChange::Disable, &denied);
    check(&mut store, Some(&root), &change, &Ok(12));
}

#[test]
fn every_part_of_an_operation_needs_its_right() {
    let store = enabled();
    let app = caller(&store, "app");
    let leases = |lease| match lease {
        1 => vec![Blob::from("n")],
        2 => vec![Blob::from("n"), Blob::from("b")],
        _ => Vec::new(),
    };
    let check = |op: &KvOp, is_allowed: bool| {
        let wanted = if is_allowed {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        };
        assert_eq!(store.check_op(Some(&app), op, &leases), wanted, "{op:?}");
        // Nested in either branch of a transaction it needs the same.
        let nested = |success, failure| {
            KvOp::Txn(Txn {
                success,
                failure,
                ..Txn::default()
            })
        };
        for txn in [
            nested(vec![op.clone()], vec![]),
            nested(vec![], vec![nested(vec![op.clone()], vec![])]),
        ] {
            assert_eq!(store.check_op(Some(&app), &txn, &leases), wanted, "{txn:?}");
        }
        let root = caller(&store, "root");
        assert_eq!(store.check_op(Some(&root), op, &leases), Ok(()));
        let none = AuthError::UserEmpty;
        assert_eq!(store.check_op(None, op, &leases), Err(none));
        let idle = caller(&store, "idle");
        let denied = AuthError::PermissionDenied;
        assert_eq!(store.check_op(Some(&idle), op, &leases), Err(denied));
    };
    let get = |key, end| {
        KvOp::Range(Range {
            range: range(key, end),
            ..Range::default()
        })
    };
    check(&get("a", ""), true);
    check(&get("a", "m"), true);
    check(&get("a", "n"), false);
    check(&get("z", ""), false);
    check(&get("a", "\0"), false);
    let put = |key: &str, lease, prev_kv| {
        KvOp::Put(Put {
            key: key.into(),
            lease,
            prev_kv,
            ..Put::default()
        })
    };
    check(&put("n", 0, false), true);
    check(&put("n", 0, true), false);
    check(&put("k", 0, true), true);
    check(&put("a", 0, false), false);
    check(&put("n", 1, false), true);
    check(&put("n", 2, false), false);
    check(&put("n", 3, false), true);
    let delete = |key, end, prev_kv| {
        KvOp::DeleteRange(DeleteRange {
            range: range(key, end),
            prev_kv,
        })
    };
    check(&delete("k", "z", false), true);
    check(&delete("k", "z", true), false);
    check(&delete("k", "m", true), true);
    check(&delete("a", "m", false), false);
    let compare = |key, end| {
        KvOp::Txn(Txn {
            compare: vec![Compare {
                result: CompareResult::Equal,
                target: CompareTarget::Version(0),
                range: range(key, end),
            }],
            ..Txn::default()
        })
    };
    check(&compare("a", ""), true);
    check(&compare("n", ""), false);
}

#[test]
fn leases_are_for_those_who_may_write_their_keys() {
    let store = enabled();
    let check = |user: Option<&str>, keys: &[&str], wanted: Result<(), AuthError>| {
        let caller = user.map(|user| caller(&store, user));
        let mut keys = keys.iter().map(|key| Blob::from(*key));
        assert_eq!(store.check_lease(caller.as_ref(), &mut keys), wanted);
    };
    check(Some("app"), &["k", "n"], Ok(()));
    check(Some("app"), &["k", "a"], Err(AuthError::PermissionDenied));
    check(Some("root"), &["k", "a"], Ok(()));
    check(Some("idle"), &[], Ok(()));
    check(None, &[], Err(AuthError::UserEmpty));
    let app = caller(&store, "app");
    let mut keys = [Blob::from("a"), Blob::from("k")].into_iter();
    assert_eq!(store.check_lease_read(Some(&app), &mut keys), Ok(()));
}

#[test]
fn users_and_roles_are_shown_to_root_and_to_those_who_have_them() {
    let store = enabled();
    let (app, denied) = (caller(&store, "app"), Err(AuthError::PermissionDenied));
    assert_eq!(store.check_user(Some(&app), "app"), Ok(()));
    assert_eq!(store.check_user(Some(&app), "idle"), denied);
    assert_eq!(store.check_user(None, "app"), Err(AuthError::UserEmpty));
    assert_eq!(store.check_role(Some(&app), "reader"), Ok(()));
    assert_eq!(store.check_role(Some(&app), "root"), denied);
    let root = caller(&store, "root");
    assert_eq!(store.check_role(Some(&root), "reader"), Ok(()));
}

#[test]
fn rights_checked_at_an_older_revision_are_refused_and_root_s_work_goes_on() {
    let mut store = enabled();
    let (app, root) = (caller(&store, "app"), caller(&store, "root"));
    check(&mut store, Some(&root), &add_role("new"), &Ok(12));
    check(&mut store, Some(&root), &add_role("newer"), &Ok(13));
    let found = store.check_range(Some(&app), &range("a", ""));
    assert_eq!(found, Err(AuthError::OldRevision));
    let app = caller(&store, "app");
    assert_eq!(store.check_range(Some(&app), &range("a", "")), Ok(()));
}

#[test]
fn tokens_are_void_after_the_password_changed_and_for_another_user_of_the_name() {
    let mut store = enabled();
    let made = store.revision();
    let root = caller(&store, "root");
    assert!(store.accepts_token_of("app", made));
    assert!(!store.accepts_token_of("nobody", made));
    assert!(!store.accepts_token_of("app", made + 1), "of the future");
    check(
        &mut store,
        Some(&root),
        &revoke_role("app", "reader"),
        &Ok(12),
    );
    assert!(store.accepts_token_of("app", made), "rights are not in it");
    check(&mut store, Some(&root), &change_password("app"), &Ok(13));
    assert!(!store.accepts_token_of("app", made));
    assert!(store.accepts_token_of("app", 13));
    check(&mut store, Some(&root), &delete_user("app"), &Ok(14));
    check(&mut store, Some(&root), &add_user("app"), &Ok(15));
    assert!(!store.accepts_token_of("app", 13));
    assert!(store.accepts_token_of("idle", made));
}

#[test]
fn a_user_without_a_password_is_given_none() {
    let mut store = AuthStore::new();
    let add = AuthChange::AddUser {
        name: "cert".into(),
        password: None,
    };
    check(&mut store, None, &add, &Ok(2));
    check(&mut store, None, &change_password("cert"), &Ok(3));
    assert_eq!(store.user("cert").unwrap().password, None);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", enabled(), add_user("x"));
    assert!(
        !shown.contains("hash") && !shown.contains("\"key\""),
        "{shown}"
    );
    assert!(shown.contains("4 secret bytes"), "{shown}");
}

#[test]
fn a_stored_store_that_contradicts_itself_is_refused() {
    let stored = |change: fn(&mut Stored)| {
        let mut stored = Stored::from(enabled());
        change(&mut stored);
        let bytes = postcard::to_allocvec(&stored).unwrap();
        postcard::from_bytes::<AuthStore>(&bytes)
    };
    assert_eq!(stored(|_| {}), Ok(enabled()));
    assert!(stored(|stored| stored.revision = 0).is_err());
    assert!(
        stored(|stored| stored.revision = 2).is_err(),
        "users of the future"
    );
    assert!(
        stored(|stored| {
            let permission = Permission {
                access: Access::Read,
                range: range("m", "a"),
            };
            stored.roles.insert("r".into(), vec![permission]);
        })
        .is_err()
    );
}
