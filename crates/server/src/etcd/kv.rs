//! The KV service: reads from versions, writes through the log.

use quorate_coord::kv::{self, KvOp, KvOpReply, Txn, TxnReply};
use quorate_coord::{Command, Reply, State};
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::kv_server::Kv;
use tonic::{Request, Response, Status};

use super::{Caller, Etcd, TXN_OPS_MAX, check_size, checked, convert, errors};

/// An answer with so many keys is converted aside.
const MANY_KEYS: usize = 500;

impl Etcd {
    /// Puts an operation through the log.
    pub(crate) async fn execute(
        &self,
        caller: &Caller,
        op: KvOp,
    ) -> Result<(u64, KvOpReply), Status> {
        let command = Command::Kv {
            caller: caller.user.clone(),
            op,
        };
        match self.apply(caller, command).await? {
            Reply::Kv { revision, reply } => Ok((revision, *reply)),
            other => Err(errors::unexpected(&other)),
        }
    }

    /// Answers from an operation's reply; aside where it is long.
    async fn answer<T: Send + 'static>(
        &self,
        reply: KvOpReply,
        convert: impl FnOnce(&KvOpReply) -> T + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let (keys, bytes) = convert::weight(&reply);
        if keys < MANY_KEYS {
            return Ok(Response::new(convert(&reply)));
        }
        self.aside(move || Ok((convert(&reply), bytes))).await
    }
}

/// Refuses reads that the caller has no right to; those of writes are checked where they are applied.
pub(super) fn check_rights(state: &State, caller: &Caller, op: &KvOp) -> Result<(), Status> {
    let lease_keys = |lease| state.kv().lease_keys(lease).cloned().collect();
    caller.check(state.auth(), |auth, user| {
        auth.check_op(user, op, &lease_keys)
    })
}

/// Whether a transaction only reads, whichever way it goes; and whether all its reads are serializable.
fn reads_only(txn: &pb::TxnRequest) -> Option<Serializable> {
    use pb::request_op::Request;
    let mut serializable = Serializable(true);
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => serializable.0 &= range.serializable,
            Some(Request::RequestTxn(txn)) => serializable.0 &= reads_only(txn)?.0,
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => return None,
            None => {}
        }
    }
    Some(serializable)
}

struct Serializable(bool);

