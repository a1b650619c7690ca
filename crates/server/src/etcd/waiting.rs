//! Who waits for which key to go, and who follows the keys below a name: one table for all calls of a server.
//!
//! Owns: waking exactly those that a change concerns, once, off the apply path, by what versions are published. Deliberately absent: what
//! is waited for means nothing here, and whoever is woken looks for itself.
//!
//! A queue of a thousand costs one entry each while nothing happens, and the end of one wakes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, Weak};

use quorate_coord::kv::{Blob, KvChange, KvStore};
use tokio::sync::{Notify, mpsc};

use crate::publish::Publisher;

/// Batches of changes that wait for a follower before it is let go, to catch up by itself.
const QUEUE_BATCHES: usize = 64;

/// The table.
///
/// # Invariants
/// - Every change through revision `seen` was looked at; who is entered while `seen` is `n` hears of every later one.
/// - No name in it has an empty list.
pub(crate) struct Waiting {
    table: Mutex<Table>,
    publisher: Arc<Publisher>,
    started: Once,
}

#[derive(Default)]
struct Table {
    seen: u64,
    /// The number of the next entry.
    next: u64,
    /// Who waits for a key to be deleted.
    keys: HashMap<Blob, Vec<(u64, Arc<Notify>)>>,
    /// Who follows the keys that begin with a prefix, which ends with a slash.
    prefixes: HashMap<Blob, Vec<(u64, mpsc::Sender<Changes>)>>,
}

/// Changes below one prefix, in order: whole revisions only.
pub(crate) type Changes = Vec<KvChange>;

impl Waiting {
    pub(crate) fn new(publisher: Arc<Publisher>) -> Arc<Self> {
        let table = Table {
            seen: publisher.version().state.kv().revision(),
            ..Table::default()
        };
        Arc::new(Self {
            table: Mutex::new(table),
            publisher,
            started: Once::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    /// Enters somebody who waits for any of some keys to be deleted. Look at the newest version *after* this: what was deleted before
    /// is to be seen there, what is deleted later wakes.
    pub(crate) fn for_deletion(self: &Arc<Self>, keys: Vec<Blob>) -> Wait {
        self.start();
        let woken = Arc::new(Notify::new());
        let mut table = self.lock();
        let id = table.next;
        table.next += 1;
        for key in &keys {
            let entry = (id, Arc::clone(&woken));
            table.keys.entry(key.clone()).or_default().push(entry);
        }
        drop(table);
        Wait {
            waiting: Arc::clone(self),
            id,
            keys,
            woken,
        }
    }

    /// Follows the keys below a prefix. As above: the newest version after this shows what is not told.
    pub(crate) fn follow(self: &Arc<Self>, prefix: Blob) -> Follow {
        assert_eq!(prefix.last(), Some(&b'/'), "prefixes are found by slashes");
        self.start();
        let (sender, changes) = mpsc::channel(QUEUE_BATCHES);
        let mut table = self.lock();
        let id = table.next;
        table.next += 1;
        let list = table.prefixes.entry(prefix.clone()).or_default();
        list.push((id, sender));
        drop(table);
        Follow {
            waiting: Arc::clone(self),
            id,
            prefix,
            changes,
        }
    }

    /// The first who waits starts the task that wakes; it ends with the table.
    fn start(self: &Arc<Self>) {
        self.started.call_once(|| {
            let mut changes = self.publisher.changes();
            let table = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    changes.borrow_and_update();
                    // Aside: one version may hold a hundred thousand changes.
                    let table = Weak::clone(&table);
                    let looked = tokio::task::spawn_blocking(move || {
                        let waiting = table.upgrade()?;
                        let version = waiting.publisher.version();
                        waiting.lock().look(version.state.kv());
                        Some(())
                    });
                    let looked = looked.await.expect("looking does not panic");
                    if looked.is_none() || changes.changed().await.is_err() {
                        return;
                    }
                }
            });
        });
    }
}

impl Table {
    /// Wakes whom the changes since the last look concern.
    fn look(&mut self, store: &KvStore) {
        let from = self.seen + 1;
        if store.revision() < from {
            return;
        }
        self.seen = store.revision();
        if self.keys.is_empty() && self.prefixes.is_empty() {
            return;
        }
        if store.compacted() > from {
            // A snapshot was installed, and what led to it is not told: everybody has to look.
            let all = self.keys.values().flatten();
            all.for_each(|(_, woken)| woken.notify_one());
            self.prefixes.clear();
            return;
        }
        let mut batches: HashMap<&[u8], Changes> = HashMap::new();
        for change in store.changes(from) {
            if let KvChange::Delete { key, .. } = change
                && let Some(list) = self.keys.get(key)
            {
                list.iter().for_each(|(_, woken)| woken.notify_one());
            }
            if self.prefixes.is_empty() {
                continue;
            }
            let key = change.key();
            for (n, _) in key.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                if let Some((prefix, _)) = self.prefixes.get_key_value(&key[..=n]) {
                    batches.entry(prefix).or_default().push(change.clone());
                }
            }
        }
        let batches: Vec<(Blob, Changes)> = batches
            .into_iter()
            .map(|(prefix, batch)| (Blob::from(prefix), batch))
            .collect();
        for (prefix, batch) in batches {
            let list = self.prefixes.get_mut(&prefix).expect("it was found there");
            // Who does not keep up is let go, and catches up from a version.
            list.retain(|(_, sender)| sender.try_send(batch.clone()).is_ok());
            if list.is_empty() {
                self.prefixes.remove(&prefix);
            }
        }
    }
}

/// Takes an entry out of its list, and the list out if nobody is left.
fn strike<T>(lists: &mut HashMap<Blob, Vec<(u64, T)>>, name: &Blob, id: u64) {
    if let Some(list) = lists.get_mut(name) {
        list.retain(|(other, _)| *other != id);
        if list.is_empty() {
            lists.remove(name);
        }
    }
}

/// Somebody waiting, until dropped.
pub(crate) struct Wait {
    waiting: Arc<Waiting>,
    id: u64,
    keys: Vec<Blob>,
    woken: Arc<Notify>,
}

impl Wait {
    /// One of the keys may be gone. A deletion before this call counts, too.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut table = self.waiting.lock();
        for key in &self.keys {
            strike(&mut table.keys, key, self.id);
        }
    }
}

/// Somebody following a prefix, until dropped.
pub(crate) struct Follow {
    waiting: Arc<Waiting>,
    id: u64,
    prefix: Blob,
    changes: mpsc::Receiver<Changes>,
}

impl Follow {
    /// The next changes; `None` when the follower fell behind: begin again, from a version.
    pub(crate) async fn next(&mut self) -> Option<Changes> {
        self.changes.recv().await
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        strike(&mut self.waiting.lock().prefixes, &self.prefix, self.id);
    }
}
