//! The key space, over etcd's v3 API: of Quorate, or of any other server that speaks it.
//!
//! Owns: which server is asked, and what may be asked again. Reads are. A write has no request id that would make a second one
//! harmless, so it is repeated only where the first was definitely refused; otherwise its outcome is said to be unknown. Messages
//! are etcd's own ([`pb`]). Deliberately absent: a cache.

mod call;
mod error;
mod lock;
mod range;
mod watch;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_wire::etcd::{etcdserverpb, mvccpb};

use crate::client::Client;
use crate::error::Error;

pub use error::{KvFault, KvRefusal};
pub use lock::Lock;
pub use range::{KeyRange, Read};
pub use watch::{KvWatch, KvWatchEvent, WatchOptions};

/// etcd's messages.
pub mod pb {
    pub use bytes::Bytes;
    pub use quorate_wire::etcd::etcdserverpb::*;
    pub use quorate_wire::etcd::mvccpb::{Event, KeyValue, event::EventType};
}

use etcdserverpb::kv_client::KvClient;
use etcdserverpb::lease_client::LeaseClient;
use etcdserverpb::maintenance_client::MaintenanceClient;

/// Largest answer that is taken. The servers decide how much they send; a page ([`Read::limit`]) asks for less.
const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The key space. Cheap to clone; clones share connections.
///
/// ```no_run
/// use quorate_client::kv::{KeyRange, Read};
/// use quorate_client::{Client, ClientOptions};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let kv = Client::connect(["127.0.0.1:2379"], ClientOptions::default()).await?.kv();
/// let written = kv.put("config/a", "1").await?;
/// // Any server, one that lags too, but none that has not reached what was just written.
/// let read = Read::of(KeyRange::prefix("config/")).serializable().min_revision(written);
/// for pair in kv.range(read).await?.kvs {
///     println!("{:?} = {:?}", pair.key, pair.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kv {
    client: Client,
    login: Option<Arc<Login>>,
}

/// A user, and the token that the servers gave for the password.
struct Login {
    name: String,
    password: String,
    token: Mutex<Option<String>>,
}

impl Client {
    /// The key space.
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv {
            client: self.clone(),
            login: None,
        }
    }
}

/// The revision in an answer's header.
#[must_use]
pub fn revision_of(header: Option<&etcdserverpb::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision.unsigned_abs())
}

