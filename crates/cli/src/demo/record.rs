//! What a node believed, written down as it happens, and the check that no two beliefs of one group overlap.
//!
//! A belief is recorded generously: from the moment a node may act as a leader until it was told to stop or its lease ran
//! out, whichever came first. A killed node's belief lasts until its lease ran out. All processes run on one
//! machine, so their readings of `CLOCK_BOOTTIME` compare.
//!
//! A line each: `a GROUP TENURE TOKEN TIME` begins a belief, `u TIME` says until when all of them are confirmed,
//! `e GROUP TENURE TIME` ends one. Names of the demo hold no spaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use quorate_types::{FencingToken, GroupName, TenureNumber, Time};

/// Writes one node's record.
///
/// # Invariants
/// - Each line reaches the file before the call returns, so that a killed node's record is complete.
pub(super) struct Recorder {
    file: File,
    until: Time,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::options().append(true).create(true).open(path)?,
            until: Time::ZERO,
        })
    }

    /// The node may act as `group`'s leader from now on, as far as its lease goes.
    pub(super) fn begin(
        &mut self,
        now: Time,
        group: &GroupName,
        tenure: TenureNumber,
        token: FencingToken,
    ) -> io::Result<()> {
        self.line(&format!("a {group} {tenure} {token} {}\n", now.0))
    }

    /// Every belief is confirmed until then.
    pub(super) fn confirmed(&mut self, until: Time) -> io::Result<()> {
        if until <= self.until {
            return Ok(());
        }
        self.until = until;
        self.line(&format!("u {}\n", until.0))
    }

    /// The node no longer asks whether it leads.
    pub(super) fn end(
        &mut self,
        now: Time,
        group: &GroupName,
        tenure: TenureNumber,
    ) -> io::Result<()> {
        self.line(&format!("e {group} {tenure} {}\n", now.0))
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())
    }
}

/// One node's belief in one tenure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Belief {
    begin: Time,
    end: Time,
    tenure: TenureNumber,
    token: FencingToken,
    node: String,
}

/// What was found in all records.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    pub(super) tenures_checked: u64,
    pub(super) overlaps: u64,
    /// Later beliefs with a token or tenure number that did not rise.
    pub(super) order_violations: u64,
    /// The first few, in words.
    pub(super) examples: Vec<String>,
}

/// Reads one node's record. A cut last line is what a killed node leaves, and ignored.
pub(super) fn read(node: &str, text: &str) -> Result<Vec<(GroupName, Belief)>, String> {
    let mut open: BTreeMap<(GroupName, TenureNumber), Belief> = BTreeMap::new();
    let mut done = Vec::new();
    let mut until = Time::ZERO;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    for line in complete.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let bad = || format!("node {node}: cannot read record line `{line}`");
        let number = |word: &str| word.parse::<u64>().map_err(|_| bad());
        match words[..] {
            ["a", group, tenure, token, time] => {
                let group = GroupName::new(group).map_err(|_| bad())?;
                let tenure = TenureNumber(number(tenure)?);
                let begin = Time(number(time)?);
                let belief = Belief {
                    begin,
                    end: begin,
                    tenure,
                    token: FencingToken(number(token)?),
                    node: node.to_owned(),
                };
                // Told twice: the earlier moment counts.
                open.entry((group, tenure)).or_insert(belief);
            }
            ["u", time] => until = Time(number(time)?),
            ["e", group, tenure, time] => {
                let group = GroupName::new(group).map_err(|_| bad())?;
                if let Some(mut belief) =
                    open.remove(&(group.clone(), TenureNumber(number(tenure)?)))
                {
                    belief.end = belief.begin.max(until.min(Time(number(time)?)));
                    done.push((group, belief));
                }
            }
            _ => return Err(bad()),
        }
    }
    for ((group, _), mut belief) in open {
        belief.end = belief.begin.max(until);
        done.push((group, belief));
    }
    Ok(done)
}

