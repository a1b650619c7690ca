//! What a group's leadership protects: takes writes that carry a fencing token, and refuses older ones.
//!
//! Its writes are pieces of work that a holder begins and settles, so that what a tenure leaves open is seen.

use std::collections::BTreeMap;

use quorate_types::FencingToken;
use quorate_wire::api::TenureId;

use crate::checkers::believed_tenures_never_overlap::Process;
use crate::plant::Plant;
use crate::trace::hash_bytes;
use crate::world::World;

/// A piece of work, unique in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PieceId(pub(crate) u64);

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begins a piece of work.
    Begin(PieceId),
    /// Completes or rolls back one that the same tenure began.
    Settle(PieceId),
    /// Completes or rolls back everything that earlier tenures left open.
    SettleInherited,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It was taken.
    Taken,
    /// Its token is older than one seen before.
    Fenced,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(crate) struct ResourceWrite {
    pub(crate) tenure: TenureId,
    pub(crate) token: FencingToken,
    /// Who wrote it, and hears of it.
    pub(crate) process: Process,
    pub(crate) action: Action,
}

/// One group's resource.
///
/// # Invariants
/// - `highest` never decreases: each write's token is compared before the write is taken (code guide, section 4).
#[derive(Debug, Default)]
pub(crate) struct Resource {
    highest: FencingToken,
    /// How many writes it took: what contenders catch up to.
    pub(crate) position: u64,
    /// Work that is begun and not settled, and whose it is.
    open: BTreeMap<PieceId, TenureId>,
}

impl World {
    /// A write arrives, however late.
    pub(crate) fn on_resource_write(&mut self, group: usize, write: &ResourceWrite) {
        let fenced = !self.is_planted(Plant::NoFence);
        let resource = &mut self.resources[group];
        if fenced && write.token < resource.highest {
            self.stats.writes_fenced += 1;
            self.on_written(write, Effect::Fenced);
            return;
        }
        resource.highest = resource.highest.max(write.token);
        resource.position += 1;
        self.stats.writes_taken += 1;
        let writer = hash_bytes(
            &[
                write.tenure.incarnation.0.to_le_bytes(),
                write.tenure.number.0.to_le_bytes(),
            ]
            .concat(),
        );
        let verdict = self
            .checkers
            .tokens
            .on_write(&self.groups[group], write.token, writer);
        let verdict = verdict.and(self.take(group, write));
        self.judge(verdict);
        self.on_written(write, Effect::Taken);
    }

    fn take(&mut self, group: usize, write: &ResourceWrite) -> crate::checkers::Verdict {
        let open = &mut self.resources[group].open;
        let checker = &mut self.checkers.work;
        match write.action {
            Action::Begin(piece) => {
                let verdict = checker.on_begun(&write.tenure, open.values());
                open.insert(piece, write.tenure.clone());
                verdict
            }
            Action::Settle(piece) => checker.on_settled(&write.tenure, open.remove(&piece)),
            Action::SettleInherited => {
                let before = open.len();
                open.retain(|_, of| *of == write.tenure);
                checker.on_inherited_settled(before - open.len());
                Ok(())
            }
        }
    }
}
