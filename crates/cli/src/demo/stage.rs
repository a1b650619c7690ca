//! Everything that the demo has running, and what can be seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use quorate_client::{Client, ClientOptions};
use quorate_types::{GroupName, NodeName, Revision, TenureNumber, Time};

use super::cluster::Cluster;
use super::fleet::{NodeProcess, NodeSettings};
use super::record::{self, Findings};
use super::resource::Resource;
use crate::clock;
use crate::commands::moves::{Follower, Move};
use crate::watching::{Change, Watching};

/// What the demo's groups are called: `demo/0000` and so on.
pub(super) const PREFIX: &str = "demo/";

/// How long any step may take before the demo gives up.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Everything that runs. Dropping it ends all processes.
pub(super) struct Stage {
    directory: PathBuf,
    groups: u32,
    nodes_wanted: u32,
    ttl: Duration,
    pub(super) resource: Resource,
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    pub(super) watching: Watching,
    pub(super) nodes: Vec<NodeProcess>,
}

/// How groups found new holders after a fault.
#[derive(Debug)]
pub(super) struct Relocation {
    /// When the first of them was seen without its old holder.
    pub(super) noticed: Time,
    /// When the last of them was led again.
    pub(super) led: Time,
    pub(super) moves: Vec<Move>,
}

impl Stage {
    /// Starts the resource and the servers. The watch waits for the first leader.
    pub(super) async fn new(
        directory: &Path,
        groups: u32,
        nodes_wanted: u32,
        ttl_ms: u64,
    ) -> anyhow::Result<Self> {
        let resource = Resource::start().await?;
        let cluster = Cluster::start(directory)?;
        let client = connect(&cluster.endpoints()).await?;
        let watching = Watching::start(&client, PREFIX);
        let ttl = Duration::from_millis(ttl_ms);
        Ok(Self {
            directory: directory.to_owned(),
            groups,
            nodes_wanted,
            ttl,
            resource,
            cluster,
            client,
            watching,
            nodes: Vec::new(),
        })
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    pub(super) fn group_names(&self) -> anyhow::Result<Vec<GroupName>> {
        (0..self.groups)
            .map(|n| Ok(GroupName::new(&format!("{PREFIX}{n:04}"))?))
            .collect()
    }

    /// Starts the nodes.
    pub(super) fn start_nodes(&mut self) -> anyhow::Result<()> {
        let endpoints = self.endpoints();
        let settings = NodeSettings {
            directory: &self.directory,
            endpoints: &endpoints,
            resource: self.resource.address(),
            prefix: PREFIX,
            groups: self.groups,
            ttl_ms: u64::try_from(self.ttl.as_millis()).expect("a short time"),
        };
        for n in 1..=self.nodes_wanted {
            let name = NodeName::new(&format!("node-{n}"))?;
            self.nodes.push(NodeProcess::start(name, &settings)?);
        }
        Ok(())
    }

    pub(super) fn follower(&self) -> &Follower {
        self.watching.follower()
    }

    /// Follows the watch until `done` says so. `done` sees every change, and the first time none.
    pub(super) async fn follow<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Follower, &[Move]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let give_up = clock::now() + STEP_MAX;
        let mut moved: Vec<Move> = Vec::new();
        loop {
            if let Some(result) = done(self.watching.follower(), &moved) {
                return Ok(result);
            }
            let left = give_up.since(clock::now());
            if left.is_zero() {
                bail!("{what}: not so after {} s", STEP_MAX.as_secs());
            }
            if let Some(ended) = self.cluster.ended() {
                bail!("{what}: {ended}");
            }
            moved = match tokio::time::timeout(
                left.min(Duration::from_millis(100)),
                self.watching.next(),
            )
            .await
            {
                Err(_) => Vec::new(),
                Ok(change) => match change.with_context(|| what.to_owned())? {
                    Change::Synced { moved, .. } => moved,
                    Change::Group { moved, .. } => moved.into_iter().collect(),
                    Change::Deleted(_) | Change::Resync(_) => Vec::new(),
                },
            };
        }
    }

    /// Follows the watch for a while; what moved.
    pub(super) async fn follow_for(&mut self, time: Duration) -> anyhow::Result<Vec<Move>> {
        let end = clock::now() + time;
        let mut all = Vec::new();
        self.follow("watch", |_, moved| {
            all.extend(moved.iter().cloned());
            (clock::now() >= end).then_some(())
        })
        .await?;
        Ok(all)
    }

    /// Waits until nothing has moved for a while: voluntary handovers are done.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        let mut calm_since = clock::now();
        let calm = Duration::from_millis(400);
        self.follow("wait for calm", |_, moved| {
            if !moved.is_empty() {
                calm_since = clock::now();
            }
            (clock::now().since(calm_since) >= calm).then_some(())
        })
        .await
    }

    /// Waits until every group of `groups` is led by another node than `node`.
    pub(super) async fn relocation(
        &mut self,
        node: &NodeName,
        groups: &BTreeSet<GroupName>,
    ) -> anyhow::Result<Relocation> {
        let mut noticed = None;
        let mut moves = Vec::new();
        let what = format!("{} groups of {node} led by others", groups.len());
        let led = self
            .follow(&what, |follower, moved| {
                moves.extend(
                    moved
                        .iter()
                        .filter(|moved| groups.contains(&moved.group) && moved.to != *node)
                        .cloned(),
                );
                let mut by_others = 0;
                for group in groups {
                    let leader = follower.get(group).and_then(|state| state.leader());
                    if leader != Some(node) {
                        noticed.get_or_insert_with(clock::now);
                    }
                    by_others += usize::from(leader.is_some_and(|leader| leader != node));
                }
                (by_others == groups.len()).then(clock::now)
            })
            .await?;
        Ok(Relocation {
            noticed: noticed.unwrap_or(led),
            led,
            moves,
        })
    }

    /// Who leads what under which tenure.
    pub(super) fn tenures(&self) -> BTreeMap<GroupName, (Revision, TenureNumber)> {
        self.follower()
            .states()
            .map(|state| (state.name.clone(), (state.incarnation, state.tenure)))
            .collect()
    }

    /// What a node leads.
    pub(super) fn led_by(&self, node: &NodeName) -> BTreeSet<GroupName> {
        let led = self
            .follower()
            .states()
            .filter(|state| state.leader() == Some(node));
        led.map(|state| state.name.clone()).collect()
    }

    pub(super) fn stale_writes_fenced(&self) -> u64 {
        self.resource.counts().1
    }

    /// Checks the records of all nodes.
    pub(super) async fn findings(&self) -> anyhow::Result<Findings> {
        let mut beliefs = Vec::new();
        for node in &self.nodes {
            beliefs.extend(node.beliefs()?);
        }
        let checked = tokio::task::spawn_blocking(move || record::check(beliefs));
        checked.await.context("check the records")
    }
}

/// A client of the demo's servers.
pub(super) async fn connect(endpoints: &[String]) -> anyhow::Result<Client> {
    let options = ClientOptions {
        timeout: STEP_MAX,
        ..ClientOptions::default()
    };
    Client::connect(endpoints, options)
        .await
        .context("connect to the servers")
}
