//! Reading persistent maps from bytes that may lie about their length.
//!
//! `imbl` makes room for as many entries as the bytes claim, before it reads the first: a rotten or hostile snapshot of a few bytes would
//! then stop the process. The standard map makes no room ahead, and what it holds was read.

use std::collections::BTreeMap;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer};

/// A map; of equal keys the last one counts.
pub(crate) fn map<'de, D, K, V>(from: D) -> Result<OrdMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    Ok(BTreeMap::deserialize(from)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
    struct Holder(#[serde(deserialize_with = "map")] OrdMap<u64, u64>);

    #[test]
    fn map_comes_back_as_it_was() {
        let holder = Holder((0_u64..100).map(|at| (at, at * 3)).collect());
        let bytes = postcard::to_allocvec(&holder).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(holder));
    }

    #[test]
    fn claimed_length_is_refused_without_making_room_for_it() {
        // u64::MAX entries, of which none is there; making room for them would abort.
        let bytes = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert!(postcard::from_bytes::<Holder>(&bytes).is_err());
    }
}
