//! JSON values out of a request's body, one after the other, as they arrive.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use serde_json::Value as Json;

use super::json::{self, Malformed};

/// The largest body, or value of a stream: the largest request in base64, with room for its names. The service behind has the exact limit.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no next value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// What came is not JSON.
    Malformed(Malformed),
    /// Too much came.
    TooLarge,
    /// The caller went away.
    Gone,
}

/// The values of a body.
pub(super) struct Values {
    body: BodyDataStream,
    buffer: BytesMut,
    ended: bool,
}

impl Values {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// The only value of a body; `None` where it is empty. What follows a value is passed over, as etcd's gateway does.
    pub(super) async fn only(mut self) -> Result<Option<Json>, Trouble> {
        while !self.ended {
            self.more().await?;
        }
        self.next().await
    }

    /// The next value, as soon as it is whole.
    pub(super) async fn next(&mut self) -> Result<Option<Json>, Trouble> {
        // A value is looked for only when one may have ended: otherwise a large one in small pieces would be parsed again and again.
        let mut may_be_whole = true;
        loop {
            let blank = self
                .buffer
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            self.buffer.advance(blank);
            if !self.buffer.is_empty() && (may_be_whole || self.ended) {
                let mut values =
                    serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Json>();
                match values.next() {
                    Some(Ok(value)) => {
                        let taken = values.byte_offset();
                        self.buffer.advance(taken);
                        return Ok(Some(value));
                    }
                    Some(Err(error)) if error.is_eof() && !self.ended => {}
                    Some(Err(error)) => {
                        return Err(Trouble::Malformed(json::explain(&error, &self.buffer)));
                    }
                    None => unreachable!("the buffer holds more than blanks"),
                }
            }
            if self.ended {
                assert!(self.buffer.is_empty(), "else it was parsed above");
                return Ok(None);
            }
            let before = self.buffer.len();
            self.more().await?;
            may_be_whole =
                self.buffer[before..].contains(&b'}') || self.buffer.first() != Some(&b'{');
        }
    }

    async fn more(&mut self) -> Result<(), Trouble> {
        match self.body.next().await {
            None => self.ended = true,
            Some(Ok(bytes)) if self.buffer.len() + bytes.len() > BYTES_MAX => {
                return Err(Trouble::TooLarge);
            }
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(_)) => return Err(Trouble::Gone),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn values(pieces: &[&'static str]) -> Values {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from_static(piece.as_bytes())))
            .collect();
        Values::new(Body::from_stream(futures_util::stream::iter(pieces)))
    }

    #[tokio::test]
    async fn values_are_found_however_they_are_cut() {
        let mut values = values(&["{\"a\"", ":1}{\"b", "\":{}", "} \n", " {\"c\":2} "]);
        for expected in ["{\"a\":1}", "{\"b\":{}}", "{\"c\":2}"] {
            let value = values.next().await.unwrap().unwrap();
            assert_eq!(value.to_string(), expected);
        }
        assert_eq!(values.next().await, Ok(None));
        assert_eq!(values.next().await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_no_json_is_told_and_an_empty_body_is_nothing() {
        assert_eq!(values(&[]).only().await, Ok(None));
        assert_eq!(values(&[" \n"]).only().await, Ok(None));
        let only = values(&["{} x"]).only().await;
        assert_eq!(only, Ok(Some(serde_json::json!({}))));
        let cut = values(&["{\"a\":"]).only().await;
        assert_eq!(cut, Err(Trouble::Malformed("unexpected EOF".to_owned())));
        let large = "x".repeat(BYTES_MAX / 2 + 1).leak();
        let large = values(&[large, large]).only().await;
        assert_eq!(large, Err(Trouble::TooLarge));
    }
}
