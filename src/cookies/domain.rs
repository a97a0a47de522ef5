//! Hosts and domains: canonical forms, domain matching, public suffixes and loopback hosts.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

/// The bytes of a canonical host name. A table, because the host of each request is checked.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        byte += 1;
    }
    plain
};

/// Converts a host to its canonical form, RFC 6265bis §5.1.2.
///
/// The form is lower case, with punycode, canonical IP addresses, and IPv6 in brackets. A host that
/// is canonical already, like the hosts of most requests, is borrowed.
pub(crate) fn canonical_host(host: &str) -> Option<Cow<'_, str>> {
    if let Some(host) = plain_host(host) {
        return Some(Cow::Borrowed(host));
    }
    if host.starts_with('[') {
        return canonical_ipv6(host);
    }
    let plain = host.bytes().all(|byte| PLAIN[usize::from(byte)]);
    let host = if plain { Cow::Borrowed(host) } else { canonical_name(host)? };
    if host.is_empty() {
        return None;
    }
    Some(canonical_ipv4(&host).map_or(host, Cow::Owned))
}

/// Returns the host if it is clearly a canonical name, or `None` if it needs a closer look.
pub(super) fn plain_host(host: &str) -> Option<&str> {
    if host.is_empty() || !host.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return None;
    }
    // Only an IP address has a last label that begins with a digit. A trailing dot ends no label.
    let name = host.as_bytes().strip_suffix(b".").unwrap_or(host.as_bytes());
    let label = name.iter().rev().take_while(|&&byte| byte != b'.').last();
    (!label.is_some_and(u8::is_ascii_digit)).then_some(host)
}

/// Converts a domain from the user to its canonical form. A leading dot is ignored, RFC 6265bis
/// §5.6.3.
pub(super) fn canonical_domain(domain: &str) -> Option<Cow<'_, str>> {
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    // The host of a URL may contain a `;`, but an attribute would end there. A second leading dot
    // would be lost when the attribute is parsed.
    if domain.contains(';') || domain.starts_with('.') {
        return None;
    }
    if domain.parse::<Ipv6Addr>().is_ok() {
        let bracketed = format!("[{domain}]");
        return canonical_host(&bracketed).map(|host| Cow::Owned(host.into_owned()));
    }
    canonical_host(domain)
}

fn canonical_name(host: &str) -> Option<Cow<'_, str>> {
    if host.is_ascii() && !host.contains('%') {
        let forbidden = |byte: u8| byte <= b' ' || byte == 0x7F || br##""#/:<>?@[\]^`{|}"##.contains(&byte);
        return (!host.bytes().any(forbidden)).then(|| host.to_ascii_lowercase().into());
    }
    let decoded = percent_decoded(host);
    let ascii = idna::domain_to_ascii_cow(&decoded, idna::AsciiDenyList::URL).ok()?;
    Some(ascii.into_owned().into())
}

fn percent_decoded(host: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(host.len());
    let mut rest = host.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}

/// Returns the dotted form of an IPv4 address in another notation.
///
/// Resolvers treat `127.1` and `0x7f000001` as 127.0.0.1, so all of them must share cookies.
fn canonical_ipv4(host: &str) -> Option<String> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next()?;
    if !last.as_bytes().first()?.is_ascii_digit() || host.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let mut parts = [0_u64; 4];
    let mut count = 0;
    for part in name.split('.') {
        *parts.get_mut(count)? = ipv4_part(part)?;
        count += 1;
    }
    // The last part covers all remaining bytes.
    let (&last, leading) = parts[..count].split_last()?;
    if leading.iter().any(|&part| part > 255) || last >= 1 << (8 * (5 - count)) {
        return None;
    }
    let address =
        leading.iter().enumerate().fold(last, |address, (at, part)| address | part << (8 * (3 - at)));
    Some(Ipv4Addr::from(u32::try_from(address).ok()?).to_string())
}

