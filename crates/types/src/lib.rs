//! Ids and numbers of Quorate as newtypes, so that passing one for another does not compile.
//!
//! Owns: numbers, names, time and the clock-rate bound. Deliberately absent: any protocol logic, any I/O.

mod name;
mod number;
mod payload;
mod time;

pub use name::{GroupName, NAME_BYTES_MAX, NameError, NodeName, Principal};
pub use number::{
    ClusterEpoch, ClusterId, ConfigEpoch, ContractVersion, DirectiveSeq, FeatureLevel,
    FencingToken, LogIndex, ReplicaId, RequestId, Revision, SessionId, TenureNumber, Term, TraceId,
};
pub use payload::Payload;
pub use time::{ClusterTime, DriftBound, Time, WallTime};
