//! Builds the scratch copy, and runs what is to notice the mistake in it.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::list::Detector;
use super::tree::Tree;

/// A mutant may make the simulated world run in a circle: then it is given up after this.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All clean.
    Nothing {
        /// How many seeds.
        after: u64,
    },
    /// Something did not hold.
    Failure {
        /// The checker or test.
        by: String,
        /// The seed, of the simulator.
        seed: Option<u64>,
        /// What it said.
        what: String,
    },
    /// No end within [`PATIENCE`].
    Endless,
}

/// What compilers say, or the result.
pub(crate) type Built<T> = Result<T, String>;

/// Builds the simulator; the inner error is the compiler's.
pub(crate) fn build_simulator(tree: &Tree) -> anyhow::Result<Built<PathBuf>> {
    Ok(cargo_build(
        tree,
        &["build", "-p", "quorate-sim", "--bin", "quorate-sim"],
    )?
    .map(|()| tree.target.join("mutants/quorate-sim")))
}

fn cargo(tree: &Tree, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .args(["--quiet", "--profile", "mutants"])
        .current_dir(&tree.root)
        .env("CARGO_TARGET_DIR", &tree.target)
        // One crate changes at a time; the surroundings (a CI script, say) may have switched it off.
        .env("CARGO_INCREMENTAL", "1");
    command
}

fn cargo_build(tree: &Tree, arguments: &[&str]) -> anyhow::Result<Built<()>> {
    let output = cargo(tree, arguments)
        .output()
        .with_context(|| format!("start `cargo {}`", arguments.join(" ")))?;
    Ok(if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// What a detector other than the simulator runs, for people.
pub(crate) fn command_of(detector: Detector) -> String {
    match detector {
        Detector::Simulator => "quorate-sim".to_owned(),
        Detector::Model => "quorate-model".to_owned(),
        Detector::Storage => "cargo test -p quorate-storage".to_owned(),
    }
}

/// Builds and runs a detector other than the simulator.
pub(crate) fn run_other(tree: &Tree, detector: Detector) -> anyhow::Result<Built<Found>> {
    match detector {
        Detector::Simulator => unreachable!("the simulator is run over seeds"),
        Detector::Model => {
            let built = cargo_build(
                tree,
                &["build", "-p", "quorate-sim", "--bin", "quorate-model"],
            )?;
            if let Err(why) = built {
                return Ok(Err(why));
            }
            let mut command = Command::new(tree.target.join("mutants/quorate-model"));
            watch(&mut command, 0, model_failure).map(Ok)
        }
        Detector::Storage => {
            let built = cargo_build(tree, &["test", "-p", "quorate-storage", "--no-run"])?;
            if let Err(why) = built {
                return Ok(Err(why));
            }
            let mut command = cargo(tree, &["test", "-p", "quorate-storage"]);
            watch(&mut command, 0, test_failure).map(Ok)
        }
    }
}

/// A run over seeds.
pub(crate) struct Simulator<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) seeds: Range<u64>,
    pub(crate) jobs: usize,
    pub(crate) args: &'a [String],
}

impl Simulator<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.args.to_vec();
        if !arguments.iter().any(|argument| argument == "--scenario") {
            arguments.push("--seeds".to_owned());
            arguments.push(format!("{}..{}", self.seeds.start, self.seeds.end));
        }
        arguments.push("--jobs".to_owned());
        arguments.push(self.jobs.to_string());
        arguments
    }

    /// The command, for people.
    pub(crate) fn shown(&self) -> String {
        format!("quorate-sim {}", self.arguments().join(" "))
    }

    /// Runs until the first failure.
    pub(crate) fn run(&self) -> anyhow::Result<Found> {
        let mut command = Command::new(self.binary);
        command.args(self.arguments());
        watch(
            &mut command,
            self.seeds.end - self.seeds.start,
            seed_failure,
        )
    }
}

/// Reads what a detector prints until a line tells of a failure, its end, or the end of patience.
fn watch(
    command: &mut Command,
    seeds: u64,
    failure: fn(&str) -> Option<Found>,
) -> anyhow::Result<Found> {
    // Panics that the simulator takes for violations go to the standard error too, and would only repeat what it prints.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start `{}`", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().expect("it is piped");
    let (lines, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let until = Instant::now() + PATIENCE;
    let found = loop {
        match received.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(found) = failure(&line) {
                    break Some(found);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break Some(Found::Endless),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
        }
    };
    if found.is_some() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().context("wait for the detector's end")?;
    drop(received);
    reader.join().expect("the reader does not panic");
    match found {
        Some(found) => Ok(found),
        None => ended(status, seeds),
    }
}

/// What an end without a word means.
fn ended(status: ExitStatus, seeds: u64) -> anyhow::Result<Found> {
    match status.code() {
        Some(0) => Ok(Found::Nothing { after: seeds }),
        Some(2) => bail!("the detector was called wrongly"),
        _ => Ok(Found::Failure {
            by: "process".to_owned(),
            seed: None,
            what: format!("it died: {status}"),
        }),
    }
}

/// `FAILED seed 12: checker: what`.
fn seed_failure(line: &str) -> Option<Found> {
    let (what, rest) = line.strip_prefix("FAILED ")?.split_once(": ")?;
    let (by, said) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(Found::Failure {
        by: by.to_owned(),
        seed: what
            .strip_prefix("seed ")
            .and_then(|seed| seed.parse().ok()),
        what: said.to_owned(),
    })
}

/// `FAILED model: invariant: what`.
fn model_failure(line: &str) -> Option<Found> {
    let rest = line.strip_prefix("FAILED ")?;
    Some(Found::Failure {
        by: rest.split(": ").take(2).collect::<Vec<_>>().join(": "),
        seed: None,
        what: rest.to_owned(),
    })
}

/// `test path::name ... FAILED`.
fn test_failure(line: &str) -> Option<Found> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(Found::Failure {
        by: name.rsplit("::").next().unwrap_or(name).to_owned(),
        seed: None,
        what: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_what_detectors_print() {
        let found =
            seed_failure("FAILED seed 12: logs_agree: server 2 applied: another entry").unwrap();
        assert_eq!(
            found,
            Found::Failure {
                by: "logs_agree".to_owned(),
                seed: Some(12),
                what: "server 2 applied: another entry".to_owned()
            }
        );
        assert_eq!(seed_failure("seeds 0..5 (5), 2 at once"), None);
        assert!(test_failure("test log::tests::torn ... FAILED").is_some());
        assert!(test_failure("test log::tests::torn ... ok").is_none());
    }
}
