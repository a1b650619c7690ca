//! A watch of groups together with the picture that it draws.

use anyhow::Context as _;
use quorate_client::{Client, GroupState, GroupWatch, WatchEvent};
use quorate_types::{Revision, Time};

use crate::clock;
use crate::commands::moves::{Follower, Move};

/// What the next item of a watch changed.
#[derive(Debug)]
pub(crate) enum Change {
    /// The picture is complete as of this revision; these leaderships moved where it was drawn anew.
    Synced {
        revision: Revision,
        moved: Vec<Move>,
    },
    /// A group changed.
    Group {
        state: GroupState,
        moved: Option<Move>,
    },
    /// A group is gone.
    Deleted(GroupState),
    /// The watch fell behind; the picture is drawn anew.
    Resync(String),
}

/// A running watch.
pub(crate) struct Watching {
    watch: GroupWatch,
    follower: Follower,
}

impl Watching {
    pub(crate) fn start(client: &Client, prefix: &str) -> Self {
        Self {
            watch: client.watch_groups(prefix),
            follower: Follower::default(),
        }
    }

    pub(crate) fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Waits for the first complete picture.
    pub(crate) async fn until_synced(&mut self) -> anyhow::Result<()> {
        loop {
            if let Change::Synced { .. } = self.next().await? {
                return Ok(());
            }
        }
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Change> {
        loop {
            let event = self.watch.next().await.context("the watch ended")?;
            if let Some(change) = self.take(clock::now(), event) {
                return Ok(change);
            }
        }
    }

    fn take(&mut self, now: Time, event: WatchEvent) -> Option<Change> {
        Some(match event {
            WatchEvent::Snapshot { revision, groups } => Change::Synced {
                revision,
                moved: self.follower.on_snapshot(now, groups),
            },
            WatchEvent::Changed { group, .. } => {
                let moved = self.follower.on_state(now, group.clone());
                Change::Group {
                    state: group,
                    moved,
                }
            }
            WatchEvent::Deleted { group, .. } => {
                self.follower.on_deleted(&group);
                Change::Deleted(group)
            }
            WatchEvent::Resync { reason } => Change::Resync(reason),
            // Progress, and what newer servers may tell.
            _ => return None,
        })
    }
}
