//! Observing an election: the leader that is, then each change.

use std::collections::{BTreeMap, VecDeque};

use quorate_coord::kv::{Blob, KeyValue, KvChange, KvError, KvStore};
use quorate_wire::etcd::v3electionpb as election;
use tonic::Status;

use super::line::below;
use super::waiting::{Changes, Follow};
use super::{Etcd, convert, errors};

/// Tells the leaders of a name: the one that is, then each change, revision by revision.
pub(super) struct Observer {
    etcd: Etcd,
    leaders: Leaders,
    follow: Option<Follow>,
}

impl Observer {
    pub(super) fn new(etcd: Etcd, prefix: Blob) -> Self {
        let version = etcd.api.publisher.version();
        let leaders = Leaders::new(prefix, version.state.kv());
        Self {
            etcd,
            leaders,
            follow: None,
        }
    }

    /// The next leader to tell.
    pub(super) async fn next(&mut self) -> Result<election::LeaderResponse, Status> {
        loop {
            if let Some((revision, leader)) = self.leaders.tell.pop_front() {
                return Ok(election::LeaderResponse {
                    header: Some(self.etcd.header(revision)),
                    kv: Some(convert::key_value(&leader)),
                });
            }
            match &mut self.follow {
                Some(follow) => match follow.next().await {
                    Some(changes) => self.leaders.take(changes),
                    None => self.follow = None,
                },
                None => {
                    // Followed first, so that nothing is missed between the version and what is told later.
                    let prefix = self.leaders.prefix.clone();
                    self.follow = Some(self.etcd.waiting.follow(prefix));
                    let version = self.etcd.api.publisher.version();
                    let caught_up = self.leaders.catch_up(version.state.kv());
                    caught_up.map_err(|error| errors::of_kv(&error))?;
                }
            }
        }
    }
}

/// Who led, worked out from the changes below a prefix.
///
/// # Invariants
/// - `candidates` is what was below the prefix after revision `next - 1`.
struct Leaders {
    prefix: Blob,
    /// By creation, then key: several may be made by one transaction.
    candidates: BTreeMap<(u64, Blob), KeyValue>,
    next: u64,
    told: Option<(Blob, u64)>,
    /// Who is still to be told of, and at which revision it led.
    tell: VecDeque<(u64, KeyValue)>,
}

impl Leaders {
    fn new(prefix: Blob, store: &KvStore) -> Self {
        let found = store.range(&below(&prefix));
        let found = found.expect("the newest revision is there");
        let by_creation = |kv: KeyValue| ((kv.create_revision, kv.key.clone()), kv);
        let mut leaders = Self {
            prefix,
            candidates: found.kvs.into_iter().map(by_creation).collect(),
            next: store.revision() + 1,
            told: None,
            tell: VecDeque::new(),
        };
        leaders.settle(store.revision());
        leaders
    }

    /// Notes the leader after a revision, if that is news.
    fn settle(&mut self, revision: u64) {
        let Some(leader) = self.candidates.values().next() else {
            return;
        };
        let is = (leader.key.clone(), leader.mod_revision);
        if self.told.as_ref() != Some(&is) {
            self.tell.push_back((revision, leader.clone()));
            self.told = Some(is);
        }
    }

    /// Takes changes in; whole revisions, in order.
    fn take(&mut self, changes: Changes) {
        let mut changes = changes
            .into_iter()
            .filter(|change| change.mod_revision() >= self.next)
            .collect::<Vec<_>>()
            .into_iter()
            .peekable();
        while let Some(change) = changes.next() {
            let revision = change.mod_revision();
            match change {
                KvChange::Put(kv) => {
                    let place = (kv.create_revision, kv.key.clone());
                    self.candidates.insert(place, kv);
                }
                KvChange::Delete { key, .. } => self.candidates.retain(|_, kv| kv.key != key),
            }
            if changes
                .peek()
                .is_none_or(|next| next.mod_revision() != revision)
            {
                self.settle(revision);
                self.next = revision + 1;
            }
        }
    }

