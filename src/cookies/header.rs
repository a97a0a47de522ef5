//! The `Cookie` header: the cached header of a host, and a writer.

use bytes::Bytes;
use http::HeaderValue;

use super::{CookieUrl, Timestamp, domain::is_loopback, time::EventTime};

/// The cached `Cookie` header of a host.
#[derive(Clone, Debug)]
pub(super) struct CachedHeader {
    host: Host,
    pub(super) secure: bool,
    /// All connections to a loopback host count as secure.
    is_loopback: bool,
    /// The set of cookies in the header: bit `i` is the cookie with the index `i` of the site.
    ///
    /// Requests with different paths share a header if they carry the same cookies.
    pub(super) carried: u64,
    /// `None` if the host receives no cookie of the site, which is worth caching too.
    pub(super) value: Option<HeaderValue>,
    /// The earliest expiry time of the cookies in the header.
    pub(super) expires_at: Timestamp,
    pub(super) used: EventTime,
    /// How often the header was read, up to a small number.
    pub(super) hits: u8,
    /// Whether the header is valid. A change of the site clears this, and the entry, with the name
    /// of its host, is reused for the next header.
    pub(super) live: bool,
}

impl CachedHeader {
    /// An entry without a valid header.
    pub(super) fn empty(host: &str) -> Self {
        Self {
            host: Host::new(host),
            secure: false,
            is_loopback: is_loopback(host),
            carried: 0,
            value: None,
            expires_at: Timestamp::MAX,
            used: EventTime::default(),
            hits: 0,
            live: false,
        }
    }

    /// The valid header of a host without cookies.
    pub(super) fn none_for(url: &CookieUrl<'_>) -> Self {
        Self { secure: url.is_secure(), live: true, ..Self::empty(url.host()) }
    }

    pub(super) fn host(&self) -> &[u8] {
        self.host.bytes()
    }

    pub(super) fn host_name(&self) -> &str {
        str::from_utf8(self.host()).expect("a host was a string")
    }

    /// Records a use and returns the header, or `None` if one of its cookies has expired.
    ///
    /// Reads the clock only if a cookie of the header can expire.
    pub(super) fn hit(&mut self, used: EventTime, clock: impl FnOnce() -> Timestamp) -> Option<&Self> {
        if self.has_expired(clock) {
            return None;
        }
        self.used = used;
        self.hits = self.hits.saturating_add(1);
        Some(self)
    }

    /// Whether one of the cookies has expired.
    pub(super) fn has_expired(&self, clock: impl FnOnce() -> Timestamp) -> bool {
        self.expires_at != Timestamp::MAX && self.expires_at <= clock()
    }

    /// Whether both are headers for the same host and security of the connection.
    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.secure == other.secure && self.host() == other.host()
    }

    /// Whether the header is for this authority, which is compared without parsing it: it must be
    /// the host, with or without a port.
    ///
    /// `false` can also mean that the authority is written in another form.
    pub(super) fn is_for(&self, authority: &str, encrypted: bool) -> bool {
        let same_host = match authority.as_bytes().strip_prefix(self.host()) {
            Some([]) => true,
            Some([b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        same_host && self.live && self.secure == (encrypted || self.is_loopback)
    }
}

/// The name of a host, stored inline if it is short.
#[derive(Clone, Debug)]
enum Host {
    Short { len: u8, bytes: [u8; Self::SHORT] },
    Long(Box<[u8]>),
}

impl Host {
    const SHORT: usize = 22;

    fn new(host: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match bytes.get_mut(..host.len()) {
            Some(short) => {
                short.copy_from_slice(host.as_bytes());
                Self::Short { len: host.len() as u8, bytes }
            }
            None => Self::Long(host.as_bytes().into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// A writer of a `Cookie` header, RFC 6265bis §5.8.3, step 4. The header is marked as sensitive.
pub(super) struct HeaderWriter(Vec<u8>);

impl HeaderWriter {
    const SEPARATOR: &[u8] = b"; ";

    /// `pairs_len` is the length of all pairs, each with a separator. The last one is not written.
    pub(super) fn with_capacity(pairs_len: usize) -> Self {
        Self(Vec::with_capacity(pairs_len.saturating_sub(Self::SEPARATOR.len())))
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
        // The rules reject control characters, so this cannot fail.
        let bytes = Bytes::from(self.0.into_boxed_slice());
        let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The names in a `Cookie` header. The name of a nameless cookie is empty.
pub(super) fn names(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|&byte| byte == b';').map(|pair| {
        let name = match pair.iter().position(|&byte| byte == b'=') {
            Some(end) => &pair[..end],
            None => &[],
        };
        super::parse::trimmed(name)
    })
}
