//! The Lock service: the line of an election whose leader holds the lock.

use quorate_coord::kv::{Blob, DeleteRange, KeyRange, KvOp};
use quorate_wire::etcd::v3lockpb as lock;
use quorate_wire::etcd::v3lockpb::lock_server::Lock;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::line::Stand;

#[tonic::async_trait]
impl Lock for Etcd {
    async fn lock(
        &self,
        request: Request<lock::LockRequest>,
    ) -> Result<Response<lock::LockResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let stand = Stand {
            name: &request.name,
            lease: request.lease,
            value: None,
            taken: "mutex: session is expired",
        };
        let (place, revision) = self.stand(&caller, stand).await?;
        Ok(Response::new(lock::LockResponse {
            header: Some(self.header(revision)),
            key: place.key.to_vec().into(),
        }))
    }

    async fn unlock(
        &self,
        request: Request<lock::UnlockRequest>,
    ) -> Result<Response<lock::UnlockResponse>, Status> {
        let caller = self.caller(&request)?;
        let op = KvOp::DeleteRange(DeleteRange {
            range: KeyRange {
                key: Blob::from(&*request.into_inner().key),
                range_end: Blob::default(),
            },
            prev_kv: false,
        });
        let (revision, _) = self.recipe(&caller, op).await?;
        Ok(Response::new(lock::UnlockResponse {
            header: Some(self.header(revision)),
        }))
    }
}
