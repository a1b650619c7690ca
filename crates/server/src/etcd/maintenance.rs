//! The Maintenance service: what operators ask of one server.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::{LogPosition, Role, SnapshotMeta};
use quorate_coord::kv::{AuthStore, KvError};
use quorate_coord::{AlarmAction, AlarmKind, Command, Reply};
use quorate_replica::{Request as Call, Response as Answer};
use quorate_types::ReplicaId;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::maintenance_server::Maintenance;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{COMPATIBLE_VERSION, Etcd, errors};

/// Bytes of a snapshot in one message, as in etcd.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a transfer of the leadership is waited for.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}

fn alarm_member((kind, member): (AlarmKind, ReplicaId)) -> pb::AlarmMember {
    pb::AlarmMember {
        member_id: member.0,
        alarm: alarm_type(kind).into(),
    }
}

/// An alarm as one of `Status`' errors, in etcd's notation.
fn alarm_text((kind, member): (AlarmKind, ReplicaId)) -> String {
    let kind = alarm_type(kind).as_str_name();
    if member == ReplicaId::ZERO {
        return format!("alarm:{kind} ");
    }
    format!("memberID:{member} alarm:{kind} ")
}

impl Etcd {
    /// The hash of the key space's history through a revision, 0 for all of it; and that revision, and the compacted one.
    async fn hash_through(&self, revision: i64) -> Result<Response<(u32, u64, u64)>, Status> {
        let version = self.api.publisher.version();
        self.aside(move || {
            let store = version.state.kv();
            let (now, compacted) = (store.revision(), store.compacted());
            let asked = u64::try_from(revision).unwrap_or(0);
            if asked > now {
                return Err(errors::of_kv(&KvError::FutureRevision { asked, now }));
            }
            if asked > 0 && asked < compacted {
                return Err(errors::of_kv(&KvError::Compacted { asked, compacted }));
            }
            Ok(((store.hash(asked), now, compacted), 0))
        })
        .await
    }
}

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction as Asked;
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let member = ReplicaId(request.member_id);
        let kind = match pb::AlarmType::try_from(request.alarm) {
            Ok(pb::AlarmType::None) => None,
            Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Err(_) => return Err(Status::invalid_argument("quorate: there is no such alarm")),
        };
        let action = match Asked::try_from(request.action) {
            Ok(Asked::Get) => None,
            Ok(Asked::Activate) => Some(AlarmAction::Raise),
            Ok(Asked::Deactivate) => Some(AlarmAction::Clear),
            Err(_) => return Err(Status::invalid_argument("quorate: there is no such action")),
        };
        if action.is_some() {
            self.check_admin(&caller)?;
        }
        let alarms = match (action, kind) {
            (None, kind) => {
                let version = self.read(&caller, false).await?;
                caller.check(version.state.auth(), AuthStore::check_known)?;
                let alarms = version.state.alarms();
                alarms
                    .filter(|(on, _)| kind.is_none_or(|kind| kind == *on))
                    .map(alarm_member)
                    .collect()
            }
            (Some(AlarmAction::Raise), None) => {
                return Err(Status::invalid_argument(
                    "quorate: name the alarm to be raised",
                ));
            }
            (Some(AlarmAction::Clear), None) => Vec::new(),
            (Some(action), Some(kind)) => {
                let command = Command::Alarm {
                    action,
                    member,
                    kind,
                };
                let was_on = match self.apply(&caller, command).await? {
                    Reply::Alarmed { was_on } => was_on,
                    other => return Err(errors::unexpected(&other)),
                };
                let told = was_on || action == AlarmAction::Raise;
                Vec::from_iter(told.then(|| alarm_member((kind, member))))
            }
        };
        Ok(Response::new(pb::AlarmResponse {
            header: Some(self.header(self.revision_now())),
            alarms,
        }))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = tokio::time::timeout(STATUS_TIMEOUT, self.api.calls.status())
            .await
            .ok()
            .flatten()
            .ok_or_else(errors::timed_out)?;
        let version = self.api.publisher.version();
        let store = version.state.kv();
        let no_leader = status
            .leader
            .is_none()
            .then(|| "etcdserver: no leader".to_owned());
        let alarms = version.state.alarms().map(alarm_text);
        let size = super::convert::signed(store.size_bytes());
        Ok(Response::new(pb::StatusResponse {
            header: Some(pb::ResponseHeader {
                raft_term: status.term.0,
                ..self.header(store.revision())
            }),
            version: COMPATIBLE_VERSION.to_owned(),
            db_size: size,
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: version.applied.0,
            errors: no_leader.into_iter().chain(alarms).collect(),
            db_size_in_use: size,
            is_learner: false,
        }))
    }

    /// There is nothing to do: space is given back as compactions are swept.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        let (hash, revision, _) = self.hash_through(0).await?.into_inner();
        Ok(Response::new(pb::HashResponse {
            header: Some(self.header(revision)),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        let asked = request.get_ref().revision;
        let (hash, revision, compacted) = self.hash_through(asked).await?.into_inner();
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.header(revision)),
            hash,
            compact_revision: super::convert::signed(compacted),
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    /// The whole state at one moment as a backup, with all that was acknowledged anywhere before.
    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let caller = self.caller(&request)?;
        self.check_admin(&caller)?;
        let version = self.read(&caller, false).await?;
        let configuration = self.api.configuration.clone();
        let (backup, revision) = self
            .aside(move || {
                let (index, term) = version.state.applied();
                let meta = SnapshotMeta {
                    last: LogPosition { term, index },
                    configuration,
                };
                let plain = quorate_codec::encode_snapshot(&meta, &version.state);
                let backup = quorate_storage::pack_backup(&plain).map_err(|error| {
                    Status::internal(format!("quorate: pack the state: {error}"))
                })?;
                Ok(((Bytes::from(backup), version.state.kv().revision()), 0))
            })
            .await?
            .into_inner();
        let header = self.header(revision);
        let mut left = backup;
        let chunks = std::iter::from_fn(move || {
            if left.is_empty() {
                return None;
            }
            let blob = left.split_to(CHUNK_BYTES.min(left.len()));
            Some(Ok(pb::SnapshotResponse {
                header: Some(header),
                remaining_bytes: left.len() as u64,
                blob,
            }))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        let to = ReplicaId(request.get_ref().target_id);
        if self.api.role.borrow().role != Role::Leader {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        match self
            .api
            .calls
            .call(Call::TransferLeader { to: Some(to) })
            .await
        {
            Answer::Transferring => {}
            Answer::Refused(refusal) => return Err(errors::of_refusal(refusal)),
            Answer::Unknown => return Err(errors::timed_out()),
            other => unreachable!("a transfer was answered with {other:?}"),
        }
        let mut role = self.api.role.clone();
        let moved = role.wait_for(|now| now.leader == Some(to));
        match tokio::time::timeout(TRANSFER_TIMEOUT, moved).await {
            Ok(_) => Ok(Response::new(pb::MoveLeaderResponse { header: None })),
            Err(_) => Err(Status::unavailable(
                "etcdserver: request timed out, leader transfer took too long",
            )),
        }
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented(
            "quorate: the format of the data is not downgraded through this API",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_in_the_notation_of_etcd() {
        assert_eq!(
            alarm_text((AlarmKind::NoSpace, ReplicaId(7))),
            "memberID:7 alarm:NOSPACE "
        );
        assert_eq!(
            alarm_text((AlarmKind::Corrupt, ReplicaId::ZERO)),
            "alarm:CORRUPT "
        );
    }
}
