//! `cargo xtask mutants`: plants known mistakes in the shipping code, one at a time, and shows what catches each.
//!
//! A checker that has never fired proves little. The list in `xtask/mutants/` holds mistakes that were made in the field, and the
//! traces by which `docs/protocol.md` justifies its rules. Everything happens in a scratch copy: the work tree is only read.

mod detect;
mod list;
mod report;
mod tree;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::workspace;
use detect::{Found, Simulator};
use list::{Detector, Mutant};
use report::{Outcome, Verdict};
use tree::{Edited, Tree};

/// What `--help` and wrong usage print.
pub(crate) const USAGE: &str = "\
usage: cargo xtask mutants [--list] [--smoke] [--only NAME]... [--seeds N] [--jobs N] [--committed] [--json]

  --list       print the mutants, do nothing
  --smoke      only those that are caught within the first few seeds, one or two per crate
  --only NAME  only this one; may be repeated
  --seeds N    run at most so many seeds per mutant (default 2000)
  --jobs N     seeds to run at once (default: one per core)
  --committed  plant in the last commit instead of the work tree
  --json       print the result as one JSON object

Exit status: 0 all caught, 1 one is not caught, is stale or does not build, 2 wrong usage.";

/// The seeds that must be clean before anything is planted.
const CLEAN_SEEDS: u64 = 50;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    list: bool,
    smoke: bool,
    only: Vec<String>,
    seeds: u64,
    jobs: usize,
    committed: bool,
    json: bool,
}

impl Options {
    /// Reads the words after `mutants`. The error says what is wrong with them; print it with [`USAGE`].
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            list: false,
            smoke: false,
            only: Vec::new(),
            seeds: 2_000,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            committed: false,
            json: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match *word {
                "--list" => options.list = true,
                "--smoke" => options.smoke = true,
                "--committed" => options.committed = true,
                "--json" => options.json = true,
                "--only" => options.only.push((*value()?).to_owned()),
                "--seeds" => options.seeds = positive(value()?)?,
                "--jobs" => {
                    options.jobs = usize::try_from(positive(value()?)?).unwrap_or(usize::MAX);
                }
                _ => return Err(format!("unknown argument `{word}`")),
            }
        }
        Ok(options)
    }
}

fn positive(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

/// What is wrong with the list itself: part of `cargo xtask check`, so that no mutant outlives the code it changes.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mutants = list::read(root)?;
    let mut problems = list::problems(&mutants);
    for mutant in &mutants {
        if let Err(stale) = tree::edited(root, mutant) {
            problems.push(format!("mutant `{}`: {stale:#}", mutant.name));
        }
    }
    Ok(problems)
}

/// Plants and looks.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = workspace::root();
    let mutants = chosen(list::read(&root)?, options)?;
    if options.list {
        report::print_list(&mutants);
        return Ok(());
    }
    let started = Instant::now();
    let mut bench = Bench::set_up(&root, options)?;
    let clean = bench.prove_clean(&mutants)?;
    let mut outcomes = Vec::new();
    for (at, mutant) in mutants.iter().enumerate() {
        let outcome = bench.plant(mutant)?;
        eprintln!("[{}/{}] {}", at + 1, mutants.len(), report::line(&outcome));
        outcomes.push(outcome);
    }
    bench.prove_innocent(&mutants, &mut outcomes)?;
    let failures = outcomes
        .iter()
        .filter(|outcome| !outcome.is_caught())
        .count();
    if options.json {
        println!(
            "{}",
            report::json(&outcomes, &clean, options.seeds, started.elapsed())
        );
    } else {
        report::print_table(&outcomes, started.elapsed());
    }
    if failures > 0 {
        bail!("{failures} of {} mutants are not caught", outcomes.len());
    }
    Ok(())
}

fn chosen(mutants: Vec<Mutant>, options: &Options) -> anyhow::Result<Vec<Mutant>> {
    for name in &options.only {
        if !mutants.iter().any(|mutant| mutant.name == *name) {
            bail!("there is no mutant `{name}`: see `cargo xtask mutants --list`");
        }
    }
    let is_chosen = |mutant: &Mutant| {
        (!options.smoke || mutant.smoke)
            && (options.only.is_empty() || options.only.contains(&mutant.name))
    };
    let chosen: Vec<_> = mutants.into_iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        bail!("no mutant is both in the smoke subset and named");
    }
    Ok(chosen)
}

/// The scratch copy, and what was built of it.
struct Bench<'a> {
    tree: Tree,
    options: &'a Options,
    /// The unmutated simulator, kept to show that a seed fails by the mutant only.
    clean: PathBuf,
}

impl<'a> Bench<'a> {
    fn set_up(root: &Path, options: &'a Options) -> anyhow::Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let scratch = root.join(target).join("mutants");
        eprintln!("copying to {}", scratch.join("tree").display());
        let tree = Tree::copy(root, &scratch, options.committed)?;
        let clean = scratch.join("quorate-sim-clean");
        Ok(Self {
            tree,
            options,
            clean,
        })
    }

