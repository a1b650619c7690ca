//! The copy: both sides page by page in the order of their keys, and whatever differs is put or deleted. The same walk compares them.

use std::collections::BTreeMap;

use quorate_client::kv::pb::{self, Bytes};
use quorate_client::kv::{KeyRange, KvFault, Read};

use super::leases::Leases;
use super::sink::{BYTES_MAX, OPERATIONS_MAX, Sink, SinkError, delete, put};
use super::{Progress, Side, after, is_reserved, shown};
use crate::commands::kv::encoding::to_hex;

/// Keys in a page, at first; it shrinks where they are large.
const PAGE: u64 = 500;
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// How a copy ended, where nothing failed.
pub(super) enum Copied {
    /// All is there as of the revision.
    Done,
    /// The source has compacted the revision, or a lease of the destination went: again from the start.
    Again,
}

/// Both sides' pairs in one stretch of keys.
struct Stretch {
    source: Vec<pb::KeyValue>,
    destination: BTreeMap<Bytes, pb::KeyValue>,
}

/// Walks both sides.
struct Walk<'a> {
    source: &'a Side,
    destination: &'a Side,
    revision: u64,
    cursor: Option<Vec<u8>>,
    page: u64,
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<Stretch>, quorate_client::Error> {
        let Some(from) = self.cursor.take() else {
            return Ok(None);
        };
        let read = Read::of(KeyRange::from(from.clone()))
            .at(self.revision)
            .limit(self.page);
        let answer = self.source.kv.range(read).await?;
        let bytes: usize = answer.kvs.iter().map(size).sum();
        if bytes > PAGE_BYTES {
            self.page = (self.page / 2).max(1);
        }
        let next = match answer.kvs.last() {
            Some(last) if answer.more => Some(after(&last.key)),
            _ => None,
        };
        let range = match &next {
            Some(end) => KeyRange::between(first_key(&from), end.clone()),
            None => KeyRange::from(from),
        };
        let destination = self.destination.kv.range(Read::of(range)).await?.kvs;
        let destination = destination.into_iter().map(|pair| (pair.key.clone(), pair));
        self.cursor = next;
        Ok(Some(Stretch {
            source: answer.kvs,
            destination: destination.collect(),
        }))
    }
}

/// No key is empty: one zero byte is the first.
fn first_key(from: &[u8]) -> Vec<u8> {
    if from.is_empty() {
        vec![0]
    } else {
        from.to_vec()
    }
}

fn size(pair: &pb::KeyValue) -> usize {
    pair.key.len() + pair.value.len()
}

/// Brings the destination to a revision of the source, from a key on.
pub(super) async fn copy(
    source: &Side,
    destination: &Side,
    (revision, cursor): (u64, Vec<u8>),
    sink: &mut Sink,
    leases: &Leases,
    progress: &mut Progress,
    mut show: impl FnMut(&Progress) -> anyhow::Result<()>,
) -> anyhow::Result<Copied> {
    let mut walk = Walk {
        source,
        destination,
        revision,
        cursor: Some(cursor),
        page: PAGE,
    };
    loop {
        let mut stretch = match walk.next().await {
            Ok(Some(stretch)) => stretch,
            Ok(None) => break,
            Err(error) if error.kv_fault() == Some(KvFault::Compacted) => return Ok(Copied::Again),
            Err(error) => return Err(error.into()),
        };
        let mut operations = Vec::new();
        for pair in std::mem::take(&mut stretch.source) {
            if is_reserved(&pair.key) {
                progress.reserved += 1;
                continue;
            }
            progress.keys += 1;
            let lease = leases.ensure(pair.lease).await?;
            let there = stretch.destination.remove(&pair.key);
            if there.is_some_and(|there| there.value == pair.value && there.lease == lease) {
                continue;
            }
            operations.push((pair.key.clone(), put(pair.key, pair.value, lease)));
        }
        // What is left there has no counterpart.
        let extra = stretch
            .destination
            .into_keys()
            .filter(|key| !sink.is_own(key));
        operations.extend(extra.map(|key| (key.clone(), delete(key))));
        operations.sort_by(|(left, _), (right, _)| left.cmp(right));
        for batch in batches(operations) {
            let (puts, deletes) = count(batch.iter().map(|(_, op)| op));
            let last = batch.last().map(|(key, _)| to_hex(&after(key)));
            let operations = batch.into_iter().map(|(_, op)| op).collect();
            match sink.apply(operations, revision, last).await {
                Ok(()) => {}
                Err(SinkError::LeaseGone) => return Ok(Copied::Again),
                Err(SinkError::Failed(error)) => return Err(error),
            }
            progress.puts += puts;
            progress.deletes += deletes;
        }
        progress.leases = leases.count().await;
        show(progress)?;
    }
    match sink.apply(Vec::new(), revision, None).await {
        Ok(()) => Ok(Copied::Done),
        Err(SinkError::LeaseGone) => Ok(Copied::Again),
        Err(SinkError::Failed(error)) => Err(error),
    }
}

