//! Answers on their way out: large ones are made and encoded aside, so that no other call waits for that, and gRPC's own errors get the
//! words that clients of etcd know.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use super::{Etcd, MESSAGE_BYTES_MAX};

/// An answer with so many bytes is encoded aside; a smaller one takes less time than handing it over would.
const LARGE_BYTES: usize = 64 * 1024;

/// Marks an answer as large, and keeps its place among the heavy reads until it is encoded.
#[derive(Clone)]
struct Large {
    _place: Arc<OwnedSemaphorePermit>,
}

impl Etcd {
    /// Does what reads many keys on a thread of its own, when its turn has come. `work` also tells how many bytes its answer has.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<(T, usize), Status> + Send + 'static,
    ) -> Result<tonic::Response<T>, Status> {
        let place = Semaphore::acquire_owned(Arc::clone(&self.heavy))
            .await
            .expect("the semaphore is never closed");
        let (answer, bytes) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Status::internal("quorate: the read broke off; the log says why"))??;
        let mut response = tonic::Response::new(answer);
        if bytes >= LARGE_BYTES {
            let _place = Arc::new(place);
            response.extensions_mut().insert(Large { _place });
        }
        Ok(response)
    }
}

/// Finishes an answer of the etcd API.
pub(super) async fn finish(mut response: Response<Body>) -> Response<Body> {
    rename(response.headers_mut());
    match response.extensions_mut().remove::<Large>() {
        Some(place) => response.map(|body| encode_aside(body, place)),
        None => response,
    }
}

type FrameResult = Result<Frame<Bytes>, axum::Error>;

/// The body's frames, made on a thread where encoding delays nobody.
fn encode_aside(mut body: Body, place: Large) -> Body {
    let (sender, frames) = mpsc::channel(4);
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        handle.block_on(async move {
            let _place = place;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                if sender.send(frame).await.is_err() {
                    return; // the client has gone
                }
            }
        });
    });
    Body::new(Aside { frames })
}

/// A body whose frames come from elsewhere.
struct Aside {
    frames: mpsc::Receiver<FrameResult>,
}

impl HttpBody for Aside {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.frames.poll_recv(cx)
    }
}

/// What tonic says of a message over the limit.
const TOO_LONG: &str = "Error, decoded message length too large: found ";

/// A message over the limit was read by nobody: etcd calls that an exhausted resource, tonic a range.
fn rename(headers: &mut HeaderMap) {
    // Answers that succeed, and most that do not, are let pass without a look at their text.
    if headers.get("grpc-status").is_none_or(|code| code != "11") {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let Some(rest) = status.message().strip_prefix(TOO_LONG) else {
        return;
    };
    let found: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let renamed = Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {MESSAGE_BYTES_MAX})"
    ));
    for (name, value) in renamed.into_http::<Body>().headers() {
        headers.insert(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_limit_is_refused_in_the_words_of_etcd() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 2100010 bytes, the limit is: 2097152 bytes",
        );
        let mut response = status.into_http::<Body>();
        rename(response.headers_mut());
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (2100010 vs. 2097152)"
        );
    }
}
