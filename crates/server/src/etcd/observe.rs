//! Observing an election: the leader that is, then each change.

use std::collections::{BTreeMap, VecDeque};

use quorate_coord::kv::{Blob, KeyValue, KvChange, KvError};
use quorate_wire::etcd::v3electionpb as election;
use tonic::Status;

use super::line::below;
use super::waiting::{Changes, Follow};
use super::{Etcd, convert, errors};

/// Tells the leaders of a name: the one that is, then each change, revision by revision.
///
/// # Invariants
/// - `candidates` is what was below the prefix after revision `next - 1`.
pub(super) struct Observer {
    etcd: Etcd,
    prefix: Blob,
    /// By creation, then key: several may be made by one transaction.
    candidates: BTreeMap<(u64, Blob), KeyValue>,
    next: u64,
    follow: Option<Follow>,
    told: Option<(Blob, u64)>,
    tell: VecDeque<election::LeaderResponse>,
}

impl Observer {
    pub(super) fn new(etcd: Etcd, prefix: Blob) -> Self {
        let version = etcd.api.publisher.version();
        let store = version.state.kv();
        let found = store.range(&below(&prefix));
        let found = found.expect("the newest revision is there");
        let mut observer = Self {
            etcd,
            prefix,
            candidates: BTreeMap::new(),
            next: store.revision() + 1,
            follow: None,
            told: None,
            tell: VecDeque::new(),
        };
        let by_creation = |kv: KeyValue| ((kv.create_revision, kv.key.clone()), kv);
        let found = found.kvs.into_iter().map(by_creation);
        observer.candidates.extend(found);
        observer.settle(store.revision());
        observer
    }

    /// Notes the leader after a revision, if that is news.
    fn settle(&mut self, revision: u64) {
        let Some(leader) = self.candidates.values().next() else {
            return;
        };
        let is = (leader.key.clone(), leader.mod_revision);
        if self.told.as_ref() != Some(&is) {
            self.told = Some(is);
            self.tell.push_back(election::LeaderResponse {
                header: Some(self.etcd.header(revision)),
                kv: Some(convert::key_value(leader)),
            });
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

    /// The next leader to tell.
    pub(super) async fn next(&mut self) -> Result<election::LeaderResponse, Status> {
        loop {
            if let Some(told) = self.tell.pop_front() {
                return Ok(told);
            }
            match &mut self.follow {
                Some(follow) => match follow.next().await {
                    Some(changes) => self.take(changes),
                    None => self.follow = None,
                },
                None => self.catch_up()?,
            }
        }
    }

    /// Begins to follow, and reads what happened before that out of the newest version.
    fn catch_up(&mut self) -> Result<(), Status> {
        self.follow = Some(self.etcd.waiting.follow(self.prefix.clone()));
        let version = self.etcd.api.publisher.version();
        let store = version.state.kv();
        if store.compacted() > self.next {
            // What is between is not to be had any more, and is not passed over in silence.
            return Err(errors::of_kv(&KvError::Compacted {
                asked: self.next,
                compacted: store.compacted(),
            }));
        }
        let missed = store.changes(self.next);
        let missed = missed.filter(|change| change.key().starts_with(&self.prefix));
        let missed: Changes = missed.cloned().collect();
        self.take(missed);
        self.next = self.next.max(store.revision() + 1);
        Ok(())
    }
}
