//! What a stranger says on the peer port: the magic, a frame, a handshake. The frame is read by the server's own file.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use quorate_codec::{decode_handshake, encode_handshake};

use crate::server_frames as peer;

/// Runs what never waits: everything is in memory.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("reading from memory waits for nothing"),
    }
}

/// Reads a hello, or the whole input as a handshake; what decodes survives a round.
pub fn run(data: &[u8]) {
    let payload = at_once(peer::read_hello(data)).unwrap_or_else(|_| data.to_vec());
    assert!(payload.len() <= data.len(), "bytes from nowhere");
    if let Ok(handshake) = decode_handshake(&payload) {
        let encoded = encode_handshake(&handshake);
        let sent = at_once(peer::write_hello(&encoded)).expect("memory takes everything");
        let read = at_once(peer::read_hello(&sent)).expect("what was written is whole");
        assert_eq!(
            decode_handshake(&read).as_ref(),
            Ok(&handshake),
            "a handshake changed on its way"
        );
        assert!(
            sent.ends_with(&peer::framed(&encoded)),
            "a handshake's frame is a frame"
        );
    }
}
