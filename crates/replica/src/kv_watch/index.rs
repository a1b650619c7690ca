//! Which watches look at a key: single keys by a map, ranges by a tree that knows how far each branch reaches.
//!
//! Deliberately absent: revisions and filters, which are the watch's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use quorate_coord::kv::Blob;

use super::WatchKey;

/// Where a range ends. The order is that of the ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Right before a key.
    Before(Blob),
    /// Nowhere.
    Unbounded,
}

impl End {
    fn is_past(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_bytes(),
            Self::Unbounded => true,
        }
    }
}

/// The keys that a watch looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// One.
    One(Blob),
    /// All from the first to before the end.
    From(Blob, End),
}

/// Finds the watches that look at a key.
#[derive(Debug, Default)]
pub(super) struct Index {
    single: BTreeMap<Blob, BTreeSet<WatchKey>>,
    ranges: Ranges,
}

impl Index {
    pub(super) fn insert(&mut self, keys: &Keys, watch: WatchKey) {
        match keys {
            Keys::One(key) => {
                self.single.entry(key.clone()).or_default().insert(watch);
            }
            Keys::From(start, end) => self.ranges.insert(start, end, watch),
        }
    }

    pub(super) fn remove(&mut self, keys: &Keys, watch: WatchKey) {
        match keys {
            Keys::One(key) => {
                if let Some(watches) = self.single.get_mut(key) {
                    watches.remove(&watch);
                    if watches.is_empty() {
                        self.single.remove(key);
                    }
                }
            }
            Keys::From(start, end) => self.ranges.remove(start, end, watch),
        }
    }

    /// Calls `found` for each watch that looks at `key`.
    pub(super) fn find(&self, key: &Blob, found: &mut impl FnMut(WatchKey)) {
        for watch in self.single.get(key).into_iter().flatten() {
            found(*watch);
        }
        find(self.ranges.root.as_deref(), key, found);
    }
}

type Link = Option<Box<Branch>>;

/// A treap of the distinct ranges, by start and end. Finding those that hold a key costs the logarithm of their number, and what is found.
#[derive(Debug, Default)]
struct Ranges {
    root: Link,
    /// Counts what priorities are drawn from: evenly spread, and the same in each run.
    drawn: u64,
}

/// # Invariants
/// - Left are smaller ranges, right larger ones, below lower priorities.
/// - `reach` is the furthest end at or below this branch.
#[derive(Debug)]
struct Branch {
    start: Blob,
    end: End,
    watches: BTreeSet<WatchKey>,
    reach: End,
    priority: u64,
    left: Link,
    right: Link,
}

impl Branch {
    fn order(&self, start: &Blob, end: &End) -> Ordering {
        (start, end).cmp(&(&self.start, &self.end))
    }

    fn renew_reach(&mut self) {
        let below = [&self.left, &self.right];
        let reaches = below
            .into_iter()
            .flatten()
            .map(|branch| &branch.reach)
            .chain([&self.end]);
        self.reach = reaches.max().expect("its own is among them").clone();
    }
}

impl Ranges {
    fn insert(&mut self, start: &Blob, end: &End, watch: WatchKey) {
        let mut at = self.root.as_deref_mut();
        while let Some(branch) = at {
            match branch.order(start, end) {
                Ordering::Equal => {
                    branch.watches.insert(watch);
                    return;
                }
                Ordering::Less => at = branch.left.as_deref_mut(),
                Ordering::Greater => at = branch.right.as_deref_mut(),
            }
        }
        self.drawn += 1;
        let fresh = Box::new(Branch {
            start: start.clone(),
            end: end.clone(),
            watches: BTreeSet::from([watch]),
            reach: end.clone(),
            priority: spread(self.drawn),
            left: None,
            right: None,
        });
        let (smaller, larger) = split(self.root.take(), start, end);
        self.root = join(join(smaller, Some(fresh)), larger);
    }

    fn remove(&mut self, start: &Blob, end: &End, watch: WatchKey) {
        remove(&mut self.root, start, end, watch);
    }
}

