//! Watches of the key space, as the server runs them: one task dispatches what is published, each stream takes what is its own.
//!
//! Owns: the lock around the watches, and waking. Deliberately absent: which watch is told what
//! (the replica crate's [`KvWatches`], which the simulator can run, too), and any message of an API.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_replica::{
    KvCatchUp, KvNotice, KvStreamId, KvWatchLimits, KvWatchRefusal, KvWatchSpec, KvWatches,
};
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::publish::Publisher;

type Watches = KvWatches<Arc<Notify>>;

/// The watches of the key space on this server.
pub(crate) struct KvHub {
    watches: Mutex<Watches>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    progress_interval: Duration,
}

/// The lock's holder; letting go of it tells the metrics.
struct Held<'a> {
    watches: MutexGuard<'a, Watches>,
    metrics: &'a Metrics,
}

impl Deref for Held<'_> {
    type Target = Watches;

    fn deref(&self) -> &Watches {
        &self.watches
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Watches {
        &mut self.watches
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let stats = self.watches.stats();
        self.metrics.kv_watch_streams.set(stats.streams as f64);
        self.metrics.kv_watches.set(stats.watches as f64);
        self.metrics.kv_watches_behind.set(stats.behind as f64);
        self.metrics
            .kv_watch_queued_events
            .set(stats.queued_events as f64);
        self.metrics
            .kv_watch_queued_bytes
            .set(stats.queued_bytes as f64);
    }
}

impl KvHub {
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        metrics: Arc<Metrics>,
        progress_interval: Duration,
    ) -> Arc<Self> {
        let revision = publisher.version().state.kv().revision();
        Arc::new(Self {
            watches: Mutex::new(KvWatches::new(revision, KvWatchLimits::default())),
            publisher,
            metrics,
            progress_interval,
        })
    }

    /// How often those that ask for it are told how far they are.
    pub(crate) fn progress_interval(&self) -> Duration {
        self.progress_interval
    }

    fn lock(&self) -> Held<'_> {
        Held {
            watches: self.watches.lock().expect("no holder of this lock panics"),
            metrics: &self.metrics,
        }
    }

    fn newest(&self) -> u64 {
        self.publisher.version().state.kv().revision()
    }

    /// Dispatches what is published, until the task is dropped. Run once.
    pub(crate) async fn dispatch_forever(self: Arc<Self>) {
        let mut changes = self.publisher.changes();
        let mut woken = Vec::new();
        loop {
            changes.borrow_and_update();
            loop {
                // The newest one each time: what is behind it is in its change log, and no older one is held.
                let version = self.publisher.version();
                let more = self.lock().dispatch(version.state.kv(), &mut woken);
                drop(version);
                for waker in woken.drain(..) {
                    waker.notify_one();
                }
                if !more {
                    break;
                }
                tokio::task::yield_now().await;
            }
            changes.changed().await.expect("self holds the publisher");
        }
    }

    /// Opens a stream of watches: one end to say what is wanted, one to take what comes.
    pub(crate) fn open(self: &Arc<Self>) -> (Arc<KvStream>, KvReader) {
        let wake = Arc::new(Notify::new());
        let id = self.lock().open(Arc::clone(&wake));
        let stream = Arc::new(KvStream {
            hub: Arc::clone(self),
            id,
            wake,
            room: Notify::new(),
        });
        let reader = KvReader {
            stream: Arc::clone(&stream),
            catch_up: None,
        };
        (stream, reader)
    }
}

/// One end of a stream: what is wanted. The stream is closed when both ends are dropped.
pub(crate) struct KvStream {
    hub: Arc<KvHub>,
    id: KvStreamId,
    wake: Arc<Notify>,
    room: Notify,
}

impl KvStream {
    fn with(&self, change: impl FnOnce(&mut Watches, u64)) {
        // The newest revision is read under the lock, so that it is not behind what was dispatched.
        let mut watches = self.hub.lock();
        let newest = self.hub.newest();
        change(&mut watches, newest);
        drop(watches);
        self.wake.notify_one();
    }

    /// Creates a watch; the answer comes by the other end, as for everything here.
    pub(crate) fn create(&self, spec: &KvWatchSpec) {
        self.with(|watches, newest| watches.create(self.id, spec, newest));
    }

    /// Says that a watch was not created.
    pub(crate) fn refuse(&self, why: KvWatchRefusal) {
        self.with(|watches, newest| watches.refuse(self.id, why, newest));
    }

    pub(crate) fn cancel(&self, id: i64) {
        self.with(|watches, newest| watches.cancel(self.id, id, newest));
    }

    pub(crate) fn ask_progress(&self) {
        self.with(|watches, newest| watches.ask_progress(self.id, newest));
    }

    /// The periodic progress is due.
    pub(crate) fn tick_progress(&self) {
        self.with(|watches, _| watches.tick_progress(self.id));
    }

    /// Waits while too many answers wait for the other end to take them.
    pub(crate) async fn room(&self) {
        while !self.hub.lock().has_room(self.id) {
            self.room.notified().await;
        }
    }
}

impl Drop for KvStream {
    fn drop(&mut self) {
        self.hub.lock().close(self.id);
    }
}

/// The other end of a stream: what comes.
pub(crate) struct KvReader {
    stream: Arc<KvStream>,
    /// To be done once what was returned last has been sent.
    catch_up: Option<KvCatchUp>,
}

impl KvReader {
    /// Waits for what is next; not empty. Call it again only when that was sent.
    pub(crate) async fn next(&mut self) -> Vec<KvNotice> {
        let stream = &self.stream;
        loop {
            if let Some(catch_up) = self.catch_up.take() {
                let caught = catch_up.scan(stream.hub.publisher.version().state.kv());
                let notices = stream.hub.lock().settle(caught);
                // Between two pieces it is others' turn.
                tokio::task::yield_now().await;
                if !notices.is_empty() {
                    return notices;
                }
            }
            let taken = stream.hub.lock().take(stream.id);
            stream.room.notify_one();
            self.catch_up = taken.catch_up;
            if !taken.notices.is_empty() {
                return taken.notices;
            }
            if self.catch_up.is_none() {
                stream.wake.notified().await;
            }
        }
    }
}