fn ipv4_part(part: &str) -> Option<u64> {
    let (digits, radix) = match part.as_bytes() {
        [] => return None,
        [b'0', b'x' | b'X'] => return Some(0),
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (&part[1..], 8),
        _ => (part, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn canonical_ipv6(host: &str) -> Option<Cow<'_, str>> {
    /// Strips written text from the front of a string, to compare a formatted value without a
    /// buffer.
    struct PrefixMatcher<'a>(&'a str);
    impl Write for PrefixMatcher<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    let address: Ipv6Addr = inner.parse().ok()?;
    let mut rest = PrefixMatcher(inner);
    if write!(rest, "{address}").is_ok() && rest.0.is_empty() {
        return Some(Cow::Borrowed(host));
    }
    Some(Cow::Owned(format!("[{address}]")))
}

/// Whether a canonical host is an IP address.
pub(super) fn is_ip(host: &str) -> bool {
    match host.as_bytes() {
        [b'[', ..] => true,
        [.., b'0'..=b'9'] => host.parse::<Ipv4Addr>().is_ok(),
        _ => false,
    }
}

/// Whether `host` domain-matches `domain`, RFC 6265bis §5.1.3. Both must be canonical.
pub(super) fn domain_matches(host: &str, domain: impl AsRef<[u8]>) -> bool {
    let domain = domain.as_ref();
    match host.as_bytes().strip_suffix(domain) {
        Some(b"") => true,
        Some(labels) => labels.ends_with(b".") && !domain.is_empty() && !is_ip(host),
        None => false,
    }
}

/// Whether a domain is a public suffix, whose cookies would reach unrelated sites.
///
/// By the default rule of the list, unknown top-level domains are public suffixes.
pub(super) fn is_public_suffix(domain: &str) -> bool {
    !is_ip(domain)
        && psl::suffix(domain.as_bytes()).is_some_and(|suffix| suffix.as_bytes().len() == domain.len())
}

/// The site of a canonical host: its shortest parent domain that is not a public suffix.
///
/// This is usually the registrable domain. All hosts that a cookie reaches must have the same site.
/// If suffixes are nested (`com` and `s3.amazonaws.com`), the longer one is therefore ignored: a
/// cookie for `amazonaws.com` reaches the hosts below both. The site of an IP address, or of a host
/// that consists of public suffixes only, is the host.
pub(super) fn site_of(host: &str) -> &str {
    if is_ip(host) {
        return host;
    }
    let (registrable, suffix) = match psl::domain(host.as_bytes()) {
        Some(domain) => {
            let suffix = domain.suffix().as_bytes().len();
            (&host[host.len() - domain.as_bytes().len()..], &host[host.len() - suffix..])
        }
        None => (host, host),
    };
    // Suffixes of one or two labels, the vast majority, contain no shorter domain.
    let mut shorter = suffix;
    let mut site = registrable;
    while let Some((_, rest)) = shorter.split_once('.') {
        if !rest.contains('.') {
            break;
        }
        if !is_public_suffix(rest) {
            site = rest;
        }
        shorter = rest;
    }
    site
}

/// Whether a canonical host is a loopback host.
///
/// Like browsers, the jar sets and sends `Secure` cookies there over plain HTTP ("potentially
/// trustworthy origins", W3C Secure Contexts §3.1).
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name == "localhost" || name.ends_with(".localhost") || name == "[::1]" {
        return true;
    }
    name.starts_with("127.") && is_ip(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_one_canonical_form() {
        for (host, expected) in [
            ("example.com", Some("example.com")),
            ("Example.COM", Some("example.com")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("b%C3%BCcher.example", Some("xn--bcher-kva.example")),
            ("XN--BCHER-KVA.example", Some("xn--bcher-kva.example")),
            ("my_host", Some("my_host")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.1", Some("127.0.0.1")),
            ("0x7F.0.0.1", Some("127.0.0.1")),
            ("0177.1", Some("127.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("1.2.3.4.5", Some("1.2.3.4.5")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]", Some("[::1]")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("[::1", None),
            ("[x]", None),
            ("", None),
            ("a b", None),
            ("a/b", None),
            ("ü\u{0}", None),
        ] {
            assert_eq!(canonical_host(host).as_deref(), expected, "{host:?}");
        }
    }

    #[test]
    fn a_canonical_host_is_borrowed() {
        for host in ["example.com", "127.0.0.1", "[::1]", "[2001:db8::1]", "com."] {
            assert!(matches!(canonical_host(host), Some(Cow::Borrowed(_))), "{host:?}");
        }
    }

    #[test]
    fn domains_match_whole_labels_of_names_only() {
        for (host, domain, expected) in [
            ("example.com", "example.com", true),
            ("a.example.com", "example.com", true),
            ("aexample.com", "example.com", false),
            ("example.com", "a.example.com", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "0.0.1", false),
            ("a.0.0.1x", "0.0.1x", true),
            ("example.com.", "example.com", false),
            ("example.", "", false),
        ] {
            assert_eq!(domain_matches(host, domain), expected, "{host:?} {domain:?}");
        }
    }

    #[test]
    fn all_hosts_that_a_cookie_reaches_have_the_same_site() {
        for (host, site, suffix) in [
            ("www.example.com", "example.com", false),
            ("a.b.example.co.uk", "example.co.uk", false),
            ("co.uk", "co.uk", true),
            ("someone.github.io", "someone.github.io", false),
            ("github.io", "github.io", true),
            ("a.b.unlisted", "b.unlisted", false),
            ("unlisted", "unlisted", true),
            ("127.0.0.1", "127.0.0.1", false),
            ("[::1]", "[::1]", false),
            ("www.example.com.", "example.com.", false),
            ("com.", "com.", true),
            ("www.ck", "www.ck", false),
            ("other.ck", "other.ck", true),
            ("bucket.s3.amazonaws.com", "amazonaws.com", false),
            ("s3.amazonaws.com", "amazonaws.com", true),
            ("amazonaws.com", "amazonaws.com", false),
            ("b.c.kobe.jp", "kobe.jp", false),
        ] {
            assert_eq!(site_of(host), site, "{host:?}");
            assert_eq!(is_public_suffix(host), suffix, "{host:?}");
        }
    }

    #[test]
    fn unusual_dots_do_not_panic() {
        for host in [".", "..", "...", "a..b", ".com", "com..", "-", ".co.uk"] {
            let _ = (site_of(host), is_public_suffix(host), is_loopback(host));
        }
    }

    #[test]
    fn loopback_hosts_are_trustworthy() {
        for host in ["localhost", "a.localhost", "localhost.", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host:?}");
        }
        for host in ["localhost.example", "notlocalhost", "127.example", "128.0.0.1", "[::2]"] {
            assert!(!is_loopback(host), "{host:?}");
        }
    }
}
