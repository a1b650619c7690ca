//! Watches: a snapshot, then every change, in order, on any server.

use std::collections::BTreeMap;

use quorate_types::{GroupName, Revision};
use quorate_wire::ApiClient;
use quorate_wire::api::{
    ApiErrorKind, ApiStream, DeleteGroup, Freshness, GroupState, ListGroups, Phase, WatchGroups,
    WatchItem,
};
use tokio_stream::StreamExt;

use crate::support::*;

/// A watcher's picture.
struct Picture {
    items: ApiStream<WatchItem>,
    groups: BTreeMap<GroupName, GroupState>,
    revision: Revision,
    deltas: usize,
}

impl Picture {
    async fn new(client: &ApiClient, prefix: &str, min_revision: Revision) -> Self {
        let items = client
            .watch_groups(WatchGroups {
                prefix: prefix.to_owned(),
                min_revision,
            })
            .await
            .unwrap();
        let mut picture = Self {
            items,
            groups: BTreeMap::new(),
            revision: Revision::ZERO,
            deltas: 0,
        };
        while !picture.next().await {}
        assert!(picture.revision >= min_revision);
        picture
    }

    /// Takes one item; true at the end of a snapshot.
    async fn next(&mut self) -> bool {
        let item = tokio::time::timeout(PATIENCE, self.items.next())
            .await
            .expect("an item")
            .expect("no end")
            .unwrap();
        match item {
            WatchItem::SnapshotChunk(groups) => {
                self.groups
                    .extend(groups.into_iter().map(|group| (group.name.clone(), group)));
            }
            WatchItem::SnapshotEnd { revision } => {
                self.revision = revision;
                return true;
            }
            WatchItem::Delta {
                revision,
                group,
                deleted,
            } => {
                assert!(
                    revision >= self.revision,
                    "{revision} after {}",
                    self.revision
                );
                self.revision = revision;
                self.deltas += 1;
                if deleted {
                    self.groups.remove(&group.name);
                } else {
                    self.groups.insert(group.name.clone(), group);
                }
            }
            WatchItem::Progress { revision } => {
                assert!(revision >= self.revision);
                self.revision = revision;
            }
            WatchItem::Resync { .. } => self.groups.clear(),
        }
        false
    }

    async fn until(&mut self, revision: Revision) {
        while self.revision < revision {
            self.next().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_starts_amid_changes_ends_with_the_same_picture_as_a_read() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    let groups = names("w", 200);
    create_names(&client, &groups).await;
    create_names(&client, &names("other", 50)).await;
    let writer = {
        let client = cluster.client(1).await;
        let groups = groups.clone();
        tokio::spawn(async move {
            let mut node = Node::open(&client, "n1", 10_000).await;
            for some in groups.chunks(10) {
                node.contend(some).await.unwrap();
            }
            for name in &groups[..20] {
                let delete = DeleteGroup {
                    mutation: mutation(),
                    group: name.clone(),
                    expected: None,
                };
                client.delete_group(delete, TIMEOUT).await.unwrap();
            }
            node.close().await;
            node.until("the end", |told| told.gone).await;
        })
    };
    let mut pictures = Vec::new();
    for n in 0..9 {
        pictures.push(Picture::new(&cluster.client(n % 3).await, "w/", Revision::ZERO).await);
    }
    writer.await.unwrap();
    let last = create_names(&client, &names("w/last", 1)).await.revision;
    let request = ListGroups {
        prefix: "w/".to_owned(),
        limit: 1_000,
        ..ListGroups::default()
    };
    let page = client
        .list_groups(
            ListGroups {
                freshness: Freshness {
                    min_revision: last,
                    stale_ok: false,
                },
                ..request
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    let expected: BTreeMap<_, _> = page
        .groups
        .into_iter()
        .map(|group| (group.state.name.clone(), group.state))
        .collect();
    assert_eq!(expected.len(), 181);
    assert!(expected.values().all(|group| group.phase == Phase::Vacant));
    for mut picture in pictures {
        picture.until(last).await;
        assert_eq!(picture.groups, expected);
        assert!(picture.deltas > 0);
    }
    let late = Picture::new(&client, "w/", last).await;
    assert_eq!(late.groups, expected);
    let future = WatchGroups {
        prefix: String::new(),
        min_revision: Revision(1 << 40),
    };
    let error = client.watch_groups(future).await.err().unwrap();
    assert_eq!(error.kind, ApiErrorKind::Behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_without_changes_hears_how_far_it_is() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    create_names(&client, &names("w", 1)).await;
    let mut picture = Picture::new(&client, "w/", Revision::ZERO).await;
    let last = create_names(&client, &names("other", 1)).await.revision;
    picture.until(last).await;
    assert_eq!(picture.deltas, 0);
}
