//! The dialling side of one lane: connects, introduces itself, sends, and begins again when the connection is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorate_replica::{Input, Lane};
use quorate_types::ReplicaId;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::frame::{Stream, put_frame, read_hello, write_hello};
use super::handshake::{Introduction, RefusedPeer};
use super::link::Link;
use super::{lane_name, listen};
use crate::inbox::Inbox;
use crate::metrics::Metrics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that takes nothing for so long is given up; the connection is made anew.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Messages encoded into one write.
const MESSAGES_PER_WRITE: usize = 64;
/// One write is cut here, however many messages wait.
const WRITE_BYTES: usize = 1024 * 1024;

/// Whom to dial, and with what.
pub(crate) struct Dialler {
    pub(crate) peer: ReplicaId,
    pub(crate) lane: Lane,
    pub(crate) address: String,
    pub(crate) link: Arc<Link>,
    pub(crate) introduction: Arc<Introduction>,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("refused it: {0}")]
    Refused(#[from] RefusedPeer),
    #[error("it refused this member: {0}")]
    WasRefused(String),
}

/// Keeps one lane connected until the task is dropped.
pub(crate) async fn dial_forever(dialler: Dialler) {
    let mut backoff = BACKOFF_FIRST;
    let mut said = String::new();
    let mut random = fastrand::Rng::with_seed(crate::clock::random_u64().unwrap_or(dialler.peer.0));
    loop {
        match timeout(CONNECT_TIMEOUT, dialler.connect())
            .await
            .unwrap_or(Err(DialError::Timeout))
        {
            Ok(stream) => {
                said.clear();
                backoff = BACKOFF_FIRST;
                let lost = dialler.serve(stream).await;
                if dialler.lane == Lane::Vital {
                    tracing::info!(peer = dialler.peer.0, why = %lost, "lost the connection to a peer");
                }
            }
            Err(error) => dialler.report(&error, &mut said),
        }
        // Full jitter, so that servers that lost each other at once do not come back at once.
        sleep(backoff.mul_f64(0.5 + random.f64() / 2.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

impl Dialler {
    /// Says each failure once until another one follows.
    fn report(&self, error: &DialError, said: &mut String) {
        if let DialError::Refused(refused) = error {
            self.metrics.peer_refused(refused.label()).increment(1);
        }
        if let DialError::WasRefused(_) = error {
            self.metrics.peer_refused("by_peer").increment(1);
        }
        let text = error.to_string();
        if self.lane == Lane::Vital && *said != text {
            tracing::warn!(peer = self.peer.0, address = self.address, %error, "cannot connect to a peer");
            *said = text;
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, DialError> {
        let tcp = TcpStream::connect(&self.address).await?;
        listen::configure(&tcp)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let host = crate::config::host_of(&self.address).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                Box::new(tls.connect(name, tcp).await?)
            }
            None => Box::new(tcp),
        };
        write_hello(
            &mut *stream,
            &self.introduction.request(self.peer, self.lane),
        )
        .await?;
        let answer = read_hello(&mut *stream).await?;
        match self.introduction.on_answer(&answer, self.peer).await? {
            Ok(()) => Ok(stream),
            Err(words) => Err(DialError::WasRefused(words)),
        }
    }

    async fn serve(&self, stream: Box<dyn Stream>) -> io::Error {
        self.link.open();
        self.metrics.peer_connections.increment(1.0);
        let _open = OpenLink(self);
        if self.lane == Lane::Vital {
            tracing::info!(
                peer = self.peer.0,
                address = self.address,
                "connected to a peer"
            );
            self.inbox.push(Input::PeerConnected { peer: self.peer });
        }
        match self.pump(stream).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn pump(&self, stream: Box<dyn Stream>) -> io::Result<std::convert::Infallible> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = BytesMut::new();
        let mut nothing = [0; 1];
        loop {
            let messages = tokio::select! {
                messages = self.link.take(MESSAGES_PER_WRITE) => messages,
                // The acceptor sends nothing after its answer: a read ends when the connection does.
                read = reader.read(&mut nothing) => {
                    let kind = if read? == 0 { io::ErrorKind::ConnectionReset } else { io::ErrorKind::InvalidData };
                    return Err(io::Error::new(kind, "the peer closed it"));
                }
            };
            let mut messages = messages.into_iter().peekable();
            while messages.peek().is_some() {
                buffer.clear();
                while buffer.len() < WRITE_BYTES
                    && let Some(message) = messages.next()
                {
                    if !put_frame(&mut buffer, &quorate_codec::encode_peer(&message)) {
                        tracing::error!(
                            peer = self.peer.0,
                            lane = lane_name(self.lane),
                            "a message is too long to send"
                        );
                    }
                }
                self.link.sent_bytes.increment(buffer.len() as u64);
                let written = timeout(WRITE_TIMEOUT, async {
                    writer.write_all(&buffer).await?;
                    writer.flush().await
                });
                written.await.map_err(|_| {
                    io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")
                })??;
            }
        }
    }
}

/// Closes the link when the connection ends, however it ends.
struct OpenLink<'a>(&'a Dialler);

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        self.0.link.close();
        self.0.metrics.peer_connections.decrement(1.0);
    }
}
