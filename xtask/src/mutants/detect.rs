//! Builds the scratch copy, and runs what is to notice the mistake in it.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::list::Detector;
use super::tree::Tree;

/// A mutant may make the simulated world run in a circle: then it is given up after this.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All clean.
    Nothing,
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
pub(crate) fn command_of(detector: Detector, args: &[String]) -> String {
    let program = match detector {
        Detector::Simulator => "quorate-sim",
        Detector::Model => "quorate-model",
        Detector::Storage => "cargo test -p quorate-storage --lib",
    };
    std::iter::once(program)
        .chain(args.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Builds and runs a detector other than the simulator.
pub(crate) fn run_other(
    tree: &Tree,
    detector: Detector,
    args: &[String],
) -> anyhow::Result<Built<Found>> {
    match detector {
        Detector::Simulator => unreachable!("the simulator is run over seeds"),
        Detector::Model => {
            let build = ["build", "-p", "quorate-sim", "--bin", "quorate-model"];
            if let Err(why) = cargo_build(tree, &build)? {
                return Ok(Err(why));
            }
            let mut command = Command::new(tree.target.join("mutants/quorate-model"));
            command.args(args);
            watch(&mut command, violated_invariant).map(Ok)
        }
        Detector::Storage => {
            let test = ["test", "-p", "quorate-storage", "--lib"];
            if let Err(why) = cargo_build(tree, &[&test[..], &["--no-run"]].concat())? {
                return Ok(Err(why));
            }
            watch(&mut cargo(tree, &test), failed_test).map(Ok)
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
    /// The named scenario that is run instead of seeds' worlds.
    fn scenario(&self) -> Option<&str> {
        let mut arguments = self.args.iter();
        arguments.find(|argument| *argument == "--scenario")?;
        arguments.next().map(String::as_str)
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.args.to_vec();
        if self.scenario().is_none() {
            arguments.push("--seeds".to_owned());
            arguments.push(format!("{}..{}", self.seeds.start, self.seeds.end));
        }
        let jobs = self.jobs.to_string();
        arguments.extend(["--failures-max", "1", "--json", "--jobs", &jobs].map(str::to_owned));
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
        let found = watch(&mut command, |printed| {
            first_failed_seed(printed).or_else(|| failed_scenario(printed))
        })?;
        Ok(match (found, self.scenario()) {
            (Found::Failure { by, seed, what }, Some(name)) => Found::Failure {
                by: format!("{by} in {name}"),
                seed,
                what,
            },
            (found, _) => found,
        })
    }
}

/// Runs a detector to its end, or to the end of patience, and reads what it printed.
fn watch(command: &mut Command, read: fn(&str) -> Option<Found>) -> anyhow::Result<Found> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Panics that the simulator takes for violations go to the standard error too, and would only repeat what it prints.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start `{program}`"))?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let (send, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // What is not text tells nothing; the exit status tells the rest.
        let _ = stdout.read_to_string(&mut text);
        let _ = send.send(text);
    });
    let printed = received.recv_timeout(PATIENCE).ok();
    if printed.is_none() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .with_context(|| format!("wait for `{program}`"))?;
    reader.join().expect("the reader does not panic");
    let Some(printed) = printed else {
        return Ok(Found::Endless);
    };
    match (read(&printed), status.code()) {
        (Some(found), _) => Ok(found),
        (None, Some(0)) => Ok(Found::Nothing),
        (None, Some(2)) => bail!("`{program}` was called wrongly"),
        (None, _) => Ok(Found::Failure {
            by: "process".to_owned(),
            seed: None,
            what: format!("it died: {status}"),
        }),
    }
}

/// The lowest failed seed in what `quorate-sim --json` prints.
fn first_failed_seed(printed: &str) -> Option<Found> {
    let summary: Value = serde_json::from_str(printed).ok()?;
    let failures = summary["failures"].as_array()?;
    let first = failures
        .iter()
        .min_by_key(|failure| failure["seed"].as_u64())?;
    let text = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
    Some(Found::Failure {
        by: text("checker"),
        seed: first["seed"].as_u64(),
        what: text("what"),
    })
}

/// The first line `FAILED seed N: checker: what` of `quorate-sim --scenario`, or `FAILED: what` where the story did not happen.
fn failed_scenario(printed: &str) -> Option<Found> {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("FAILED"))?;
    let Some((seed, failure)) = line
        .strip_prefix(" seed ")
        .and_then(|line| line.split_once(": "))
    else {
        return Some(Found::Failure {
            by: "story".to_owned(),
            seed: None,
            what: line.trim_start_matches(": ").to_owned(),
        });
    };
    let (by, what) = failure.split_once(": ").unwrap_or((failure, ""));
    Some(Found::Failure {
        by: by.to_owned(),
        seed: seed.parse().ok(),
        what: what.to_owned(),
    })
}

/// The first line `VIOLATED in model: invariant: what` of `quorate-model`.
fn violated_invariant(printed: &str) -> Option<Found> {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("VIOLATED in "))?;
    Some(Found::Failure {
        by: line.split(": ").take(2).collect::<Vec<_>>().join(": "),
        seed: None,
        what: line.to_owned(),
    })
}

/// The first line `test path::name ... FAILED` of the test harness, or the first name in its list of failures: it prints no such lines
/// where it is told to be quiet.
fn failed_test(printed: &str) -> Option<Found> {
    let told = printed
        .lines()
        .find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let listed = || {
        printed.lines().find_map(|line| {
            line.strip_prefix("    ")
                .filter(|name| name.contains("::") && !name.contains(' '))
        })
    };
    let name = told.or_else(listed)?;
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
        let printed = r#"{"failures":[{"seed":12,"checker":"logs_agree","what":"server 2"},{"seed":3,"checker":"tokens_rise","what":"g"}]}"#;
        let expected = Found::Failure {
            by: "tokens_rise".to_owned(),
            seed: Some(3),
            what: "g".to_owned(),
        };
        assert_eq!(first_failed_seed(printed), Some(expected));
        assert_eq!(first_failed_seed(r#"{"failures":[]}"#), None);
        let printed = "late-directive               late 36\nFAILED seed 7: logs_agree: server 2: it differs\n  guarantee: 1\n";
        let expected = Found::Failure {
            by: "logs_agree".to_owned(),
            seed: Some(7),
            what: "server 2: it differs".to_owned(),
        };
        assert_eq!(failed_scenario(printed), Some(expected));
        assert_eq!(
            failed_scenario("late-directive               late 36\n"),
            None
        );
        assert!(failed_test("running 2 tests\ntest log::tests::torn ... FAILED").is_some());
        assert!(failed_test("test log::tests::torn ... ok").is_none());
        assert!(
            failed_test("..F\n\nfailures:\n    log::tests::torn\n\ntest result: FAILED.").is_some()
        );
    }
}
