//! The command line: which seeds to run, and how.

use std::ops::Range;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which seeds.
    pub seeds: Range<u64>,
    /// How many replicas; by the seed where none is given.
    pub replicas: Option<usize>,
    /// Whether to print what happens.
    pub trace: bool,
    /// How many seeds to run at once.
    pub jobs: usize,
}

/// What `--help` prints.
pub const USAGE: &str = "\
Runs Quorate in a simulated, faulty world, from a seed.

usage: quorate-sim (--seed N | --seeds A..B) [--replicas 1|3|5|7] [--trace] [--jobs N]

  --seed N        one seed
  --seeds A..B    seeds A to B, without B
  --replicas N    so many replicas; by default the seed chooses 1, 3 or 5
  --trace         print everything that happens, in order
  --jobs N        seeds to run at once (default: one per core)

Exit status: 0 all clean, 1 a guarantee was violated, 2 wrong usage.";

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong with them; print it with [`USAGE`].
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut seeds = None;
        let mut replicas = None;
        let mut trace = false;
        let mut jobs = std::thread::available_parallelism().map_or(1, usize::from);
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
                        replicas = Some(usize::try_from(count).expect("small"));
                    }
                    count => return Err(format!("{count} replicas: expected 1, 3, 5 or 7")),
                },
                "--trace" => trace = true,
                "--jobs" => match number(&value()?)? {
                    0 => return Err("--jobs must be at least 1".to_owned()),
                    count => jobs = usize::try_from(count).unwrap_or(usize::MAX),
                },
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        let seeds = seeds.ok_or("give --seed or --seeds".to_owned())?;
        Ok(Self {
            seeds,
            replicas,
            trace,
            jobs,
        })
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_say_why() {
        let options = parse("--seeds 3..7 --replicas 5 --trace --jobs 1").unwrap();
        assert_eq!(
            options,
            Options {
                seeds: 3..7,
                replicas: Some(5),
                trace: true,
                jobs: 1
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
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
