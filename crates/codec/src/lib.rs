//! Durable and peer encodings of the cores' types: log entries, snapshots, peer messages, handshakes.
//!
//! Every encoding starts with a format version; golden bytes in `tests/golden/` keep old ones readable. The body is postcard
//! (ADR codec). Decoders are for bytes from outside: they are bounded and never panic. Deliberately absent: checksums (storage has
//! them) and framing (the transport has it).

mod earlier;
mod error;
mod handshake;
mod versioned;

pub use error::CodecError;
pub use handshake::{Handshake, decode_handshake, encode_handshake};
pub use versioned::{
    decode_entry, decode_peer, decode_snapshot, encode_entry, encode_peer, encode_snapshot,
};
