//! Following who leads: a snapshot, then every change, over reconnects.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use quorate_types::{GroupName, Revision};
use quorate_wire::api::{ApiError, ApiErrorKind, GroupState, WatchGroups, WatchItem};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::client::Client;

/// Items that wait for a slow watcher; beyond it the server is slowed down, and starts it over when it falls behind.
const ITEMS_MAX: usize = 256;
/// A server that says nothing for so long, not even that nothing changed, is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// These are all groups, as of the revision: the first event, and again after each `Resync`.
    Snapshot {
        /// As of when.
        revision: Revision,
        /// The groups, in the order of their names.
        groups: Vec<GroupState>,
    },
    /// A group was created or changed, vacancies included.
    Changed {
        /// At which revision; several changes may share one.
        revision: Revision,
        /// The group after it.
        group: GroupState,
    },
    /// A group is gone.
    Deleted {
        /// At which revision.
        revision: Revision,
        /// What it was last.
        group: GroupState,
    },
    /// Everything up to this revision was told.
    Progress {
        /// The revision.
        revision: Revision,
    },
    /// Changes were missed, since the connection broke or the watcher was slow: a new snapshot follows.
    Resync {
        /// Why; for people.
        reason: String,
    },
}

/// A watch of the groups whose name starts with a prefix. Dropping it ends it.
#[derive(Debug)]
pub struct GroupWatch {
    events: mpsc::Receiver<WatchEvent>,
    groups: BTreeMap<GroupName, GroupState>,
    revision: Revision,
}

impl GroupWatch {
    /// The next event. None only when the runtime shuts down.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let event = self.events.recv().await?;
        match &event {
            WatchEvent::Snapshot { revision, groups } => {
                self.groups = groups
                    .iter()
                    .map(|group| (group.name.clone(), group.clone()))
                    .collect();
                self.revision = *revision;
            }
            WatchEvent::Changed { revision, group } => {
                self.groups.insert(group.name.clone(), group.clone());
                self.revision = *revision;
            }
            WatchEvent::Deleted { revision, group } => {
                // Deleted and created again in one revision: the new one stays.
                if self
                    .groups
                    .get(&group.name)
                    .is_some_and(|known| known.incarnation == group.incarnation)
                {
                    self.groups.remove(&group.name);
                }
                self.revision = *revision;
            }
            WatchEvent::Progress { revision } => self.revision = *revision,
            WatchEvent::Resync { .. } => {}
        }
        Some(event)
    }

    /// What is known of a group, by the events taken so far.
    #[must_use]
    pub fn group(&self, name: &GroupName) -> Option<&GroupState> {
        self.groups.get(name)
    }

    /// All that is known, by the events taken so far.
    pub fn groups(&self) -> impl Iterator<Item = &GroupState> {
        self.groups.values()
    }

    /// The revision of the newest event taken.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl Client {
    /// Watches all groups whose name starts with `prefix`.
    ///
    /// ```no_run
    /// # async fn run(client: quorate_client::Client) {
    /// let mut watch = client.watch_groups("orders/");
    /// while let Some(event) = watch.next().await {
    ///     println!("{event:?}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch_groups(&self, prefix: &str) -> GroupWatch {
        let (events_tx, events) = mpsc::channel(ITEMS_MAX);
        let watcher = Watcher {
            client: self.clone(),
            request: WatchGroups {
                prefix: prefix.to_owned(),
                min_revision: Revision::ZERO,
            },
            events: events_tx,
            chunk: Vec::new(),
            told: false,
        };
        tokio::spawn(watcher.run());
        GroupWatch {
            events,
            groups: BTreeMap::new(),
            revision: Revision::ZERO,
        }
    }
}

/// The task behind a watch.
struct Watcher {
    client: Client,
    /// `min_revision` is the newest that was told: no server may start from an older one.
    request: WatchGroups,
    events: mpsc::Sender<WatchEvent>,
    /// The snapshot that is coming in.
    chunk: Vec<GroupState>,
    /// A snapshot was told, so that the next one needs a `Resync` before it.
    told: bool,
}

/// The watcher is gone.
struct Dropped;