/// How many puts and deletes.
pub(super) fn count<'a>(operations: impl Iterator<Item = &'a pb::RequestOp>) -> (u64, u64) {
    use pb::request_op::Request;
    let (mut puts, mut deletes) = (0, 0);
    for op in operations {
        match op.request {
            Some(Request::RequestPut(_)) => puts += 1,
            _ => deletes += 1,
        }
    }
    (puts, deletes)
}

/// Splits where a transaction would get too large. A pair that is too large by itself goes alone.
pub(super) fn batches(operations: Vec<(Bytes, pb::RequestOp)>) -> Vec<Vec<(Bytes, pb::RequestOp)>> {
    use pb::request_op::Request;
    let mut batches: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for (key, op) in operations {
        let size = key.len()
            + match &op.request {
                Some(Request::RequestPut(put)) => put.value.len(),
                _ => 0,
            };
        match batches.last_mut() {
            Some(batch) if batch.len() < OPERATIONS_MAX && bytes + size <= BYTES_MAX => {
                bytes += size;
                batch.push((key, op));
            }
            _ => {
                bytes = size;
                batches.push(vec![(key, op)]);
            }
        }
    }
    batches
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub(super) struct Compared {
    pub(super) keys: u64,
    /// Of keys, values and leases, by the source's side.
    pub(super) hash: u64,
    /// How many keys differ, and the first few of them.
    pub(super) differences: u64,
    pub(super) examples: Vec<String>,
}

/// Compares all keys, values and leases of the source as of a revision with those of the destination.
pub(super) async fn compare(
    source: &Side,
    destination: &Side,
    revision: u64,
    sink: &Sink,
) -> anyhow::Result<Compared> {
    let mut walk = Walk {
        source,
        destination,
        revision,
        cursor: Some(Vec::new()),
        page: PAGE,
    };
    let mut found = Compared {
        hash: FNV_START,
        ..Compared::default()
    };
    while let Some(mut stretch) = walk.next().await? {
        let mut differs = Vec::new();
        for pair in stretch.source.iter().filter(|pair| !is_reserved(&pair.key)) {
            found.keys += 1;
            for part in [
                &pair.key[..],
                &pair.value[..],
                &pair.lease.to_be_bytes()[..],
            ] {
                found.hash = fnv(found.hash, &(part.len() as u64).to_be_bytes());
                found.hash = fnv(found.hash, part);
            }
            let there = stretch.destination.remove(&pair.key);
            if !there.is_some_and(|there| there.value == pair.value && there.lease == pair.lease) {
                differs.push(shown(&pair.key));
            }
        }
        let extra = stretch.destination.keys().filter(|key| !sink.is_own(key));
        differs.extend(extra.map(|key| shown(key)));
        found.differences += differs.len() as u64;
        found.examples.extend(differs);
        found.examples.truncate(5);
    }
    Ok(found)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, by which people compare two runs: chance is excluded by the comparison itself.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(hash, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_stay_within_the_limits_and_lose_nothing() {
        let value = |len| Bytes::from(vec![b'x'; len]);
        let mut operations = Vec::new();
        for n in 0..250_usize {
            let key = Bytes::from(format!("{n:03}"));
            let len = if n % 50 == 0 { 900_000 } else { 10 };
            operations.push((key.clone(), put(key, value(len), 0)));
        }
        let big = Bytes::from_static(b"big");
        operations.push((big.clone(), put(big, value(1_500_000), 0)));
        let split = batches(operations.clone());
        let joined: Vec<_> = split.iter().flatten().cloned().collect();
        assert_eq!(joined, operations);
        for batch in &split {
            let bytes: usize = batch.iter().map(|(key, _)| key.len()).sum();
            assert!(batch.len() <= OPERATIONS_MAX && bytes <= BYTES_MAX);
        }
        assert_eq!(split.last().map(Vec::len), Some(1));
    }

    #[test]
    fn the_hash_is_the_known_one() {
        assert_eq!(fnv(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
