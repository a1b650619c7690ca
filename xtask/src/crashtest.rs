//! `cargo xtask crashtest`: the storage crash tests of `cargo test`, for many more rounds.
//!
//! Owns: how many rounds, and from which seed. The tests themselves are in `crates/storage/tests/crash/`.

use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace;

/// How to call it.
pub(crate) const USAGE: &str = "usage: cargo xtask crashtest [--rounds N] [--seed S]

  --rounds N   of SIGKILL, and as many of power cuts (root, /dev/fuse and loop devices needed); 2000 where not given
  --seed S     from which all rounds are drawn; 1 where not given";

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rounds: u64,
    seed: u64,
}

impl Options {
    /// Reads the words after `crashtest`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            rounds: 2_000,
            seed: 1,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let field = match *word {
                "--rounds" => &mut options.rounds,
                "--seed" => &mut options.seed,
                other => return Err(format!("`{other}` is not known")),
            };
            let value = words
                .next()
                .ok_or_else(|| format!("`{word}` needs a value"))?;
            *field = value
                .parse()
                .map_err(|_| format!("`{word} {value}` is not a number"))?;
        }
        Ok(options)
    }
}

/// Runs them; what they print comes through.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    println!(
        "crash tests of storage: {} rounds each of SIGKILL and of power cuts, seed {}",
        options.rounds, options.seed
    );
    let status = Command::new("cargo")
        .args(["test", "-p", "quorate-storage", "--test", "crash", "--"])
        .arg("--nocapture")
        .env("QUORATE_CRASH_ROUNDS", options.rounds.to_string())
        .env("QUORATE_CRASH_SEED", options.seed.to_string())
        .current_dir(workspace::root())
        .status()
        .context("start `cargo test`")?;
    if !status.success() {
        bail!(
            "an acknowledged write was lost, or the test itself failed ({status}); the same rounds again: `cargo xtask crashtest \
             --rounds {} --seed {}`",
            options.rounds,
            options.seed
        );
    }
    Ok(())
}

#[test]
fn words_set_rounds_and_seed() {
    assert_eq!(
        Options::parse(&["--seed", "9", "--rounds", "5"]),
        Ok(Options { rounds: 5, seed: 9 })
    );
    assert!(Options::parse(&["--rounds"]).is_err());
    assert!(Options::parse(&["--rounds", "many"]).is_err());
    assert!(Options::parse(&["--round", "5"]).is_err());
}
