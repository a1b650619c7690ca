//! Log entries, as read from the disk.

use quorate_codec::{decode_entry, encode_entry};

/// Decodes; what decodes survives a round.
pub fn run(data: &[u8]) {
    if let Ok(entry) = decode_entry(data) {
        let again = decode_entry(&encode_entry(&entry));
        assert_eq!(again.as_ref(), Ok(&entry), "an entry changed on its way");
    }
}
