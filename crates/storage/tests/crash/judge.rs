//! What must be there after a crash, given what was acknowledged before it.
//!
//! Owns: the verdict. A step in flight may be there or not, whole; everything acknowledged is there, and nothing else is.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::Path;

use quorate_storage::SnapshotMeta;

use crate::child::DISK;
use crate::process::{Report, look};
use crate::workload::{State, Step, Workload};

/// What the parent knows of one data directory.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Which state it is in.
    pub(crate) state: State,
    /// Its disk id, since its creation was acknowledged.
    disk: Option<u64>,
    /// Every snapshot that was ever given to it: replaced ones may come back, for their removal is not synced.
    snapshots: BTreeSet<SnapshotMeta>,
}

/// Numbers for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) rounds: u64,
    pub(crate) kills: u64,
    pub(crate) cuts: u64,
    pub(crate) acked: u64,
    /// Steps that were given but not acknowledged: found all the same, or lost, as they may be.
    pub(crate) in_flight_kept: u64,
    pub(crate) in_flight_lost: u64,
    pub(crate) torn_tails: u64,
    /// Sectors written but not flushed before a power cut, and how many of them were lost.
    pub(crate) sectors_unsynced: u64,
    pub(crate) sectors_lost: u64,
    /// File systems that had to be repaired before they could be mounted.
    pub(crate) repaired: u64,
}

impl Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} rounds, {} power cuts, {} kills; {} writes acknowledged, none of them lost; in flight: {} kept, {} lost; {} torn tails",
            self.rounds,
            self.cuts,
            self.kills,
            self.acked,
            self.in_flight_kept,
            self.in_flight_lost,
            self.torn_tails
        )?;
        if self.cuts > 0 {
            write!(
                to,
                "; {} sectors unsynced, {} of them lost; {} file systems repaired",
                self.sectors_unsynced, self.sectors_lost, self.repaired
            )?;
        }
        Ok(())
    }
}

impl Known {
    /// Looks at the directory after a crash of the writer with this seed, and compares with what it had acknowledged.
    ///
    /// # Errors
    /// What was promised and is not so.
    pub(crate) fn check(
        &mut self,
        path: &Path,
        seed: u64,
        steps_max: u64,
        said: &Report,
        counts: &mut Counts,
    ) -> Result<(), String> {
        counts.acked += said.acked;
        if said.is_opened {
            self.disk.get_or_insert(DISK);
        }
        let mut workload = Workload::new(seed, self.state.clone());
        for _ in 0..said.acked {
            self.note(&workload.step());
        }
        let acked = workload.state.clone();
        // What it was doing when it was killed; before its opening it was doing nothing.
        let in_flight = (said.is_opened && said.acked < steps_max).then(|| {
            self.note(&workload.step());
            workload.state
        });
        let seen = look(path);
        if let Some(error) = seen.error {
            return Err(format!("it does not open: {error}; acknowledged: {acked}"));
        }
        let found = seen
            .found
            .filter(|_| seen.is_done)
            .ok_or("the process that looked ended before it had seen all")?;
        // Looking creates it, where it was not.
        let disk = *self.disk.get_or_insert(seen.disk);
        if disk != seen.disk || (seen.is_new && disk == DISK) {
            return Err("the data directory was created anew".to_owned());
        }
        if let Some(invented) = seen.snapshots.difference(&self.snapshots).next() {
            return Err(format!("nobody ever gave snapshot {invented:?}"));
        }
        counts.torn_tails += u64::from(found.torn_bytes > 0);
        if found.fingerprint == acked.fingerprint() {
            let is_lost = in_flight.is_some_and(|state| state != acked);
            counts.in_flight_lost += u64::from(is_lost);
            self.state = acked;
            return Ok(());
        }
        match in_flight {
            Some(state) if found.fingerprint == state.fingerprint() => {
                counts.in_flight_kept += 1;
                self.state = state;
                Ok(())
            }
            in_flight => Err(format!(
                "found {}; acknowledged: {acked}; in flight: {}",
                found.shown,
                in_flight.map_or("nothing".to_owned(), |state| state.to_string())
            )),
        }
    }

    /// Looks again, after a crash of nobody who wrote: everything is as it was found last.
    ///
    /// # Errors
    /// What is not so.
    pub(crate) fn check_unchanged(&self, path: &Path) -> Result<(), String> {
        let seen = look(path);
        match (seen.error, seen.found) {
            (None, Some(found)) if found.fingerprint == self.state.fingerprint() => Ok(()),
            (error, found) => Err(format!(
                "an opening said {}, the one after the crash {found:?}, {error:?}",
                self.state
            )),
        }
    }

    fn note(&mut self, step: &Step) {
        if let Step::Save(meta) | Step::Receive(meta, _) = step {
            self.snapshots.insert(*meta);
        }
    }
}
