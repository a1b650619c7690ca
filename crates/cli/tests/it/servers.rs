//! Clients of etcd's API as they are, one connection to each server: for tests of what exactly is answered.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_wire::etcd::etcdserverpb::RangeRequest;
use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::harness::Cluster;

/// Far beyond what any call takes, waiting ones included.
const PATIENCE: Duration = Duration::from_secs(90);

/// Connections to all servers; clones share them.
#[derive(Clone)]
pub(crate) struct Servers {
    channels: Vec<Channel>,
    again: Arc<AtomicUsize>,
}

/// Whether a connection broke: a server said nothing.
pub(crate) fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}

impl Servers {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let channel = |endpoint| Endpoint::from_shared(endpoint).unwrap().connect_lazy();
        Self {
            channels: cluster.endpoints().into_iter().map(channel).collect(),
            again: Arc::default(),
        }
    }

    pub(crate) fn channel(&self, at: usize) -> Channel {
        self.channels[at % self.channels.len()].clone()
    }

    /// How often a call was made again.
    pub(crate) fn asked_again(&self) -> usize {
        self.again.load(Ordering::Relaxed)
    }

    /// Asks one server after the other until one gives a definite answer. For calls that may be made twice.
    pub(crate) async fn ask<T, Fut>(
        &self,
        first: usize,
        call: impl Fn(Channel) -> Fut,
    ) -> Result<T, Status>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        for at in first.. {
            assert!(
                begun.elapsed() < PATIENCE,
                "no server gave a definite answer"
            );
            match call(self.channel(at)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => {
                    let again =
                        matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
                    if !again && !is_broken(&status) {
                        return Err(status);
                    }
                }
            }
            self.again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("no number of attempts is the last")
    }

    /// A server that serves.
    pub(crate) async fn serving(&self) -> usize {
        let begun = Instant::now();
        for at in (0..self.channels.len()).cycle() {
            let read = RangeRequest {
                key: "any".into(),
                ..RangeRequest::default()
            };
            if KvClient::new(self.channel(at)).range(read).await.is_ok() {
                return at;
            }
            assert!(begun.elapsed() < PATIENCE, "no server serves");
        }
        unreachable!("the servers go round")
    }
}
