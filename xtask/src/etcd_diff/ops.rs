//! What is asked, what is answered, and what of an answer counts.
//!
//! Owns: [`Step`] and [`Answer`], and taking out of an answer what no two clusters share: ids of clusters and members, terms, tokens,
//! ids of leases that the server chose, and the exact time a lease has left.

use std::collections::BTreeMap;
use std::fmt;

use quorate_wire::etcd::{etcdserverpb as pb, mvccpb};
use tonic::{Code, Status};

/// Ids from here on stand for leases whose id the server chose: each side has its own behind them.
pub(crate) const ALIASES: i64 = 1_000_000;

/// By how many seconds what a lease has left may differ, besides a fiftieth of it: ours credits a leader's pauses, which a busy machine
/// makes, and waits for as long as clocks may drift apart.
const TTL_OFF_BY: u64 = 30;

/// One operation, and who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) who: Who,
}

/// Whose token an operation carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// None.
    Nobody,
    /// The last that this user was given; none where there is none.
    User(&'static str),
    /// One that nobody was given.
    Forger,
}

macro_rules! calls {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {
        /// An operation.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Op {
            $($name($request),)*
            /// Opens a watch on one of the streams, and waits until it is open.
            Watch(usize, pb::WatchCreateRequest),
            /// Cancels a watch, and waits until it is.
            CancelWatch(usize, i64),
            /// Asks a stream for its progress.
            Progress(usize),
            /// Closes a stream, with all its watches.
            CloseStream(usize),
            /// Keeps a lease alive, once.
            KeepAlive(i64),
            /// Waits until a lease has expired.
            AwaitExpiry(i64),
            /// Waits until every watch has seen what it must, and tells what they saw since the last time.
            Barrier,
        }

        /// An answer, without what no two clusters share.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Answer {
            $($name($answer),)*
            Watch(pb::WatchResponse),
            KeepAlive(pb::LeaseKeepAliveResponse),
            Watched(BTreeMap<(usize, i64), Seen>),
            Refused(Code, String),
            /// It is done, and there is nothing to tell.
            Done,
        }

        impl Op {
            /// Its name in reports.
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                    Self::Watch(..) => "Watch",
                    Self::CancelWatch(..) => "CancelWatch",
                    Self::Progress(_) => "Progress",
                    Self::CloseStream(_) => "CloseStream",
                    Self::KeepAlive(_) => "KeepAlive",
                    Self::AwaitExpiry(_) => "AwaitExpiry",
                    Self::Barrier => "Barrier",
                }
            }
        }

        impl Answer {
            /// The revision of its header.
            pub(crate) fn revision(&self) -> Option<i64> {
                let header = match self {
                    $(Self::$name(answer) => &answer.header,)*
                    Self::Watch(answer) => &answer.header,
                    Self::KeepAlive(answer) => &answer.header,
                    Self::Watched(_) | Self::Refused(..) | Self::Done => return None,
                };
                header.as_ref().map(|header| header.revision).filter(|revision| *revision > 0)
            }

            fn header_mut(&mut self) -> Option<&mut pb::ResponseHeader> {
                match self {
                    $(Self::$name(answer) => answer.header.as_mut(),)*
                    Self::Watch(answer) => answer.header.as_mut(),
                    Self::KeepAlive(answer) => answer.header.as_mut(),
                    Self::Watched(_) | Self::Refused(..) | Self::Done => None,
                }
            }
        }
    };
}

