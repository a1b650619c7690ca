//! The key space: keys with revisions, transactions, history until compaction (design, section 8).
//!
//! It counts revisions of its own, from 1 as etcd does: sessions, marks and groups' inner changes do not move them (ADR key-space-revisions).
//! Deliberately absent: watching (a version's changes are what a watch reads), passwords in the clear, any clock.

mod auth;
mod blob;
mod error;
mod request;

mod check;
mod store;

mod compact;
mod hash;
mod image;
mod index;
mod read;
mod txn;

#[cfg(test)]
mod tests;

pub use auth::{Access, AuthChange, AuthStore, LeaseKeys, Permission, ROOT, Role, Secret, User};
pub use blob::Blob;
pub use check::check;
pub use error::{AuthError, KvError};
pub use request::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, KvCaller, KvChange,
    KvOp, KvOpReply, Put, Range, RangeReply, SortOrder, SortTarget, Txn, TxnReply,
};
pub use store::{KvStore, OWN_PREFIX};
