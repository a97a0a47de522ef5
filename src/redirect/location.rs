//! The URL of a redirect: resolves a `Location` against the URI of its request.

use std::{borrow::Cow, net::Ipv4Addr};

use http::{Uri, uri::Scheme};

use crate::cookies::canonical_host;

/// Resolves a `Location`, RFC 3986 §5.2, with the leniency of browsers (WHATWG URL).
///
/// Backslashes are slashes, white space around the reference is ignored, and bytes that a request
/// may not contain are percent-encoded. The fragment is removed, because it is never sent, and so
/// are user name and password. `None` if the result is no `http` or `https` URL.
pub(super) fn resolve(base: &Uri, location: &[u8]) -> Option<Uri> {
    let location = clean(location);
    let location = before(&location, |byte| byte == b'#');
    let (scheme, rest) = match split_scheme(location) {
        Some((scheme, rest)) => (Some(known_scheme(scheme)?), rest),
        None => (None, location),
    };
    let base_scheme = base.scheme()?;
    let is_same_scheme = scheme.as_ref().is_none_or(|scheme| scheme == base_scheme);
    let slashes = rest.iter().take_while(|&&byte| is_slash(byte)).count();
    let mut url = String::from(scheme.as_ref().unwrap_or(base_scheme).as_str());
    url.push_str("://");
    if slashes >= 2 || !is_same_scheme {
        // Browsers ignore how many slashes there are.
        let rest = &rest[slashes..];
        let authority = before(rest, |byte| is_slash(byte) || byte == b'?');
        push_authority(&mut url, authority, scheme.as_ref().unwrap_or(base_scheme))?;
        push_path_and_query(&mut url, &[], &rest[authority.len()..]);
    } else {
        url.push_str(base.authority()?.as_str());
        let base_path = base.path().as_bytes();
        match rest.first() {
            None => {
                push_path_and_query(&mut url, base_path, &[]);
                if let Some(query) = base.query() {
                    url.push('?');
                    url.push_str(query);
                }
            }
            Some(b'?') => push_path_and_query(&mut url, base_path, rest),
            Some(&byte) if is_slash(byte) => push_path_and_query(&mut url, &[], rest),
            Some(_) => {
                let folder = base_path.iter().rposition(|&byte| byte == b'/').map_or(0, |last| last + 1);
                push_path_and_query(&mut url, &base_path[..folder], rest);
            }
        }
    }
    Uri::try_from(url).ok()
}

/// Returns whether both URIs have the same scheme, host and port.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or_else(|| default_port(uri.scheme()?));
    let hosts = || Some(one.host()?.eq_ignore_ascii_case(other.host()?));
    one.scheme() == other.scheme() && hosts() == Some(true) && port(one) == port(other)
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Removes white space and control characters around a reference, and tabs in it.
fn clean(location: &[u8]) -> Cow<'_, [u8]> {
    let is_blank = |byte: &u8| *byte <= b' ';
    let start = location.iter().position(|byte| !is_blank(byte)).unwrap_or(location.len());
    let end = location.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    let location = &location[start..end];
    if location.contains(&b'\t') {
        return Cow::Owned(location.iter().copied().filter(|&byte| byte != b'\t').collect());
    }
    Cow::Borrowed(location)
}

fn before(bytes: &[u8], ends: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len());
    &bytes[..end]
}

fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

fn split_scheme(location: &[u8]) -> Option<(&[u8], &[u8])> {
    let scheme = before(location, |byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(&byte));
    let is_scheme = scheme.first()?.is_ascii_alphabetic() && location.get(scheme.len()) == Some(&b':');
    is_scheme.then(|| (scheme, &location[scheme.len() + 1..]))
}

fn known_scheme(scheme: &[u8]) -> Option<Scheme> {
    if scheme.eq_ignore_ascii_case(b"http") {
        Some(Scheme::HTTP)
    } else if scheme.eq_ignore_ascii_case(b"https") {
        Some(Scheme::HTTPS)
    } else {
        None
    }
}

/// Appends host and port, in canonical form. Credentials before them are dropped: a server must not
/// be able to choose those that the client sends.
fn push_authority(url: &mut String, authority: &[u8], scheme: &Scheme) -> Option<()> {
    let authority = std::str::from_utf8(authority).ok()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_and_port.rsplit_once(':') {
        // The colons between brackets belong to the IPv6 address.
        Some((_, port)) if port.ends_with(']') => (host_and_port, ""),
        Some((host, port)) => (host, port),
        None => (host_and_port, ""),
    };
    let host = canonical_host(host)?;
    if is_invalid_ipv4(&host) {
        return None;
    }
    url.push_str(&host);
    if !port.is_empty() {
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let port: u16 = port.parse().ok()?;
        if default_port(scheme) != Some(port) {
            url.push(':');
            url.push_str(&port.to_string());
        }
    }
    Some(())
}

/// Returns whether a host ends in a number and is no address: no name ends so.
fn is_invalid_ipv4(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    is_number && name.parse::<Ipv4Addr>().is_err()
}

