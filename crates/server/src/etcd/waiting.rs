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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::space::{Space, delete, put};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn wait(waiting: &Arc<Waiting>, keys: &[&str]) -> Wait {
        waiting.for_deletion(keys.iter().map(|key| Blob::from(*key)).collect())
    }

    async fn is_woken(wait: &Wait) {
        let woken = tokio::time::timeout(PATIENCE, wait.woken()).await;
        woken.expect("it is woken");
    }

    /// Whether somebody was woken by now. What was published before is looked at first.
    async fn was_woken(waiting: &Waiting, space: &Space, wait: &Wait) -> bool {
        let newest = space.version().state.kv().revision();
        let looked = async {
            while waiting.lock().seen < newest {
                tokio::task::yield_now().await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looked).await;
        looked.expect("what is published is looked at");
        futures_util::FutureExt::now_or_never(wait.woken()).is_some()
    }

    /// Changes in short: `+key` put, `-key` deleted, each with its revision.
    fn short(changes: &Changes) -> Vec<String> {
        let short = |change: &KvChange| {
            let sign = match change {
                KvChange::Put(_) => '+',
                KvChange::Delete { .. } => '-',
            };
            let key = String::from_utf8_lossy(change.key());
            format!("{sign}{key}@{}", change.mod_revision())
        };
        changes.iter().map(short).collect()
    }

    async fn next(follow: &mut Follow) -> Option<Vec<String>> {
        let next = tokio::time::timeout(PATIENCE, follow.next()).await;
        next.expect("it goes on").as_ref().map(short)
    }

    #[tokio::test]
    async fn a_deletion_wakes_all_who_wait_for_the_key_and_nobody_else() {
        let mut space = Space::default();
        for key in ["a", "ab", "b"] {
            space.put(key, "");
        }
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let (first, second) = (wait(&waiting, &["a"]), wait(&waiting, &["b", "a"]));
        let others = [wait(&waiting, &["ab"]), wait(&waiting, &["b"])];
        space.put("a", "again");
        for waiter in [&first, &second] {
            assert!(
                !was_woken(&waiting, &space, waiter).await,
                "it is still there"
            );
        }
        space.delete("a");
        is_woken(&first).await;
        is_woken(&second).await;
        for waiter in &others {
            assert!(!was_woken(&waiting, &space, waiter).await);
        }
        // Either of its keys, once each.
        assert!(!was_woken(&waiting, &space, &second).await);
        space.delete("b");
        is_woken(&second).await;
        is_woken(&others[1]).await;
    }

    #[tokio::test]
    async fn who_is_dropped_leaves_nothing_behind_and_takes_nobody_else_along() {
        let mut space = Space::default();
        space.put("a", "");
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let (gone, stays) = (wait(&waiting, &["a", "x"]), wait(&waiting, &["a"]));
        let (unfollowed, mut follows) = (waiting.follow("p/".into()), waiting.follow("p/".into()));
        drop((gone, unfollowed));
        space.put("p/a", "");
        assert_eq!(next(&mut follows).await.unwrap(), ["+p/a@3"]);
        space.delete("a");
        is_woken(&stays).await;
        drop((stays, follows));
        let table = waiting.lock();
        assert!(table.keys.is_empty() && table.prefixes.is_empty());
    }

    #[tokio::test]
    async fn a_deletion_between_entering_and_waiting_wakes() {
        let mut space = Space::default();
        space.put("a", "");
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let waiter = wait(&waiting, &["a"]);
        space.delete("a");
        space.put("a", "another");
        assert!(was_woken(&waiting, &space, &waiter).await);
    }

    #[tokio::test]
    async fn after_a_snapshot_that_skipped_history_everybody_looks_and_followers_begin_again() {
        let mut space = Space::default();
        space.put("a", "");
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let waiter = wait(&waiting, &["a"]);
        let mut follow = waiting.follow("p/".into());
        // Applied elsewhere: the deletion is compacted before this server learns of it.
        for command in [delete("a"), put("p/a", ""), put("p/b", "")] {
            space.apply(command);
        }
        let newest = i64::try_from(space.version().state.kv().revision() + 3).unwrap();
        space.apply(quorate_coord::Command::CompactKv {
            caller: None,
            revision: newest,
        });
        space.publish(true);
        is_woken(&waiter).await;
        assert_eq!(next(&mut follow).await, None);
        // Entered anew, they hear of what comes.
        let mut follow = waiting.follow("p/".into());
        space.put("p/c", "");
        assert_eq!(next(&mut follow).await.unwrap(), ["+p/c@6"]);
    }

    #[tokio::test]
    async fn followers_are_told_whole_versions_of_their_own_prefix_in_order() {
        let mut space = Space::default();
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let (mut outer, mut inner) = (waiting.follow("p/".into()), waiting.follow("p/q/".into()));
        for command in [
            put("p/a", ""),
            put("p/q/b", ""),
            put("p", ""),
            put("pq/", ""),
        ] {
            space.apply(command);
        }
        space.apply(delete("p/a"));
        space.publish(false);
        assert_eq!(
            next(&mut outer).await.unwrap(),
            ["+p/a@2", "+p/q/b@3", "-p/a@6"]
        );
        assert_eq!(next(&mut inner).await.unwrap(), ["+p/q/b@3"]);
    }

    #[tokio::test]
    async fn a_follower_that_does_not_keep_up_is_let_go_and_others_are_not() {
        let mut space = Space::default();
        let waiting = Waiting::new(Arc::clone(&space.publisher));
        let (mut slow, mut quick) = (waiting.follow("p/".into()), waiting.follow("p/".into()));
        for n in 0..QUEUE_BATCHES + 1 {
            space.put("p/a", &n.to_string());
            let told = next(&mut quick).await.unwrap();
            assert_eq!(told, [format!("+p/a@{}", n + 2)]);
        }
        // What it was sent is not lost; after that it begins again.
        for n in 0..QUEUE_BATCHES {
            assert_eq!(next(&mut slow).await.unwrap(), [format!("+p/a@{}", n + 2)]);
        }
        assert_eq!(next(&mut slow).await, None);
        drop(slow);
        space.put("p/a", "");
        next(&mut quick).await.unwrap();
    }
}
