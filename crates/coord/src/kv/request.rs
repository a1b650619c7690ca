//! What is asked of the key space, and what it answers. Numbers are signed where etcd's are: a negative one means what it means there.

use std::cell::Cell;

use serde::{Deserialize, Deserializer, Serialize};

use super::Blob;

/// How deep transactions may be nested.
pub(super) const NESTED_MAX: usize = 100;

/// On whose behalf an operation is done, where users are distinguished. Checked when it is applied, since rights may change in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvCaller {
    /// The user.
    pub user: String,
    /// The revision of users and roles at which the serving process knew the user. An older one than the current is refused.
    pub auth_revision: u64,
}

/// A key with its value and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Blob,
    /// The value.
    pub value: Blob,
    /// The revision that created it, since its last deletion.
    pub create_revision: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
    /// How often it was put since its creation, from 1.
    pub version: u64,
    /// The lease (session) it is attached to; 0 for none.
    pub lease: u64,
}

/// Which keys: `[key, range_end)`, by the rules of etcd. An empty end means the one key; an end of one zero byte means no upper bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The key, or the first one.
    pub key: Blob,
    /// The end.
    pub range_end: Blob,
}

/// The order of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortOrder {
    /// As stored: by key where the target is the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What an answer is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision that created it.
    Create,
    /// The revision that changed it last.
    Mod,
    /// The value.
    Value,
}

/// A read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; not positive: the newest.
    pub revision: i64,
    /// At most so many; not positive: all.
    pub limit: i64,
    /// In which order.
    pub sort_order: SortOrder,
    /// By what.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Leave the keys out, too.
    pub count_only: bool,
    /// Only those changed at or after it; 0 for all.
    pub min_mod_revision: i64,
    /// Only those changed at or before it; 0 for all.
    pub max_mod_revision: i64,
    /// Only those created at or after it; 0 for all.
    pub min_create_revision: i64,
    /// Only those created at or before it; 0 for all.
    pub max_create_revision: i64,
}

/// A write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Blob,
    /// The value.
    pub value: Blob,
    /// The lease to attach it to; 0 for none.
    pub lease: i64,
    /// Answer with what was there.
    pub prev_kv: bool,
    /// Keep the value that is there.
    pub ignore_value: bool,
    /// Keep the lease that is there.
    pub ignore_lease: bool,
}

/// A deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with what was there.
    pub prev_kv: bool,
}

/// How a comparison must end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareResult {
    /// Equal.
    #[default]
    Equal,
    /// What is there is greater.
    Greater,
    /// What is there is less.
    Less,
    /// Different.
    NotEqual,
}

/// What is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The revision that created it.
    Create(i64),
    /// The revision that changed it last.
    Mod(i64),
    /// The value.
    Value(Blob),
    /// The lease.
    Lease(i64),
}

/// A condition: it holds if it does for all keys of the range; a missing single key counts as all zeros (for values: as unequal to any).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// How it must end.
    pub result: CompareResult,
    /// What is compared.
    pub target: CompareTarget,
    /// Of which keys.
    pub range: KeyRange,
}

/// Several reads and writes in one revision, on a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// What is done if they do.
    pub success: Vec<KvOp>,
    /// What is done otherwise.
    pub failure: Vec<KvOp>,
}

thread_local! {
    /// How deep the transaction is that is being read: a few bytes per level would otherwise exhaust the stack.
    static NESTED: Cell<usize> = const { Cell::new(0) };
}

/// One level deeper while it lives.
struct Deeper;

impl Deeper {
    fn enter() -> Option<Self> {
        let depth = NESTED.get();
        (depth < NESTED_MAX).then(|| {
            NESTED.set(depth + 1);
            Self
        })
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        NESTED.set(NESTED.get() - 1);
    }
}

impl<'de> Deserialize<'de> for Txn {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Txn")]
        struct Read {
            compare: Vec<Compare>,
            success: Vec<KvOp>,
            failure: Vec<KvOp>,
        }
        let too_deep = || serde::de::Error::custom("transactions are nested too deeply");
        let _deeper = Deeper::enter().ok_or_else(too_deep)?;
        let read = Read::deserialize(from)?;
        Ok(Self {
            compare: read.compare,
            success: read.success,
            failure: read.failure,
        })
    }
}

/// One operation of a transaction, or a write of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvOp {
    /// A read.
    Range(Range),
    /// A write.
    Put(Put),
    /// A deletion.
    DeleteRange(DeleteRange),
    /// A nested transaction.
    Txn(Txn),
}

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReply {
    /// What was found, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// How many there are in the range (by etcd's rules: before the filters by revision).
    pub count: u64,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvOpReply {
    /// A read's answer.
    Range(RangeReply),
    /// A put's.
    Put {
        /// What was there, where it was asked for.
        prev_kv: Option<KeyValue>,
    },
    /// A deletion's.
    DeleteRange {
        /// How many were deleted.
        deleted: u64,
        /// What was there, where it was asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// A nested transaction's.
    Txn(TxnReply),
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnReply {
    /// Whether the conditions held.
    pub succeeded: bool,
    /// What each operation did.
    pub responses: Vec<KvOpReply>,
}

/// One change of one key, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvChange {
    /// The key was put; this is what it is now.
    Put(KeyValue),
    /// The key was deleted.
    Delete {
        /// The key.
        key: Blob,
        /// The revision that deleted it.
        mod_revision: u64,
    },
}
