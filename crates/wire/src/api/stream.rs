//! The two streams: a node's session, and a watch of groups.

use quorate_types::{ClusterId, ContractVersion, DirectiveSeq, GroupName, RequestId, Revision};

use super::{
    ApiError, ContenderSpec, Directive, GroupState, NodeSpec, Report, SessionKey, StandingTenure,
    TenureId,
};

/// From the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeUp {
    /// Opens a session; the first message of a stream is this or `Resume`.
    Open {
        /// Retried with the same id, it opens one session.
        request_id: RequestId,
        /// Its TTL in milliseconds.
        ttl_ms: u64,
        /// The node it stands for; none: it does not contend.
        node: Option<NodeSpec>,
        /// The lowest contract version the node speaks.
        contract_min: ContractVersion,
        /// The highest.
        contract_max: ContractVersion,
    },
    /// Goes on with a session.
    Resume {
        /// Which.
        session: SessionKey,
        /// The newest directive of which, with all before, nothing is missing.
        processed: DirectiveSeq,
        /// The lowest contract version the node speaks.
        contract_min: ContractVersion,
        /// The highest.
        contract_max: ContractVersion,
    },
    /// Keeps the session alive.
    KeepAlive {
        /// Rises by one over all streams of the session.
        seq: u64,
        /// The sender's boot-time clock at the send, in milliseconds.
        clock_ms: u64,
        /// Must be true, or it does not count.
        healthy: bool,
    },
    /// Stands in groups.
    Contend {
        /// The session's request counter.
        request_seq: u64,
        /// Where and how.
        entries: Vec<(GroupName, ContenderSpec)>,
    },
    /// Stands no longer.
    Withdraw {
        /// The session's request counter.
        request_seq: u64,
        /// From where.
        groups: Vec<GroupName>,
    },
    /// Reports about tenures.
    Report {
        /// The session's request counter.
        request_seq: u64,
        /// What, of which tenures.
        reports: Vec<(TenureId, Report)>,
    },
    /// Reports a holder as alive but faulty.
    ReportFaulty {
        /// The session's request counter.
        request_seq: u64,
        /// Whose tenure.
        tenure: TenureId,
        /// What is wrong, for people.
        reason: String,
    },
    /// Takes such a report back.
    WithdrawReport {
        /// The session's request counter.
        request_seq: u64,
        /// About which tenure.
        tenure: TenureId,
    },
    /// Ends the session.
    Close {
        /// The session's request counter.
        request_seq: u64,
    },
}

/// To the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeDown {
    /// Answers `Open` and `Resume`. Gives no belief.
    Opened {
        /// The session.
        session: SessionKey,
        /// Its TTL in milliseconds.
        ttl_ms: u64,
        /// The smallest TTL that a change of the backbone's leader is expected not to break.
        ttl_ms_min_safe: u64,
        /// The contract version that is used.
        contract: ContractVersion,
        /// The cluster.
        cluster: ClusterId,
    },
    /// Answers a keep-alive.
    KeptAlive {
        /// Which.
        seq: u64,
        /// The TTL in milliseconds, counted from that keep-alive's send.
        ttl_ms: u64,
        /// It extends tenures only when every directive up to this one is processed.
        directive_seq: DirectiveSeq,
    },
    /// The session is over, or about to be; the stream ends.
    SessionGone,
    /// The next directive.
    Directive(Directive),
    /// The full picture.
    Standing {
        /// As of this directive.
        directive_seq: DirectiveSeq,
        /// Exactly these.
        tenures: Vec<StandingTenure>,
    },
    /// The state machine has decided the request.
    RequestDone {
        /// Which.
        request_seq: u64,
        /// How.
        outcome: Result<RequestDone, ApiError>,
    },
    /// It may have been applied: send it again with the same counter.
    RequestUnknown {
        /// Which.
        request_seq: u64,
    },
    /// Nothing was or will be done.
    Refused {
        /// Which request, to be sent again with the same counter; none: `Open` or `Resume`, and the stream ends.
        request_seq: Option<u64>,
        /// Why.
        error: ApiError,
    },
}

/// What a session's request did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestDone {
    /// The revision after it.
    pub revision: Revision,
    /// What was refused: position in the batch, and why. The rest took effect.
    pub refused: Vec<(u32, ApiError)>,
}

/// Watches all groups whose name starts with a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchGroups {
    /// The prefix.
    pub prefix: String,
    /// Start only from a state at least this new.
    pub min_revision: Revision,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// A part of the snapshot.
    SnapshotChunk(Vec<GroupState>),
    /// The snapshot is complete: exactly the groups that its chunks named.
    SnapshotEnd {
        /// As of this revision.
        revision: Revision,
    },
    /// A group changed.
    Delta {
        /// At this revision; several changes may share one.
        revision: Revision,
        /// The group after it.
        group: GroupState,
        /// The group is gone.
        deleted: bool,
    },
    /// Everything up to this revision was delivered.
    Progress {
        /// The revision.
        revision: Revision,
    },
    /// The watcher fell behind: a new snapshot follows.
    Resync {
        /// Why; for people.
        reason: String,
    },
}
