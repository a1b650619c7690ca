//! The running COMMANDs, one behind a guard of its own for each group that is led.

use std::collections::BTreeMap;

use anyhow::Context as _;
use quorate_client::{GroupName, Leadership, TenureId};
use quorate_types::Time;
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinSet;

use crate::commands::guard::{self, Margins};
use crate::{clock, process};

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

    /// Starts COMMAND for a leadership, unless one runs for the group: that one has to end first.
    pub(super) fn start(&mut self, leadership: &Leadership) -> anyhow::Result<()> {
        let group = leadership.group();
        let Some(until) = leadership.valid_until() else {
            return Ok(());
        };
        let (term_at, kill_at) = self.margins.deadlines(until);
        // So near to its end that COMMAND would be stopped at once: the next confirmation starts it.
        if self.runs.contains_key(group) || !leadership.check() || clock::now() >= term_at {
            return Ok(());
        }
        let environment = [
            ("QUORATE_GROUP", group.to_string()),
            ("QUORATE_TENURE", leadership.tenure().number.to_string()),
            (
                "QUORATE_FENCING_TOKEN",
                leadership.fencing_token().to_string(),
            ),
        ];
        let mut child = guard::start(&self.command, term_at, kill_at, environment)?;
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
            let (term_at, kill_at) = margins.deadlines(until);
            if term_at > run.term_at {
                run.term_at = term_at;
                run.tell(&guard::lease_line(term_at, kill_at));
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
    fn tell(&mut self, line: &str) {
        guard::tell(&mut self.input, line);
    }
}

async fn wait(mut child: Child) -> std::io::Result<std::process::ExitStatus> {
    child.wait().await
}
