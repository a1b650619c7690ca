//! The command line: which seeds to run, and how.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::calm::{CONVERGE_BOUND, LED_BOUND, WRITE_BOUND};
use crate::case::Case;
use crate::scenarios;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which seeds.
    pub seeds: Range<u64>,
    /// What to take away from each seed's world; its own seed does not count.
    pub case: Case,
    /// Whether to print what happens.
    pub trace: bool,
    /// Where to print it; the standard output where none is given.
    pub trace_file: Option<PathBuf>,
    /// How many seeds to run at once.
    pub jobs: usize,
    /// Stop at so many failures.
    pub failures_max: usize,
    /// Print the summary as one JSON object, and nothing else.
    pub json: bool,
    /// Make the first failure's world smaller.
    pub shrink: bool,
    /// Run named scenarios instead of seeds' worlds.
    pub scenario: Option<String>,
}

/// What `--help` prints.
#[must_use]
pub fn help() -> String {
    format!(
        "{USAGE}

Faults cease before the end of each run. From then on, at the latest:
  a write is acknowledged within                            {WRITE_BOUND:?}
  a group that somebody can lead has a leader within        {LED_BOUND:?}
  all replicas have applied the same, callers quiet, within {CONVERGE_BOUND:?}"
    )
}

/// The command line.
pub const USAGE: &str = "\
Runs Quorate in a simulated, faulty world, from a seed.

usage: quorate-sim (--seed N | --seeds A..B) [options]
       quorate-sim --scenario NAME|all|list [--seed N --trace]

  --seed N          one seed
  --seeds A..B      seeds A to B, without B
  --replicas N      so many replicas (1, 3, 5 or 7); by default the seed chooses
  --jobs N          seeds to run at once (default: one per core)
  --failures-max N  stop at so many failures (default 20)
  --json            print one JSON object instead of text
  --shrink          of the first failure, take away what it does not need
  --trace           print everything that happens, in order: when, who (s: server, n: node, c: caller), what;
                    faults name servers by their place, so that server 0 is s1
  --trace-file F    print it to a file

of one seed's world, leave out:
  --keep A,B,..     all faults of its plan but these (`none`: all)
  --nodes N         all nodes but N
  --callers N       all callers but N
  --faulty-ms N     the faulty time after so many milliseconds

Exit status: 0 all clean, 1 a guarantee was violated, 2 wrong usage.";

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong with them; print it with [`USAGE`].
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut seeds = None;
        let mut options = Self {
            seeds: 0..0,
            case: Case::default(),
            trace: false,
            trace_file: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            failures_max: 20,
            json: false,
            shrink: false,
            scenario: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--seed" => {
                    let seed = number(&value()?)?;
                    seeds = Some(seed..seed + 1);
                }
                "--seeds" => {
                    let text = value()?;
                    let (from, to) = text
                        .split_once("..")
                        .ok_or(format!("`{text}`: expected A..B"))?;
                    let range = number(from)?..number(to)?;
                    if range.is_empty() {
                        return Err(format!("`{text}` holds no seed"));
                    }
                    seeds = Some(range);
                }
                "--replicas" => match number(&value()?)? {
                    count @ (1 | 3 | 5 | 7) => {
                        options.case.replicas = Some(usize::try_from(count).expect("small"));
                    }
                    count => return Err(format!("{count} replicas: expected 1, 3, 5 or 7")),
                },
                "--keep" => options.case.keep = Some(places(&value()?)?),
                "--nodes" => options.case.nodes = Some(positive(&argument, &value()?)?),
                "--callers" => options.case.callers = Some(positive(&argument, &value()?)?),
                "--faulty-ms" => {
                    options.case.faulty_for = Some(Duration::from_millis(number(&value()?)?));
                }
                "--trace" => options.trace = true,
                "--trace-file" => {
                    options.trace = true;
                    options.trace_file = Some(value()?.into());
                }
                "--jobs" => options.jobs = positive(&argument, &value()?)?,
                "--failures-max" => options.failures_max = positive(&argument, &value()?)?,
                "--json" => options.json = true,
                "--shrink" => options.shrink = true,
                "--scenario" => options.scenario = Some(value()?),
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        if let Some(name) = &options.scenario {
            if name != "list" && scenarios::named(name).is_empty() {
                return Err(format!("no scenario `{name}`: see --scenario list"));
            }
            options.seeds = seeds.unwrap_or(0..scenarios::SEEDS);
            return Ok(options);
        }
        options.seeds = seeds.ok_or("give --seed, --seeds or --scenario".to_owned())?;
        let one = options.seeds.end - options.seeds.start == 1;
        if options.case.keep.is_some() && !one {
            return Err("--keep names faults of one seed".to_owned());
        }
        if options.trace_file.is_some() && !one {
            return Err("--trace-file holds the trace of one seed".to_owned());
        }
        if options.json && options.trace && options.trace_file.is_none() {
            return Err("--json and --trace both print: give --trace-file".to_owned());
        }
        Ok(options)
    }

    /// One seed's case.
    #[must_use]
    pub fn case(&self, seed: u64) -> Case {
        Case {
            seed,
            ..self.case.clone()
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number"))
}

fn positive(argument: &str, text: &str) -> Result<usize, String> {
    match number(text)? {
        0 => Err(format!("{argument} must be at least 1")),
        count => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

fn places(text: &str) -> Result<Vec<usize>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let place = |text: &str| {
        text.parse()
            .map_err(|_| format!("`{text}` is not a place in the plan"))
    };
    text.split(',').map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_say_why() {
        let options = parse("--seeds 3..7 --replicas 5 --trace --jobs 1 --failures-max 2").unwrap();
        assert_eq!(
            options,
            Options {
                seeds: 3..7,
                case: Case::whole(0, Some(5)),
                trace: true,
                trace_file: None,
                jobs: 1,
                failures_max: 2,
                json: false,
                shrink: false,
                scenario: None,
            }
        );
        assert_eq!(parse("--seed 9").unwrap().seeds, 9..10);
        for wrong in [
            "",
            "--seed",
            "--seed x",
            "--seeds 4",
            "--seeds 4..4",
            "--seed 1 --replicas 2",
            "--seed 1 --fast",
            "--seeds 1..4 --keep 1",
            "--seeds 1..4 --trace-file x",
            "--seed 1 --json --trace",
            "--seed 1 --keep 1,,2",
            "--scenario nothing",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_case_prints_the_arguments_that_it_is_read_from() {
        for text in [
            "--seed 9",
            "--seed 9 --replicas 5 --keep 1,4,7 --nodes 2 --callers 1 --faulty-ms 4500",
            "--seed 9 --keep none",
        ] {
            let options = parse(text).unwrap();
            assert_eq!(options.case(9).to_string(), text);
        }
    }
}
