//! The key space as stored in snapshots: the versions that were current before the log begins, and the log. Loading replays it, checks it
//! and never panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::index::Index;
use super::{Blob, KeyValue, KvChange, KvStore};

/// No number counted here gets there: an image with a larger one lies, and would overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// What is stored, as it is read.
#[derive(Deserialize)]
#[serde(rename = "KvStore")]
struct Image {
    revision: u64,
    compaction: Option<u64>,
    swept: u64,
    /// By key.
    base: Vec<KeyValue>,
    log: Vec<KvChange>,
}

impl Serialize for KvStore {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        assert!(self.own.is_none(), "stored in the middle of an apply");
        let mut to = to.serialize_struct("KvStore", 5)?;
        to.serialize_field("revision", &self.revision)?;
        to.serialize_field("compaction", &self.compaction)?;
        to.serialize_field("swept", &self.swept)?;
        to.serialize_field("base", &self.base())?;
        to.serialize_field("log", &Log(self))?;
        to.end()
    }
}

struct Log<'a>(&'a KvStore);

impl Serialize for Log<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.log.iter().map(|change| &**change))
    }
}

impl<'de> Deserialize<'de> for KvStore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let image = Image::deserialize(from)?;
        KvStore::from_image(image).map_err(serde::de::Error::custom)
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl KvStore {
    /// Checks what is cheap to check: the counters, and that the log is within them.
    pub(crate) fn check_primary(&self) -> Result<(), String> {
        ensure(
            self.swept <= self.compacted()
                && self.compacted() <= self.revision
                && (1..NUMBER_MAX).contains(&self.revision),
            || {
                format!(
                    "key-value revision {}, compacted {:?}, swept {}",
                    self.revision, self.compaction, self.swept
                )
            },
        )?;
        let last = self.log.back().map_or(0, |change| change.mod_revision());
        ensure(last <= self.revision, || {
            format!("a key changed at {last}, after {}", self.revision)
        })?;
        let first = self.log.front().map_or(u64::MAX, |c| c.mod_revision());
        ensure(self.swept <= first, || {
            format!("swept through {}, a change of {first} is there", self.swept)
        })?;
        ensure(self.own.is_none(), || {
            "own changes outlived their apply".into()
        })
    }

    /// Asserts that everything derived equals what it is derived from. O(n).
    ///
    /// # Panics
    /// When it does not: our own bug.
    pub fn check_invariants(&self) {
        if let Err(broken) = self.check_primary() {
            panic!("the key space is broken at {}: {broken}", self.revision);
        }
        let base = self.base().into_iter().cloned().collect();
        let log = self.log.iter().map(|change| (**change).clone());
        match replay(base, log) {
            Ok((index, _)) => assert!(
                index == self.index,
                "an index differs: {index:?} rebuilt, {:?} kept",
                self.index
            ),
            Err(broken) => panic!("the key space is broken at {}: {broken}", self.revision),
        }
    }

    fn from_image(image: Image) -> Result<Self, String> {
        let (index, log) = replay(image.base, image.log)?;
        let store = Self {
            revision: image.revision,
            compaction: image.compaction,
            swept: image.swept,
            log: log.into_iter().collect(),
            index,
            own: None,
        };
        store.check_primary()?;
        Ok(store)
    }

    /// The versions whose own change has left the log, by key: those that were current when it began.
    fn base(&self) -> Vec<&KeyValue> {
        let first = self.log.front().map_or(u64::MAX, |c| c.mod_revision());
        // Of the log's first revision some changes may be swept and some not.
        let kept: BTreeMap<&Blob, &Arc<KvChange>> = self
            .log
            .iter()
            .take_while(|change| change.mod_revision() == first)
            .map(|change| (change.key(), change))
            .collect();
        let is_base = |change: &Arc<KvChange>| {
            let begun = change.mod_revision();
            begun < first
                || begun == first
                    && kept
                        .get(change.key())
                        .is_none_or(|kept| !Arc::ptr_eq(kept, change))
        };
        let live = self.index.live.values();
        let past = self.index.past.values().map(|past| &past.change);
        let mut base: Vec<&KeyValue> = live
            .chain(past)
            .filter(|change| is_base(change))
            .map(|change| change.version())
            .collect();
        base.sort_by(|a, b| a.key.cmp(&b.key));
        base
    }
}

