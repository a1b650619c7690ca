//! `quorate demo`: real servers and nodes that elect, fail over and hand over, watched for two leaders at once.

mod cluster;
mod fleet;
pub(crate) mod node;
mod record;
mod report;
mod resource;
mod stage;
mod steps;

use anyhow::Context as _;

use crate::exit::{Code, Failure};
use crate::signals::StopSignals;
use report::Reporter;
use stage::Stage;

/// Starts three servers and six nodes that stand in 1,000 groups, kills and stops some of them, and checks every
/// node's record of when it believed that it led.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many groups.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    groups: u32,
    /// How many nodes; at least three: one is killed, one drained, one stopped.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(3..=100))]
    nodes: u32,
    /// The nodes' session TTL in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    ttl_ms: u64,
    /// Stay up afterwards and print the endpoints, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print one JSON object in the end, and progress to standard error.
    #[arg(long)]
    json: bool,
}

impl DemoArgs {
    pub(crate) async fn run(&self) -> anyhow::Result<u8> {
        let directory = tempfile::Builder::new()
            .prefix("quorate-demo-")
            .tempdir()
            .context("make a temporary directory")?;
        let mut reporter = Reporter::new(self.json);
        let mut signals = StopSignals::listen()?;
        // A signal drops the stage, and with it every process that it started.
        let outcome = tokio::select! {
            outcome = self.play(directory.path(), &mut reporter) => outcome,
            code = signals.next() => return Ok(code),
        };
        match outcome {
            Ok(stage) => {
                if self.keep {
                    let endpoints = stage.endpoints().join(",");
                    reporter.say("the servers and nodes stay up until Ctrl-C:");
                    reporter.say(&format!("export QUORATE_ENDPOINTS={endpoints}"));
                    signals.next().await;
                }
                Ok(0)
            }
            Err(error) => {
                // Kept for whoever wants to know why.
                let kept = directory.keep();
                let hint = format!("the processes' logs and records are in {}", kept.display());
                Err(Failure::new(Code::Failed, format!("{error:#}"))
                    .with_hint(hint)
                    .into())
            }
        }
    }

    /// Plays and judges; gives the stage with everything that runs on it where all is well.
    async fn play(
        &self,
        directory: &std::path::Path,
        reporter: &mut Reporter,
    ) -> anyhow::Result<Stage> {
        let mut stage = Stage::new(directory, self.groups, self.nodes, self.ttl_ms).await?;
        let played = steps::play(&mut stage, reporter).await;
        let findings = match (stage.findings().await, &played) {
            (Ok(findings), _) => findings,
            // What went wrong first is what counts.
            (Err(_), Err(_)) => record::Findings::default(),
            (Err(error), Ok(())) => return Err(error),
        };
        let fenced = stage.stale_writes_fenced();
        let summary = reporter.summary(self.groups, findings, fenced, played.as_ref().err());
        reporter.print(&summary)?;
        played?;
        if !summary.ok {
            return Err(Failure::new(Code::Failed, "a guarantee was violated").into());
        }
        Ok(stage)
    }
}

/// Checks the records of nodes, as the demo does in the end.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoCheckArgs {
    #[arg(required = true)]
    records: Vec<std::path::PathBuf>,
}

impl DemoCheckArgs {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let mut beliefs = Vec::new();
        for path in &self.records {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read `{}`", path.display()))?;
            beliefs.extend(
                record::read(&path.display().to_string(), &text).map_err(anyhow::Error::msg)?,
            );
        }
        let findings = record::check(beliefs);
        crate::output::json_line(&findings)?;
        Ok(u8::from(findings.overlaps + findings.order_violations > 0))
    }
}
