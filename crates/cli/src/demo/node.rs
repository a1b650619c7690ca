//! One node process of the demo: stands in every group, writes to the fenced resource while it leads, and records when it
//! believed that it led. Told on standard input to take checks, and later to act on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::{
    Client, ClientOptions, ContenderSpec, FencingToken, GroupName, Leadership, NodeName, NodeSpec,
    Position, ProposedConfiguration, Session, SessionEvent, SessionEvents, SessionOptions,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::record::Recorder;
use super::resource::ResourceClient;
use crate::clock;
use crate::context::Context;

/// How often the node looks at its lease and writes.
const TICK: Duration = Duration::from_millis(25);
/// Groups written for at each tick, in turn.
const WRITES_PER_TICK: usize = 10;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeProcessArgs {
    #[arg(long)]
    name: String,
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    groups: u32,
    #[arg(long)]
    ttl_ms: u64,
    #[arg(long)]
    resource: SocketAddr,
    #[arg(long)]
    record: PathBuf,
}

/// The node.
///
/// # Invariants
/// - A leadership is in `led` exactly while the record shows its belief as begun and not ended.
struct Node {
    led: BTreeMap<GroupName, Leadership>,
    recorder: Recorder,
    resource: ResourceClient,
    /// The next group to write for.
    turn: Option<GroupName>,
    /// Checks that were true when they were taken, with the token to act with.
    taken: Vec<(Leadership, FencingToken)>,
}

impl NodeProcessArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        crate::commands::server::start_logging("warn")?;
        let mut node = Node {
            led: BTreeMap::new(),
            recorder: Recorder::create(&self.record).context("open the record")?,
            resource: ResourceClient::connect(self.resource).await?,
            turn: None,
            taken: Vec::new(),
        };
        let client = Client::lazy(context.endpoints(), ClientOptions::default())?;
        let mut orders = BufReader::new(tokio::io::stdin()).lines();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (session, mut events) = self.open(&client).await?;
            loop {
                tokio::select! {
                    order = orders.next_line() => match order.context("read orders")? {
                        None => return Ok(0),
                        Some(order) => node.obey(&order).await?,
                    },
                    event = events.next() => {
                        let Some(event) = event else { break };
                        let over = matches!(event, SessionEvent::SessionLost { .. });
                        node.on_event(event).await?;
                        if over {
                            break;
                        }
                    }
                    _ = tick.tick() => node.on_tick().await?,
                }
            }
            // Everything is lost with the session; the next one starts afresh.
            node.end_all()?;
            drop(session);
        }
    }

    async fn open(&self, client: &Client) -> anyhow::Result<(Session, SessionEvents)> {
        let spec = NodeSpec::new(NodeName::new(&self.name)?);
        let options = SessionOptions {
            ttl: Duration::from_millis(self.ttl_ms),
            ..SessionOptions::for_node(spec)
        };
        let (session, events) = client
            .open_session(options)
            .await
            .context("open a session")?;
        let configuration = ProposedConfiguration {
            endpoints: vec![format!("demo://{}", self.name)],
            metadata: BTreeMap::new(),
        };
        let spec = ContenderSpec {
            priority: 0,
            configuration,
        };
        let mut entries = Vec::new();
        for n in 0..self.groups {
            entries.push((
                GroupName::new(&format!("{}{n:04}", self.prefix))?,
                spec.clone(),
            ));
        }
        for batch in entries.chunks(quorate_client::api::BATCH_MAX) {
            session
                .contend(batch.iter().cloned())
                .await
                .context("stand in the groups")?;
        }
        Ok((session, events))
    }
}

