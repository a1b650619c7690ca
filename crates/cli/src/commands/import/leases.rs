//! Leases of the source, kept alive in the destination for as long as they live there, under the same ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_client::Kv;
use quorate_client::kv::KvFault;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::sink::may_pass;

/// How often is looked for leases that are due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often is looked for leases that ended at the source.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// Keep-alives under way at once.
const KEEPING_MAX: usize = 32;

/// The leases. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    from: Kv,
    to: Kv,
    known: Arc<Mutex<BTreeMap<i64, Kept>>>,
    /// A lease of the destination ended though it lives at the source: keys have gone with it.
    lost: Arc<AtomicBool>,
    /// A lease was granted that had not been there.
    granted: Arc<AtomicBool>,
}

struct Kept {
    ttl: Duration,
    due: Instant,
}

impl Leases {
    pub(super) fn new(from: Kv, to: Kv) -> Self {
        Self {
            from,
            to,
            known: Arc::default(),
            lost: Arc::default(),
            granted: Arc::default(),
        }
    }

    /// Sees to it that all leases of the source are there; how many.
    pub(super) async fn copy(&self) -> Result<u64, quorate_client::Error> {
        let mut count = 0;
        for id in self.from.leases().await? {
            if self.ensure(id).await? != 0 {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Sees to it that a lease is there; gives its id, or 0 where it has ended at the source.
    pub(super) async fn ensure(&self, id: i64) -> Result<i64, quorate_client::Error> {
        let mut known = self.known.lock().await;
        if id == 0 || known.contains_key(&id) {
            return Ok(id);
        }
        let left = self.from.lease_time_to_live(id, false).await?;
        if left.ttl <= 0 {
            // Its keys are about to be deleted, and the watch will say so.
            return Ok(0);
        }
        let granted = left.granted_ttl.max(1);
        let ttl = loop {
            match self.to.grant_lease(id, granted).await {
                Ok((_, ttl)) => {
                    self.granted.store(true, Ordering::SeqCst);
                    break ttl;
                }
                // From before this was resumed, or by an attempt of unknown outcome.
                Err(error) if error.kv_fault() == Some(KvFault::LeaseExists) => break granted,
                Err(error) if may_pass(&error) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let ttl = Duration::from_secs(ttl.unsigned_abs().max(1));
        // At once: an older one may be near its end.
        let due = Instant::now();
        known.insert(id, Kept { ttl, due });
        Ok(id)
    }

    /// Whether keys were lost with a lease since this was asked last.
    pub(super) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::SeqCst)
    }

    /// Whether a lease had to be granted since this was asked last. Where one had been before, its keys have gone with it.
    pub(super) fn take_granted(&self) -> bool {
        self.granted.swap(false, Ordering::SeqCst)
    }

    pub(super) async fn count(&self) -> u64 {
        self.known.lock().await.len() as u64
    }

    /// Forgets that the destination has these, so that they are granted again.
    pub(super) async fn forget(&self) {
        self.known.lock().await.clear();
    }

    /// Gives all of them their whole TTL once more.
    pub(super) async fn keep_all(&self) {
        let ids: Vec<i64> = self.known.lock().await.keys().copied().collect();
        self.keep(ids).await;
    }

    /// Keeps them alive until the task is ended.
    pub(super) async fn run(self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listed = Instant::now();
        loop {
            look.tick().await;
            if listed.elapsed() >= LIST_EVERY {
                listed = Instant::now();
                self.drop_ended().await;
            }
            let now = Instant::now();
            let known = self.known.lock().await;
            let due = known.iter().filter(|(_, kept)| kept.due <= now);
            let due: Vec<i64> = due.map(|(id, _)| *id).collect();
            drop(known);
            self.keep(due).await;
        }
    }

    async fn keep(&self, ids: Vec<i64>) {
        for chunk in ids.chunks(KEEPING_MAX) {
            let mut keeping = JoinSet::new();
            for id in chunk.iter().copied() {
                let to = self.to.clone();
                keeping.spawn(async move { (id, to.keep_lease(id).await) });
            }
            while let Some(Ok((id, kept))) = keeping.join_next().await {
                let mut known = self.known.lock().await;
                match kept {
                    Ok(Some(_)) => {
                        if let Some(kept) = known.get_mut(&id) {
                            kept.due = Instant::now() + kept.ttl / 3;
                        }
                    }
                    Ok(None) => {
                        // Where it lives at the source, its keys must come back.
                        if known.remove(&id).is_some() {
                            self.lost.store(true, Ordering::SeqCst);
                        }
                    }
                    // Tried again with the next look.
                    Err(error) => tracing::debug!(%error, "keep-alive failed"),
                }
            }
        }
    }

    /// Ends in the destination what has ended at the source.
    async fn drop_ended(&self) {
        let lives: BTreeSet<i64> = match self.from.leases().await {
            Ok(lives) => lives.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "the source's leases could not be listed");
                return;
            }
        };
        let known = self.known.lock().await;
        let ended: Vec<i64> = known
            .keys()
            .filter(|id| !lives.contains(id))
            .copied()
            .collect();
        drop(known);
        for id in ended {
            // A list may be older than the lease.
            match self.from.lease_time_to_live(id, false).await {
                Ok(left) if left.ttl <= 0 => {}
                _ => continue,
            }
            match self.to.revoke_lease(id).await {
                Err(error) if may_pass(&error) => continue,
                Ok(_) | Err(_) => {}
            }
            self.known.lock().await.remove(&id);
        }
    }
}