/// A number as etcd's messages carry it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Kv {
    /// The same, on behalf of a user of the key space.
    #[must_use]
    pub fn with_user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let login = Login {
            name: name.into(),
            password: password.into(),
            token: Mutex::new(None),
        };
        Self {
            login: Some(Arc::new(login)),
            ..self
        }
    }

    /// The client that it goes through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads one key, as of now.
    ///
    /// # Errors
    /// `Retry`: no server could serve it. `Denied`: not to this user.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<mvccpb::KeyValue>, Error> {
        let answer = self.range(Read::of(KeyRange::key(key))).await?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Reads keys.
    ///
    /// # Errors
    /// `Invalid`: the revision was compacted, or is not there yet. `Retry`: no server could serve it. `Denied`: not to this user.
    pub async fn range(&self, read: Read) -> Result<etcdserverpb::RangeResponse, Error> {
        let (request, min_revision) = read.into_parts();
        let what = format!("read {}", range::named(&request.key, &request.range_end));
        self.read(&what, min_revision, |channel, meta| {
            let request = meta.request(request.clone());
            async move {
                let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                client.range(request).await
            }
        })
        .await
    }

    /// Puts a value; the revision at which it is there.
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        let request = etcdserverpb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..etcdserverpb::PutRequest::default()
        };
        let answer = self.put_with(request).await?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// Puts a value, with etcd's options.
    ///
    /// # Errors
    /// `Unknown`: it may have been applied; look before trying again. `Retry`: certainly not applied. `Invalid`: the request is
    /// wrong, or its lease is gone. `Denied`: not to this user, or the space is used up.
    pub async fn put_with(
        &self,
        request: etcdserverpb::PutRequest,
    ) -> Result<etcdserverpb::PutResponse, Error> {
        let what = format!("put {}", range::shown(&request.key));
        self.write(&what, |channel, meta| {
            let request = meta.request(request.clone());
            async move { kv_client(channel).put(request).await }
        })
        .await
    }

    /// Deletes keys; says how many there were, and with `prev_kv` which.
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    pub async fn delete(
        &self,
        range: KeyRange,
        prev_kv: bool,
    ) -> Result<etcdserverpb::DeleteRangeResponse, Error> {
        let (key, range_end) = range.into_parts();
        let what = format!("delete {}", range::named(&key, &range_end));
        let request = etcdserverpb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv,
        };
        self.write(&what, |channel, meta| {
            let request = meta.request(request.clone());
            async move { kv_client(channel).delete_range(request).await }
        })
        .await
    }

    /// Reads and writes in one revision, on conditions.
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with). That the conditions did not hold is no error.
    pub async fn txn(
        &self,
        request: etcdserverpb::TxnRequest,
    ) -> Result<etcdserverpb::TxnResponse, Error> {
        self.write("run a transaction", |channel, meta| {
            let request = meta.request(request.clone());
            async move { kv_client(channel).txn(request).await }
        })
        .await
    }

    /// Forgets history below a revision; with `physical` waits until its space is free.
    ///
    /// # Errors
    /// `Invalid`: it was compacted already, or is not there yet. `Unknown`: it may have been done; doing it again does no harm.
    pub async fn compact(&self, revision: u64, physical: bool) -> Result<u64, Error> {
        let request = etcdserverpb::CompactionRequest {
            revision: signed(revision),
            physical,
        };
        let answer = self
            .write(
                &format!("compact to revision {revision}"),
                |channel, meta| {
                    let request = meta.request(request);
                    async move { kv_client(channel).compact(request).await }
                },
            )
            .await?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// Grants a lease that nobody keeps alive yet; `id` 0 lets the server choose. Answers its id and TTL in seconds.
    ///
    /// A [`Session`](crate::Session) is a lease that is kept alive: its id attaches keys to it.
    ///
    /// # Errors
    /// `Conflict`: a lease of that id is there. `Unknown`: it may have been granted.
    pub async fn grant_lease(&self, id: i64, ttl_seconds: i64) -> Result<(i64, i64), Error> {
        let request = etcdserverpb::LeaseGrantRequest {
            ttl: ttl_seconds,
            id,
        };
        let answer = self
            .write(&format!("grant lease {id:x}"), |channel, meta| {
                let request = meta.request(request);
                async move { LeaseClient::new(channel).lease_grant(request).await }
            })
            .await?;
        Ok((answer.id, answer.ttl))
    }

    /// Ends a lease; its keys go with it.
    ///
    /// # Errors
    /// `Invalid`: there is no such lease. `Unknown`: it may have ended.
    pub async fn revoke_lease(&self, id: i64) -> Result<u64, Error> {
        let request = etcdserverpb::LeaseRevokeRequest { id };
        let answer = self
            .write(&format!("revoke lease {id:x}"), |channel, meta| {
                let request = meta.request(request);
                async move { LeaseClient::new(channel).lease_revoke(request).await }
            })
            .await?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// Keeps a lease alive once; its TTL in seconds, none where it is gone.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn keep_lease(&self, id: i64) -> Result<Option<i64>, Error> {
        let what = format!("keep lease {id:x}");
        let answer = self
            .read(&what, 0, |channel, meta| {
                let once = tokio_stream::once(etcdserverpb::LeaseKeepAliveRequest { id });
                let request = meta.request(once);
                async move {
                    let mut answers = LeaseClient::new(channel)
                        .lease_keep_alive(request)
                        .await?
                        .into_inner();
                    let answer = answers.message().await?;
                    let ended = || tonic::Status::unavailable("the server ended the stream");
                    Ok(tonic::Response::new(answer.ok_or_else(ended)?))
                }
            })
            .await?;
        Ok((answer.ttl > 0).then_some(answer.ttl))
    }

    /// What is left of a lease, and with `keys` what is attached to it. A TTL of -1 says that it is gone.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<etcdserverpb::LeaseTimeToLiveResponse, Error> {
        let request = etcdserverpb::LeaseTimeToLiveRequest { id, keys };
        self.read(&format!("ask for lease {id:x}"), 0, |channel, meta| {
            let request = meta.request(request);
            async move { LeaseClient::new(channel).lease_time_to_live(request).await }
        })
        .await
    }

    /// The leases that live.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn leases(&self) -> Result<Vec<i64>, Error> {
        let request = etcdserverpb::LeaseLeasesRequest {};
        let answer = self
            .read("list leases", 0, |channel, meta| {
                let request = meta.request(request);
                async move {
                    let mut client =
                        LeaseClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                    client.lease_leases(request).await
                }
            })
            .await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// The state of one server's key space, as the server sees it.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn status(&self) -> Result<etcdserverpb::StatusResponse, Error> {
        self.read("ask for the status", 0, |channel, meta| {
            let request = meta.request(etcdserverpb::StatusRequest {});
            async move { MaintenanceClient::new(channel).status(request).await }
        })
        .await
    }

    /// The hash of all keys and their history as of a revision (0: the newest), by one server. Comparable between servers of one
    /// cluster only.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn hash(&self, revision: u64) -> Result<etcdserverpb::HashKvResponse, Error> {
        let request = etcdserverpb::HashKvRequest {
            revision: signed(revision),
        };
        self.read("ask for the hash", 0, |channel, meta| {
            let request = meta.request(request);
            async move { MaintenanceClient::new(channel).hash_kv(request).await }
        })
        .await
    }

    /// The stream of a whole snapshot, from the first server that begins one. A stream that breaks off is not continued.
    ///
    /// # Errors
    /// `Retry`: no server could serve it.
    pub async fn snapshot(
        &self,
    ) -> Result<tonic::Streaming<etcdserverpb::SnapshotResponse>, Error> {
        self.read("save a snapshot", 0, |channel, meta| {
            let mut request = meta.request(etcdserverpb::SnapshotRequest {});
            // The attempt's time is for the beginning; how long the rest may take is the caller's.
            request.metadata_mut().remove("grpc-timeout");
            async move {
                let mut client =
                    MaintenanceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                client.snapshot(request).await
            }
        })
        .await
    }
}

fn kv_client(channel: tonic::transport::Channel) -> KvClient<tonic::transport::Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests;