impl Watcher {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut at = self.client.preferred();
        let mut failures = 0;
        loop {
            let before = self.request.min_revision;
            let events = self.events.clone();
            let ended = tokio::select! {
                ended = self.follow(at) => ended,
                () = events.closed() => return,
            };
            let Ok(error) = ended else { return };
            let (address, _) = self.client.server(at);
            tracing::debug!(server = address, kind = error.kind.code(), %error, "watch broke off");
            if self.request.min_revision > before {
                failures = 0;
                backoff.reset();
            }
            if self.told
                && self
                    .tell(WatchEvent::Resync {
                        reason: error.to_string(),
                    })
                    .await
                    .is_err()
            {
                return;
            }
            self.told = false;
            at += 1;
            failures += 1;
            let mut wait = error
                .retry_after_ms
                .map_or(Duration::ZERO, Duration::from_millis);
            if failures >= self.client.server_count() {
                wait = wait.max(backoff.next());
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Follows one stream to its end.
    async fn follow(&mut self, at: usize) -> Result<ApiError, Dropped> {
        self.chunk.clear();
        let api = self.client.server(at).1.clone();
        let late = |after: Duration| {
            ApiError::new(ApiErrorKind::Unreachable, format!("silent for {after:?}"))
        };
        let mut items =
            match tokio::time::timeout(CONNECT_MAX, api.watch_groups(self.request.clone())).await {
                Ok(Ok(items)) => items,
                Ok(Err(error)) => return Ok(error),
                Err(_) => return Ok(late(CONNECT_MAX)),
            };
        loop {
            match tokio::time::timeout(SILENCE_MAX, items.next()).await {
                Ok(Some(Ok(item))) => self.take(item).await?,
                Ok(Some(Err(error))) => return Ok(error),
                Ok(None) => {
                    return Ok(ApiError::new(
                        ApiErrorKind::ShuttingDown,
                        "the server ended the watch",
                    ));
                }
                Err(_) => return Ok(late(SILENCE_MAX)),
            }
        }
    }

    async fn take(&mut self, item: WatchItem) -> Result<(), Dropped> {
        let (revision, event) = match item {
            WatchItem::SnapshotChunk(groups) => {
                self.chunk.extend(groups);
                return Ok(());
            }
            WatchItem::SnapshotEnd { revision } => {
                self.told = true;
                (
                    revision,
                    WatchEvent::Snapshot {
                        revision,
                        groups: std::mem::take(&mut self.chunk),
                    },
                )
            }
            WatchItem::Delta {
                revision,
                group,
                deleted: false,
            } => (revision, WatchEvent::Changed { revision, group }),
            WatchItem::Delta {
                revision,
                group,
                deleted: true,
            } => (revision, WatchEvent::Deleted { revision, group }),
            WatchItem::Progress { revision } => (revision, WatchEvent::Progress { revision }),
            WatchItem::Resync { reason } => {
                self.chunk.clear();
                self.told = false;
                return self.tell(WatchEvent::Resync { reason }).await;
            }
        };
        self.request.min_revision = self.request.min_revision.max(revision);
        self.tell(event).await
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Dropped> {
        self.events.send(event).await.map_err(|_| Dropped)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{FencingToken, TenureNumber};
    use quorate_wire::api::Phase;

    use super::*;
    use crate::ClientOptions;
    use crate::fake::Fake;

    fn group(name: &str, incarnation: u64) -> GroupState {
        GroupState {
            name: GroupName::new(name).unwrap(),
            incarnation: Revision(incarnation),
            phase: Phase::Vacant,
            tenure: TenureNumber(0),
            token: FencingToken(0),
            node: None,
            session: None,
            configuration: quorate_wire::api::ProposedConfiguration::default(),
            vacancy: None,
        }
    }

    #[tokio::test]
    async fn a_watch_goes_on_at_another_server_from_no_older_state_and_says_that_it_started_over() {
        let (mut first, mut second) = (Fake::start().await, Fake::start().await);
        let addresses = [first.address.clone(), second.address.clone()];
        let client = Client::lazy(addresses, ClientOptions::default()).unwrap();
        client.prefer(0);
        let mut watch = client.watch_groups("a/");
        let serving = first.watch().await;
        assert_eq!(
            (
                serving.request.prefix.as_str(),
                serving.request.min_revision
            ),
            ("a/", Revision(0))
        );
        for item in [
            WatchItem::SnapshotChunk(vec![group("a/1", 1)]),
            WatchItem::SnapshotChunk(vec![group("a/2", 1)]),
            WatchItem::SnapshotEnd {
                revision: Revision(5),
            },
            WatchItem::Delta {
                revision: Revision(6),
                group: group("a/1", 1),
                deleted: true,
            },
            WatchItem::Delta {
                revision: Revision(7),
                group: group("a/1", 7),
                deleted: false,
            },
        ] {
            serving.items.send(Ok(item)).await.unwrap();
        }
        let Some(WatchEvent::Snapshot {
            revision: Revision(5),
            groups,
        }) = watch.next().await
        else {
            panic!()
        };
        assert_eq!(groups, [group("a/1", 1), group("a/2", 1)]);
        assert!(matches!(
            watch.next().await,
            Some(WatchEvent::Deleted { .. })
        ));
        assert_eq!(watch.groups().count(), 1);
        assert!(matches!(
            watch.next().await,
            Some(WatchEvent::Changed {
                revision: Revision(7),
                ..
            })
        ));
        drop((serving, first));

        let serving = second.watch().await;
        assert_eq!(serving.request.min_revision, Revision(7));
        serving
            .items
            .send(Ok(WatchItem::SnapshotEnd {
                revision: Revision(8),
            }))
            .await
            .unwrap();
        assert!(matches!(
            watch.next().await,
            Some(WatchEvent::Resync { .. })
        ));
        assert_eq!(
            watch.next().await,
            Some(WatchEvent::Snapshot {
                revision: Revision(8),
                groups: vec![]
            })
        );
        assert_eq!(watch.groups().count(), 0);
        drop(watch);
        serving.items.closed().await;
    }
}
