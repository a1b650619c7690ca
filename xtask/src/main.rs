//! `cargo xtask verify` checks this workspace and never writes; `cargo xtask fix` writes what can be fixed by a machine.
//!
//! The rules that rustc, clippy and cargo-deny cannot state are in [`arrows`] and [`sources`]; they are also run as tests, so that
//! `cargo test --workspace` alone finds them broken.

mod arrows;
#[cfg(test)]
mod commands;
mod crashtest;
mod etcd_diff;
mod fuzz;
mod links;
mod manifest;
mod mutants;
mod pages;
mod sources;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask <verify | check | fix | mutants | fuzz | crashtest | etcd-diff>

  verify  format, lints, dependency arrows, repository rules, cargo-deny; never writes
  check   only what takes a second: dependency arrows and repository rules
  fix     rustfmt, and what clippy can fix by itself
  mutants plants known mistakes in a copy and shows what catches each; `mutants --list` names them
  fuzz    feeds decoders and cores with inputs guided by coverage; `fuzz --seconds N` for each target
  crashtest kills storage and cuts its power, many times; `crashtest --rounds N --seed S`
  etcd-diff plays the same operations against a real etcd and Quorate; `etcd-diff --ops N --seed S`";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["verify"] => verify(),
        ["check"] => check(),
        ["fix"] => fix(),
        ["fuzz", ref words @ ..] => match fuzz::Options::parse(words) {
            Ok(options) => fuzz::run(&options),
            Err(wrong) => {
                eprintln!("{wrong}\n\n{}", fuzz::USAGE);
                return ExitCode::from(2);
            }
        },
        ["crashtest", ref words @ ..] => match crashtest::Options::parse(words) {
            Ok(options) => crashtest::run(&options),
            Err(wrong) => {
                eprintln!("{wrong}\n\n{}", crashtest::USAGE);
                return ExitCode::from(2);
            }
        },
        ["etcd-diff", ref words @ ..] => match etcd_diff::Options::parse(words) {
            Ok(options) => etcd_diff::run(&options),
            Err(wrong) => {
                eprintln!("{wrong}\n\n{}", etcd_diff::USAGE);
                return ExitCode::from(2);
            }
        },
        ["mutants", ref words @ ..] => match mutants::Options::parse(words) {
            Ok(options) => mutants::run(&options),
            Err(wrong) => {
                eprintln!("{wrong}\n\n{}", mutants::USAGE);
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verify() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    check()?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])?;
    if has_cargo_deny() {
        // The advisory database is a git repository elsewhere: see deny.toml.
        cargo(&[
            "deny",
            "--workspace",
            "check",
            "bans",
            "licenses",
            "sources",
        ])?;
    } else {
        eprintln!(
            "skipped: cargo-deny is not installed; `cargo install cargo-deny --locked` installs it"
        );
    }
    println!("verify: all checks passed");
    Ok(())
}

fn check() -> anyhow::Result<()> {
    let root = workspace::root();
    let problems: Vec<String> = [
        arrows::problems(&workspace::metadata(&root)?),
        manifest::problems(&root)?,
        sources::problems(&root)?,
        links::problems(&root)?,
        pages::problems(&root)?,
        mutants::problems(&root)?,
    ]
    .concat();
    if !problems.is_empty() {
        bail!(
            "{} rules of this repository are broken:\n  {}",
            problems.len(),
            problems.join("\n  ")
        );
    }
    println!("check: dependency arrows, reasons, sources and links hold");
    Ok(())
}

fn fix() -> anyhow::Result<()> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ])?;
    cargo(&["fmt", "--all"])
}

fn has_cargo_deny() -> bool {
    Command::new("cargo")
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let command = format!("cargo {}", arguments.join(" "));
    println!("+ {command}");
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(workspace::root())
        .status()
        .with_context(|| format!("start `{command}`"))?;
    if !status.success() {
        bail!("`{command}` failed ({status})");
    }
    Ok(())
}