/// Spreads a count evenly over 64 bits (the finaliser of SplitMix64).
fn spread(count: u64) -> u64 {
    let mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What is smaller than a range that is not there, and what is larger.
fn split(link: Link, start: &Blob, end: &End) -> (Link, Link) {
    let Some(mut branch) = link else {
        return (None, None);
    };
    if branch.order(start, end) == Ordering::Greater {
        let (smaller, larger) = split(branch.right.take(), start, end);
        branch.right = smaller;
        branch.renew_reach();
        (Some(branch), larger)
    } else {
        let (smaller, larger) = split(branch.left.take(), start, end);
        branch.left = larger;
        branch.renew_reach();
        (smaller, Some(branch))
    }
}

/// Both; all of `smaller` are smaller than all of `larger`.
fn join(smaller: Link, larger: Link) -> Link {
    match (smaller, larger) {
        (None, one) | (one, None) => one,
        (Some(mut smaller), Some(mut larger)) => {
            if smaller.priority > larger.priority {
                smaller.right = join(smaller.right.take(), Some(larger));
                smaller.renew_reach();
                Some(smaller)
            } else {
                larger.left = join(Some(smaller), larger.left.take());
                larger.renew_reach();
                Some(larger)
            }
        }
    }
}

fn remove(link: &mut Link, start: &Blob, end: &End, watch: WatchKey) {
    let Some(branch) = link else { return };
    match branch.order(start, end) {
        Ordering::Less => remove(&mut branch.left, start, end, watch),
        Ordering::Greater => remove(&mut branch.right, start, end, watch),
        Ordering::Equal => {
            branch.watches.remove(&watch);
            if branch.watches.is_empty() {
                *link = join(branch.left.take(), branch.right.take());
            }
            return;
        }
    }
    branch.renew_reach();
}

fn find(branch: Option<&Branch>, key: &Blob, found: &mut impl FnMut(WatchKey)) {
    let Some(branch) = branch.filter(|branch| branch.reach.is_past(key)) else {
        return;
    };
    find(branch.left.as_deref(), key, found);
    if branch.start > *key {
        return;
    }
    if branch.end.is_past(key) {
        for watch in &branch.watches {
            found(*watch);
        }
    }
    find(branch.right.as_deref(), key, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(link: &Link) -> usize {
        link.as_ref().map_or(0, |branch| {
            let mut reach = branch.reach.clone();
            for below in [&branch.left, &branch.right].into_iter().flatten() {
                assert!(below.reach <= branch.reach && below.priority <= branch.priority);
                reach = reach.max(below.reach.clone());
            }
            assert_eq!(reach, branch.reach);
            1 + depth(&branch.left).max(depth(&branch.right))
        })
    }

    #[test]
    fn it_finds_what_a_plain_search_finds() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random += 1;
            spread(random) % below
        };
        let text = |number: u64| Blob::from(format!("{number:03}").as_str());
        let mut index = Index::default();
        let mut plain: Vec<(Keys, WatchKey)> = Vec::new();
        for step in 0..4_000 {
            if plain.is_empty() || draw(5) < 3 {
                let start = text(draw(200));
                let keys = match draw(4) {
                    0 => Keys::One(start),
                    1 => Keys::From(start, End::Unbounded),
                    _ => Keys::From(start, End::Before(text(draw(300)))),
                };
                index.insert(&keys, WatchKey(step));
                plain.push((keys, WatchKey(step)));
            } else {
                let at = usize::try_from(draw(plain.len() as u64)).unwrap();
                let (keys, watch) = plain.swap_remove(at);
                index.remove(&keys, watch);
            }
            let key = text(draw(300));
            let mut found = Vec::new();
            index.find(&key, &mut |watch| found.push(watch));
            found.sort_unstable();
            let mut expected: Vec<_> = plain
                .iter()
                .filter(|(keys, _)| match keys {
                    Keys::One(one) => *one == key,
                    Keys::From(start, end) => *start <= key && end.is_past(&key),
                })
                .map(|(_, watch)| *watch)
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "at step {step}");
        }
        assert!(depth(&index.ranges.root) < 64);
        for (keys, watch) in plain {
            index.remove(&keys, watch);
        }
        assert!(index.single.is_empty() && index.ranges.root.is_none());
    }

    #[test]
    fn the_tree_stays_flat_under_ordered_ranges() {
        let mut index = Index::default();
        for number in 0..20_000_u64 {
            let start = Blob::from(format!("{number:06}").as_str());
            let end = Blob::from(format!("{:06}", number + 1).as_str());
            index.insert(&Keys::From(start, End::Before(end)), WatchKey(number));
        }
        let depth = depth(&index.ranges.root);
        assert!(depth < 60, "{depth}");
    }
}
