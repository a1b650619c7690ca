//! The replicated state machine: sessions, nodes, groups, tenures. A pure function of the log, sans-IO.
//!
//! Deliberately absent: clocks (time comes with each entry), keep-alives (the leader's memory, in `replica`), any I/O.

mod command;
mod event;
mod reply;
mod spec;

mod contract;
mod group;
mod state;

mod access;
mod apply;
mod deadline;
mod dedup;
mod depose;
mod elect;
mod group_keys;
mod groups;
mod handover;
mod keys;
mod lifecycle;
mod node;
mod poll;
mod report;
mod restore;
mod session;
mod spread;
mod validate;

pub mod kv;

mod bounded;
mod digest;
mod explain;
mod footprint;
mod image;
mod size;
mod standing;

#[cfg(test)]
mod tests;

pub use command::{
    AlarmAction, AlarmKind, Command, Envelope, GroupKey, NodeAdmission, Report, RequestKey,
    SessionKey, TenureKey, TransferMode,
};
pub use contract::{CONTRACT_VERSIONS, Initiator, TRANSITIONS, Transition, is_listed};
pub use dedup::{DEDUP_ENTRIES_MAX, DEDUP_KEPT_MS_MIN, DEDUP_WINDOW_MS};
pub use depose::{FaultReport, REASON_BYTES_MAX, REPORTS_KEPT_MAX};
pub use elect::Exclusion;
pub use event::{Cause, Directive, DirectiveKind, Event, Phase, Predecessor, TenureView};
pub use explain::{ExplainedContender, ExplainedTenure, Explanation};
pub use group::{
    Contender, Cooldown, Criterion, Group, HISTORY_MAX, PastTenure, Pending, PendingKind,
    Successor, Tenure,
};
pub use group_keys::GROUP_KEYS_PREFIX;
pub use image::ImageError;
pub use reply::{Outcome, Rejection, Reply};
pub use restore::{RESTORE_RAISE, Restore};
pub use spec::{
    BATCH_MAX, ContenderSpec, DeposeQuorum, ElectionPolicy, GroupSpec, LEASE_ID_MAX,
    LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN, NodeSpec, OverduePolicy, Position, ProposedConfiguration,
    SPEC_BYTES_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
pub use spread::SPREAD_DRAINS_MAX;
pub use standing::{Part, Standing, StandingPart};
pub use state::{FEATURE_LEVEL, Load, Node, Session, State};
pub use validate::{DEADLINE_MS_MAX, PREFER_MAX};
