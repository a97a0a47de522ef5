//! Hosts and domains: one spelling for each, who matches whom, and where cookies may not go.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The bytes of a host that is in canonical form; a table, as every request's host is read.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        byte += 1;
    }
    plain
};

/// Brings a host into its one spelling, RFC 6265bis §5.1.2.
///
/// Lower case, IDN as punycode, IP addresses in canonical form and IPv6 in brackets. Borrows
/// where the host is in that form already, as nearly every host of a request is.
pub(super) fn canonical_host(host: &str) -> Option<Cow<'_, str>> {
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

/// The host as it is, if it is a name in canonical form; `None` says that more has to be looked at.
pub(super) fn plain_host(host: &str) -> Option<&str> {
    if host.is_empty() || !host.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return None;
    }
    // Only an address has a last label that begins with a digit; a dot at the end ends none.
    let name = host.as_bytes().strip_suffix(b".").unwrap_or(host.as_bytes());
    let label = name.iter().rev().take_while(|&&byte| byte != b'.').last();
    (!label.is_some_and(u8::is_ascii_digit)).then_some(host)
}

/// The domain that the user writes: a leading dot means nothing, RFC 6265bis §5.6.3.
pub(super) fn canonical_domain(domain: &str) -> Option<Cow<'_, str>> {
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    // A URL's host may hold a `;`, but as an attribute it would end there; and a second dot would
    // be lost when the first one is read as nothing.
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

/// Returns the dotted form of an IPv4 address that is written in another way.
///
/// A resolver takes `127.1` and `0x7f000001` for 127.0.0.1, so a cookie of one must be a cookie
/// of the others.
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
    // The last part fills all the bytes that the others left.
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
    /// Takes what is written off the front of a text, so that comparing needs no buffer.
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

/// Whether `host` lies within `domain`, RFC 6265bis §5.1.3; both are canonical.
pub(super) fn domain_matches(host: &str, domain: impl AsRef<[u8]>) -> bool {
    let domain = domain.as_ref();
    match host.as_bytes().strip_suffix(domain) {
        Some(b"") => true,
        Some(labels) => labels.ends_with(b".") && !domain.is_empty() && !is_ip(host),
        None => false,
    }
}

/// Whether nobody registers below `domain`, so that its cookies would reach strangers.
///
/// A top-level domain that the list does not know counts as one, by the list's default rule.
pub(super) fn is_public_suffix(domain: &str) -> bool {
    !is_ip(domain)
        && psl::suffix(domain.as_bytes()).is_some_and(|suffix| suffix.as_bytes().len() == domain.len())
}

/// The site of a canonical host: the shortest domain it lies in that is not a public suffix.
///
/// Nearly always its registrable domain. Where suffixes lie within one another (`com` and
/// `s3.amazonaws.com`) the longer one does not count, since a cookie for `amazonaws.com` reaches
/// the hosts below both: all hosts that a cookie reaches are of one site. An IP address, or a
/// host with nothing but public suffixes, stands for itself.
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
    // Suffixes of one label and of two, as there are few others, hold no shorter domain.
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

/// Whether a canonical host is the machine itself, reached without a network to listen on.
///
/// `Secure` cookies may be set and sent there over plain HTTP, as browsers allow ("potentially
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
    fn each_host_has_one_spelling() {
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
    fn a_host_in_canonical_form_is_borrowed() {
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
    fn all_hosts_that_a_cookie_reaches_are_of_one_site() {
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
    fn odd_dots_do_no_harm() {
        for host in [".", "..", "...", "a..b", ".com", "com..", "-", ".co.uk"] {
            let _ = (site_of(host), is_public_suffix(host), is_loopback(host));
        }
    }

    #[test]
    fn the_machine_itself_is_trusted() {
        for host in ["localhost", "a.localhost", "localhost.", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host:?}");
        }
        for host in ["localhost.example", "notlocalhost", "127.example", "128.0.0.1", "[::2]"] {
            assert!(!is_loopback(host), "{host:?}");
        }
    }
}
