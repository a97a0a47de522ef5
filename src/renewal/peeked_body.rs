//! The beginning of a response body, as an extension of the response.

use bytes::Bytes;

/// Beginning of a response body, as an extension of the response.
///
/// [`ResponseView::body_prefix`](super::ResponseView::body_prefix) and
/// [`Expired::body`](super::Expired::body) read it.
#[derive(Clone, Debug)]
pub struct PeekedBody {
    bytes: Bytes,
    is_complete: bool,
}

/// Why a layer did not read a body, as an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotPeeked {
    /// The layer does not read this content type.
    ContentType,
    /// The body is compressed.
    Encoded,
}

impl PeekedBody {
    pub(super) fn new(bytes: Bytes, is_complete: bool) -> Self {
        Self { bytes, is_complete }
    }

    /// Bytes of the beginning of the body.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether these bytes are the whole body.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}
