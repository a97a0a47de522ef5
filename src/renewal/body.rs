//! `RenewalBody`: the body of a response to a request of a renewal.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::gate::BoxError;

/// Body of a response to a request of a renewal, boxed to hide the body type of the stack.
pub struct RenewalBody(UnsyncBoxBody<Bytes, BoxError>);

impl RenewalBody {
    pub(super) fn new<R>(body: R) -> Self
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is longer than `limit` bytes, or cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, BoxError> {
        // Not http-body-util's `Limited`: the compiler cannot prove that a future which holds it
        // over a boxed error is `Send`, and the future of a rule must be.
        let mut body = self.0;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if limit - whole.len() < data.len() {
                return Err(format!("the response body is longer than {limit} bytes").into());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// Reads the whole body as text, and replaces bytes that are not UTF-8.
    ///
    /// # Errors
    ///
    /// See [`bytes`](Self::bytes).
    pub async fn text(self, limit: usize) -> Result<String, BoxError> {
        let bytes = self.bytes(limit).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Body for RenewalBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for RenewalBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewalBody")
    }
}
