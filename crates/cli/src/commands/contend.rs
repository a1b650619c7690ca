//! `quorate contend GROUP... -- COMMAND`: one COMMAND for each group that is led, and only while it is led.
//!
//! When COMMAND is asked to stop (SIGTERM), and when it is killed (SIGKILL), both counted back from the end of the lease:
//!
//! ```text
//! lease confirmed ........ SIGTERM ............ SIGKILL .... lease ends .. the group may be led by another
//!                          | --term-before      | --kill-before
//! ```
//!
//! Each confirmation, about every third of the TTL, puts both off. A process of its own (`__guard`) keeps these deadlines, so
//! that they hold also where this one is killed, stopped or stuck.

mod run;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::{
    ApiErrorKind, Client, ContenderSpec, GroupName, GroupSpec, LostCause, NodeName, NodeSpec,
    Position, ProposedConfiguration, Session, SessionEvent, SessionEvents, SessionOptions,
};

use crate::args::{duration, pair};
use crate::commands::guard::MarginArgs;
use crate::context::{Context, group_name, node_name};
use crate::exit::{Code, Failure};
use crate::signals::StopSignals;
use run::{Ended, Runs};

/// Stands in groups and runs COMMAND for each one that is led.
///
/// COMMAND finds QUORATE_GROUP, QUORATE_TENURE and QUORATE_FENCING_TOKEN in its environment. Its standard input is empty. When
/// it ends by itself the group is released and the exit code of COMMAND becomes that of this command; when its
/// leadership ends it is stopped, and this command stands again.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ContendArgs {
    /// Where to stand.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// What to run.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Create groups that do not exist, with the default spec.
    #[arg(long)]
    create: bool,
    /// End when the first leadership ends, instead of standing again: code 7 when it was lost, 0 when it was handed over.
    #[arg(long)]
    once: bool,
    /// This node's name, unique among live sessions; by default the host's name and the process id.
    #[arg(long)]
    name: Option<String>,
    /// How long the session lives without a sign of this process.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    ttl: Duration,
    #[command(flatten)]
    margins: MarginArgs,
    /// Higher is preferred.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// A label of this node, such as zone=a; repeat for more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, value_delimiter = ',')]
    label: Vec<(String, String)>,
    /// Where clients reach COMMAND while it leads; published with the leadership. Repeat for more.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    publish: Vec<String>,
}

/// Why a session's part is over.
enum Over {
    /// Every group is done with; the exit code.
    Done(u8),
    /// The session is gone: open another.
    SessionLost(LostCause),
}