    /// Shows that what is to be mutated is sound; says what was run.
    fn prove_clean(&mut self, mutants: &[Mutant]) -> anyhow::Result<Vec<String>> {
        let mut proven = Vec::new();
        let mut ways: Vec<_> = mutants
            .iter()
            .map(|mutant| (mutant.detector, mutant.args.clone()))
            .collect();
        ways.sort();
        ways.dedup();
        if ways
            .iter()
            .any(|(detector, _)| *detector == Detector::Simulator)
        {
            eprintln!("building the unmutated simulator");
            let built = detect::build_simulator(&self.tree)?
                .map_err(|why| anyhow::anyhow!("the unmutated copy does not build:\n{why}"))?;
            std::fs::copy(&built, &self.clean)
                .with_context(|| format!("copy `{}`", built.display()))?;
        }
        for (detector, args) in ways {
            let simulator = Simulator {
                binary: &self.clean,
                seeds: 0..CLEAN_SEEDS.min(self.options.seeds),
                jobs: self.options.jobs,
                args: &args,
            };
            let (command, found) = if detector == Detector::Simulator {
                eprintln!("unmutated: {}", simulator.shown());
                (simulator.shown(), Ok(simulator.run()?))
            } else {
                let command = detect::command_of(detector, &args);
                eprintln!("unmutated: {command}");
                (command, detect::run_other(&self.tree, detector, &args)?)
            };
            match found {
                Ok(Found::Nothing) => proven.push(command),
                found => bail!("the unmutated copy fails `{command}`: {found:?}"),
            }
        }
        Ok(proven)
    }

    /// Plants one mutant, and looks who notices.
    fn plant(&mut self, mutant: &Mutant) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome {
            name: mutant.name.clone(),
            source: mutant.source.clone(),
            detector: mutant.detector,
            verdict: Verdict::NotCaught { seeds: 0 },
            build: Duration::ZERO,
            ran: Duration::ZERO,
        };
        let edited: Vec<Edited> = match tree::edited(&self.tree.root, mutant) {
            Ok(edited) => edited,
            Err(stale) => {
                outcome.verdict = Verdict::Stale(format!("{stale:#}"));
                return Ok(outcome);
            }
        };
        self.tree.plant(edited)?;
        let began = Instant::now();
        let found = match mutant.detector {
            Detector::Simulator => match detect::build_simulator(&self.tree)? {
                Err(why) => Err(why),
                Ok(binary) => {
                    outcome.build = began.elapsed();
                    Ok(Simulator {
                        binary: &binary,
                        seeds: 0..self.options.seeds,
                        jobs: self.options.jobs,
                        args: &mutant.args,
                    }
                    .run()?)
                }
            },
            detector => detect::run_other(&self.tree, detector, &mutant.args)?,
        };
        outcome.ran = began.elapsed().saturating_sub(outcome.build);
        outcome.verdict = match found {
            Err(why) => Verdict::DoesNotBuild(why),
            Ok(Found::Nothing) => Verdict::NotCaught {
                seeds: self.options.seeds,
            },
            Ok(Found::Failure { by, seed, what }) => Verdict::Caught { by, seed, what },
            Ok(Found::Endless) => Verdict::Endless,
        };
        self.tree.revert()?;
        Ok(outcome)
    }

    /// Runs each seed that caught a mutant on the unmutated simulator too: it must be clean there, or it caught something else.
    fn prove_innocent(&self, mutants: &[Mutant], outcomes: &mut [Outcome]) -> anyhow::Result<()> {
        for outcome in outcomes {
            let Verdict::Caught {
                seed: Some(seed), ..
            } = outcome.verdict
            else {
                continue;
            };
            let mutant = mutants
                .iter()
                .find(|mutant| mutant.name == outcome.name)
                .expect("an outcome is of a mutant");
            let simulator = Simulator {
                binary: &self.clean,
                seeds: seed..seed + 1,
                jobs: 1,
                args: &mutant.args,
            };
            if let Found::Failure { by, what, .. } = simulator.run()? {
                outcome.verdict = Verdict::FailsUnmutated(format!("seed {seed}: {by}: {what}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_wrong_ones_say_why() {
        let options =
            Options::parse(&["--only", "a", "--only", "b", "--seeds", "7", "--json"]).unwrap();
        assert_eq!(
            (options.only, options.seeds, options.json),
            (vec!["a".to_owned(), "b".to_owned()], 7, true)
        );
        for wrong in [&["--only"][..], &["--seeds", "0"], &["--fast"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_mutant_still_applies() {
        assert_eq!(problems(&workspace::root()).unwrap(), Vec::<String>::new());
    }
}