calls! {
    Range(pb::RangeRequest) -> pb::RangeResponse;
    Put(pb::PutRequest) -> pb::PutResponse;
    DeleteRange(pb::DeleteRangeRequest) -> pb::DeleteRangeResponse;
    Txn(pb::TxnRequest) -> pb::TxnResponse;
    Compact(pb::CompactionRequest) -> pb::CompactionResponse;
    Grant(pb::LeaseGrantRequest) -> pb::LeaseGrantResponse;
    Revoke(pb::LeaseRevokeRequest) -> pb::LeaseRevokeResponse;
    TimeToLive(pb::LeaseTimeToLiveRequest) -> pb::LeaseTimeToLiveResponse;
    Leases(pb::LeaseLeasesRequest) -> pb::LeaseLeasesResponse;
    HashKv(pb::HashKvRequest) -> pb::HashKvResponse;
    Alarm(pb::AlarmRequest) -> pb::AlarmResponse;
    AuthEnable(pb::AuthEnableRequest) -> pb::AuthEnableResponse;
    AuthDisable(pb::AuthDisableRequest) -> pb::AuthDisableResponse;
    Authenticate(pb::AuthenticateRequest) -> pb::AuthenticateResponse;
    UserAdd(pb::AuthUserAddRequest) -> pb::AuthUserAddResponse;
    UserGet(pb::AuthUserGetRequest) -> pb::AuthUserGetResponse;
    UserList(pb::AuthUserListRequest) -> pb::AuthUserListResponse;
    UserDelete(pb::AuthUserDeleteRequest) -> pb::AuthUserDeleteResponse;
    UserPassword(pb::AuthUserChangePasswordRequest) -> pb::AuthUserChangePasswordResponse;
    UserGrant(pb::AuthUserGrantRoleRequest) -> pb::AuthUserGrantRoleResponse;
    UserRevoke(pb::AuthUserRevokeRoleRequest) -> pb::AuthUserRevokeRoleResponse;
    RoleAdd(pb::AuthRoleAddRequest) -> pb::AuthRoleAddResponse;
    RoleGet(pb::AuthRoleGetRequest) -> pb::AuthRoleGetResponse;
    RoleList(pb::AuthRoleListRequest) -> pb::AuthRoleListResponse;
    RoleDelete(pb::AuthRoleDeleteRequest) -> pb::AuthRoleDeleteResponse;
    RoleGrant(pb::AuthRoleGrantPermissionRequest) -> pb::AuthRoleGrantPermissionResponse;
    RoleRevoke(pb::AuthRoleRevokePermissionRequest) -> pb::AuthRoleRevokePermissionResponse;
}

/// What a watch told since it was last asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) events: Vec<mvccpb::Event>,
    /// Why it ended, and the revision compacted, where it did.
    pub(crate) canceled: Option<(String, i64)>,
}

impl Op {
    /// Whether several may be asked at once without changing what they find.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self, Self::Range(_))
    }

    /// The same with other ids of leases.
    pub(crate) fn with_leases(mut self, other: &impl Fn(i64) -> i64) -> Self {
        match &mut self {
            Self::Put(put) => put.lease = other(put.lease),
            Self::Txn(txn) => txn_leases(txn, other),
            Self::Revoke(revoke) => revoke.id = other(revoke.id),
            Self::TimeToLive(asked) => asked.id = other(asked.id),
            Self::KeepAlive(id) | Self::AwaitExpiry(id) => *id = other(*id),
            _ => {}
        }
        self
    }
}

fn txn_leases(txn: &mut pb::TxnRequest, other: &impl Fn(i64) -> i64) {
    for compare in &mut txn.compare {
        if let Some(pb::compare::TargetUnion::Lease(lease)) = &mut compare.target_union {
            *lease = other(*lease);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(pb::request_op::Request::RequestPut(put)) => put.lease = other(put.lease),
            Some(pb::request_op::Request::RequestTxn(txn)) => txn_leases(txn, other),
            _ => {}
        }
    }
}

impl Answer {
    /// A refusal's code and text.
    pub(crate) fn refused(status: &Status) -> Self {
        Self::Refused(status.code(), status.message().to_owned())
    }

    /// The answer without what no two clusters share; `alias` replaces ids of leases.
    pub(crate) fn comparable(mut self, alias: &impl Fn(i64) -> i64) -> Self {
        if let Some(header) = self.header_mut() {
            header.cluster_id = 0;
            header.member_id = 0;
            header.raft_term = 0;
        }
        match &mut self {
            Self::Range(range) => kvs_leases(&mut range.kvs, alias),
            Self::Put(put) => kv_lease(&mut put.prev_kv, alias),
            Self::DeleteRange(deleted) => kvs_leases(&mut deleted.prev_kvs, alias),
            Self::Txn(txn) => answered_txn(txn, alias),
            Self::Grant(grant) => grant.id = alias(grant.id),
            Self::KeepAlive(kept) => kept.id = alias(kept.id),
            Self::TimeToLive(left) => {
                left.id = alias(left.id);
                // etcd draws them from a hash map.
                left.keys.sort();
                // Rough, and then compared with a tolerance.
                left.ttl = left.ttl.min(left.granted_ttl);
            }
            Self::Leases(leases) => {
                leases
                    .leases
                    .iter_mut()
                    .for_each(|lease| lease.id = alias(lease.id));
                // In the order in which they would expire, which is time's.
                leases.leases.sort_by_key(|lease| lease.id);
            }
            Self::HashKv(hash) => hash.hash = 0,
            Self::Authenticate(token) => token.token.truncate(0),
            Self::Alarm(alarm) => alarm
                .alarms
                .iter_mut()
                .for_each(|alarm| alarm.member_id = 0),
            Self::Watched(watched) => {
                for event in watched.values_mut().flat_map(|seen| &mut seen.events) {
                    kv_lease(&mut event.kv, alias);
                    kv_lease(&mut event.prev_kv, alias);
                }
            }
            _ => {}
        }
        self
    }

