//! Standing in line for a name: what elections and locks are made of.
//!
//! Whoever stands in line has a key `<name>/<lease>`, created by a transaction, and is served when no key below the name was created
//! before; so the recipes that clients run themselves stand in the same line. Deliberately absent: a state of its own. What is known of
//! a line is in the key space, and survives any server.
//!
//! Unlike etcd's, no call is answered with a lead that is not held: the key must still be there, in a state that holds everything
//! committed anywhere when it was looked at (ADR election-answers-while-the-lease-lives).

use std::sync::Arc;
use std::time::Duration;

use quorate_coord::kv::{
    Blob, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KvOp, KvOpReply, KvStore,
    Put, Range, SortOrder, SortTarget, Txn, TxnReply,
};
use quorate_coord::{Command, SessionKey};
use quorate_replica::{Request as Call, Response as Answer};
use quorate_types::SessionId;
use tonic::{Code, Status};

use super::{Caller, Etcd, TXN_OPS_MAX, checked, convert, errors};
use crate::publish::Version;

/// A call that waits is told that there is no leader once that has lasted so long: another server may know of one.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);
/// How long after a failed look the next one comes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The lease of a caller that brings none, as in etcd.
const OWN_LEASE_SECONDS: i64 = 60;
/// How often it is kept alive while the caller waits.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Attempts to take a key back whose caller has gone; its lease ends it otherwise.
const WITHDRAWALS: u32 = 5;

/// One place in a line.
#[derive(Clone, Debug)]
pub(super) struct Place {
    prefix: Blob,
    pub(super) key: Blob,
    pub(super) lease: u64,
    /// The revision that created the key: who is earlier is before.
    pub(super) created: u64,
}

/// How a place stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    First,
    /// Somebody is right before it, with this key.
    Behind(Blob),
    /// The key is gone, or is another one of the same name.
    Gone,
}

pub(super) fn prefix(name: &[u8]) -> Blob {
    Blob::from([name, b"/"].concat())
}

/// All keys below a prefix, in the order of their creation.
pub(super) fn below(prefix: &Blob) -> Range {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("it ends with a slash") += 1;
    Range {
        range: KeyRange {
            key: prefix.clone(),
            range_end: Blob::from(end),
        },
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Create,
        ..Range::default()
    }
}

pub(super) fn first_below(prefix: &Blob) -> Range {
    Range {
        limit: 1,
        ..below(prefix)
    }
}

pub(super) fn single(key: &Blob) -> KeyRange {
    KeyRange {
        key: key.clone(),
        range_end: Blob::default(),
    }
}

/// That a key is the one which a revision created; 0: that it is not there.
pub(super) fn created_at(key: &Blob, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal,
        target: CompareTarget::Create(revision),
        range: single(key),
    }
}

/// An error of the recipes, which etcd tells without a code of its own.
pub(super) fn plain(text: &str) -> Status {
    Status::unknown(text)
}

/// The same for what the key space refuses: etcd's recipes lose the code, and clients match the text.
pub(super) fn without_code(status: Status) -> Status {
    match status.code() {
        Code::NotFound | Code::InvalidArgument => plain(status.message()),
        _ => status,
    }
}

impl Place {
    fn standing(&self, store: &KvStore) -> Standing {
        let own = store.get(&self.key);
        if own.is_none_or(|own| own.create_revision != self.created) {
            return Standing::Gone;
        }
        let before = Range {
            sort_order: SortOrder::Descend,
            limit: 1,
            keys_only: true,
            max_create_revision: convert::signed(self.created) - 1,
            ..below(&self.prefix)
        };
        let before = store.range(&before).expect("the newest revision is there");
        match before.kvs.into_iter().next() {
            None => Standing::First,
            Some(before) => Standing::Behind(before.key),
        }
    }

    /// Why a place is gone.
    fn lost(&self, version: &Version, taken: &str) -> Status {
        match version.state.session(SessionId(self.lease)) {
            Some(_) => plain(taken),
            None => plain("etcdserver: requested lease not found"),
        }
    }
}

/// How one stands in line.
pub(super) struct Stand<'a> {
    pub(super) name: &'a [u8],
    /// 0: the server brings one.
    pub(super) lease: i64,
    /// What the key says; `None` keeps what is there (a lock says nothing).
    pub(super) value: Option<Blob>,
    /// What is told when the key was taken away though the lease lives.
    pub(super) taken: &'static str,
}

