//! The destination: every transaction says how far it has brought it, and is applied only on top of the one before.

use std::time::Duration;

use quorate_client::ErrorKind;
use quorate_client::kv::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_client::kv::pb::request_op::Request;
use quorate_client::kv::pb::response_op::Response;
use quorate_client::kv::pb::{self, Bytes};
use quorate_client::kv::{KeyRange, KvFault, Read};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{RESERVED, Side, conflict, is_reserved};

/// Of the 128 operations that servers take by default, one says how far it is.
pub(super) const OPERATIONS_MAX: usize = 100;
/// Of the 1.5 MiB.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
/// How long a destination may be away.
const PATIENCE: Duration = Duration::from_secs(120);

/// How far the destination is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The revision of the source that is copied, or up to which all is there.
    pub(super) revision: u64,
    /// Copying: everything before this key is there, in hexadecimal. Following: none.
    pub(super) cursor: Option<String>,
    /// Counts transactions: no two places are the same.
    step: u64,
}

/// The destination.
///
/// # Invariants
/// - `place_mod` is the revision that put the newest place that this process knows of; 0 where there is none.
pub(super) struct Sink {
    to: Side,
    marker: Bytes,
    place: Place,
    place_mod: i64,
}

/// Why a transaction was not applied.
pub(super) enum SinkError {
    /// A lease of the destination has gone: grant it again.
    LeaseGone,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl Sink {
    /// Takes up where an import from `source` has stopped, or begins one into an empty key space.
    pub(super) async fn open(to: Side, source: u64) -> anyhow::Result<Self> {
        let prefix = "quorate-import/";
        let marker = Bytes::from(format!("{prefix}{source:016x}"));
        if let Some(pair) = to.kv.get(marker.clone()).await? {
            let place = serde_json::from_slice(&pair.value).map_err(|error| {
                let message =
                    format!("the destination's note of how far it is, {marker:?}: {error}");
                conflict(message, "delete that key and all others, and import anew")
            })?;
            let place_mod = pair.mod_revision;
            return Ok(Self {
                to,
                marker,
                place,
                place_mod,
            });
        }
        let all = to.kv.range(Read::of(KeyRange::all()).count_only()).await?;
        let own = Read::of(KeyRange::prefix(RESERVED)).count_only();
        let own = to.kv.range(own).await?;
        if all.count > own.count {
            let message = format!(
                "the destination holds {} keys that did not come from this source",
                all.count - own.count
            );
            let hint = "import into an empty key space (`quorate kv del '' --prefix` empties one)";
            return Err(conflict(message, hint));
        }
        Ok(Self {
            to,
            marker,
            place: Place::default(),
            place_mod: 0,
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether a key of the destination is no copy.
    pub(super) fn is_own(&self, key: &[u8]) -> bool {
        key == self.marker || is_reserved(key)
    }

    /// Writes, and notes how far that is, in one transaction.
    pub(super) async fn apply(
        &mut self,
        operations: Vec<pb::RequestOp>,
        revision: u64,
        cursor: Option<String>,
    ) -> Result<(), SinkError> {
        let place = Place {
            revision,
            cursor,
            step: self.place.step + 1,
        };
        let note = serde_json::to_vec(&place).expect("numbers and text become JSON");
        let put = pb::PutRequest {
            key: self.marker.clone(),
            value: note.clone().into(),
            ..pb::PutRequest::default()
        };
        let request = self.guarded(operations, Request::RequestPut(put));
        let done = self.settle(request, Some(&note)).await?;
        self.place = place;
        self.place_mod = done;
        Ok(())
    }

    /// Takes the note away: what comes now is no import any more.
    pub(super) async fn close(&mut self) -> Result<(), SinkError> {
        let delete = pb::DeleteRangeRequest {
            key: self.marker.clone(),
            ..pb::DeleteRangeRequest::default()
        };
        let request = self.guarded(Vec::new(), Request::RequestDeleteRange(delete));
        self.settle(request, None).await.map(drop)
    }

    fn guarded(&self, mut operations: Vec<pb::RequestOp>, note: Request) -> pb::TxnRequest {
        operations.push(pb::RequestOp {
            request: Some(note),
        });
        let read = Read::of(KeyRange::key(self.marker.clone())).into_request();
        pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: self.marker.clone(),
                target_union: Some(TargetUnion::ModRevision(self.place_mod)),
                ..pb::Compare::default()
            }],
            success: operations,
            failure: vec![pb::RequestOp {
                request: Some(Request::RequestRange(read)),
            }],
        }
    }

    /// Repeats a transaction until its outcome is known: its condition lets it be applied once. Gives the note's new revision.
    async fn settle(&self, request: pb::TxnRequest, note: Option<&[u8]>) -> Result<i64, SinkError> {
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            match self.to.kv.txn(request.clone()).await {
                Ok(answer) => break answer,
                Err(error) if error.kv_fault() == Some(KvFault::LeaseNotFound) => {
                    return Err(SinkError::LeaseGone);
                }
                Err(error) if may_pass(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, "not settled; trying on");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(SinkError::Failed(error.into())),
            }
        };
        if answer.succeeded {
            return Ok(answer.header.map_or(0, |header| header.revision));
        }
        let found = answer
            .responses
            .into_iter()
            .find_map(|op| match op.response {
                Some(Response::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
                _ => None,
            });
        // An earlier attempt of unknown outcome was applied after all.
        match (found.flatten(), note) {
            (Some(pair), Some(note)) if pair.value == note => Ok(pair.mod_revision),
            (None, None) => Ok(0),
            _ => {
                let message = "the destination's note of how far it is has changed: another import writes there";
                let hint = "let only one run; this one can be started again after it";
                Err(SinkError::Failed(conflict(message, hint)))
            }
        }
    }
}

/// Whether trying again may help.
pub(super) fn may_pass(error: &quorate_client::Error) -> bool {
    matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unknown)
}

/// A put, as an operation.
pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest {
        key,
        value,
        lease,
        ..pb::PutRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

/// A deletion, as an operation.
pub(super) fn delete(key: Bytes) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest {
        key,
        ..pb::DeleteRangeRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestDeleteRange(delete)),
    }
}
