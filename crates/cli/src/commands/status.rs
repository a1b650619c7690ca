//! `quorate status` and `quorate transfer-leader`: the servers, and what is under way.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::api::{Role, ServerStatus};
use quorate_types::ReplicaId;
use serde::Serialize;

use crate::args::Careful;
use crate::context::{Context, word};
use crate::exit::{Code, Failure};
use crate::output::{self, Format, Table};

/// Shows servers, groups by phase, and what is under way.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Ask only the endpoints given, not the other members that they name.
    #[arg(long)]
    only_endpoints: bool,
}

/// One server, or why it could not be asked.
#[derive(Debug, Serialize)]
struct Asked {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ServerStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How long one server is waited for: the others' answers are wanted soon.
const ASK_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
struct Status {
    servers: Vec<Asked>,
}

impl StatusArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let servers = ask_all(context, context.endpoints(), !self.only_endpoints).await?;
        if servers.iter().all(|server| server.status.is_none()) {
            let errors: Vec<_> = servers
                .iter()
                .filter_map(|s| Some(format!("{}: {}", s.endpoint, s.error.as_ref()?)))
                .collect();
            let hint = "is a server running there? --endpoints or QUORATE_ENDPOINTS says where to look; `quorate dev` starts three";
            return Err(Failure::new(
                Code::Unavailable,
                format!("no server answers: {}", errors.join("; ")),
            )
            .with_hint(hint)
            .into());
        }
        match context.format() {
            Format::Json => output::json(&Status { servers })?,
            Format::Table => print(&servers)?,
        }
        Ok(0)
    }
}

/// Asks every endpoint, and the members that they name.
async fn ask_all(
    context: &Context,
    endpoints: &[String],
    members_too: bool,
) -> anyhow::Result<Vec<Asked>> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut wait: Vec<String> = endpoints.to_vec();
    let mut known: BTreeSet<String> = wait.iter().cloned().collect();
    while !wait.is_empty() {
        let mut tasks = Vec::new();
        for endpoint in std::mem::take(&mut wait) {
            let context = context.clone();
            tasks.push(tokio::spawn(async move { ask(&context, endpoint).await }));
        }
        for task in tasks {
            let one = task.await.context("ask a server")??;
            if members_too && let Some(status) = &one.status {
                let scheme = one
                    .endpoint
                    .split_once("://")
                    .map_or("http", |(scheme, _)| scheme);
                let seen: BTreeSet<ReplicaId> = asked
                    .iter()
                    .filter_map(|a| Some(a.status.as_ref()?.id))
                    .collect();
                for member in status.members.iter().filter(|m| {
                    !m.client_address.is_empty() && m.id != status.id && !seen.contains(&m.id)
                }) {
                    let endpoint = format!("{scheme}://{}", member.client_address);
                    if known.insert(endpoint.clone()) {
                        wait.push(endpoint);
                    }
                }
            }
            // One server under two addresses is one server.
            let id = one.status.as_ref().map(|status| status.id);
            if id.is_none() || !asked.iter().any(|a| a.status.as_ref().map(|s| s.id) == id) {
                asked.push(one);
            }
        }
    }
    asked.sort_by_key(|one| one.status.as_ref().map_or(u64::MAX, |status| status.id.0));
    Ok(asked)
}

async fn ask(context: &Context, endpoint: String) -> anyhow::Result<Asked> {
    let client = context.client_of(std::slice::from_ref(&endpoint))?;
    let mut answers = client.status_of_all(context.timeout().min(ASK_MAX)).await;
    let (_, answer) = answers.pop().expect("one endpoint, one answer");
    Ok(match answer {
        Ok(status) => Asked {
            endpoint,
            status: Some(status),
            error: None,
        },
        Err(error) => Asked {
            endpoint,
            status: None,
            error: Some(format!("{:#}", anyhow::Error::new(error))),
        },
    })
}

/// Whose word counts on what all should agree on: the leader's, else that of the most advanced.
fn best(servers: &[Asked]) -> Option<&ServerStatus> {
    let statuses = servers.iter().filter_map(|server| server.status.as_ref());
    statuses.max_by_key(|status| (status.role == Role::Leader, status.term, status.applied))
}

