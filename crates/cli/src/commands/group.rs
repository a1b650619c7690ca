//! `quorate group`: what needs exactly one leader.

mod apply;
mod follow;
mod spec;

use quorate_client::api::{Freshness, GroupView, ListGroups, PAGE_MAX};
use quorate_types::Revision;

use crate::args::Careful;
use crate::context::{Context, group_name, node_name, word};
use crate::exit::{Code, Failure};
use crate::output::{self, Format, Table, or_dash};

use follow::{TransferArgs, WaitArgs, WatchArgs};
use spec::SpecArgs;

/// Groups.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Create groups; all or none.
    Create(CreateArgs),
    /// Create the groups of a file that are missing, and update those that differ.
    Apply(apply::ApplyArgs),
    /// List groups.
    List {
        /// Only groups whose name starts so.
        #[arg(default_value = "")]
        prefix: String,
        /// Answer from the asked server's own state, which may lag.
        #[arg(long)]
        stale_ok: bool,
    },
    /// Show a group, its spec and who stands in it.
    Show {
        /// Which.
        group: String,
    },
    /// Change a group's spec: the flags given, the rest stays.
    Update(UpdateArgs),
    /// Print groups' leaderships, and every change from then on.
    Watch(WatchArgs),
    /// Wait until a group is led.
    Wait(WaitArgs),
    /// Move a group's leadership.
    Transfer(TransferArgs),
    /// Hand leaderships over from nodes that hold more than their share.
    Rebalance {
        /// Only groups whose name starts so.
        #[arg(default_value = "")]
        prefix: String,
        /// At most this many handovers.
        #[arg(long, default_value_t = 1_000)]
        moves_max: u32,
        #[command(flatten)]
        careful: Careful,
    },
    /// Delete a group. Its holder is told to stop first, and the group goes when it has.
    Delete {
        /// Which.
        group: String,
        /// Only if the spec was last changed at this revision.
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
        #[command(flatten)]
        careful: Careful,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct CreateArgs {
    /// Which.
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct UpdateArgs {
    /// Which.
    group: String,
    #[command(flatten)]
    spec: SpecArgs,
    /// Only if the spec was last changed at this revision (`quorate group show`). Without it: as it is when read.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl GroupArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match &self.verb {
            Verb::Create(args) => create(context, args).await,
            Verb::Apply(args) => args.run(context).await,
            Verb::List { prefix, stale_ok } => list(context, prefix, *stale_ok).await,
            Verb::Show { group } => show(context, group).await,
            Verb::Update(args) => update(context, args).await,
            Verb::Watch(args) => args.run(context).await,
            Verb::Wait(args) => args.run(context).await,
            Verb::Transfer(args) => args.run(context).await,
            Verb::Rebalance {
                prefix,
                moves_max,
                careful,
            } => rebalance(context, prefix, *moves_max, *careful).await,
            Verb::Delete {
                group,
                if_revision,
                careful,
            } => delete(context, group, *if_revision, *careful).await,
        }
    }
}