    /// Takes in what happened since, out of a version.
    ///
    /// # Errors
    /// [`KvError::Compacted`]: what is between is not to be had any more, and is not passed over in silence.
    fn catch_up(&mut self, store: &KvStore) -> Result<(), KvError> {
        if store.compacted() > self.next {
            return Err(KvError::Compacted {
                asked: self.next,
                compacted: store.compacted(),
            });
        }
        let missed = store.changes(self.next);
        let missed = missed.filter(|change| change.key().starts_with(&self.prefix));
        let missed: Changes = missed.cloned().collect();
        self.take(missed);
        self.next = self.next.max(store.revision() + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::space::Space;
    use super::*;

    /// What is still to be told: value, and at which revision.
    fn told(leaders: &mut Leaders) -> Vec<String> {
        let told = leaders.tell.drain(..);
        told.map(|(revision, kv)| format!("{}@{revision}", String::from_utf8_lossy(&kv.value)))
            .collect()
    }

    fn following(space: &Space) -> Leaders {
        Leaders::new(Blob::from("e/"), space.version().state.kv())
    }

    fn catch_up(leaders: &mut Leaders, space: &Space) -> Result<(), KvError> {
        leaders.catch_up(space.version().state.kv())
    }

    #[test]
    fn the_first_created_leads_and_each_change_of_it_is_told_once() {
        let mut space = Space::default();
        let mut leaders = following(&space);
        assert!(told(&mut leaders).is_empty(), "nobody leads");
        space.put("e/b", "b1"); // 2
        space.put("e/a", "a1"); // 3: before it by name, behind it by creation
        space.put("e/a", "a2");
        space.put("e/b", "b2"); // 5
        space.put("elsewhere", "x");
        space.delete("e/b"); // 7
        space.delete("e/a");
        space.put("e/c", "c1"); // 9
        catch_up(&mut leaders, &space).unwrap();
        assert_eq!(told(&mut leaders), ["b1@2", "b2@5", "a2@7", "c1@9"]);
        catch_up(&mut leaders, &space).unwrap();
        assert!(told(&mut leaders).is_empty(), "it was told");
        assert_eq!(told(&mut following(&space)), ["c1@9"]);
    }

    #[test]
    fn a_key_that_is_made_anew_stands_behind_the_others() {
        let mut space = Space::default();
        space.put("e/a", "a1");
        space.put("e/b", "b1");
        let mut leaders = following(&space);
        space.delete("e/a"); // 4
        space.put("e/a", "a2");
        space.delete("e/b"); // 6
        catch_up(&mut leaders, &space).unwrap();
        assert_eq!(told(&mut leaders), ["a1@3", "b1@4", "a2@6"]);
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let mut space = Space::default();
        space.put("e/a", "a1");
        let mut leaders = following(&space);
        space.delete("e/a");
        space.put("e/b", "b1");
        let changes: Changes = space.version().state.kv().changes(2).cloned().collect();
        catch_up(&mut leaders, &space).unwrap();
        // A follower's first batch begins with what the version held already.
        leaders.take(changes);
        assert_eq!(told(&mut leaders), ["a1@2", "b1@4"]);
        space.delete("e/b");
        catch_up(&mut leaders, &space).unwrap();
        space.put("e/c", "c1");
        catch_up(&mut leaders, &space).unwrap();
        assert_eq!(told(&mut leaders), ["c1@6"]);
    }

    #[test]
    fn a_gap_that_a_compaction_made_is_an_error_and_the_compacted_revision_itself_is_none() {
        let mut space = Space::default();
        space.put("e/a", "a1");
        let (mut in_time, mut late) = (following(&space), following(&space));
        space.delete("e/a"); // 3
        space.compact(3);
        catch_up(&mut in_time, &space).unwrap();
        space.put("e/b", "b1"); // 4
        catch_up(&mut in_time, &space).unwrap();
        assert_eq!(told(&mut in_time), ["a1@2", "b1@4"]);
        space.compact(4);
        let error = KvError::Compacted {
            asked: 3,
            compacted: 4,
        };
        assert_eq!(catch_up(&mut late, &space), Err(error));
    }
}