/// Rebuilds the index by making the changes again.
fn replay(
    base: Vec<KeyValue>,
    changes: impl IntoIterator<Item = KvChange>,
) -> Result<(Index, Vec<Arc<KvChange>>), String> {
    let mut index = Index::default();
    let mut last_key: Option<Blob> = None;
    let mut base_last = 0;
    for kv in base {
        ensure(last_key.as_ref().is_none_or(|last| *last < kv.key), || {
            format!("key {:?} is out of order", kv.key)
        })?;
        ensure(
            1 <= kv.create_revision
                && kv.create_revision <= kv.mod_revision
                && (1..NUMBER_MAX).contains(&kv.version),
            || format!("impossible numbers: {kv:?}"),
        )?;
        base_last = base_last.max(kv.mod_revision);
        last_key = Some(kv.key.clone());
        index.apply_base(kv);
    }
    let mut log: Vec<Arc<KvChange>> = Vec::new();
    let mut last = base_last;
    let mut first = None;
    for change in changes {
        let revision = change.mod_revision();
        ensure(last <= revision, || {
            format!("the change of {revision} comes after that of {last}")
        })?;
        last = revision;
        // What a change of the first revision follows may have been swept.
        let is_first = *first.get_or_insert(revision) == revision;
        let before = index
            .live
            .get(change.key().as_bytes())
            .map(|live| live.version());
        let follows = match (&change, before) {
            (KvChange::Delete { .. }, before) => before.is_some(),
            (KvChange::Put(kv), None) => kv.create_revision == revision && kv.version == 1,
            (KvChange::Put(kv), Some(before)) => {
                kv.create_revision == before.create_revision
                    && before.version.checked_add(1) == Some(kv.version)
            }
        };
        ensure(follows || is_first, || {
            format!("{change:?} does not follow {before:?}")
        })?;
        let change = Arc::new(change);
        index.apply(&change);
        log.push(change);
    }
    Ok((index, log))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, filled, put, put_leased, run, txn};
    use super::*;

    fn stored(store: &KvStore) -> Vec<u8> {
        postcard::to_allocvec(store).unwrap()
    }

    fn sample() -> KvStore {
        let mut store = filled(&[("a", "1"), ("b", "1"), ("a", "2")]);
        run(&mut store, &put_leased("c", 7));
        run(
            &mut store,
            &txn([put("a", "3"), delete("b"), put("d", "1")]),
        );
        run(&mut store, &put("a", "4"));
        store
    }

    #[test]
    fn stored_space_comes_back_wherever_the_sweep_stopped() {
        let mut store = sample();
        store.compact(7).unwrap();
        loop {
            let loaded: KvStore = postcard::from_bytes(&stored(&store)).unwrap();
            assert_eq!(loaded, store);
            loaded.check_invariants();
            if !store.sweep(1) {
                break;
            }
        }
    }

    #[test]
    fn rotten_bytes_are_refused_or_read_and_never_stop_the_process() {
        let store = sample();
        let bytes = stored(&store);
        for at in 0..bytes.len() {
            assert!(postcard::from_bytes::<KvStore>(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut rotten = bytes.clone();
                rotten[at] ^= 1 << bit;
                if let Ok(mut loaded) = postcard::from_bytes::<KvStore>(&rotten) {
                    loaded.check_invariants();
                    let now = i64::try_from(loaded.revision()).unwrap();
                    if loaded.compact(now).is_ok() {
                        while loaded.sweep(1) {}
                    }
                    run(&mut loaded, &put("a", "5"));
                }
            }
        }
    }

    #[test]
    fn images_that_contradict_themselves_are_refused() {
        let base = |key: &str, mod_revision| KeyValue {
            key: key.into(),
            create_revision: 2,
            mod_revision,
            version: 1,
            ..KeyValue::default()
        };
        let gone = |key: &str, mod_revision| KvChange::Delete {
            key: key.into(),
            mod_revision,
        };
        let image = || Image {
            revision: 9,
            compaction: Some(5),
            swept: 5,
            base: vec![base("a", 3), base("b", 4)],
            log: vec![gone("a", 6), gone("b", 7)],
        };
        assert!(KvStore::from_image(image()).is_ok());
        type Break = fn(&mut Image);
        let broken: [(&str, Break); 8] = [
            ("swept, compacted and now", |i| i.swept = 6),
            ("compacted in the future", |i| i.compaction = Some(10)),
            ("changes in the future", |i| i.revision = 6),
            ("a log below the sweep", |i| i.swept = 7),
            ("keys out of order", |i| i.base.swap(0, 1)),
            ("changes out of order", |i| i.log.swap(0, 1)),
            ("a base after the log", |i| i.base[0].mod_revision = 7),
            ("a key deleted twice", |i| {
                i.log.push(KvChange::Delete {
                    key: "b".into(),
                    mod_revision: 8,
                });
            }),
        ];
        for (what, break_it) in broken {
            let mut image = image();
            break_it(&mut image);
            assert!(KvStore::from_image(image).is_err(), "{what}");
        }
    }
}
