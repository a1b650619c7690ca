//! What a resource does with fencing tokens.

use quorate_types::FencingToken;

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// A newer holder has written.
    #[error("the fencing token {presented} is older than {highest}, which has written already")]
    Stale {
        /// The token of the refused write.
        presented: FencingToken,
        /// The highest seen.
        highest: FencingToken,
    },
}

/// Lets only the newest holder write. One for each group that guards the resource.
///
/// ```
/// use quorate_client::{Fence, FencingToken};
///
/// let mut fence = Fence::default();
/// assert!(fence.admit(FencingToken(7)).is_ok());
/// assert!(fence.admit(FencingToken(9)).is_ok());
/// assert!(fence.admit(FencingToken(7)).is_err()); // woke up after its successor wrote
/// ```
///
/// # Invariants
/// - `highest` never decreases. Store it with the resource, so that this holds over restarts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    highest: FencingToken,
}

impl Fence {
    /// A fence that has seen `highest`, as read back from where the resource stored it.
    #[must_use]
    pub fn restored(highest: FencingToken) -> Self {
        Self { highest }
    }

    /// Checks a write's token and remembers it.
    ///
    /// # Errors
    /// [`FenceError::Stale`]: a newer holder has written. Do not retry; stop leading.
    pub fn admit(&mut self, presented: FencingToken) -> Result<(), FenceError> {
        if presented < self.highest {
            return Err(FenceError::Stale {
                presented,
                highest: self.highest,
            });
        }
        // Equal is fine: one tenure makes many writes. Gaps are fine too:
        // tokens come from revisions, which other elections also consume.
        self.highest = presented;
        Ok(())
    }

    /// The highest token seen.
    #[must_use]
    pub fn highest(&self) -> FencingToken {
        self.highest
    }
}
