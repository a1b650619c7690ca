//! Commands: what the log carries to the state machine, and the envelope around each.

use quorate_types::{
    ClusterTime, ContractVersion, GroupName, NodeName, Principal, ReplicaId, RequestId, Revision,
    SessionId, TenureNumber, Term, TraceId, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::kv::{AuthChange, KvCaller, KvOp};
use crate::spec::{ContenderSpec, GroupSpec, NodeSpec, Position};

/// A session's identity: an id together with the revision that created it, so that a reused id is another
/// session (protocol, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// Its id.
    pub id: SessionId,
    /// The revision at which it was opened.
    pub created: Revision,
}

/// A group's identity: a recreated group of the same name is another group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupKey {
    /// Its name.
    pub name: GroupName,
    /// The revision at which it was created: its incarnation.
    pub created: Revision,
}

/// One tenure of one group incarnation. Every command about a tenure names it (protocol, section 4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenureKey {
    /// The group.
    pub group: GroupKey,
    /// Its number within the group.
    pub number: TenureNumber,
}

/// What makes a retry have its effect once (protocol, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestKey {
    /// Proposed by the leader itself; never retried.
    Internal,
    /// A session's request; `seq` rises by one with each, and the session has at most one outstanding.
    Session {
        /// The session.
        session: SessionKey,
        /// Its request counter, from 1.
        seq: u64,
    },
    /// A caller without a session: remembered for a stated window (`DEDUP_WINDOW_MS`, `DEDUP_ENTRIES_MAX`).
    Caller(RequestId),
    /// Nobody ever retries it and nothing is remembered: the key space's commands, whose outcome a client of theirs learns at once or not
    /// at all.
    Unkeyed,
}

/// A command with what every command carries (ARCHITECTURE.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who asked.
    pub principal: Principal,
    /// Makes retries exactly-once.
    pub request: RequestKey,
    /// Follows the request through logs.
    pub trace: TraceId,
    /// The proposer's wall clock, for people.
    pub wall: WallTime,
    /// The leader's stamp: `max(last stamp, last stamp at takeover + leader's elapsed time)`.
    pub cluster_time: ClusterTime,
    /// The contract version the caller speaks.
    pub contract: ContractVersion,
    /// What to do.
    pub command: Command,
}

/// How a leadership is to change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferMode {
    /// The holder drains first; the handover deadline's policy decides what happens when it does not.
    Handover,
    /// The tenure is revoked: it ends on release, or a stretched TTL later.
    Force,
}

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAdmission {
    /// It may be elected.
    #[default]
    Open,
    /// It is not elected anew; what it holds stays.
    Cordoned,
    /// It is not elected anew, and hands over what it holds.
    Draining,
}

/// What a contender says about a tenure. Each is about the tenure named beside it, or is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The old token is fenced out here and this is how far the data has got (answers a poll).
    Polled {
        /// How far.
        position: Position,
    },
    /// The elected contender meets the precondition: it has caught up to this position.
    Ready {
        /// How far.
        position: Position,
    },
    /// The elected contender cannot prepare; elect the next.
    Failed,
    /// The holder ended its belief and lets go; what it acknowledged ends here.
    Released {
        /// The position its successor must reach, where it is known.
        position: Option<Position>,
    },
    /// The holder refuses a handover and goes on leading.
    Declined,
}

