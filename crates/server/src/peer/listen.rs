//! The accepting side: checks who connects, then reads its messages.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use quorate_replica::Lane;
use quorate_types::ReplicaId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::frame::{FRAME_BYTES_MAX, Stream, read_hello, write_hello};
use super::handshake::{Introduction, RefusedPeer};
use super::lane_name;
use crate::inbox::Inbox;
use crate::metrics::Metrics;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Strangers that may be introducing themselves at once; more are closed at once.
const HANDSHAKES_MAX: usize = 64;
/// The same refusal is logged this often at most.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the accepting side works with.
pub(crate) struct PeerListener {
    pub(crate) listener: TcpListener,
    pub(crate) introduction: Arc<Introduction>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
}

struct Shared {
    introduction: Arc<Introduction>,
    tls: Option<TlsAcceptor>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    /// The one connection read for each peer and lane: a new one replaces it, so that they do not pile up.
    readers: Mutex<BTreeMap<(ReplicaId, Lane), AbortHandle>>,
    logged: Mutex<HashMap<&'static str, Instant>>,
}

/// Small packets go at once, and a peer that vanished without a word is noticed.
pub(crate) fn configure(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// Accepts peers until the task is dropped.
pub(crate) async fn accept_forever(parts: PeerListener) {
    let PeerListener {
        listener,
        introduction,
        tls,
        inbox,
        metrics,
    } = parts;
    let shared = Arc::new(Shared {
        introduction,
        tls,
        inbox,
        metrics,
        readers: Mutex::default(),
        logged: Mutex::default(),
    });
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of descriptors: others may be closed meanwhile.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            shared.metrics.peer_refused("too_many").increment(1);
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let introduced = timeout(HANDSHAKE_TIMEOUT, shared.introduce(stream, address)).await;
            drop(permit);
            let Ok(Some((stream, peer, lane))) = introduced else {
                if introduced.is_err() {
                    shared.metrics.peer_refused("timeout").increment(1);
                }
                return;
            };
            let reader = tokio::spawn(Arc::clone(&shared).read(stream, peer, lane));
            let _abort_on_drop = AbortOnDrop(reader.abort_handle());
            let before = shared
                .readers
                .lock()
                .expect("no holder of this lock panics")
                .insert((peer, lane), reader.abort_handle());
            if let Some(before) = before {
                before.abort();
            }
            let _ = reader.await; // ended, or replaced
        });
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    async fn introduce(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Option<(Box<dyn Stream>, ReplicaId, Lane)> {
        configure(&tcp).ok()?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => match tls.accept(tcp).await {
                Ok(stream) => Box::new(stream),
                Err(error) => {
                    self.refuse("tls", address, &error);
                    return None;
                }
            },
            None => Box::new(tcp),
        };
        let frame = match read_hello(&mut *stream).await {
            Ok(frame) => frame,
            Err(error) => {
                self.refuse("garbage", address, &error);
                return None;
            }
        };
        match self.introduction.on_request(&frame).await {
            Ok((peer, lane)) => {
                write_hello(&mut *stream, &self.introduction.welcome(peer))
                    .await
                    .ok()?;
                Some((stream, peer, lane))
            }
            Err(refused) => {
                self.refuse(refused.label(), address, &refused);
                if !matches!(refused, RefusedPeer::Garbage { .. }) {
                    let _ = write_hello(&mut *stream, &Introduction::refusal(&refused)).await; // it may be gone
                }
                None
            }
        }
    }

    fn refuse(&self, reason: &'static str, address: SocketAddr, why: &dyn std::fmt::Display) {
        self.metrics.peer_refused(reason).increment(1);
        let mut logged = self.logged.lock().expect("no holder of this lock panics");
        if logged
            .get(reason)
            .is_none_or(|at| at.elapsed() >= REFUSAL_LOG_INTERVAL)
        {
            logged.insert(reason, Instant::now());
            tracing::warn!(%address, reason, %why, "refused a connection on the peer port");
        }
    }

    async fn read(self: Arc<Self>, stream: Box<dyn Stream>, peer: ReplicaId, lane: Lane) {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(FRAME_BYTES_MAX)
            .new_codec();
        let mut frames = FramedRead::new(stream, codec);
        while let Some(frame) = frames.next().await {
            let frame: BytesMut = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::debug!(peer = peer.0, lane = lane_name(lane), %error, "a peer's connection ended");
                    return;
                }
            };
            match quorate_codec::decode_peer(&frame) {
                Ok(message) => self.inbox.push_peer(peer, message, frame.len()).await,
                Err(error) => {
                    self.metrics.peer_refused("garbage").increment(1);
                    tracing::warn!(peer = peer.0, lane = lane_name(lane), %error, "closing a peer's connection: cannot read its message");
                    return;
                }
            }
        }
    }
}
