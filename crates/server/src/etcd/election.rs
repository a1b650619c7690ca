//! The Election service, over the line of [`line`](super::line).

use std::pin::Pin;

use futures_util::Stream;
use quorate_coord::kv::{Blob, KvOp, KvOpReply, Put, Range, Txn, TxnReply};
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::kv_server::Kv;
use quorate_wire::etcd::v3electionpb as election;
use quorate_wire::etcd::v3electionpb::election_server::Election;
use tonic::{Request, Response, Status};

use super::line::{Stand, below, created_at, first_below, plain, prefix, withdrawal, without_code};
use super::observe::Observer;
use super::{Caller, Etcd, TXN_OPS_MAX, checked, convert};

/// The leader's key that a request must name.
fn named(leader: Option<election::LeaderKey>) -> Result<election::LeaderKey, Status> {
    leader.ok_or_else(|| plain("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl Election for Etcd {
    type ObserveStream =
        Pin<Box<dyn Stream<Item = Result<election::LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let stand = Stand {
            name: &request.name,
            lease: request.lease,
            value: Some(Blob::from(&*request.value)),
            taken: "election: not leader",
        };
        let (place, revision) = self.stand(&caller, stand).await?;
        Ok(Response::new(election::CampaignResponse {
            header: Some(self.header(revision)),
            leader: Some(election::LeaderKey {
                name: request.name,
                key: place.key.to_vec().into(),
                rev: convert::signed(place.created),
                lease: convert::signed(place.lease),
            }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        let caller = self.caller(&request)?;
        let election::ProclaimRequest { leader, value } = request.into_inner();
        let leader = named(leader)?;
        let key = Blob::from(&*leader.key);
        let op = KvOp::Txn(Txn {
            compare: vec![created_at(&key, leader.rev)],
            success: vec![KvOp::Put(Put {
                key,
                value: Blob::from(&*value),
                lease: leader.lease,
                // Not taken off the lease that it ends with.
                ignore_lease: leader.lease == 0,
                ..Put::default()
            })],
            failure: Vec::new(),
        });
        let (revision, reply) = self.recipe(&caller, op).await?;
        match reply {
            KvOpReply::Txn(TxnReply {
                succeeded: true, ..
            }) => Ok(Response::new(election::ProclaimResponse {
                header: Some(self.header(revision)),
            })),
            _ => Err(plain("election: not leader")),
        }
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let range = first_below(&prefix(&request.get_ref().name));
        let found = self.range_as(&request, &range).await?;
        match found.kvs.into_iter().next() {
            Some(kv) => Ok(Response::new(election::LeaderResponse {
                header: found.header,
                kv: Some(kv),
            })),
            None => Err(plain("election: no leader")),
        }
    }

    async fn observe(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let prefix = prefix(&request.get_ref().name);
        // Only for whether the caller may, and that this server is where the cluster is.
        let range = Range {
            count_only: true,
            ..below(&prefix)
        };
        self.range_as(&request, &range).await?;
        let observer = Observer::new(self.clone(), prefix);
        let stream = futures_util::stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(response) => Some((Ok(response), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn resign(
        &self,
        request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        let caller = self.caller(&request)?;
        let leader = named(request.into_inner().leader)?;
        let op = withdrawal(&Blob::from(&*leader.key), leader.rev);
        // Whether it led or not: it does not now.
        let (revision, _) = self.recipe(&caller, op).await?;
        Ok(Response::new(election::ResignResponse {
            header: Some(self.header(revision)),
        }))
    }
}

impl Etcd {
    /// An operation of a recipe: its refusals have lost their codes.
    pub(super) async fn recipe(
        &self,
        caller: &Caller,
        op: KvOp,
    ) -> Result<(u64, KvOpReply), Status> {
        checked(quorate_coord::kv::check(&op, TXN_OPS_MAX)).map_err(without_code)?;
        self.execute(caller, op).await.map_err(without_code)
    }

    /// Reads a range as the caller of another request: as fresh, and with its rights.
    async fn range_as<T>(
        &self,
        request: &Request<T>,
        range: &Range,
    ) -> Result<pb::RangeResponse, Status> {
        let mut read = Request::new(pb::RangeRequest {
            key: range.range.key.to_vec().into(),
            range_end: range.range.range_end.to_vec().into(),
            limit: range.limit,
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            count_only: range.count_only,
            ..Default::default()
        });
        *read.metadata_mut() = request.metadata().clone();
        *read.extensions_mut() = request.extensions().clone();
        let read = Kv::range(self, read).await.map_err(without_code)?;
        Ok(read.into_inner())
    }
}