/// Looks for two beliefs in one group at one moment, and for tokens that do not rise.
pub(super) fn check(beliefs: Vec<(GroupName, Belief)>) -> Findings {
    const EXAMPLES_MAX: usize = 5;
    let mut by_group: BTreeMap<GroupName, Vec<Belief>> = BTreeMap::new();
    for (group, belief) in beliefs {
        by_group.entry(group).or_default().push(belief);
    }
    let mut findings = Findings::default();
    for (group, mut beliefs) in by_group {
        beliefs.sort();
        findings.tenures_checked += beliefs.len() as u64;
        // The one that lasts longest so far: a later one may overlap with it even past its direct neighbour.
        let mut longest: Option<&Belief> = None;
        // A tenure that was told of only after its lease had run out was never believed in.
        for belief in beliefs.iter().filter(|belief| belief.begin < belief.end) {
            if let Some(before) = longest {
                let overlap = belief.begin < before.end;
                let order = belief.token <= before.token || belief.tenure <= before.tenure;
                findings.overlaps += u64::from(overlap);
                findings.order_violations += u64::from(order);
                if (overlap || order) && findings.examples.len() < EXAMPLES_MAX {
                    let what = if overlap { "overlaps" } else { "does not rise" };
                    findings
                        .examples
                        .push(format!("{group}: {what}: {before:?} then {belief:?}"));
                }
            }
            if longest.is_none_or(|before| belief.end > before.end) {
                longest = Some(belief);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(records: &[(&str, &str)]) -> Findings {
        check(
            records
                .iter()
                .flat_map(|(node, text)| read(node, text).unwrap())
                .collect(),
        )
    }

    #[test]
    fn a_lease_that_ran_out_before_the_next_belief_is_no_overlap() {
        let found = findings(&[
            ("a", "u 50\na g 1 10 5\nu 100\n"),
            ("b", "u 300\na g 2 11 100\ne g 2 150\n"),
        ]);
        assert_eq!(
            (
                found.tenures_checked,
                found.overlaps,
                found.order_violations
            ),
            (2, 0, 0)
        );
    }

    #[test]
    fn one_nanosecond_of_two_beliefs_is_an_overlap() {
        let found = findings(&[
            ("a", "a g 1 10 5\nu 101\n"),
            ("b", "u 300\na g 2 11 100\ne g 2 150\n"),
        ]);
        assert_eq!(found.overlaps, 1);
        assert!(
            found.examples[0].contains("g: overlaps"),
            "{:?}",
            found.examples
        );
    }

    #[test]
    fn a_long_belief_is_compared_past_its_neighbour() {
        let found = findings(&[
            ("a", "a g 1 10 5\nu 1000\n"),
            ("b", "u 900\na g 2 11 10\ne g 2 20\n"),
            ("c", "u 900\na g 3 12 500\ne g 3 510\n"),
        ]);
        assert_eq!(found.overlaps, 2);
    }

    #[test]
    fn the_end_that_was_told_bounds_a_belief_and_the_lease_bounds_it_too() {
        let belief = |text: &str| read("a", text).unwrap().remove(0).1;
        assert_eq!(belief("a g 1 10 5\nu 100\ne g 1 60\n").end, Time(60));
        assert_eq!(belief("a g 1 10 5\nu 100\ne g 1 160\n").end, Time(100));
        assert_eq!(
            belief("u 3\na g 1 10 5\n").end,
            Time(5),
            "never confirmed past its begin"
        );
    }

    #[test]
    fn tokens_that_do_not_rise_are_found_even_without_an_overlap() {
        let found = findings(&[("a", "a g 1 10 5\nu 7\n"), ("b", "u 30\na g 2 10 20\n")]);
        assert_eq!((found.overlaps, found.order_violations), (0, 1));
    }

    #[test]
    fn a_tenure_heard_of_after_its_lease_ran_out_was_never_believed_in() {
        let found = findings(&[
            ("a", "u 100\na g 1 10 500\n"),
            ("b", "u 900\na g 2 11 200\n"),
        ]);
        assert_eq!(
            (
                found.tenures_checked,
                found.overlaps,
                found.order_violations
            ),
            (2, 0, 0)
        );
    }

    #[test]
    fn a_cut_last_line_is_ignored_and_other_garbage_is_not() {
        assert_eq!(
            read("a", "a g 1 10 5\nu 100\ne g 1").unwrap()[0].1.end,
            Time(100)
        );
        assert!(read("a", "x\n").is_err());
        assert!(read("a", "a g 1 ten 5\n").is_err());
    }
}