impl Node {
    async fn on_event(&mut self, event: SessionEvent) -> anyhow::Result<()> {
        match event {
            SessionEvent::Active { leadership, .. } => {
                self.confirmed(&leadership)?;
                let (tenure, token) = (leadership.tenure().number, leadership.fencing_token());
                self.recorder
                    .begin(clock::now(), leadership.group(), tenure, token)?;
                self.led
                    .insert(leadership.group().clone(), leadership.clone());
                // The first write of a tenure fences out every earlier one.
                if leadership.check() {
                    self.resource
                        .write(&[(leadership.group().clone(), token)])
                        .await?;
                }
            }
            SessionEvent::Poll { leadership, .. } => drop(leadership.polled(Position(0))),
            SessionEvent::Elected { leadership, .. } | SessionEvent::CatchUp { leadership } => {
                drop(leadership.ready(Position(0)));
            }
            SessionEvent::HandoverRequested { leadership, .. }
            | SessionEvent::Revoked { leadership } => {
                // Nothing is in flight: each write is awaited. Asking ends before the release, and so does the record.
                self.end(leadership.group(), leadership.tenure().number)?;
                drop(leadership.release(None));
            }
            SessionEvent::Lost { tenure, .. } => self.end(&tenure.group, tenure.number)?,
            SessionEvent::Confirmed { leadership } => self.confirmed(&leadership)?,
            // Nothing to do: every write asks first.
            _ => {}
        }
        Ok(())
    }

    fn confirmed(&mut self, leadership: &Leadership) -> anyhow::Result<()> {
        if let Some(until) = leadership.valid_until() {
            self.recorder.confirmed(until)?;
        }
        Ok(())
    }

    async fn on_tick(&mut self) -> anyhow::Result<()> {
        let Some(any) = self.led.values().next().cloned() else {
            return Ok(());
        };
        // One lease carries all of them.
        self.confirmed(&any)?;
        let after = self.turn.take();
        let later = self.led.range::<GroupName, _>((
            after
                .as_ref()
                .map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
            std::ops::Bound::Unbounded,
        ));
        let due: Vec<Leadership> = later
            .take(WRITES_PER_TICK)
            .map(|(_, leadership)| leadership.clone())
            .collect();
        self.turn = due.last().map(|leadership| leadership.group().clone());
        let writes: Vec<_> = due
            .iter()
            .filter(|leadership| leadership.check())
            .map(|leadership| (leadership.group().clone(), leadership.fencing_token()))
            .collect();
        self.resource.write(&writes).await?;
        Ok(())
    }

    fn end(
        &mut self,
        group: &GroupName,
        tenure: quorate_client::TenureNumber,
    ) -> anyhow::Result<()> {
        if self
            .led
            .get(group)
            .is_some_and(|leadership| leadership.tenure().number == tenure)
        {
            self.led.remove(group);
            self.recorder.end(clock::now(), group, tenure)?;
        }
        Ok(())
    }

    fn end_all(&mut self) -> anyhow::Result<()> {
        for (group, leadership) in std::mem::take(&mut self.led) {
            self.recorder
                .end(clock::now(), &group, leadership.tenure().number)?;
        }
        Ok(())
    }

    async fn obey(&mut self, order: &str) -> anyhow::Result<()> {
        match order.split_once(' ').unwrap_or((order, "")) {
            ("check", count) => {
                let count: usize = count.parse().context("read an order")?;
                let true_now = self
                    .led
                    .values()
                    .filter(|leadership| leadership.check())
                    .take(count);
                self.taken = true_now
                    .map(|leadership| (leadership.clone(), leadership.fencing_token()))
                    .collect();
                let groups: Vec<_> = self
                    .taken
                    .iter()
                    .map(|(leadership, _)| leadership.group().to_string())
                    .collect();
                println!("checked {}", groups.join(" "));
            }
            ("act", _) => {
                // Asked again at once: the first answer after a pause must be no.
                let checks_true = self
                    .taken
                    .iter()
                    .filter(|(leadership, _)| leadership.check())
                    .count();
                // And acted on nevertheless, as code does that was paused between its check and its write.
                let writes: Vec<_> = self
                    .taken
                    .drain(..)
                    .map(|(leadership, token)| (leadership.group().clone(), token))
                    .collect();
                let admitted = self
                    .resource
                    .write(&writes)
                    .await?
                    .into_iter()
                    .filter(|admitted| *admitted)
                    .count();
                println!("acted {checks_true} {admitted} {}", writes.len() - admitted);
            }
            _ => anyhow::bail!("read an order: `{order}` is none"),
        }
        Ok(())
    }
}
