//! What is asked of `cargo xtask etcd-diff`, and where the programs are that it starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::servers::Program;
use crate::workspace;

/// How to call it.
pub(crate) const USAGE: &str = "usage: cargo xtask etcd-diff [--ops N] [--seed S] [--servers 1|3] [--jobs J] [--etcd PATH] [--quorate PATH]
                             [--against-etcd] [--plant STEP] [--no-auth] [--no-shrink] [--self-check] [--json]

  --ops N         operations in all; 20000 where not given. Each 20000 run against fresh servers
  --seed S        the first 20000 are drawn from it, the next ones from its successors; 1 where not given
  --servers N     how many servers of ours: 1, or 3 with reads from all of them
  --jobs J        how many pairs are compared at once; 2 where not given
  --etcd PATH     the real etcd; the one in PATH where not given (Debian: etcd-server)
  --quorate PATH  our binary; built and taken from beside this program where not given
  --against-etcd  compares etcd with itself
  --plant STEP    changes puts of the other side's from this step on, which must be found
  --self-check    both: etcd with itself without and with a planted difference
  --no-auth       leaves users, roles and permissions out
  --no-shrink     does not look for fewer operations that show a difference
  --json          one object at the end instead of text";

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) ops: usize,
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    pub(crate) jobs: usize,
    pub(crate) plant: Option<usize>,
    pub(crate) against_etcd: bool,
    pub(crate) self_check: bool,
    pub(crate) json: bool,
    pub(crate) no_auth: bool,
    no_shrink: bool,
    etcd: Option<PathBuf>,
    quorate: Option<PathBuf>,
}

impl Options {
    /// Reads the words after `etcd-diff`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            ops: 20_000,
            seed: 1,
            servers: 1,
            jobs: 2,
            plant: None,
            against_etcd: false,
            self_check: false,
            json: false,
            no_auth: false,
            no_shrink: false,
            etcd: None,
            quorate: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words
                    .next()
                    .ok_or_else(|| format!("`{word}` needs a value"));
                value.map(|value| (*value).to_owned())
            };
            let number = |value: String| {
                let parsed = value.parse::<usize>();
                parsed.map_err(|_| format!("`{word} {value}` is not a number"))
            };
            match *word {
                "--ops" => options.ops = number(value()?)?,
                "--seed" => {
                    let given = value()?;
                    options.seed = given
                        .parse()
                        .map_err(|_| format!("`{word} {given}` is not a number"))?;
                }
                "--jobs" => options.jobs = number(value()?)?.max(1),
                "--plant" => options.plant = Some(number(value()?)?),
                "--servers" => {
                    options.servers = match number(value()?)? {
                        count @ (1 | 3) => count,
                        other => return Err(format!("{other} servers: only 1 or 3")),
                    }
                }
                "--etcd" => options.etcd = Some(value()?.into()),
                "--quorate" => options.quorate = Some(value()?.into()),
                "--against-etcd" => options.against_etcd = true,
                "--self-check" => options.self_check = true,
                "--no-shrink" => options.no_shrink = true,
                "--no-auth" => options.no_auth = true,
                "--json" => options.json = true,
                other => return Err(format!("`{other}` is not known")),
            }
        }
        Ok(options)
    }

    /// Whether fewer operations that show a difference are looked for.
    pub(crate) fn shrinks(&self) -> bool {
        !self.no_shrink && self.plant.is_none()
    }

    /// The real etcd.
    pub(crate) fn etcd(&self) -> anyhow::Result<Program> {
        let path = self.etcd.clone().unwrap_or_else(|| "etcd".into());
        let output = Command::new(&path).arg("--version").output();
        let output = output.with_context(|| {
            format!(
                "start {}: `apt-get install etcd-server` installs one, `--etcd PATH` names another",
                path.display()
            )
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(version) = text.strip_prefix("etcd Version: ") else {
            bail!("{} is no etcd: it says {text:?}", path.display());
        };
        let is_newer = !["3.3.", "3.4."].iter().any(|old| version.starts_with(old));
        Ok(Program::Etcd { path, is_newer })
    }

    /// Our binary.
    pub(crate) fn quorate(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.quorate {
            return Ok(path.clone());
        }
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--package", "quorate"])
            .current_dir(workspace::root())
            .status()
            .context("start `cargo build`")?;
        if !status.success() {
            bail!("`cargo build --package quorate` failed ({status})");
        }
        let this = std::env::current_exe().context("find this program")?;
        let path = this
            .parent()
            .map_or_else(|| "quorate".into(), |folder: &Path| folder.join("quorate"));
        if !path.is_file() {
            bail!(
                "there is no {}: name it with `--quorate PATH`",
                path.display()
            );
        }
        Ok(path)
    }
}

#[test]
fn words_set_what_is_compared() {
    let options =
        Options::parse(&["--ops", "5", "--seed", "9", "--servers", "3", "--json"]).unwrap();
    assert_eq!((options.ops, options.seed, options.servers), (5, 9, 3));
    assert!(options.json && options.shrinks());
    assert!(Options::parse(&["--servers", "2"]).is_err());
    assert!(Options::parse(&["--ops"]).is_err());
    assert!(Options::parse(&["--opps", "5"]).is_err());
}