/// What can be asked of the state machine. Closed: one `match` lists everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session, for a node of the service or for a caller that only waits or locks.
    OpenSession {
        /// Its time to live in milliseconds, within `TTL_MS_MIN..=TTL_MS_MAX`.
        ttl_ms: u64,
        /// The node it stands for.
        node: Option<NodeSpec>,
    },
    /// Ends a session at its owner's wish: the owner has ended every belief before it asked.
    CloseSession {
        /// Which.
        session: SessionKey,
    },
    /// Ends another's session: keep-alives are refused from here on, its tenures are revoked, and it stays until the leader
    /// has waited a stretched TTL (protocol, section 3).
    RevokeSession {
        /// Which.
        session: SessionId,
    },
    /// Ends sessions whose deadline passed at the leader of `term`, and re-elects their groups. Dropped where the entry's term differs.
    ExpireSessions {
        /// The term of the leader that judged.
        term: Term,
        /// Which.
        sessions: Vec<SessionKey>,
    },
    /// Ends revoked tenures whose wait is over at the leader of `term`. Dropped where the entry's term differs.
    VacateTenures {
        /// The term of the leader that waited.
        term: Term,
        /// Which.
        tenures: Vec<TenureKey>,
    },
    /// Moves cluster time on, so that deadlines fire. Proposed by the leader when one has passed.
    Advance,
    /// Creates groups; all or none.
    CreateGroups {
        /// Names and specs.
        groups: Vec<(GroupName, GroupSpec)>,
    },
    /// Replaces a group's spec.
    UpdateGroup {
        /// Which.
        group: GroupName,
        /// The new spec.
        spec: GroupSpec,
        /// Refused unless the spec was last changed at this revision.
        expected: Option<Revision>,
    },
    /// Deletes a group; a believed tenure is revoked first and the group goes when it has ended.
    DeleteGroup {
        /// Which.
        group: GroupName,
        /// Refused unless the spec was last changed at this revision.
        expected: Option<Revision>,
    },
    /// Stands in groups, or changes how it stands. Unknown groups are named in the reply; the others are joined.
    Contend {
        /// Who.
        session: SessionKey,
        /// Where and how.
        groups: Vec<(GroupName, ContenderSpec)>,
    },
    /// Stands no longer. A tenure that it holds there is handed over first.
    Withdraw {
        /// Who.
        session: SessionKey,
        /// From where.
        groups: Vec<GroupName>,
    },
    /// Contenders report about tenures.
    Report {
        /// Who.
        session: SessionKey,
        /// What, of which tenures.
        reports: Vec<(TenureKey, Report)>,
    },
    /// Moves a group's leadership.
    Transfer {
        /// Which.
        group: GroupName,
        /// To whom; the election chooses where none is named.
        to: Option<NodeName>,
        /// How.
        mode: TransferMode,
    },
    /// Calls off a pending handover: the holder goes on under the same tenure.
    AbortTransfer {
        /// Which.
        group: GroupName,
    },
    /// Opens, cordons or drains a node. Remembered by name, over sessions.
    AdmitNode {
        /// Which.
        node: NodeName,
        /// What is wanted.
        admission: NodeAdmission,
    },
    /// Hands leaderships over from nodes that hold more than their share, within minimum tenures.
    Rebalance {
        /// Only groups whose name starts so; empty for all.
        prefix: String,
        /// At most this many handovers.
        moves_max: u32,
    },
    /// A contender reports that the holder is alive but faulty. A quorum of such reports revokes the tenure.
    ReportFaulty {
        /// Who.
        session: SessionKey,
        /// Whose tenure.
        tenure: TenureKey,
        /// What is wrong, for people.
        reason: String,
    },
    /// A contender takes its report of a holder back.
    WithdrawReport {
        /// Who.
        session: SessionKey,
        /// About which tenure.
        tenure: TenureKey,
    },
    /// A put, a deletion, a transaction, or (of no effect) a read of the key space, on behalf of a user of its own.
    Kv {
        /// The user, where users are distinguished.
        caller: Option<KvCaller>,
        /// What.
        op: KvOp,
    },
    /// Forgets the key space's history through a revision.
    CompactKv {
        /// The user, where users are distinguished.
        caller: Option<KvCaller>,
        /// Through which; negative ones are refused.
        revision: i64,
    },
    /// Opens a session without a node under an id that the caller chose.
    GrantLease {
        /// The user, where users are distinguished.
        caller: Option<KvCaller>,
        /// The id, positive as a signed number.
        id: u64,
        /// Its time to live in milliseconds; less than `LEASE_TTL_MS_MIN` counts as that.
        ttl_ms: u64,
    },
    /// Ends a session without a node at once, together with its keys. What waits under it was never counted as belief (protocol,
    /// section 10), so that nothing has to be waited out.
    RevokeLease {
        /// The user, where users are distinguished.
        caller: Option<KvCaller>,
        /// Its id.
        id: u64,
    },
    /// Raises or clears an alarm about a server.
    Alarm {
        /// Which of the two.
        action: AlarmAction,
        /// The server.
        member: ReplicaId,
        /// What is wrong.
        kind: AlarmKind,
    },
    /// Changes the key space's users and roles, or whether they are distinguished.
    Auth {
        /// The user, where users are distinguished.
        caller: Option<KvCaller>,
        /// What.
        change: AuthChange,
    },
}

/// Whether an alarm is raised or cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmAction {
    /// It is raised.
    Raise,
    /// It is cleared.
    Clear,
}

/// What an alarm is about. While one is on, the key space refuses what it forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AlarmKind {
    /// The space is used up: no puts, no transactions with puts, no leases; deletions and compactions pass.
    NoSpace,
    /// A server's data differ from the others': nothing of the key space is read or written.
    Corrupt,
}
