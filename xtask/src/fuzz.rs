//! `cargo xtask fuzz`: libFuzzer over every target in `fuzz/`, on stable Rust and without cargo-fuzz.
//!
//! What cargo-fuzz does on nightly is done here by flags that stable has: LLVM's coverage counters, no address sanitizer. Our crates forbid
//! unsafe code, so that panics, hangs and memory are what there is to find.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::workspace;

/// How to call it.
pub(crate) const USAGE: &str = "usage: cargo xtask fuzz [--seconds N] [--target NAME] [--jobs N]
       cargo xtask fuzz --target NAME --input FILE
       cargo xtask fuzz --seed-corpus

  --seconds N     how long each target runs; 5 where not given
  --target NAME   only this one; all where not given
  --jobs N        how many run at the same time; one per processor where not given
  --input FILE    runs the target once, on this file: how a failure is shown again
  --seed-corpus   writes fuzz/corpus/ anew from golden files and encoders";

/// What cargo-fuzz passes, less the sanitizer: counters per edge, their table, and the operands of comparisons.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Longest input. Decoders meet all they can mean well below it.
const INPUT_BYTES_MAX: usize = 8_192;
/// A single input that takes longer is a hang.
const INPUT_SECONDS_MAX: u64 = 10;
/// More memory than this is too much for inputs of that size.
const RSS_MB_MAX: u64 = 1_024;

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    seconds: u64,
    target: Option<String>,
    jobs: Option<usize>,
    input: Option<PathBuf>,
    writes_seeds: bool,
}

impl Options {
    /// Reads the words after `fuzz`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            seconds: 5,
            target: None,
            jobs: None,
            input: None,
            writes_seeds: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("`{word}` needs a value"))
            };
            let number = |text: &str| {
                let number = text.parse().ok().filter(|number| *number > 0);
                number.ok_or_else(|| format!("`{text}` is no number above zero"))
            };
            match *word {
                "--seconds" => options.seconds = number(value()?)?,
                "--target" => options.target = Some((*value()?).to_owned()),
                "--jobs" => {
                    options.jobs = Some(usize::try_from(number(value()?)?).unwrap_or(usize::MAX));
                }
                "--input" => options.input = Some(PathBuf::from(value()?)),
                "--seed-corpus" => options.writes_seeds = true,
                other => return Err(format!("`{other}` is not known")),
            }
        }
        if options.input.is_some() && options.target.is_none() {
            return Err("`--input` needs `--target`".to_owned());
        }
        Ok(options)
    }
}

