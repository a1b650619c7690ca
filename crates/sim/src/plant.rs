//! Mistakes that tests plant in the simulated surroundings, to show that each checker catches its bug.
//!
//! Nothing here touches the shipping code: a plant is a shell, a disk, a node or a client that does its own part wrongly.

/// A mistake of the surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The shell sends at once what should wait for a write.
    SendBeforePersist,
    /// The log writer reports a write as durable before it is synced.
    PersistedBeforeSync,
    /// A restarted server forgets its vote.
    ForgetVote,
    /// A restarted server drops the last, synced entries of its log.
    DropSyncedSuffix,
    /// One server's shell changes committed entries between the disk and the replica at restart.
    RewriteEntries,
    /// A node counts its TTL from the answer to a keep-alive instead of from its sending.
    TtlFromReply,
    /// A node takes an order to stop for an order to go on.
    IgnoreRevoke,
    /// Servers answer keep-alives without the directive counter, so that holders extend what they were told to end.
    NoDirectiveCounter,
    /// Clients can propose the leader's own expiry command, and one does so early.
    ExpireEarly,
    /// A node releases first and ends its belief later.
    ReleaseBeforeBeliefEnds,
    /// Node clocks run far slower than the bound allows.
    ClockBeyondBound,
    /// The resource takes writes with any token.
    NoFence,
    /// A client retries an unknown outcome under a new request key.
    RetryWithNewKey,
    /// A server answers unknown outcomes as applied.
    UnknownAsApplied,
    /// A server answers linearizable reads from what it has, without asking the leader.
    ReadWithoutRound,
    /// One server applies an entry in another way than the others (its snapshot loses a group).
    SnapshotSkipsGroups,
    /// What cuts the network is never mended.
    NeverHeals,
    /// Nodes report positions that they have not reached.
    LieAboutPosition,
    /// A holder releases while work is in flight.
    ReleaseWithOpenWork,
    /// A watcher goes on at a new server without saying what it has seen.
    WatchForgetsRevision,
    /// A server lets a watcher that fell behind go on at the end of its ring, and does not say so.
    WatchSkipsLagged,
    /// Snapshots are written from an empty state.
    SnapshotIsEmpty,
    /// Server clocks run far slower than the bound allows.
    ServersCountSlowly,
    /// A watcher of keys goes on at a new server with what comes next there.
    KeyWatchForgetsRevision,
    /// A server passes conditional writes on without their conditions.
    DropConditions,
}

impl Plant {
    /// Whether peers' memory of a replica's past must be kept from it: it would stop the replica before the bug shows.
    #[must_use]
    pub fn hides_seen(self) -> bool {
        matches!(
            self,
            Self::SendBeforePersist
                | Self::PersistedBeforeSync
                | Self::ForgetVote
                | Self::DropSyncedSuffix
                | Self::RewriteEntries
        )
    }
}
