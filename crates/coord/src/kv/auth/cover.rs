//! The keys that a role may read, or write: its ranges, merged, so that one key is found by bisection however many there are.

use crate::kv::{Blob, KeyRange};

/// The end of an interval of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// This key is the first one beyond.
    Before(Blob),
    /// There is none.
    Never,
}

impl End {
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_bytes(),
            Self::Never => true,
        }
    }
}

/// The end of what a range means, by the rules of etcd.
pub(super) fn end_of(range: &KeyRange) -> End {
    match range.range_end.as_bytes() {
        [] => {
            let mut next = range.key.to_vec();
            next.push(0);
            End::Before(Blob::from(next))
        }
        [0] => End::Never,
        _ => End::Before(range.range_end.clone()),
    }
}

/// Whether a permission may be about the range: it names a key and is not empty.
pub(super) fn is_sound(range: &KeyRange) -> bool {
    !range.key.is_empty() && end_of(range).is_beyond(&range.key)
}

/// Disjoint intervals in order, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cover(Vec<(Blob, End)>);

impl Cover {
    /// The union of sound ranges.
    pub(super) fn new<'a>(ranges: impl Iterator<Item = &'a KeyRange>) -> Self {
        let mut intervals: Vec<_> = ranges
            .map(|range| (range.key.clone(), end_of(range)))
            .collect();
        intervals.sort();
        let mut merged: Vec<(Blob, End)> = Vec::new();
        for (begin, end) in intervals {
            match merged.last_mut() {
                Some((_, last)) if *last == End::Never => break,
                Some((_, last)) if End::Before(begin.clone()) <= *last => {
                    *last = end.max(last.clone());
                }
                _ => merged.push((begin, end)),
            }
        }
        Self(merged)
    }

    /// The interval that holds a key.
    pub(super) fn holding(&self, key: &[u8]) -> Option<(&Blob, &End)> {
        let after = self.0.partition_point(|(begin, _)| begin.as_bytes() <= key);
        let (begin, end) = self.0.get(after.checked_sub(1)?)?;
        end.is_beyond(key).then_some((begin, end))
    }
}

/// Whether the covers together hold a whole range. An end that is not beyond its key is judged as etcd does: both must lie within one stretch.
pub(super) fn holds<'a>(
    covers: &(impl Iterator<Item = &'a Cover> + Clone),
    range: &KeyRange,
) -> bool {
    let end = end_of(range);
    let mut reached = range.key.clone();
    let mut is_first = true;
    loop {
        let stretches = covers.clone().filter_map(|cover| cover.holding(&reached));
        let Some((begin, until)) = stretches.max_by_key(|(_, until)| *until) else {
            return false;
        };
        if is_first && !end.is_beyond(begin) {
            return false;
        }
        is_first = false;
        match until {
            until if *until >= end => return true,
            End::Before(next) => reached = next.clone(),
            End::Never => unreachable!("no end is greater"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, range_end: &str) -> KeyRange {
        KeyRange {
            key: key.into(),
            range_end: range_end.into(),
        }
    }

    fn cover(ranges: &[(&str, &str)]) -> Cover {
        let ranges: Vec<_> = ranges.iter().map(|(key, end)| range(key, end)).collect();
        Cover::new(ranges.iter())
    }

    #[test]
    fn touching_ranges_of_several_roles_hold_what_spans_them_and_gaps_do_not() {
        let one = cover(&[("a", "c"), ("b", "f"), ("x", "\0")]);
        let two = cover(&[("f", "m"), ("n", "")]);
        assert_eq!(one.0.len(), 2, "overlapping ranges are merged");
        let both = [one, two];
        let spans = |key, end| holds(&both.iter(), &range(key, end));
        assert!(spans("a", "m"));
        assert!(spans("e", "g"));
        assert!(!spans("a", "n"), "m to n is in neither");
        assert!(!spans("a", "\0"));
        assert!(spans("x", "\0"));
        assert!(spans("y", ""));
        assert!(!spans("w", "\0"));
        assert!(spans("n", "") && spans("n", "n\0") && !spans("n", "n\x01"));
        assert!(!spans("Z", "") && !spans("m", ""));
        assert!(spans("e", "b"), "an empty range within one stretch");
        assert!(!spans("h", "a"), "an end before every stretch");
    }

    #[test]
    fn merged_ranges_hold_exactly_the_keys_that_the_ranges_hold() {
        let mut random = fastrand_like(7);
        for _ in 0..2_000 {
            let ranges: Vec<_> = (0..random() % 6)
                .map(|_| {
                    let key = [b'a' + (random() % 8) as u8];
                    let range_end = match random() % 4 {
                        0 => Vec::new(),
                        1 => vec![0],
                        _ => vec![b'a' + (random() % 9) as u8],
                    };
                    KeyRange {
                        key: key.as_slice().into(),
                        range_end: range_end.into(),
                    }
                })
                .filter(is_sound)
                .collect();
            let cover = Cover::new(ranges.iter());
            for key in b'a'..b'k' {
                let naive = ranges.iter().any(|range| {
                    range.key.as_bytes() <= [key].as_slice() && end_of(range).is_beyond(&[key])
                });
                assert_eq!(cover.holding(&[key]).is_some(), naive, "{ranges:?} {key}");
            }
        }
    }

    /// A linear congruential generator: enough for cases.
    fn fastrand_like(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        }
    }
}
