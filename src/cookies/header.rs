use bytes::Bytes;
use http::HeaderValue;

use super::Timestamp;
use super::time::Instant;

/// The `Cookie` header of one host, serialised once and cloned from then on.
#[derive(Clone)]
pub(super) struct CompiledHeader {
    pub(super) host: Box<str>,
    pub(super) secure: bool,
    /// Which cookies of the site it carries, by their place; where paths differ, two requests
    /// with the same cookies share one header.
    pub(super) carried: u64,
    /// `None` if nothing of the site goes to this host, which is worth remembering as well.
    pub(super) value: Option<HeaderValue>,
    /// The earliest end among the cookies carried.
    pub(super) deadline: Timestamp,
    pub(super) used: Instant,
    /// Cleared by a change of the site; the place, and the host's name, wait for the next header.
    pub(super) live: bool,
}

impl CompiledHeader {
    /// A place without a header in it.
    pub(super) fn spent(host: &str) -> Self {
        Self {
            host: host.into(),
            secure: false,
            carried: 0,
            value: None,
            deadline: Timestamp::MAX,
            used: Instant::default(),
            live: false,
        }
    }
}

/// Writes a `Cookie` header, RFC 6265bis §5.8.3, step 4, marked as sensitive.
pub(super) struct HeaderWriter(Vec<u8>);

impl HeaderWriter {
    const SEPARATOR: &[u8] = b"; ";

    /// `pairs` counts a separator for each pair, of which one will not be needed.
    pub(super) fn with_capacity(pairs: usize) -> Self {
        Self(Vec::with_capacity(pairs.saturating_sub(Self::SEPARATOR.len())))
    }

    pub(super) fn push(&mut self, pair: &[u8]) {
        if !self.0.is_empty() {
            self.0.extend_from_slice(Self::SEPARATOR);
        }
        self.0.extend_from_slice(pair);
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn finish(self) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        // The rules keep control characters out, so this cannot fail.
        let bytes = Bytes::from(self.0.into_boxed_slice());
        let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The names in a `Cookie` header, as the nameless cookies' too: an empty one.
pub(super) fn names(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|&byte| byte == b';').map(|pair| {
        let name = match pair.iter().position(|&byte| byte == b'=') {
            Some(end) => &pair[..end],
            None => &[],
        };
        super::parse::trimmed(name)
    })
}