impl ContendArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let groups = self
            .groups
            .iter()
            .map(|group| group_name(group))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let margins = self.margins.of(self.ttl)?;
        let node = self.node()?;
        let client = context.client()?;
        if self.create {
            create_missing(&client, &groups).await?;
        }
        let mut stop = StopSignals::listen()?;
        let mut standing = Standing { groups, code: 0 };
        loop {
            let (session, mut events) = client
                .open_session(SessionOptions {
                    ttl: self.ttl,
                    ..SessionOptions::for_node(node.clone())
                })
                .await?;
            if self.ttl < session.ttl_min_safe() {
                let safe = session.ttl_min_safe();
                eprintln!(
                    "note: with a TTL of {:?} a change of the backbone's leader may cost the leadership; {safe:?} is safe",
                    self.ttl
                );
            }
            if let Err(error) = self.stand(&session, &standing.groups).await {
                close(session).await;
                return Err(error);
            }
            let mut runs = Runs::new(&self.command, margins);
            let over = self
                .follow(&session, &mut events, &mut runs, &mut standing, &mut stop)
                .await;
            // Whatever happened: no COMMAND outlives its leadership, and the leadership no COMMAND.
            runs.stop_all().await;
            match over {
                Ok(Over::Done(code)) => {
                    close(session).await;
                    return Ok(code);
                }
                Err(error) => {
                    close(session).await;
                    return Err(error);
                }
                Ok(Over::SessionLost(cause)) => {
                    if self.once {
                        return Err(Failure::new(
                            Code::Lost,
                            format!("the session is over ({cause:?})"),
                        )
                        .into());
                    }
                    eprintln!("note: the session is over ({cause:?}); opening another");
                }
            }
        }
    }

    fn node(&self) -> anyhow::Result<NodeSpec> {
        let name: NodeName = match &self.name {
            Some(name) => node_name(name)?,
            None => {
                let host = rustix::system::uname()
                    .nodename()
                    .to_string_lossy()
                    .into_owned();
                node_name(&format!("{host}-{}", std::process::id()))?
            }
        };
        let labels: BTreeMap<String, String> = self.label.iter().cloned().collect();
        Ok(NodeSpec {
            labels,
            ..NodeSpec::new(name)
        })
    }

    async fn stand(&self, session: &Session, groups: &[GroupName]) -> anyhow::Result<()> {
        let configuration = ProposedConfiguration {
            endpoints: self.publish.clone(),
            metadata: BTreeMap::new(),
        };
        let spec = ContenderSpec {
            priority: self.priority,
            configuration,
        };
        let contention = session
            .contend(groups.iter().map(|group| (group.clone(), spec.clone())))
            .await?;
        let Some((group, error)) = contention.refused().first() else {
            return Ok(());
        };
        let refused =
            anyhow::Error::new(error.clone()).context(format!("stand in group `{group}`"));
        if error.kind == ApiErrorKind::UnknownGroup {
            let hint = "--create creates missing groups, `quorate group create` too";
            return Err(Failure::new(Code::NotFound, format!("{refused:#}"))
                .with_hint(hint)
                .into());
        }
        Err(Failure::new(Code::Conflict, format!("{refused:#}")).into())
    }

    async fn follow(
        &self,
        session: &Session,
        events: &mut SessionEvents,
        runs: &mut Runs,
        standing: &mut Standing,
        stop: &mut StopSignals,
    ) -> anyhow::Result<Over> {
        // Deadlines move on with each confirmation; the guards hear of it well before they would act.
        let mut tick = tokio::time::interval(
            (self.ttl / 40).clamp(Duration::from_millis(5), Duration::from_millis(250)),
        );
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                event = events.next() => match event {
                    None => return Ok(Over::SessionLost(LostCause::SessionGone)),
                    Some(SessionEvent::SessionLost { cause }) => return Ok(Over::SessionLost(cause)),
                    Some(event) => on_event(event, runs)?,
                },
                ended = runs.next_end() => Some(ended?),
                _ = tick.tick() => {
                    runs.extend();
                    None
                }
                code = stop.next() => return Ok(Over::Done(code)),
            };
            if let Some((leadership, ended)) = ended
                && let Some(over) = self
                    .on_end(session, runs, standing, &leadership, ended)
                    .await?
            {
                return Ok(over);
            }
        }
    }

    /// COMMAND has ended, or a leadership has without one.
    async fn on_end(
        &self,
        session: &Session,
        runs: &mut Runs,
        standing: &mut Standing,
        leadership: &quorate_client::Leadership,
        ended: Ended,
    ) -> anyhow::Result<Option<Over>> {
        let group = leadership.group();
        if !standing.groups.contains(group) {
            // The handover that withdrawing asked for: released already.
            return Ok(None);
        }
        match ended {
            Ended::ByItself(code) => {
                // First withdrawn, or it would be elected again at once.
                session.withdraw([group.clone()]).await?;
                leadership.release(None).await?;
                standing.groups.retain(|standing| standing != group);
                // The first failure is what the user wants to know of.
                if standing.code == 0 {
                    standing.code = code;
                }
                Ok(standing
                    .groups
                    .is_empty()
                    .then_some(Over::Done(standing.code)))
            }
            Ended::Handover => {
                leadership.release(None).await?;
                Ok(self.once.then_some(Over::Done(0)))
            }
            Ended::Revoked if !self.once => {
                leadership.release(None).await?;
                Ok(None)
            }
            Ended::Revoked | Ended::LeaseRanOut if self.once => Err(Failure::new(
                Code::Lost,
                format!("the leadership of group `{group}` was lost"),
            )
            .into()),
            Ended::Revoked | Ended::LeaseRanOut => {
                // Confirmed again meanwhile: it goes on under the same tenure, with a new COMMAND.
                if leadership.check() {
                    runs.start(leadership)?;
                }
                Ok(None)
            }
        }
    }
}

/// What this command still has to do.
struct Standing {
    /// Where it stands.
    groups: Vec<GroupName>,
    /// The exit code so far.
    code: u8,
}

fn on_event(
    event: SessionEvent,
    runs: &mut Runs,
) -> anyhow::Result<Option<(quorate_client::Leadership, Ended)>> {
    match event {
        SessionEvent::Active { leadership, .. } | SessionEvent::Confirmed { leadership } => {
            runs.start(&leadership)?;
        }
        // COMMAND has no position and needs no preparation that it could be asked for.
        SessionEvent::Poll { leadership, .. } => drop(leadership.polled(Position(0))),
        SessionEvent::Elected { leadership, .. } | SessionEvent::CatchUp { leadership } => {
            drop(leadership.ready(Position(0)));
        }
        SessionEvent::HandoverRequested { leadership, .. } => {
            let is_running = runs.hand_over(&leadership);
            return Ok((!is_running).then_some((leadership, Ended::Handover)));
        }
        SessionEvent::Revoked { leadership } => {
            let is_running = runs.revoke(&leadership);
            return Ok((!is_running).then_some((leadership, Ended::Revoked)));
        }
        SessionEvent::Unconfirmed { leadership } => runs.lost(leadership.tenure()),
        SessionEvent::Lost { tenure, .. } => runs.lost(&tenure),
        _ => {}
    }
    Ok(None)
}

/// Lets everything go at once, rather than when the session expires.
async fn close(session: Session) {
    if let Err(error) = session.close().await {
        eprintln!("note: {:#}", anyhow::Error::new(error));
    }
}

async fn create_missing(client: &Client, groups: &[GroupName]) -> anyhow::Result<()> {
    for group in groups {
        match client
            .create_groups(vec![(group.clone(), GroupSpec::default())])
            .await
        {
            Ok(_) => {}
            Err(error) if error.api_kind() == Some(ApiErrorKind::GroupExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
