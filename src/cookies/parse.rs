//! The parser of `Set-Cookie`, RFC 6265bis §5.6. It checks the syntax only.

use super::{CookieErrorKind, SameSite, Timestamp, parse_date};

/// The maximum length of the name and the value of a cookie together.
pub(super) const MAX_PAIR: usize = 4096;
/// The maximum length of an attribute value. Longer attributes are ignored.
pub(super) const MAX_ATTRIBUTE: usize = 1024;

/// A parsed `Set-Cookie`. If an attribute is repeated, the last one wins.
#[derive(Default)]
pub(super) struct SetCookie<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) expires: Option<Timestamp>,
    /// In seconds, saturated, because everything above the cap of §5.5 is equal.
    pub(super) max_age: Option<i64>,
    /// Without a leading dot. An empty domain makes the cookie host-only.
    pub(super) domain: Option<&'a [u8]>,
    /// As written: even a path that has no effect satisfies the `__Host-` prefix rule.
    pub(super) path: Option<&'a [u8]>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) partitioned: bool,
    pub(super) same_site: Option<SameSite>,
}

/// The name and the value of a `Set-Cookie`, with the attributes unparsed.
#[derive(Clone, Copy)]
pub(super) struct NameValue<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) attributes: Option<&'a [u8]>,
}

impl<'a> NameValue<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let (pair, attributes) = split_at_byte(text, b';');
        // Names are short, so a plain loop is faster than `memchr`.
        let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (trimmed(&pair[..at]), trimmed(&pair[at + 1..])),
            None => (&[][..], trimmed(pair)),
        };
        Self { name, value, attributes }
    }
}

impl<'a> SetCookie<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, (CookieErrorKind, &'a [u8])> {
        let NameValue { name, value, mut attributes } = NameValue::new(text);
        if has_control(text) {
            return Err((CookieErrorKind::ControlCharacter, name));
        }
        if name.len() + value.len() > MAX_PAIR {
            return Err((CookieErrorKind::TooLong, name));
        }
        if name.is_empty() && value.is_empty() {
            return Err((CookieErrorKind::Empty, name));
        }

        let mut parts = Self { name, value, ..Self::default() };
        while let Some(rest) = attributes {
            let (attribute, next) = split_at_byte(rest, b';');
            attributes = next;
            let (name, value) = split_at_byte(attribute, b'=');
            let value = trimmed(value.unwrap_or_default());
            if value.len() <= MAX_ATTRIBUTE {
                parts.apply_attribute(trimmed(name), value);
            }
        }
        Ok(parts)
    }

    fn apply_attribute(&mut self, name: &[u8], value: &'a [u8]) {
        // The length of the name leaves at most two candidates.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"path") => self.path = Some(value),
            6 if name.eq_ignore_ascii_case(b"secure") => self.secure = true,
            6 if name.eq_ignore_ascii_case(b"domain") => {
                self.domain = Some(value.strip_prefix(b".").unwrap_or(value));
            }
            7 if name.eq_ignore_ascii_case(b"max-age") => {
                self.max_age = read_max_age(value).or(self.max_age);
            }
            7 if name.eq_ignore_ascii_case(b"expires") => {
                self.expires = parse_date(value).or(self.expires);
            }
            8 if name.eq_ignore_ascii_case(b"httponly") => self.http_only = true,
            8 if name.eq_ignore_ascii_case(b"samesite") => self.same_site = SameSite::parse(value),
            11 if name.eq_ignore_ascii_case(b"partitioned") => self.partitioned = true,
            _ => {}
        }
    }
}

/// Whether a byte is a control character other than the tab: §5.6, step 1.
pub(super) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7F
}

/// Whether a text contains a control character.
///
/// There is no early return, so that the compiler can vectorise the loop.
pub(super) fn has_control(text: &[u8]) -> bool {
    text.iter().fold(false, |found, &byte| found | is_control(byte))
}

/// Strips the whitespace of the grammar: only spaces and tabs, unlike the `trim` methods of std.
pub(super) fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn split_at_byte(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(separator, text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn read_max_age(value: &[u8]) -> Option<i64> {
    let (negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits
        .iter()
        .fold(0_i64, |seconds, digit| seconds.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if negative { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> SetCookie<'_> {
        SetCookie::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text:?} should parse"))
    }

    #[test]
    fn the_first_equals_sign_separates_name_and_value() {
        for (text, name, value) in [
            ("a=b", "a", "b"),
            ("a=b=c==", "a", "b=c=="),
            (" a\t=\tb ;x", "a", "b"),
            ("a", "", "a"),
            ("=a", "", "a"),
            ("==a", "", "=a"),
            ("a=", "a", ""),
            ("a=\"b; c\"", "a", "\"b"),
            ("a=b\tc", "a", "b\tc"),
        ] {
            let parts = parse(text);
            assert_eq!((parts.name, parts.value), (name.as_bytes(), value.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn invalid_syntax_is_rejected() {
        let too_long = "a".repeat(MAX_PAIR + 1);
        for (text, kind) in [
            ("", CookieErrorKind::Empty),
            ("=", CookieErrorKind::Empty),
            (" ; Path=/", CookieErrorKind::Empty),
            ("a=\u{0}", CookieErrorKind::ControlCharacter),
            ("a=b; x=\u{7f}", CookieErrorKind::ControlCharacter),
            ("a=b\r\n", CookieErrorKind::ControlCharacter),
            (too_long.as_str(), CookieErrorKind::TooLong),
        ] {
            let error = SetCookie::parse(text.as_bytes()).err().map(|(kind, _)| kind);
            assert_eq!(error, Some(kind), "{text:?}");
        }
        assert!(SetCookie::parse(&too_long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn the_last_of_repeated_attributes_wins() {
        let parts = parse("a=b; path=/x; PATH=/y; domain=.x; domain=; max-age=1; max-age=x");
        assert_eq!(parts.path, Some(&b"/y"[..]));
        assert_eq!(parts.domain, Some(&b""[..]));
        assert_eq!(parts.max_age, Some(1));
        assert_eq!(parse("a=b; samesite=lax; samesite=x").same_site, None);
    }

    #[test]
    fn an_attribute_that_is_too_long_is_ignored() {
        let long = "/".repeat(MAX_ATTRIBUTE + 1);
        assert_eq!(parse(&format!("a=b; path=/x; path={long}")).path, Some(&b"/x"[..]));
        assert!(parse(&format!("a=b; path={}", &long[1..])).path.is_some());
    }

    #[test]
    fn max_age_is_digits_with_an_optional_minus() {
        for (value, seconds) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("-1", Some(-1)),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1.5", None),
            ("1s", None),
            ("99999999999999999999", Some(i64::MAX)),
        ] {
            assert_eq!(read_max_age(value.as_bytes()), seconds, "{value:?}");
        }
    }
}