/// Builds the targets, and runs those that are wanted.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let place = Place::new()?;
    let all = place.targets()?;
    if let Some(target) = &options.target
        && !all.contains(target)
    {
        bail!(
            "there is no target `{target}`; there are: {}",
            all.join(", ")
        );
    }
    if options.writes_seeds {
        return place.write_seeds();
    }
    let wanted: Vec<String> = match &options.target {
        Some(target) => vec![target.clone()],
        None => all,
    };
    let started = Instant::now();
    match &options.target {
        Some(target) => place.cargo(&["build", "--bin", target])?,
        None => place.cargo(&["build", "--bins"])?,
    }
    println!("built in {} s", started.elapsed().as_secs());
    if let (Some(input), Some(target)) = (&options.input, &options.target) {
        return place.run_once(target, input);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(cores).min(wanted.len());
    println!(
        "{:<16} {:>12} {:>8} {:>9} {:>7} {:>7}",
        "target", "executions", "per s", "coverage", "corpus", "RSS MB"
    );
    let waiting = Mutex::new(wanted.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    if let Err(why) = place.fuzz(&target, options.seconds) {
                        let mut failures = failures.lock().expect("no thread panics");
                        failures.push(format!("{target}: {why:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics");
    if !failures.is_empty() {
        bail!(
            "{} targets failed:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
    println!("fuzz: no failures in {} s", started.elapsed().as_secs());
    Ok(())
}

fn next(waiting: &Mutex<std::vec::IntoIter<String>>) -> Option<String> {
    waiting.lock().expect("no thread panics").next()
}

/// Where sources, binaries and corpora are.
struct Place {
    fuzz: PathBuf,
    built: PathBuf,
    host: String,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let root = workspace::root();
        // Apart from the workspace's own output, which other flags would otherwise invalidate.
        let built = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(given) => root.join(given).join("fuzz"),
            None => root.join("target").join("fuzz"),
        };
        Ok(Self {
            fuzz: root.join("fuzz"),
            built,
            host: host()?,
        })
    }

    /// The names of the targets: their files.
    fn targets(&self) -> anyhow::Result<Vec<String>> {
        let files = workspace::files(&self.fuzz.join("fuzz_targets"), ".rs")?;
        let name = |path: &PathBuf| {
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned())
        };
        Ok(files.iter().filter_map(name).collect())
    }

    fn cargo(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("cargo");
        command
            .args(words)
            .args(["--release", "--locked", "--target", &self.host])
            .arg("--target-dir")
            .arg(&self.built)
            .current_dir(&self.fuzz)
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
        println!(
            "+ cargo {} (in fuzz/, with coverage counters)",
            words.join(" ")
        );
        let status = command.status().context("start cargo")?;
        if !status.success() {
            bail!("cargo {} failed ({status})", words.join(" "));
        }
        Ok(())
    }

    /// Without counters: only libFuzzer's own main, which a target has and an example has not, defines what they call.
    fn write_seeds(&self) -> anyhow::Result<()> {
        let status = Command::new("cargo")
            .args(["run", "--locked", "--example", "seed_corpus"])
            .arg("--target-dir")
            .arg(self.built.join("seeds"))
            .current_dir(&self.fuzz)
            .status()
            .context("start cargo")?;
        if !status.success() {
            bail!("writing the seeds failed ({status})");
        }
        Ok(())
    }

    fn binary(&self, target: &str) -> PathBuf {
        self.built.join(&self.host).join("release").join(target)
    }

    /// Runs a target on one file, and shows what it says.
    fn run_once(&self, target: &str, input: &Path) -> anyhow::Result<()> {
        let status = Command::new(self.binary(target))
            .arg(input)
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={RSS_MB_MAX}"))
            .status()
            .with_context(|| format!("start target `{target}`"))?;
        if !status.success() {
            bail!("`{target}` fails on `{}` ({status})", input.display());
        }
        println!("`{target}` passes on `{}`", input.display());
        Ok(())
    }

    /// Runs a target from the committed corpus; what it finds beyond stays in the target directory.
    fn fuzz(&self, target: &str, seconds: u64) -> anyhow::Result<()> {
        let found = self.built.join("corpus").join(target);
        let artifacts = self.fuzz.join("artifacts").join(target);
        let logs = self.built.join("logs");
        for folder in [&found, &artifacts, &logs] {
            fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
        }
        let log_path = logs.join(format!("{target}.log"));
        let log = fs::File::create(&log_path)
            .with_context(|| format!("create `{}`", log_path.display()))?;
        let mut command = Command::new(self.binary(target));
        command.arg(&found);
        // The first folder is written to, the others are only read: seeds, and inputs that once failed.
        for folder in ["corpus", "regressions"] {
            let folder = self.fuzz.join(folder).join(target);
            if folder.is_dir() {
                command.arg(folder);
            }
        }
        let status = command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={RSS_MB_MAX}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .with_context(|| format!("start target `{target}`"))?;
        // A panic's message may quote bytes that are no text.
        let log = fs::read(&log_path).with_context(|| format!("read `{}`", log_path.display()))?;
        let log = String::from_utf8_lossy(&log);
        let stats = Stats::of(&log);
        println!(
            "{target:<16} {:>12} {:>8} {:>9} {:>7} {:>7}",
            stats.field("number_of_executed_units"),
            stats.field("average_exec_per_sec"),
            stats.field("cov"),
            stats.field("corp"),
            stats.field("peak_rss_mb"),
        );
        if status.success() {
            return Ok(());
        }
        bail!("{}", failure(target, &log, &log_path));
    }
}

fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("start `rustc -vV`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// What a failed run says: the panic, the input, and how to see it again.
fn failure(target: &str, log: &str, log_path: &Path) -> String {
    let mut lines = log
        .lines()
        .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"));
    let why: Vec<&str> = lines.by_ref().take(2).collect();
    let input = log
        .lines()
        .find_map(|line| line.split("Test unit written to ").nth(1));
    let again = match input {
        Some(input) => format!("cargo xtask fuzz --target {target} --input {input}"),
        None => format!("see {}", log_path.display()),
    };
    format!("{}\n    {again}", why.join("\n    "))
}

/// The numbers that libFuzzer prints.
struct Stats {
    fields: BTreeMap<String, String>,
}

impl Stats {
    fn of(log: &str) -> Self {
        let mut fields = BTreeMap::new();
        for line in log.lines() {
            if let Some(stat) = line.strip_prefix("stat::")
                && let Some((name, value)) = stat.split_once(':')
            {
                fields.insert(name.to_owned(), value.trim().to_owned());
            } else if line.starts_with('#') {
                // `#2097152 pulse  cov: 1023 ft: 4096 corp: 300/20Kb exec/s: 12345 rss: 60Mb`
                let words: Vec<&str> = line.split_whitespace().collect();
                for pair in words.windows(2) {
                    if let Some(name @ ("cov" | "corp")) = pair[0].strip_suffix(':') {
                        let count = pair[1].split('/').next().unwrap_or(pair[1]);
                        fields.insert(name.to_owned(), count.to_owned());
                    }
                }
            }
        }
        Self { fields }
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("-", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let options = Options::parse(&["--seconds", "7", "--target", "log_files"]).unwrap();
        assert_eq!(
            (options.seconds, options.target.as_deref()),
            (7, Some("log_files"))
        );
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "0"],
            &["--fast"],
            &["--input", "x"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_read_from_what_libfuzzer_prints() {
        let log = "#8\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n#99\tDONE   cov: 1023 ft: 4096 corp: 300/20Kb lim: 9 exec/s: 5 rss: 60Mb\nstat::number_of_executed_units: 99\nstat::peak_rss_mb:              60\n";
        let stats = Stats::of(log);
        assert_eq!(stats.field("cov"), "1023");
        assert_eq!(stats.field("corp"), "300");
        assert_eq!(stats.field("number_of_executed_units"), "99");
        assert_eq!(stats.field("peak_rss_mb"), "60");
        assert_eq!(stats.field("average_exec_per_sec"), "-");
    }

    #[test]
    fn failure_names_the_panic_and_the_command() {
        let log = "x\nthread 'main' panicked at a.rs:1:2:\nthe reason\nartifact_prefix='/a/'; Test unit written to /a/crash-1\n";
        let told = failure("log_files", log, Path::new("/l"));
        assert!(told.contains("the reason"), "{told}");
        assert!(
            told.ends_with("cargo xtask fuzz --target log_files --input /a/crash-1"),
            "{told}"
        );
    }
}
