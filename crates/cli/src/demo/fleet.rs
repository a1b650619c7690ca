//! The demo's nodes, from the outside: processes that stand in every group, and what they are told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quorate_types::NodeName;
use rustix::process::{Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::record;
use crate::process;

/// What a node process is started with.
pub(super) struct NodeSettings<'a> {
    pub(super) directory: &'a Path,
    pub(super) endpoints: &'a [String],
    pub(super) resource: SocketAddr,
    pub(super) prefix: &'a str,
    pub(super) groups: u32,
    pub(super) ttl_ms: u64,
}

/// One node process. Killed when dropped.
pub(super) struct NodeProcess {
    pub(super) name: NodeName,
    record: PathBuf,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What a node did after it was stopped and continued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acted {
    /// Checks that were true after continuing; each is a violation.
    pub(super) checks_true: usize,
    /// Writes that the resource let through.
    pub(super) admitted: usize,
    /// Writes that it turned away.
    pub(super) stale: usize,
}

impl NodeProcess {
    pub(super) fn start(name: NodeName, settings: &NodeSettings<'_>) -> anyhow::Result<Self> {
        let log = std::fs::File::create(settings.directory.join(format!("{name}.log")))
            .context("open a log file")?;
        let record = settings.directory.join(format!("{name}.record"));
        let mut command = Command::from(process::this_program()?);
        let mut child = command
            .args(["--endpoints", &settings.endpoints.join(",")])
            .arg("__demo-node")
            .args([
                "--name",
                name.as_str(),
                "--prefix",
                settings.prefix,
                "--resource",
                &settings.resource.to_string(),
            ])
            .args([
                "--groups",
                &settings.groups.to_string(),
                "--ttl-ms",
                &settings.ttl_ms.to_string(),
            ])
            .arg("--record")
            .arg(&record)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start node {name}"))?;
        let input = child.stdin.take().context("a node's input")?;
        let output = BufReader::new(child.stdout.take().context("a node's output")?).lines();
        Ok(Self {
            name,
            record,
            child,
            input,
            output,
        })
    }

    /// Kills it as `kill -9` does.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("kill node {}", self.name))
    }

    /// Has it ask of up to `count` groups that it leads whether it leads them, and remember the answers; how many were true.
    pub(super) async fn take_checks(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let answer = self.ask(&format!("check {count}\n")).await?;
        let Some(groups) = answer.strip_prefix("checked") else {
            bail!("node {}: answered `{answer}`", self.name)
        };
        Ok(groups.split_whitespace().map(str::to_owned).collect())
    }

    /// Stops it where it stands (SIGSTOP).
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on, with the order to act at once on the checks that it took before.
    pub(super) async fn go_on_and_act(&mut self) -> anyhow::Result<Acted> {
        self.input
            .write_all(b"act\n")
            .await
            .with_context(|| format!("tell node {}", self.name))?;
        self.signal(Signal::CONT)?;
        let answer = self.answer().await?;
        let words: Vec<&str> = answer.split_whitespace().collect();
        let ["acted", checks_true, admitted, stale] = words[..] else {
            bail!("node {}: answered `{answer}`", self.name)
        };
        Ok(Acted {
            checks_true: checks_true.parse()?,
            admitted: admitted.parse()?,
            stale: stale.parse()?,
        })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self
            .child
            .id()
            .with_context(|| format!("node {} has ended", self.name))?;
        kill_process(process::pid(id), signal).with_context(|| format!("signal node {}", self.name))
    }

    async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.input
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("tell node {}", self.name))?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(Duration::from_secs(10), self.output.next_line()).await;
        let line = line.with_context(|| format!("node {}: no answer in 10 s", self.name))?;
        line.with_context(|| format!("hear node {}", self.name))?
            .with_context(|| format!("node {} has ended", self.name))
    }

    /// The beliefs that it recorded.
    pub(super) fn beliefs(
        &self,
    ) -> anyhow::Result<Vec<(quorate_types::GroupName, record::Belief)>> {
        let text = std::fs::read_to_string(&self.record)
            .with_context(|| format!("read the record of node {}", self.name))?;
        record::read(self.name.as_str(), &text).map_err(anyhow::Error::msg)
    }
}
