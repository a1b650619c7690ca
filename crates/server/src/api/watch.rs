//! `WatchGroups`: a snapshot, then ordered deltas without a gap, or an explicit new start for who fell behind.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{LogIndex, Revision};
use quorate_wire::api::{ApiError, ApiErrorKind, ApiStream, WatchGroups, WatchItem};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{ApiState, REACH_TIMEOUT, convert};
use crate::metrics::Metrics;

/// Groups in one piece of a snapshot. Configurations may be large: pieces stay well below the largest message.
const CHUNK_GROUPS: usize = 256;
/// And bytes of configurations in one.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Items that wait for a slow watcher; it then falls behind in the ring, which is bounded, too.
const QUEUE_ITEMS: usize = 64;
/// How often a watcher without deltas hears how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

type Sender = mpsc::Sender<Result<WatchItem, ApiError>>;

/// The watcher is gone.
struct Gone;

/// Starts a watch, once this server is at the revision asked for.
pub(super) async fn start(
    api: Arc<ApiState>,
    request: WatchGroups,
) -> Result<ApiStream<WatchItem>, ApiError> {
    let reached = api.publisher.reached(LogIndex::ZERO, request.min_revision);
    if tokio::time::timeout(REACH_TIMEOUT, reached).await.is_err() {
        let at = api.publisher.version().state.revision();
        let message = format!(
            "this server is at revision {at}, asked for {}",
            request.min_revision
        );
        return Err(ApiError::new(ApiErrorKind::Behind, message).retry_after_ms(100));
    }
    let (sender, receiver) = mpsc::channel(QUEUE_ITEMS);
    tokio::spawn(async move {
        let _open = OpenStream::new(&api.metrics);
        // Ends when the watcher is gone, seen at the next send or by the channel being closed.
        tokio::select! {
            Err(Gone) = watch(&api, &request.prefix, &sender) => {}
            () = sender.closed() => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

struct OpenStream<'a>(&'a Metrics);

impl<'a> OpenStream<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.watch_streams.increment(1.0);
        Self(metrics)
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.watch_streams.decrement(1.0);
    }
}

async fn send(sender: &Sender, item: WatchItem) -> Result<(), Gone> {
    sender.send(Ok(item)).await.map_err(|_| Gone)
}

async fn watch(
    api: &ApiState,
    prefix: &str,
    sender: &Sender,
) -> Result<std::convert::Infallible, Gone> {
    let mut changes = api.publisher.changes();
    loop {
        let (version, mut place) = api.publisher.subscribe();
        let mut delivered = snapshot(&version.state, prefix, sender).await?;
        drop(version);
        let mut told = delivered;
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                next = api.publisher.next(&mut place, &mut changes) => next,
                _ = progress.tick() => {
                    if told < delivered {
                        send(sender, WatchItem::Progress { revision: delivered }).await?;
                        told = delivered;
                    }
                    continue;
                }
            };
            let Some(batch) = next else { break };
            for delta in batch.deltas() {
                if delta.group.name.as_str().starts_with(prefix) {
                    let item = WatchItem::Delta {
                        revision: delta.revision,
                        group: delta.group.clone(),
                        deleted: delta.deleted,
                    };
                    send(sender, item).await?;
                }
            }
            delivered = delivered.max(batch.revision());
        }
        api.metrics.watch_resyncs.increment(1);
        let reason =
            "the watcher fell behind what is kept, or this server installed a snapshot".to_owned();
        send(sender, WatchItem::Resync { reason }).await?;
    }
}

async fn snapshot(
    state: &quorate_coord::State,
    prefix: &str,
    sender: &Sender,
) -> Result<Revision, Gone> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for group in state.groups_with_prefix(prefix) {
        bytes += group
            .tenure
            .as_ref()
            .map_or(0, |tenure| tenure.configuration.size_bytes())
            + 128;
        chunk.push(convert::group_state(group));
        if chunk.len() == CHUNK_GROUPS || bytes >= CHUNK_BYTES {
            send(sender, WatchItem::SnapshotChunk(std::mem::take(&mut chunk))).await?;
            bytes = 0;
        }
    }
    if !chunk.is_empty() {
        send(sender, WatchItem::SnapshotChunk(chunk)).await?;
    }
    let revision = state.revision();
    send(sender, WatchItem::SnapshotEnd { revision }).await?;
    Ok(revision)
}
