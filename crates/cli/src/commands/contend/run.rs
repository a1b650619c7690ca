//! The running COMMANDs, one behind a guard of its own for each group that is led.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::{GroupName, Leadership, TenureId};
use quorate_types::Time;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use crate::{clock, process};

/// How long before the end of the lease COMMAND is asked to stop, and killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Margins {
    pub(super) term_before: Duration,
    pub(super) kill_before: Duration,
}

/// How a COMMAND came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody asked it to.
    ByItself(u8),
    /// It was asked to stop for a handover.
    Handover,
    /// It was asked to stop because its tenure was revoked.
    Revoked,
    /// Its lease was not confirmed in time, or the leadership is lost.
    LeaseRanOut,
}

/// Why COMMAND was asked to stop, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Handover,
    Revoked,
    Lost,
}

struct Run {
    leadership: Leadership,
    input: ChildStdin,
    asked: Option<Asked>,
    /// The deadline that the guard was told last.
    term_at: Time,
}

/// All running COMMANDs.
///
/// # Invariants
/// - At most one for each group; `ends` has one task for each entry of `runs`.
pub(super) struct Runs {
    command: Vec<String>,
    margins: Margins,
    runs: BTreeMap<GroupName, Run>,
    ends: JoinSet<(GroupName, std::io::Result<std::process::ExitStatus>)>,
}

impl Runs {
    pub(super) fn new(command: &[String], margins: Margins) -> Self {
        Self {
            command: command.to_vec(),
            margins,
            runs: BTreeMap::new(),
            ends: JoinSet::new(),
        }
    }

    fn deadlines(&self, until: Time) -> (Time, Time) {
        (
            until - self.margins.term_before,
            until - self.margins.kill_before,
        )
    }

    /// Starts COMMAND for a leadership, unless one runs for the group: that one has to end first.
    pub(super) fn start(&mut self, leadership: &Leadership) -> anyhow::Result<()> {
        let group = leadership.group();
        let Some(until) = leadership.valid_until() else {
            return Ok(());
        };
        let (term_at, kill_at) = self.deadlines(until);
        // So near to its end that COMMAND would be stopped at once: the next confirmation starts it.
        if self.runs.contains_key(group) || !leadership.check() || clock::now() >= term_at {
            return Ok(());
        }
        let mut child = Command::from(std::process::Command::new(
            std::env::current_exe().context("find this program's own file")?,
        ))
        .arg("__guard")
        .args([
            "--term-at",
            &term_at.0.to_string(),
            "--kill-at",
            &kill_at.0.to_string(),
            "--",
        ])
        .args(&self.command)
        .env("QUORATE_GROUP", group.as_str())
        .env("QUORATE_TENURE", leadership.tenure().number.to_string())
        .env(
            "QUORATE_FENCING_TOKEN",
            leadership.fencing_token().to_string(),
        )
        .stdin(Stdio::piped())
        // Ctrl-C is for this process, which then stops COMMAND in good order.
        .process_group(0)
        .spawn()
        .context("start the guard of COMMAND")?;
        let input = child.stdin.take().context("tell the guard of COMMAND")?;
        self.runs.insert(
            group.clone(),
            Run {
                leadership: leadership.clone(),
                input,
                asked: None,
                term_at,
            },
        );
        let group = group.clone();
        self.ends.spawn(async move { (group, wait(child).await) });
        Ok(())
    }

    /// Asks COMMAND to stop for a handover; false where none runs for the leadership.
    pub(super) fn hand_over(&mut self, leadership: &Leadership) -> bool {
        self.ask(leadership.tenure(), Asked::Handover)
    }

    /// Asks COMMAND to stop because its tenure is revoked; false where none runs for it.
    pub(super) fn revoke(&mut self, leadership: &Leadership) -> bool {
        self.ask(leadership.tenure(), Asked::Revoked)
    }

    /// Asks COMMAND to stop because its leadership is lost, where one runs for it.
    pub(super) fn lost(&mut self, tenure: &TenureId) {
        self.ask(tenure, Asked::Lost);
    }

    fn ask(&mut self, tenure: &TenureId, asked: Asked) -> bool {
        match self.runs.get_mut(&tenure.group) {
            Some(run) if run.leadership.tenure() == tenure => {
                // The worse news counts.
                run.asked = run.asked.max(Some(asked));
                run.tell("stop\n");
                true
            }
            _ => false,
        }
    }

    /// Tells every guard until when its lease is confirmed.
    pub(super) fn extend(&mut self) {
        let margins = self.margins;
        for run in self.runs.values_mut() {
            let Some(until) = run.leadership.valid_until() else {
                continue;
            };
            let term_at = until - margins.term_before;
            if term_at > run.term_at {
                run.term_at = term_at;
                let kill_at = until - margins.kill_before;
                run.tell(&format!("lease {} {}\n", term_at.0, kill_at.0));
            }
        }
    }

    /// Waits until a COMMAND has ended; says how. Pending while none runs.
    pub(super) async fn next_end(&mut self) -> anyhow::Result<(Leadership, Ended)> {
        let Some(joined) = self.ends.join_next().await else {
            return std::future::pending().await;
        };
        let (group, status) = joined.context("wait for the guard of COMMAND")?;
        let status = status.context("wait for the guard of COMMAND")?;
        let run = self
            .runs
            .remove(&group)
            .expect("a run for each task that waits");
        let ended = match run.asked {
            Some(Asked::Handover) => Ended::Handover,
            Some(Asked::Revoked) => Ended::Revoked,
            Some(Asked::Lost) => Ended::LeaseRanOut,
            None if clock::now() >= run.term_at => Ended::LeaseRanOut,
            None => Ended::ByItself(process::shell_code(status)),
        };
        Ok((run.leadership, ended))
    }

    /// Stops all and waits until they are gone. The guards see to it that this ends before their leases do.
    pub(super) async fn stop_all(&mut self) {
        for run in self.runs.values_mut() {
            run.tell("stop\n");
        }
        while !self.ends.is_empty() {
            if let Err(error) = self.next_end().await {
                eprintln!("note: {error:#}");
            }
        }
    }
}

impl Run {
    /// A short line into an almost empty pipe: it fits, or the guard is gone or stuck and needs no word to act.
    fn tell(&mut self, line: &str) {
        use std::future::Future;
        let mut write = std::pin::pin!(self.input.write_all(line.as_bytes()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = write.as_mut().poll(&mut context);
    }
}

async fn wait(mut child: Child) -> std::io::Result<std::process::ExitStatus> {
    child.wait().await
}