fn print(servers: &[Asked]) -> anyhow::Result<()> {
    let Some(best) = best(servers) else {
        return Ok(());
    };
    output::line(format!(
        "cluster {}, membership version {}, revision {}",
        best.cluster, best.config_epoch, best.revision
    ))?;
    let mut table = Table::new(&[
        "SERVER", "NAME", "ENDPOINT", "ROLE", "TERM", "COMMIT", "APPLIED", "VERSION", "UPTIME",
    ]);
    for server in servers {
        match &server.status {
            Some(status) => table.row([
                status.id.to_string(),
                status.name.clone(),
                server.endpoint.clone(),
                word(&status.role),
                status.term.to_string(),
                status.commit.to_string(),
                status.applied.to_string(),
                status.version.clone(),
                format!("{} s", status.uptime_ms / 1_000),
            ]),
            None => {
                let dash = || "-".to_owned();
                table.row([
                    dash(),
                    dash(),
                    server.endpoint.clone(),
                    "unreachable".to_owned(),
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                ]);
            }
        }
    }
    output::line("")?;
    output::table(&table)?;
    if best.leader.is_none() {
        output::line(
            "\nno leader: reads and changes wait until a majority of servers reach each other",
        )?;
    }
    let phases: Vec<String> = best
        .groups
        .iter()
        .map(|(phase, count)| format!("{count} {}", word(phase)))
        .collect();
    let groups: u64 = best.groups.iter().map(|(_, count)| count).sum();
    output::line(format!(
        "\n{} sessions, {} nodes, {groups} groups{}",
        best.sessions,
        best.nodes,
        if phases.is_empty() {
            String::new()
        } else {
            format!(": {}", phases.join(", "))
        }
    ))?;
    for (what, names, total) in [
        (
            "pending transfers",
            &best.pending_transfers,
            best.pending_transfers_total,
        ),
        (
            "pending spec changes",
            &best.pending_specs,
            best.pending_specs.len() as u64,
        ),
    ] {
        let shown: Vec<String> = names.iter().take(10).map(ToString::to_string).collect();
        let more = total.saturating_sub(shown.len() as u64);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        output::line(format!(
            "{what}: {}",
            if total == 0 {
                "none".to_owned()
            } else {
                format!("{}{more}", shown.join(", "))
            }
        ))?;
    }
    let drains: Vec<String> = best
        .drains
        .iter()
        .map(|drain| {
            format!(
                "{} ({}, {} groups left)",
                drain.node,
                if drain.cordoned {
                    "cordoned"
                } else {
                    "draining"
                },
                drain.tenures_left
            )
        })
        .collect();
    output::line(format!(
        "drains: {}",
        if drains.is_empty() {
            "none".to_owned()
        } else {
            drains.join(", ")
        }
    ))
}

/// Hands the backbone's leadership over.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TransferLeaderArgs {
    /// To this server, by id or name; without it to the one that is furthest.
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    #[command(flatten)]
    careful: Careful,
}

impl TransferLeaderArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let status = client.status().await?;
        let to = match &self.to {
            None => None,
            Some(text) => Some(self.find(&status, text)?),
        };
        let target = to.map_or_else(
            || "the most advanced server".to_owned(),
            |id| format!("server {id}"),
        );
        if self.careful.dry_run {
            return context.say(&format!(
                "would hand the leadership of the backbone to {target}"
            ));
        }
        context
            .confirm(
                self.careful,
                &format!("Hand the leadership of the backbone to {target}?"),
            )
            .await?;
        client.transfer_leader(to).await?;
        #[derive(Serialize)]
        struct Ordered {
            to: Option<ReplicaId>,
        }
        context.done(
            &Ordered { to },
            &format!("the backbone's leadership goes to {target}; `quorate status` shows it"),
        )
    }

    #[expect(clippy::unused_self, reason = "belongs to the command")]
    fn find(&self, status: &ServerStatus, text: &str) -> anyhow::Result<ReplicaId> {
        let found = status
            .members
            .iter()
            .find(|member| member.name == text || member.id.to_string() == text);
        found.map(|member| member.id).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("server `{text}` is not a member"))
                .with_hint("`quorate status` lists the members")
                .into()
        })
    }
}
