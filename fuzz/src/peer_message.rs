//! Messages of peers.

use quorate_codec::{decode_peer, encode_peer};

/// Decodes; what decodes survives a round.
pub fn run(data: &[u8]) {
    if let Ok(message) = decode_peer(data) {
        let _ = message.lane();
        let again = decode_peer(&encode_peer(&message));
        assert_eq!(again.as_ref(), Ok(&message), "a message changed on its way");
    }
}