async fn create(context: &Context, args: &CreateArgs) -> anyhow::Result<u8> {
    let spec = args.spec.over(quorate_client::api::GroupSpec::default())?;
    let groups = args
        .groups
        .iter()
        .map(|name| Ok((group_name(name)?, spec.clone())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let names = if groups.len() == 1 {
        format!("group `{}`", groups[0].0)
    } else {
        format!("{} groups", groups.len())
    };
    if args.dry_run {
        return context.say(&format!("would create {names}"));
    }
    let done = context.client()?.create_groups(groups).await?;
    context.done(
        &done,
        &format!("created {names} at revision {}", done.revision),
    )
}

async fn list(context: &Context, prefix: &str, stale_ok: bool) -> anyhow::Result<u8> {
    let client = context.client()?;
    let groups = all_groups(&client, prefix, stale_ok).await?;
    output::show(context.format(), &groups, || {
        let mut table = Table::new(&[
            "GROUP",
            "PHASE",
            "NODE",
            "TENURE",
            "TOKEN",
            "CONTENDERS",
            "ENDPOINTS",
        ]);
        for group in &groups {
            let state = &group.state;
            table.row([
                state.name.to_string(),
                word(&state.phase),
                or_dash(state.node.as_ref()),
                state.tenure.to_string(),
                state.token.to_string(),
                group.contenders.to_string(),
                state.configuration.endpoints.join(","),
            ]);
        }
        table
    })?;
    Ok(0)
}

/// Every group below a prefix, page by page.
pub(crate) async fn all_groups(
    client: &quorate_client::Client,
    prefix: &str,
    stale_ok: bool,
) -> anyhow::Result<Vec<GroupView>> {
    let mut groups: Vec<GroupView> = Vec::new();
    let mut revision = Revision::ZERO;
    loop {
        let after = groups.last().map(|group| group.state.name.clone());
        // Later pages may come from a server that lags; they are never older than the first.
        let freshness = Freshness {
            min_revision: revision,
            stale_ok,
        };
        let page = client
            .list_groups(ListGroups {
                freshness,
                prefix: prefix.to_owned(),
                after,
                limit: PAGE_MAX,
            })
            .await?;
        revision = page.revision;
        groups.extend(page.groups);
        if !page.more {
            return Ok(groups);
        }
    }
}

async fn show(context: &Context, group: &str) -> anyhow::Result<u8> {
    let name = group_name(group)?;
    let detail = context.client()?.get_group(&name).await?;
    if context.format() == Format::Json {
        output::json(&detail)?;
        return Ok(0);
    }
    let (view, state) = (&detail.group, &detail.group.state);
    let mut lines = vec![
        format!("name           {}", state.name),
        format!("phase          {}", word(&state.phase)),
        format!("node           {}", or_dash(state.node.as_ref())),
        format!("tenure         {}", state.tenure),
        format!("token          {}", state.token),
        format!(
            "endpoints      {}",
            or_dash(Some(state.configuration.endpoints.join(",")).filter(|all| !all.is_empty()))
        ),
        format!("incarnation    {}", state.incarnation),
        format!("spec revision  {}", view.spec_revision),
        format!("spec           {}", serde_json::to_string(&view.spec)?),
    ];
    if let Some(cause) = &state.vacancy {
        lines.push(format!("last tenure    {}", word(cause)));
    }
    if view.transfer_pending {
        lines.push(format!(
            "transfer       pending, successor {}",
            or_dash(view.successor.as_ref())
        ));
    }
    if view.fault_reports > 0 {
        let count = view.fault_reports;
        lines.push(format!(
            "reported       as faulty by {count} contender(s): quorate why {name}"
        ));
    }
    if view.deleting {
        lines.push("deleting       once its tenure has ended".to_owned());
    }
    output::line(lines.join("\n"))?;
    if !detail.contenders.is_empty() {
        let mut table = Table::new(&["CONTENDER", "SESSION", "PRIORITY", "ENDPOINTS"]);
        for contender in &detail.contenders {
            table.row([
                contender.node.to_string(),
                contender.session.to_string(),
                contender.spec.priority.to_string(),
                contender.spec.configuration.endpoints.join(","),
            ]);
        }
        output::line("")?;
        output::table(&table)?;
    }
    Ok(0)
}

async fn update(context: &Context, args: &UpdateArgs) -> anyhow::Result<u8> {
    let name = group_name(&args.group)?;
    let client = context.client()?;
    let before = client.get_group(&name).await?.group;
    let spec = args.spec.over(before.spec.clone())?;
    let expected = args.if_revision.map_or(before.spec_revision, Revision);
    if expected != before.spec_revision {
        let found = before.spec_revision;
        let message = format!(
            "update group `{name}`: its spec was last changed at revision {found}, not {expected}"
        );
        return Err(Failure::new(Code::Conflict, message)
            .with_hint("read it again (`quorate group show`) and decide anew")
            .into());
    }
    if spec == before.spec {
        return context.done(&before, &format!("group `{name}` is so already"));
    }
    if args.dry_run {
        return context.say(&format!(
            "would change the spec of group `{name}` to {}",
            serde_json::to_string(&spec)?
        ));
    }
    // Conditional in any case: what was read is what is changed.
    let done = client.update_group(&name, spec, Some(expected)).await?;
    context.done(
        &done,
        &format!("updated group `{name}` at revision {}", done.revision),
    )
}

async fn rebalance(
    context: &Context,
    prefix: &str,
    moves_max: u32,
    careful: Careful,
) -> anyhow::Result<u8> {
    if careful.dry_run {
        return context.say(&format!(
            "would hand over at most {moves_max} leaderships of groups named `{prefix}...`"
        ));
    }
    context
        .confirm(
            careful,
            &format!("Hand over up to {moves_max} leaderships?"),
        )
        .await?;
    let moving = context.client()?.rebalance(prefix, moves_max).await?;
    context.done(
        &moving,
        &format!(
            "{} handovers started at revision {}",
            moving.moves, moving.revision
        ),
    )
}

async fn delete(
    context: &Context,
    group: &str,
    if_revision: Option<u64>,
    careful: Careful,
) -> anyhow::Result<u8> {
    let name = group_name(group)?;
    let client = context.client()?;
    if careful.dry_run {
        let view = client.get_group(&name).await?.group;
        return context.say(&format!(
            "would delete group `{name}`, held by {}",
            or_dash(view.state.node.as_ref())
        ));
    }
    context
        .confirm(
            careful,
            &format!("Delete group `{name}`? Its holder must stop leading."),
        )
        .await?;
    let done = client
        .delete_group(&name, if_revision.map(Revision))
        .await?;
    context.done(
        &done,
        &format!("deleted group `{name}` at revision {}", done.revision),
    )
}

/// Checks an optional node's name.
fn optional_node(name: Option<&String>) -> anyhow::Result<Option<quorate_types::NodeName>> {
    name.map(|name| node_name(name)).transpose()
}
