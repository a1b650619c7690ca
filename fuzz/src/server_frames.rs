//! The server's own reading and writing of frames, without the server around it.

#[path = "../../crates/server/src/peer/frame.rs"]
mod frame;

pub(crate) async fn read_hello(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    frame::read_hello(&mut tokio::io::join(bytes, tokio::io::sink())).await
}

pub(crate) async fn write_hello(payload: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut written = Vec::new();
    let mut stream = tokio::io::join(tokio::io::empty(), &mut written);
    frame::write_hello(&mut stream, payload).await?;
    Ok(written)
}

pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let mut buffer = bytes::BytesMut::new();
    assert!(
        frame::put_frame(&mut buffer, payload),
        "an input is shorter than {} bytes",
        frame::FRAME_BYTES_MAX
    );
    buffer.to_vec()
}
