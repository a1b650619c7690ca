//! Which keys, and how they are read.

use bytes::Bytes;
use quorate_wire::etcd::etcdserverpb::RangeRequest;
use quorate_wire::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::signed;

/// The end that means "no end".
const NO_END: &[u8] = b"\0";

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    key: Bytes,
    /// As etcd has it: empty for the one key, one zero byte for no end.
    range_end: Bytes,
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            range_end: Bytes::new(),
        }
    }

    /// All keys that start so; with an empty prefix, all.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Self::all();
        }
        let range_end = after_prefix(&prefix);
        Self {
            key: prefix,
            range_end,
        }
    }

    /// All keys from this one on.
    #[must_use]
    pub fn from(key: impl Into<Bytes>) -> Self {
        let key = key.into();
        let key = if key.is_empty() {
            Bytes::from_static(NO_END)
        } else {
            key
        };
        Self {
            key,
            range_end: Bytes::from_static(NO_END),
        }
    }

    /// From the first key up to, without, the second.
    #[must_use]
    pub fn between(key: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            range_end: end.into(),
        }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::from(Bytes::new())
    }

    /// Key and end, as etcd has them.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Bytes) {
        (self.key, self.range_end)
    }

    /// Whether it means one key.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.range_end.is_empty()
    }
}

/// The first key after all that start with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    // Nothing comes after a prefix of 0xff bytes only.
    Bytes::from_static(NO_END)
}

/// A read.
#[derive(Clone, Debug)]
#[must_use = "it is done by `Kv::range`"]
pub struct Read {
    request: RangeRequest,
    min_revision: u64,
}

impl Read {
    /// Of these keys: all that there are now, in their order.
    pub fn of(range: KeyRange) -> Self {
        let (key, range_end) = range.into_parts();
        Self {
            request: RangeRequest {
                key,
                range_end,
                ..RangeRequest::default()
            },
            min_revision: 0,
        }
    }

    /// As they were at a revision.
    pub fn at(mut self, revision: u64) -> Self {
        self.request.revision = signed(revision);
        self
    }

    /// At most so many; the answer says whether there are more.
    pub fn limit(mut self, limit: u64) -> Self {
        self.request.limit = signed(limit);
        self
    }

    /// In another order.
    pub fn sorted(mut self, target: SortTarget, order: SortOrder) -> Self {
        self.request.set_sort_target(target);
        self.request.set_sort_order(order);
        self
    }

    /// Without values.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Only how many.
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Only those created at or before a revision.
    pub fn created_through(mut self, revision: u64) -> Self {
        self.request.max_create_revision = signed(revision);
        self
    }

    /// Answered by the asked server alone: cheaper, but it may lag.
    pub fn serializable(mut self) -> Self {
        self.request.serializable = true;
        self
    }

    /// Not older than a revision: a server that has not reached it waits until it has. Quorate's servers only; others ignore it.
    pub fn min_revision(mut self, revision: u64) -> Self {
        self.min_revision = revision;
        self
    }

    /// The message, for a transaction.
    #[must_use]
    pub fn into_request(self) -> RangeRequest {
        self.request
    }

    pub(super) fn into_parts(self) -> (RangeRequest, u64) {
        (self.request, self.min_revision)
    }
}

/// A key for people.
pub(super) fn shown(key: &[u8]) -> String {
    let text = key.escape_ascii().to_string();
    if text.len() <= 80 {
        return format!("key `{text}`");
    }
    format!("key `{}…`", &text[..79])
}

/// A range for people.
pub(super) fn named(key: &[u8], range_end: &[u8]) -> String {
    if range_end.is_empty() {
        shown(key)
    } else if range_end == NO_END && (key == NO_END || key.is_empty()) {
        "all keys".to_owned()
    } else if range_end == NO_END {
        format!("keys from {}", shown(key))
    } else if *after_prefix(key) == *range_end {
        format!("keys below {}", shown(key))
    } else {
        format!("keys from {} to {}", shown(key), shown(range_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_etcd() {
        let check = |range: KeyRange, key: &[u8], end: &[u8]| {
            assert_eq!(
                range.into_parts(),
                (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end))
            );
        };
        check(KeyRange::key("a"), b"a", b"");
        check(KeyRange::prefix("a/"), b"a/", b"a0");
        check(KeyRange::prefix(&b"a\xff"[..]), b"a\xff", b"b");
        check(KeyRange::prefix(&b"\xff"[..]), b"\xff", b"\0");
        check(KeyRange::prefix(""), b"\0", b"\0");
        check(KeyRange::from("b"), b"b", b"\0");
        check(KeyRange::all(), b"\0", b"\0");
    }

    #[test]
    fn ranges_are_named_for_people() {
        assert_eq!(named(b"a", b""), "key `a`");
        assert_eq!(named(b"a/", b"a0"), "keys below key `a/`");
        assert_eq!(named(b"\0", b"\0"), "all keys");
        assert!(shown(&[b'x'; 500]).len() < 100);
    }
}