/// Appends the path `folder` followed by `reference`, without dot segments, and the query of
/// `reference`.
fn push_path_and_query(url: &mut String, folder: &[u8], reference: &[u8]) {
    let path = before(reference, |byte| byte == b'?');
    let whole = [folder, path].concat();
    let whole = whole.strip_prefix(b"/").or(whole.strip_prefix(b"\\")).unwrap_or(&whole);
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut rest = whole.split(|&byte| is_slash(byte)).peekable();
    while let Some(segment) = rest.next() {
        match dots(segment) {
            None => segments.push(segment),
            Some(count) => {
                if count == 2 {
                    segments.pop();
                }
                if rest.peek().is_none() {
                    segments.push(b"");
                }
            }
        }
    }
    for segment in segments {
        url.push('/');
        push_encoded(url, segment, b"\"<>`{}");
    }
    if path.len() < reference.len() {
        url.push('?');
        push_encoded(url, &reference[path.len() + 1..], b"\"<>'");
    }
}

/// Returns 1 or 2 for a segment of one or two dots, which may be percent-encoded.
fn dots(segment: &[u8]) -> Option<u8> {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return None,
        };
        count += 1;
    }
    matches!(count, 1 | 2).then_some(count)
}

/// Appends bytes, and percent-encodes those in `encoded`, blanks, and all that are not ASCII.
fn push_encoded(url: &mut String, bytes: &[u8], encoded: &[u8]) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for &byte in bytes {
        if byte <= b' ' || byte >= 0x7F || encoded.contains(&byte) {
            url.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            url.push(char::from(byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, location: &str, expected: Option<&str>) {
        let base: Uri = base.parse().unwrap();
        let resolved = resolve(&base, location.as_bytes()).map(|uri| uri.to_string());
        assert_eq!(resolved.as_deref(), expected, "{location:?} at {base}");
    }

    #[test]
    fn references_resolve_as_in_rfc_3986() {
        // Section 5.4, without fragments; `http:g` as browsers read it.
        for (location, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("g;x?y#s", "http://a/b/c/g;x?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("http:g", "http://a/b/c/g"),
        ] {
            check("http://a/b/c/d;p?q", location, Some(expected));
        }
    }

    #[test]
    fn references_are_read_as_leniently_as_browsers_do() {
        for (location, expected) in [
            ("  /g ", "https://a.example/g"),
            ("/a b", "https://a.example/a%20b"),
            ("/caf\u{e9}?q=\u{e9}", "https://a.example/caf%C3%A9?q=%C3%A9"),
            ("/a%2Fb%zz", "https://a.example/a%2Fb%zz"),
            ("/%2e%2E/g", "https://a.example/g"),
            ("\\g\\h?\\", "https://a.example/g/h?\\"),
            ("\\\\b.example\\g", "https://b.example/g"),
            ("HTTP://B.Example:80/", "http://b.example/"),
            ("https:///b.example", "https://b.example/"),
            ("https://b.example:", "https://b.example/"),
            ("https://b.example:443?q", "https://b.example/?q"),
            ("http://b.example:443/", "http://b.example:443/"),
            ("https://user:secret@b.example/", "https://b.example/"),
            ("https://user@name@b.example/", "https://b.example/"),
            ("http://[::1]:8080/g", "http://[::1]:8080/g"),
            ("http://[0:0::1]/g", "http://[::1]/g"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("https://m\u{fc}nchen.example/", "https://xn--mnchen-3ya.example/"),
        ] {
            check("https://a.example/x", location, Some(expected));
        }
    }

    #[test]
    fn references_to_nowhere_are_rejected() {
        for location in [
            "ftp://b.example/",
            "javascript:alert(1)",
            "data:text/plain,a",
            "mailto:a@b.example",
            "https://",
            "//",
            "https://b.example:port/",
            "https://b.example:65536/",
            "https://b example/",
            "https://[::1/",
            "https://b.example]/",
            "https://%00/",
            "https://1.2.3.4.5/",
            "https://b.256/",
        ] {
            check("https://a.example/x", location, None);
        }
        let long = format!("/{}", "a".repeat(70_000));
        check("https://a.example/", &long, None);
    }

    #[test]
    fn a_relative_reference_keeps_the_authority_of_the_request() {
        check("http://user:pw@A.example:81", "/g", Some("http://user:pw@A.example:81/g"));
        check("https://[2001:db8::1]:8443/a/b", "c", Some("https://[2001:db8::1]:8443/a/c"));
        check("https://a.example", "?q", Some("https://a.example/?q"));
        check("https://a.example/b/../c", "d", Some("https://a.example/d"));
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_encoded() {
        let base = Uri::from_static("https://a.example/");
        assert_eq!(resolve(&base, b"/caf\xE9").unwrap(), "https://a.example/caf%E9");
        assert_eq!(resolve(&base, b"https://caf\xE9.example/"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origins = [
            "http://a.example/x",
            "https://a.example/",
            "http://b.example/",
            "http://a.example:8080/",
            "http://a.example.:80/",
        ];
        for (one, origin) in origins.iter().enumerate() {
            for (other, another) in origins.iter().enumerate() {
                let same = is_same_origin(&origin.parse().unwrap(), &another.parse().unwrap());
                assert_eq!(same, one == other, "{origin} {another}");
            }
        }
        let (plain, full) = ("https://A.example/a", "https://u:p@a.example:443/b");
        assert!(is_same_origin(&plain.parse().unwrap(), &full.parse().unwrap()));
    }
}
