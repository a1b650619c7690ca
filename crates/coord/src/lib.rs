//! The replicated state machine: sessions, nodes, groups, tenures. A pure function of the log, sans-IO.
//!
//! Deliberately absent: clocks (time comes with each entry), keep-alives (the leader's memory, in `replica`), any I/O.

mod command;
mod event;
mod reply;
mod spec;

pub use command::{
    Command, Envelope, GroupKey, NodeAdmission, Report, RequestKey, SessionKey, TenureKey, TransferMode,
};
pub use event::{Cause, Directive, DirectiveKind, Event, Phase, Predecessor, TenureView};
pub use reply::{Outcome, Rejection, Reply};
pub use spec::{
    BATCH_MAX, ContenderSpec, ElectionPolicy, GroupSpec, NodeSpec, OverduePolicy, Position, ProposedConfiguration,
    SPEC_BYTES_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
