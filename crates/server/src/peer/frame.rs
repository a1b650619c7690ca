//! Frames: a length of four bytes, big endian, then that many bytes.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame of a message. Appends and snapshot pieces are far smaller; a call's command is bounded by the client API.
pub(super) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest frame of a handshake: nothing larger is read from a stranger.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 1_024;
/// The first bytes on every connection, both ways: what speaks something else is found out at once.
pub(super) const MAGIC: [u8; 8] = *b"QUORATE\x01";

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Adds one frame; false where the payload is too long.
pub(super) fn put_frame(buffer: &mut BytesMut, payload: &[u8]) -> bool {
    if payload.len() > FRAME_BYTES_MAX {
        return false;
    }
    buffer.put_u32(u32::try_from(payload.len()).expect("bounded above"));
    buffer.put_slice(payload);
    true
}

/// Writes the magic and one handshake frame.
pub(super) async fn write_hello(
    stream: &mut (impl Stream + ?Sized),
    payload: &[u8],
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(MAGIC.len() + 4 + payload.len());
    buffer.put_slice(&MAGIC);
    assert!(
        payload.len() <= HANDSHAKE_BYTES_MAX,
        "a handshake of {} bytes",
        payload.len()
    );
    put_frame(&mut buffer, payload);
    stream.write_all(&buffer).await?;
    stream.flush().await
}

/// Reads the magic and one handshake frame.
pub(super) async fn read_hello(stream: &mut (impl Stream + ?Sized)) -> io::Result<Vec<u8>> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a Quorate peer of this format",
        ));
    }
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > HANDSHAKE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the handshake is too long",
        ));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}