#[tonic::async_trait]
impl Kv for Etcd {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let range = convert::range(&request)?;
        let op = KvOp::Range(range);
        checked(kv::check(&op, TXN_OPS_MAX))?;
        let version = self.read(&caller, request.serializable).await?;
        let store = version.state.kv();
        check_rights(&version.state, &caller, &op)?;
        let KvOp::Range(range) = op else {
            unreachable!("it was just put there")
        };
        let header = self.header(store.revision());
        if range.range.range_end.is_empty() {
            let reply = store.range(&range).map_err(|e| errors::of_kv(&e))?;
            return Ok(Response::new(convert::range_response(&reply, header)));
        }
        self.aside(move || {
            let reply = version
                .state
                .kv()
                .range(&range)
                .map_err(|e| errors::of_kv(&e))?;
            let bytes = reply.kvs.iter().map(convert::size_bytes).sum();
            Ok((convert::range_response(&reply, header), bytes))
        })
        .await
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        self.check_quota(&caller, super::quota::of_put(&request))?;
        let op = KvOp::Put(convert::put(&request));
        checked(kv::check(&op, TXN_OPS_MAX))?;
        check_size(&request)?;
        let (revision, reply) = self.execute(&caller, op).await?;
        let KvOpReply::Put { prev_kv } = reply else {
            return Err(errors::unexpected(&reply));
        };
        let header = self.header(revision);
        Ok(Response::new(convert::put_response(
            prev_kv.as_ref(),
            header,
        )))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let op = KvOp::DeleteRange(convert::delete_range(&request));
        checked(kv::check(&op, TXN_OPS_MAX))?;
        check_size(&request)?;
        let (revision, reply) = self.execute(&caller, op).await?;
        if !matches!(reply, KvOpReply::DeleteRange { .. }) {
            return Err(errors::unexpected(&reply));
        }
        let header = self.header(revision);
        self.answer(reply, move |reply| match reply {
            KvOpReply::DeleteRange { deleted, prev_kvs } => {
                convert::delete_response(*deleted, prev_kvs, header)
            }
            _ => unreachable!("just looked at"),
        })
        .await
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        self.check_quota(&caller, super::quota::of_txn(&request))?;
        check_counts(&request, TXN_OPS_MAX)?;
        let op = KvOp::Txn(convert::txn(&request)?);
        checked(kv::check(&op, TXN_OPS_MAX))?;
        let reads_only = reads_only(&request);
        if let Some(Serializable(serializable)) = reads_only {
            return self.read_txn(&caller, serializable, op).await;
        }
        check_size(&request)?;
        let (revision, reply) = self.execute(&caller, op).await?;
        if !matches!(reply, KvOpReply::Txn(_)) {
            return Err(errors::unexpected(&reply));
        }
        let header = self.header(revision);
        self.answer(reply, move |reply| match reply {
            KvOpReply::Txn(reply) => convert::txn_response(reply, header),
            _ => unreachable!("just looked at"),
        })
        .await
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = self.caller(&request)?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let command = Command::CompactKv {
            caller: caller.user.clone(),
            revision,
        };
        let now = match self.apply(&caller, command).await? {
            Reply::Compacted { revision } => revision,
            other => return Err(errors::unexpected(&other)),
        };
        if physical {
            self.swept(u64::try_from(revision).unwrap_or(0)).await;
        }
        Ok(Response::new(pb::CompactionResponse {
            header: Some(self.header(now)),
        }))
    }
}

/// Too many operations are found before anything else, as in etcd; what is nested has what is left of the limit.
fn check_counts(txn: &pb::TxnRequest, max: usize) -> Result<(), Status> {
    let count = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if count > max {
        let error = kv::KvError::TooManyOps {
            found: count as u64,
            max: max as u64,
        };
        return Err(errors::of_kv(&error));
    }
    Ok(())
}

impl Etcd {
    /// A transaction that only reads goes past the log.
    async fn read_txn(
        &self,
        caller: &Caller,
        serializable: bool,
        op: KvOp,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let version = self.read(caller, serializable).await?;
        check_rights(&version.state, caller, &op)?;
        let KvOp::Txn(txn) = op else {
            unreachable!("only transactions come here")
        };
        let header = self.header(version.state.kv().revision());
        let read = move |txn: &Txn| -> Result<TxnReply, Status> {
            let reply = version.state.kv().read_txn(txn);
            reply.map_err(|e| errors::of_kv(&e))
        };
        if is_small(&txn) {
            let reply = read(&txn)?;
            return Ok(Response::new(convert::txn_response(&reply, header)));
        }
        self.aside(move || {
            let reply = read(&txn)?;
            let (_, bytes) = convert::txn_weight(&reply);
            Ok((convert::txn_response(&reply, header), bytes))
        })
        .await
    }

    /// Waits until this server has freed what a compaction gave up.
    async fn swept(&self, revision: u64) {
        let mut changes = self.api.publisher.changes();
        while self.api.publisher.version().state.kv().swept() < revision {
            if changes.changed().await.is_err() {
                return; // the server stops
            }
        }
    }
}

/// Whether a transaction looks at single keys only.
fn is_small(txn: &Txn) -> bool {
    let ops = txn.success.iter().chain(&txn.failure);
    txn.compare
        .iter()
        .all(|compare| compare.range.range_end.is_empty())
        && ops.into_iter().all(|op| match op {
            KvOp::Range(range) => range.range.range_end.is_empty(),
            KvOp::Txn(txn) => is_small(txn),
            KvOp::Put(_) | KvOp::DeleteRange(_) => true,
        })
}
