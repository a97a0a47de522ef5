use bytes::Bytes;
use http::HeaderValue;

use super::time::Instant;
use super::{StoredCookie, Timestamp};

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
}

/// Writes the cookies as a `Cookie` header, RFC 6265bis §5.8.3, step 4, marked as sensitive.
///
/// `before` stands in front of them as it is.
pub(super) fn write_header<'c>(
    before: Vec<u8>,
    cookies: impl Iterator<Item = &'c StoredCookie> + Clone,
) -> Option<HeaderValue> {
    // A separator for each cookie and one `=`: never too short, and often exact.
    let length: usize =
        cookies.clone().map(|cookie| cookie.name_bytes().len() + cookie.value_bytes().len() + 3).sum();
    let mut text = before;
    text.reserve_exact(length);
    for cookie in cookies {
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        let name = cookie.name_bytes();
        if !name.is_empty() {
            text.extend_from_slice(name);
            text.push(b'=');
        }
        text.extend_from_slice(cookie.value_bytes());
    }
    if text.is_empty() {
        return None;
    }
    // The rules keep control characters out, so this cannot fail.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
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
