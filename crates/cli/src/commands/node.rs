//! `quorate node`: the processes of the service that is coordinated.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_client::Client;
use quorate_client::api::{NodeAdmission, NodeView};
use quorate_types::{GroupName, NodeName};
use serde::Serialize;

use crate::args::Careful;
use crate::commands::moves::{Move, human, median_and_max};
use crate::context::{Context, node_name, word};
use crate::exit::{Code, Failure};
use crate::output::{self, Format, Table, or_dash};
use crate::watching::{Change, Watching};

/// Nodes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List nodes.
    List,
    /// Show a node.
    Show {
        /// Which.
        node: String,
    },
    /// Have a node hand over everything that it leads, and elect it no more.
    Drain(DrainArgs),
    /// Elect a node no more; what it leads stays.
    Cordon(AdmitArgs),
    /// Let a node be elected again after `cordon` or `drain`.
    Uncordon(AdmitArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct AdmitArgs {
    /// Which.
    node: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct DrainArgs {
    /// Which.
    node: String,
    /// Do not wait until the node holds nothing.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    careful: Careful,
}

impl NodeArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match &self.verb {
            Verb::List => list(context).await,
            Verb::Show { node } => show(context, node).await,
            Verb::Drain(args) => drain(context, args).await,
            Verb::Cordon(args) => admit(context, args, NodeAdmission::Cordoned).await,
            Verb::Uncordon(args) => admit(context, args, NodeAdmission::Open).await,
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let nodes = context.client()?.list_nodes().await?.nodes;
    output::show(context.format(), &nodes, || {
        let mut table = Table::new(&[
            "NODE",
            "ADMISSION",
            "SESSION",
            "TTL",
            "LEADS",
            "PREPARES",
            "LOAD",
            "WEIGHT",
            "LABELS",
        ]);
        for node in &nodes {
            table.row([
                node.spec.name.to_string(),
                if node.revoked {
                    "revoked".to_owned()
                } else {
                    word(&node.admission)
                },
                or_dash(node.session.map(|session| session.id)),
                if node.session.is_some() {
                    format!("{} ms", node.ttl_ms)
                } else {
                    "-".to_owned()
                },
                node.tenures.to_string(),
                node.preparing.to_string(),
                node.load.to_string(),
                node.spec.weight.to_string(),
                labels(node),
            ]);
        }
        table
    })?;
    Ok(0)
}

fn labels(node: &NodeView) -> String {
    node.spec
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

async fn find(client: &Client, name: &NodeName) -> anyhow::Result<NodeView> {
    let nodes = client.list_nodes().await?.nodes;
    let found = nodes.into_iter().find(|node| node.spec.name == *name);
    found.ok_or_else(|| {
        let hint =
            "`quorate node list` lists the nodes that have a session, or had one and are not open";
        Failure::new(Code::NotFound, format!("node `{name}` is not known"))
            .with_hint(hint)
            .into()
    })
}

async fn show(context: &Context, node: &str) -> anyhow::Result<u8> {
    let name = node_name(node)?;
    let node = find(&context.client()?, &name).await?;
    if context.format() == Format::Json {
        output::json(&node)?;
        return Ok(0);
    }
    output::line(format!("name       {}", node.spec.name))?;
    output::line(format!("admission  {}", word(&node.admission)))?;
    output::line(format!(
        "session    {}{}",
        or_dash(node.session.map(|s| s.id)),
        if node.revoked { " (revoked)" } else { "" }
    ))?;
    output::line(format!("ttl        {} ms", node.ttl_ms))?;
    output::line(format!(
        "leads      {} groups, load {}",
        node.tenures, node.load
    ))?;
    output::line(format!("prepares   {} groups", node.preparing))?;
    output::line(format!("weight     {}", node.spec.weight))?;
    output::line(format!(
        "labels     {}",
        or_dash(Some(labels(&node)).filter(|labels| !labels.is_empty()))
    ))?;
    Ok(0)
}

async fn admit(
    context: &Context,
    args: &AdmitArgs,
    admission: NodeAdmission,
) -> anyhow::Result<u8> {
    let name = node_name(&args.node)?;
    let client = context.client()?;
    if args.dry_run {
        let node = find(&client, &name).await?;
        return context.say(&format!(
            "would make node `{name}` {} (it is {})",
            word(&admission),
            word(&node.admission)
        ));
    }
    let done = client.admit_node(&name, admission).await?;
    context.done(
        &done,
        &format!(
            "node `{name}` is {} as of revision {}",
            word(&admission),
            done.revision
        ),
    )
}

/// Looks without a change, 100 ms apart, after which a group without a holder is not waited for any longer.
const QUIET_MAX: u32 = 10;

/// What a drain did.
#[derive(Debug, Serialize)]
struct Drained {
    node: NodeName,
    moved: usize,
    gap_median_ms: f64,
    gap_max_ms: f64,
    moves: Vec<Move>,
}

async fn drain(context: &Context, args: &DrainArgs) -> anyhow::Result<u8> {
    let name = node_name(&args.node)?;
    let client = context.client()?;
    let before = find(&client, &name).await?;
    if args.careful.dry_run {
        return context.say(&format!(
            "would drain node `{name}`, which leads {} groups",
            before.tenures
        ));
    }
    context
        .confirm(
            args.careful,
            &format!(
                "Drain node `{name}`, which leads {} groups?",
                before.tenures
            ),
        )
        .await?;
    let what = || format!("drain node `{name}`");
    let mut watching = Watching::start(&client, "");
    watching.until_synced().await.with_context(what)?;
    let mut held: BTreeSet<GroupName> = watching.follower().held_by(&name).into_iter().collect();
    let done = client.admit_node(&name, NodeAdmission::Draining).await?;
    if args.no_wait {
        return context.done(
            &done,
            &format!("node `{name}` is draining as of revision {}", done.revision),
        );
    }
    let deadline = Instant::now() + context.timeout();
    let (moves, left) = follow_drain(&client, &mut watching, &name, &mut held, deadline)
        .await
        .with_context(what)?;
    let (median, max) = median_and_max(moves.iter().map(|moved| moved.gap).collect());
    if left > 0 {
        let message = format!(
            "{}: it still holds {left} groups after {}; {} moved",
            what(),
            human(context.timeout()),
            moves.len()
        );
        let hint = format!(
            "the drain goes on: `quorate status` shows how far, `quorate why GROUP` why not, `quorate node uncordon {name}` calls it off"
        );
        return Err(Failure::new(Code::Failed, message).with_hint(hint).into());
    }
    let ms = |gap: Duration| (gap.as_secs_f64() * 1e6).round() / 1e3;
    let sentence = format!(
        "node `{name}` is drained: {} groups moved, without a holder for {} (median), {} (maximum)",
        moves.len(),
        human(median),
        human(max)
    );
    let drained = Drained {
        node: name.clone(),
        moved: moves.len(),
        gap_median_ms: ms(median),
        gap_max_ms: ms(max),
        moves,
    };
    context.done(&drained, &sentence)
}

/// Follows until the node holds nothing or the deadline passes; the moves seen, and what is left.
async fn follow_drain(
    client: &Client,
    watching: &mut Watching,
    node: &NodeName,
    held: &mut BTreeSet<GroupName>,
    deadline: Instant,
) -> anyhow::Result<(Vec<Move>, usize)> {
    let mut moves = Vec::new();
    let mut progress = Progress::new(held.len());
    let mut quiet = 0;
    loop {
        let left = watching.follower().held_by(node).len();
        progress.show(left);
        // A group may be without a holder for a moment: its move is part of the drain.
        if left == 0 && held.is_empty() {
            // The watch shows groups; the node's own count is what the drain is about.
            let listed = find(client, node).await?;
            if listed.tenures == 0 && listed.preparing == 0 {
                progress.end();
                return Ok((moves, 0));
            }
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            progress.end();
            return Ok((moves, left));
        }
        // Woken now and then, in case the last change came before the node's count.
        match tokio::time::timeout(wait.min(Duration::from_millis(100)), watching.next()).await {
            Err(_) => {
                // The node holds them no longer, and nothing happens: where nobody else can lead, the drain does not wait.
                quiet += 1;
                if left == 0 && quiet >= QUIET_MAX {
                    held.clear();
                }
            }
            Ok(change) => {
                quiet = 0;
                let moved = match change? {
                    Change::Group { moved, state } => {
                        if state.node.as_ref() == Some(node) {
                            held.insert(state.name.clone());
                        }
                        moved.into_iter().collect()
                    }
                    Change::Synced { moved, .. } => moved,
                    Change::Deleted(state) => {
                        held.remove(&state.name);
                        Vec::new()
                    }
                    Change::Resync(_) => Vec::new(),
                };
                for moved in moved {
                    if moved.to != *node && held.remove(&moved.group) {
                        moves.push(moved);
                    }
                }
            }
        }
    }
}

/// A line that is written over while a drain goes on, where somebody watches.
struct Progress {
    total: usize,
    shown: Option<usize>,
    tty: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self {
            total,
            shown: None,
            tty: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, left: usize) {
        self.total = self.total.max(left);
        if self.tty && self.shown != Some(left) {
            self.shown = Some(left);
            eprint!(
                "\r{} of {} groups handed over ",
                self.total - left,
                self.total
            );
            // A progress line that cannot be shown changes nothing.
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.tty {
            eprintln!();
        }
    }
}
