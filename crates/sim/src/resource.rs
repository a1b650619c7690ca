//! What a group's leadership protects: takes writes that carry a fencing token, and refuses older ones.

use quorate_types::FencingToken;
use quorate_wire::api::TenureId;

use crate::plant::Plant;
use crate::trace::hash_bytes;
use crate::world::World;

/// A write on its way.
#[derive(Clone, Debug)]
pub(crate) struct ResourceWrite {
    pub(crate) tenure: TenureId,
    pub(crate) token: FencingToken,
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
}

impl World {
    /// A write arrives, however late.
    pub(crate) fn on_resource_write(&mut self, group: usize, write: &ResourceWrite) {
        let fenced = !self.is_planted(Plant::NoFence);
        let resource = &mut self.resources[group];
        if fenced && write.token < resource.highest {
            self.stats.writes_fenced += 1;
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
        self.judge(verdict);
    }
}