    /// Whether two answers are the same, as far as time allows to tell.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        if let (Self::TimeToLive(left), Self::TimeToLive(right)) = (self, other) {
            let mut right = right.clone();
            let off_by = TTL_OFF_BY + left.granted_ttl.unsigned_abs() / 50;
            if left.ttl.abs_diff(right.ttl) <= off_by && (left.ttl < 0) == (right.ttl < 0) {
                right.ttl = left.ttl;
            }
            return *left == right;
        }
        self == other
    }
}

fn answered_txn(txn: &mut pb::TxnResponse, alias: &impl Fn(i64) -> i64) {
    for op in &mut txn.responses {
        match &mut op.response {
            Some(pb::response_op::Response::ResponseRange(range)) => {
                kvs_leases(&mut range.kvs, alias);
            }
            Some(pb::response_op::Response::ResponsePut(put)) => kv_lease(&mut put.prev_kv, alias),
            Some(pb::response_op::Response::ResponseDeleteRange(deleted)) => {
                kvs_leases(&mut deleted.prev_kvs, alias);
            }
            Some(pb::response_op::Response::ResponseTxn(txn)) => answered_txn(txn, alias),
            None => {}
        }
    }
}

fn kvs_leases(kvs: &mut [mvccpb::KeyValue], alias: &impl Fn(i64) -> i64) {
    kvs.iter_mut().for_each(|kv| kv.lease = alias(kv.lease));
}

fn kv_lease(kv: &mut Option<mvccpb::KeyValue>, alias: &impl Fn(i64) -> i64) {
    if let Some(kv) = kv {
        kv.lease = alias(kv.lease);
    }
}

/// The debug form on one line, with long runs of bytes shortened.
pub(crate) struct Short<T>(pub(crate) T);

/// How much of a value is shown.
const SHOWN: usize = 200;

impl<T: fmt::Debug> fmt::Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}", self.0);
        for (at, piece) in text.split("b\"").enumerate() {
            if at > 0 {
                f.write_str("b\"")?;
            }
            match piece.find('"') {
                Some(end) if end > SHOWN && at > 0 => {
                    let cut = (0..=SHOWN).rev().find(|cut| piece.is_char_boundary(*cut));
                    write!(
                        f,
                        "{}..{end} long{}",
                        &piece[..cut.unwrap_or(0)],
                        &piece[end..]
                    )?;
                }
                _ => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_lease_ids_are_compared_by_their_alias() {
        let answer = |id, term| {
            let header = pb::ResponseHeader {
                raft_term: term,
                revision: 7,
                ..Default::default()
            };
            Answer::Grant(pb::LeaseGrantResponse {
                header: Some(header),
                id,
                ttl: 60,
                error: String::new(),
            })
        };
        let left = answer(1234, 2).comparable(&|id| if id == 1234 { ALIASES } else { id });
        let right = answer(99, 5).comparable(&|id| if id == 99 { ALIASES } else { id });
        assert!(left.is_same(&right));
        assert_eq!(left.revision(), Some(7));
    }

    #[test]
    fn lease_that_is_gone_differs_from_one_about_to_be() {
        let answer = |ttl| {
            Answer::TimeToLive(pb::LeaseTimeToLiveResponse {
                ttl,
                granted_ttl: 60,
                ..Default::default()
            })
        };
        assert!(answer(59).is_same(&answer(60)));
        assert!(!answer(20).is_same(&answer(60)));
        assert!(!answer(-1).is_same(&answer(0)));
    }

    #[test]
    fn long_values_are_shortened() {
        let op = Op::Put(pb::PutRequest {
            value: vec![b'x'; 1_000].into(),
            ..Default::default()
        });
        let shown = Short(&op).to_string();
        assert!(shown.contains("xxx..1000 long\""), "{shown}");
        assert_eq!(op.name(), "Put");
    }
}
