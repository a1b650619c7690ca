//! `quorate group watch | wait | transfer`: what follows leaderships as they change.

use anyhow::Context as _;
use quorate_client::api::{GroupState, TransferMode};
use serde::Serialize;

use super::optional_node;
use crate::args::Careful;
use crate::commands::moves::{describe, human};
use crate::context::{Context, group_name, node_name};
use crate::exit::{Code, Failure};
use crate::output::{self, Format};
use crate::watching::{Change, Watching};

/// Watches groups.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// Only groups whose name starts so.
    #[arg(default_value = "")]
    prefix: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Group(&'a GroupState),
    Deleted(&'a GroupState),
    Synced { revision: u64, groups: usize },
    Resync { reason: &'a str },
}

impl WatchArgs {
    /// Ends only when stopped.
    pub(super) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let mut watching = Watching::start(&client, &self.prefix);
        let json = context.format() == Format::Json;
        loop {
            let change = watching.next().await.context("watch groups")?;
            let text = match (&change, json) {
                (Change::Synced { revision, .. }, false) => {
                    let states: Vec<String> = watching.follower().states().map(describe).collect();
                    let count = states.len();
                    states
                        .into_iter()
                        .chain([format!(
                            "-- {count} groups as of revision {revision}; changes follow"
                        )])
                        .collect::<Vec<_>>()
                        .join("\n")
                }
                (Change::Synced { revision, .. }, true) => {
                    for state in watching.follower().states() {
                        output::json_line(&Line::Group(state))?;
                    }
                    let groups = watching.follower().states().count();
                    serde_json::to_string(&Line::Synced {
                        revision: revision.0,
                        groups,
                    })?
                }
                (Change::Group { state, moved }, false) => match moved {
                    Some(moved) if moved.from.is_some() => {
                        format!("{} (gap {})", describe(state), human(moved.gap))
                    }
                    _ => describe(state),
                },
                (Change::Deleted(state), false) => format!("{} deleted", state.name),
                (Change::Resync(reason), false) => {
                    format!("-- fell behind ({reason}); a new picture follows")
                }
                (Change::Group { state, .. }, true) => serde_json::to_string(&Line::Group(state))?,
                (Change::Deleted(state), true) => serde_json::to_string(&Line::Deleted(state))?,
                (Change::Resync(reason), true) => serde_json::to_string(&Line::Resync { reason })?,
            };
            output::line(text)?;
        }
    }
}

/// Waits until a group is led.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Which.
    group: String,
    /// Led by this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Until nobody leads it instead.
    #[arg(long, conflicts_with = "node")]
    vacant: bool,
}

impl WaitArgs {
    pub(super) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let name = group_name(&self.group)?;
        let node = optional_node(self.node.as_ref())?;
        let client = context.client()?;
        // Unknown groups fail at once instead of never being led.
        client.get_group(&name).await?;
        let wanted = |state: &GroupState| match (self.vacant, &node) {
            (true, _) => state.leader().is_none(),
            (false, Some(node)) => state.leader() == Some(node),
            (false, None) => state.leader().is_some(),
        };
        let waited = tokio::time::timeout(context.timeout(), async {
            let mut watching = Watching::start(&client, name.as_str());
            loop {
                watching.next().await?;
                if let Some(state) = watching.follower().get(&name).filter(|state| wanted(state)) {
                    return anyhow::Ok(state.clone());
                }
            }
        });
        match waited.await {
            Ok(state) => {
                let state = state?;
                context.done(&state, &describe(&state))
            }
            Err(_) => {
                let message = format!(
                    "wait for group `{name}`: not so after {}",
                    human(context.timeout())
                );
                let hint = format!("`quorate why {name}` says why; --timeout waits longer");
                Err(Failure::new(Code::Failed, message).with_hint(hint).into())
            }
        }
    }
}

/// Moves a group's leadership.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TransferArgs {
    /// Which.
    group: String,
    /// To this node; without it the election chooses.
    #[arg(long, value_name = "NODE", conflicts_with = "abort")]
    to: Option<String>,
    /// Do not let the holder finish: revoke its tenure, and wait its lease out where it does not let go.
    #[arg(long, conflicts_with = "abort")]
    force: bool,
    /// Call a pending handover off instead.
    #[arg(long)]
    abort: bool,
    /// Do not wait for the next holder.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    careful: Careful,
}

impl TransferArgs {
    pub(super) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let name = group_name(&self.group)?;
        let to = self.to.as_ref().map(|node| node_name(node)).transpose()?;
        let client = context.client()?;
        let what = || format!("transfer group `{name}`");
        if self.careful.dry_run {
            let state = client.get_group(&name).await?.group.state;
            return context.say(&format!("would move {}", describe(&state)));
        }
        if self.abort {
            let done = client.abort_transfer(&name).await?;
            return context.done(
                &done,
                &format!("the handover of group `{name}` is called off"),
            );
        }
        if self.force {
            context
                .confirm(
                    self.careful,
                    &format!("Revoke the tenure of `{name}`? Its holder cannot finish its work."),
                )
                .await?;
        }
        let mut watching = Watching::start(&client, name.as_str());
        watching.until_synced().await.with_context(what)?;
        let mode = if self.force {
            TransferMode::Force
        } else {
            TransferMode::Handover
        };
        let done = client.transfer_group(&name, to.as_ref(), mode).await?;
        // A handover to who leads already moves nothing, so there is no move to wait for.
        let is_there = !self.force
            && to.is_some()
            && watching.follower().get(&name).and_then(GroupState::leader) == to.as_ref();
        if is_there {
            let said = format!(
                "group `{name}` is led by `{}` already",
                self.to.as_deref().unwrap_or_default()
            );
            return context.done(&done, &said);
        }
        if self.no_wait {
            return context.done(
                &done,
                &format!(
                    "transfer of group `{name}` ordered at revision {}",
                    done.revision
                ),
            );
        }
        let moved = tokio::time::timeout(context.timeout(), async {
            loop {
                if let Change::Group {
                    moved: Some(moved), ..
                } = watching.next().await?
                    && moved.group == name
                {
                    return anyhow::Ok(moved);
                }
            }
        });
        let Ok(moved) = moved.await else {
            let message = format!(
                "{}: ordered, but nobody else leads it after {}",
                what(),
                human(context.timeout())
            );
            let hint = format!(
                "it goes on: `quorate why {name}` says how far; `quorate group transfer {name} --abort` calls it off"
            );
            return Err(Failure::new(Code::Failed, message).with_hint(hint).into());
        };
        let moved = moved.with_context(what)?;
        let from = moved
            .from
            .as_ref()
            .map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let sentence = format!(
            "group `{name}`: {from} -> {}, tenure {}, without a holder for {}",
            moved.to,
            moved.tenure,
            human(moved.gap)
        );
        context.done(&moved, &sentence)
    }
}