impl Etcd {
    /// Stands in line and answers when first, with the revision at which that was so.
    pub(super) async fn stand(
        &self,
        caller: &Caller,
        stand: Stand<'_>,
    ) -> Result<(Place, u64), Status> {
        let mut withdraw = Withdraw {
            etcd: self.clone(),
            caller: caller.clone(),
            place: None,
            own_lease: None,
        };
        let lease = match u64::try_from(stand.lease) {
            Ok(0) => {
                let lease = self.grant_any(caller, OWN_LEASE_SECONDS).await?.0;
                withdraw.own_lease = Some(lease);
                lease.id.0
            }
            Ok(lease) => lease,
            Err(_) => return Err(plain("etcdserver: requested lease not found")),
        };
        let entered = self.enter(caller, &stand, lease).await;
        let (place, revision, first) = match entered {
            Ok(entered) => entered,
            Err(status) => return Err(withdraw.unless_unknown(status)),
        };
        withdraw.place = Some(place.clone());
        let at = if first {
            Ok(revision)
        } else {
            self.wait_in_line(caller, &place, revision, &withdraw, stand.taken)
                .await
        };
        match at {
            Ok(at) => {
                withdraw.disarm();
                Ok((place, at))
            }
            Err(status) => Err(withdraw.unless_unknown(status)),
        }
    }

