//! `quorate why GROUP`: why this holder, and why not the others.

use std::fmt::Write as _;

use quorate_client::api::{Explanation, Phase};

use crate::context::{Context, group_name, word};
use crate::output::{self, Format, Table, or_dash};

/// Explains a group's leadership.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// Which group.
    group: String,
}

impl WhyArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let group = group_name(&self.group)?;
        let why = context.client()?.explain_group(&group).await?;
        match context.format() {
            Format::Json => output::json(&why)?,
            Format::Table => print(&why)?,
        }
        Ok(0)
    }
}

fn print(why: &Explanation) -> anyhow::Result<()> {
    let state = &why.state;
    let mut text = String::new();
    let holder = state
        .node
        .as_ref()
        .map_or_else(|| "nobody".to_owned(), ToString::to_string);
    writeln!(
        text,
        "{}: {}, {holder} (tenure {}, token {})",
        state.name,
        word(&state.phase),
        state.tenure,
        state.token
    )?;
    writeln!(text, "{}", why.reason)?;
    for pending in &why.pending {
        writeln!(text, "pending: {pending}")?;
    }
    if state.phase == Phase::Revoking {
        for report in &why.fault_reports {
            writeln!(text, "deposed: {} said {:?}", report.node, report.reason)?;
        }
    }
    output::print(&text)?;
    if !why.contenders.is_empty() {
        let mut table = Table::new(&["NODE", "HOLDER", "ELIGIBLE", "PRIORITY", "VERDICT"]);
        for contender in &why.contenders {
            let yes = |is| if is { "yes" } else { "no" }.to_owned();
            table.row([
                contender.node.to_string(),
                yes(contender.holder),
                yes(contender.eligible),
                contender.priority.to_string(),
                contender.verdict.clone(),
            ]);
        }
        output::line("")?;
        output::table(&table)?;
    }
    if !why.history.is_empty() {
        let mut table = Table::new(&["TENURE", "TOKEN", "NODE", "LASTED", "ENDED AGO", "ENDED BY"]);
        for past in &why.history {
            table.row([
                past.number.to_string(),
                past.token.to_string(),
                or_dash(past.node.as_ref()),
                seconds(past.ended_ms.saturating_sub(past.began_ms)),
                seconds(why.cluster_time_ms.saturating_sub(past.ended_ms)),
                match past.revoked_for {
                    Some(why) => format!("{}, revoked: {}", word(&past.cause), word(&why)),
                    None => word(&past.cause),
                },
            ]);
        }
        output::line("")?;
        output::table(&table)?;
        // Who deposed whom, and why: the table has no room for it.
        for past in &why.history {
            for report in &past.fault_reports {
                output::line(format!(
                    "tenure {} was deposed: {} said {:?}",
                    past.number, report.node, report.reason
                ))?;
            }
        }
    }
    Ok(())
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}
