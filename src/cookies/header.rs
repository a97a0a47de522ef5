use bytes::Bytes;
use http::HeaderValue;

use super::Timestamp;
use super::domain::is_loopback;
use super::time::EventTime;

/// The `Cookie` header of one host, serialised once and cloned from then on.
#[derive(Clone)]
pub(super) struct CompiledHeader {
    host: Host,
    pub(super) secure: bool,
    /// The host is this machine itself, where any connection is secure.
    is_loopback: bool,
    /// Which cookies of the site it carries, by their place; where paths differ, two requests
    /// with the same cookies share one header.
    pub(super) carried: u64,
    /// `None` if nothing of the site goes to this host, which is worth remembering as well.
    pub(super) value: Option<HeaderValue>,
    /// The earliest end among the cookies carried.
    pub(super) expires_at: Timestamp,
    pub(super) used: EventTime,
    /// Cleared by a change of the site; the place, and the host's name, wait for the next header.
    pub(super) live: bool,
}

impl CompiledHeader {
    /// A place without a header in it.
    pub(super) fn empty(host: &str) -> Self {
        Self {
            host: Host::new(host),
            secure: false,
            is_loopback: is_loopback(host),
            carried: 0,
            value: None,
            expires_at: Timestamp::MAX,
            used: EventTime::default(),
            live: false,
        }
    }

    pub(super) fn host(&self) -> &[u8] {
        self.host.bytes()
    }

    pub(super) fn host_name(&self) -> &str {
        str::from_utf8(self.host()).expect("a host was a string")
    }

    /// What it says, or `None` if its time is up. A clock is only read where it can matter.
    pub(super) fn read(
        &mut self,
        used: EventTime,
        clock: impl FnOnce() -> Timestamp,
    ) -> Option<Option<HeaderValue>> {
        if self.expires_at != Timestamp::MAX && self.expires_at <= clock() {
            return None;
        }
        self.used = used;
        Some(self.value.clone())
    }

    /// Whether it is for this authority, told without taking that apart: it is the host itself, and maybe a port.
    ///
    /// `false` may as well mean that the authority is written in another way.
    pub(super) fn is_for(&self, authority: &str, encrypted: bool) -> bool {
        let rest = match authority.as_bytes().strip_prefix(self.host()) {
            Some([]) => true,
            Some([b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        rest && self.live && self.secure == (encrypted || self.is_loopback)
    }
}

/// The name of a host; most are short enough to lie beside what is looked up by them.
#[derive(Clone)]
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