    /// Makes the key, or finds it; tells whether nobody is before it.
    async fn enter(
        &self,
        caller: &Caller,
        stand: &Stand<'_>,
        lease: u64,
    ) -> Result<(Place, u64, bool), Status> {
        let prefix = prefix(stand.name);
        let key = Blob::from([&*prefix, format!("{lease:x}").as_bytes()].concat());
        let put = |value: &Blob| {
            KvOp::Put(Put {
                key: key.clone(),
                value: value.clone(),
                lease: convert::signed(lease),
                prev_kv: true,
                ..Put::default()
            })
        };
        let own = || {
            KvOp::Range(Range {
                range: single(&key),
                ..Range::default()
            })
        };
        // Found under the same lease, it is the caller's own place, which may say something else by now.
        let found = match &stand.value {
            None => own(),
            Some(value) => KvOp::Txn(Txn {
                compare: vec![Compare {
                    result: CompareResult::Equal,
                    target: CompareTarget::Value(value.clone()),
                    range: single(&key),
                }],
                success: vec![own()],
                failure: vec![put(value)],
            }),
        };
        let first = || KvOp::Range(first_below(&prefix));
        let op = KvOp::Txn(Txn {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&stand.value.clone().unwrap_or_default()), first()],
            failure: vec![found, first()],
        });
        checked(quorate_coord::kv::check(&op, TXN_OPS_MAX)).map_err(without_code)?;
        let executed = self.execute(caller, op).await.map_err(without_code);
        let (revision, reply) = executed?;
        let (created, first) =
            read_entry(&reply, revision).ok_or_else(|| errors::unexpected(&reply))?;
        let place = Place {
            prefix,
            key,
            lease,
            created,
        };
        Ok((place, revision, first == created))
    }

    /// Waits until nobody is before a place.
    async fn wait_in_line(
        &self,
        caller: &Caller,
        place: &Place,
        entered: u64,
        withdraw: &Withdraw,
        taken: &str,
    ) -> Result<u64, Status> {
        let keep = async {
            match withdraw.own_lease {
                Some(lease) => self.keep_own_alive(lease).await,
                None => std::future::pending().await,
            }
        };
        let line = async {
            let mut version = self.reached(entered).await;
            loop {
                match place.standing(version.state.kv()) {
                    // What was published was committed: it is really gone.
                    Standing::Gone => return Err(place.lost(&version, taken)),
                    // But here may be where the past is: only a look at what was committed anywhere tells.
                    Standing::First => {
                        version = self.look(caller).await?;
                        if place.standing(version.state.kv()) == Standing::First {
                            return Ok(version.state.kv().revision());
                        }
                    }
                    Standing::Behind(before) => {
                        let keys = vec![before.clone(), place.key.clone()];
                        let wait = self.waiting.for_deletion(keys);
                        version = self.api.publisher.version();
                        if place.standing(version.state.kv()) == Standing::Behind(before) {
                            wait.woken().await;
                            version = self.api.publisher.version();
                        }
                    }
                }
            }
        };
        tokio::select! {
            answered = line => answered,
            () = self.leaderless() => Err(Status::unavailable("etcdserver: no leader")),
            () = keep => unreachable!("it is kept until the call ends"),
        }
    }

    /// A version that holds a key-value revision.
    async fn reached(&self, revision: u64) -> Arc<Version> {
        let mut changes = self.api.publisher.changes();
        loop {
            changes.borrow_and_update();
            let version = self.api.publisher.version();
            if version.state.kv().revision() >= revision {
                return version;
            }
            changes
                .changed()
                .await
                .expect("the publisher holds the sender");
        }
    }

    /// A linearizable look, again and again until it succeeds: a change of leaders ends nobody's waiting.
    async fn look(&self, caller: &Caller) -> Result<Arc<Version>, Status> {
        loop {
            match self.read(caller, false).await {
                Err(status)
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded
                    ) =>
                {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                answered => return answered,
            }
        }
    }

    /// Ends when this server has known of no leader for a while.
    async fn leaderless(&self) {
        let mut role = self.api.role.clone();
        loop {
            let lost = role.wait_for(|now| now.leader.is_none()).await.is_ok();
            if !lost {
                return; // the server stops
            }
            let found = role.wait_for(|now| now.leader.is_some());
            let found = tokio::time::timeout(LEADERLESS_MAX, found).await;
            if !matches!(found, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Keeps a lease alive as long as this is polled. What comes of it shows in the line.
    async fn keep_own_alive(&self, session: SessionKey) {
        for seq in 1.. {
            tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
            let answered = self.api.calls.call(Call::KeepAlive { session, seq }).await;
            if !matches!(answered, Answer::KeptAlive { .. }) {
                tracing::debug!(
                    ?session,
                    ?answered,
                    "a waiting call's lease was not kept alive"
                );
            }
        }
    }
}

/// The creation of the own key, and of the first below the prefix.
fn read_entry(reply: &KvOpReply, revision: u64) -> Option<(u64, u64)> {
    let KvOpReply::Txn(TxnReply {
        succeeded,
        responses,
    }) = reply
    else {
        return None;
    };
    let [own, KvOpReply::Range(first)] = responses.as_slice() else {
        return None;
    };
    let created = match own {
        KvOpReply::Put { .. } if *succeeded => revision,
        KvOpReply::Range(found) => found.kvs.first()?.create_revision,
        KvOpReply::Txn(nested) => match nested.responses.first()? {
            KvOpReply::Range(found) => found.kvs.first()?.create_revision,
            KvOpReply::Put { prev_kv } => prev_kv.as_ref()?.create_revision,
            _ => return None,
        },
        _ => return None,
    };
    Some((created, first.kvs.first()?.create_revision))
}

/// Takes the key back when the call ends without an answer: whoever asked has gone, and must not lead unknowingly.
struct Withdraw {
    etcd: Etcd,
    caller: Caller,
    place: Option<Place>,
    own_lease: Option<SessionKey>,
}

impl Withdraw {
    fn disarm(&mut self) {
        self.place = None;
        self.own_lease = None;
    }

    /// A call that may be asked again keeps its place.
    fn unless_unknown(mut self, status: Status) -> Status {
        if status.code() == Code::Unavailable && self.own_lease.is_none() {
            self.disarm();
        }
        status
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        let command = match (self.own_lease, &self.place) {
            (Some(lease), _) => Command::RevokeLease {
                caller: self.caller.user.clone(),
                id: lease.id.0,
            },
            (None, Some(place)) => Command::Kv {
                caller: self.caller.user.clone(),
                op: withdrawal(&place.key, convert::signed(place.created)),
            },
            (None, None) => return,
        };
        let (etcd, caller) = (self.etcd.clone(), self.caller.clone());
        tokio::spawn(async move {
            for _ in 0..WITHDRAWALS {
                match etcd.apply(&caller, command.clone()).await {
                    Err(status) if status.code() == Code::Unavailable => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    Ok(_) | Err(_) => return,
                }
            }
        });
    }
}

/// Deletes a key if it is still the one that a revision created.
pub(super) fn withdrawal(key: &Blob, created: i64) -> KvOp {
    KvOp::Txn(Txn {
        compare: vec![created_at(key, created)],
        success: vec![KvOp::DeleteRange(DeleteRange {
            range: single(key),
            prev_kv: false,
        })],
        failure: Vec::new(),
    })
}
