//! Proxies: their URLs, schemes and credentials.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

use super::error::{ProfileError, ProfileErrorKind, ProfileIssue};

/// A proxy server, or an explicit *direct* connection.
///
/// The profile layer puts it into the extensions of a request, and the client reads it there. A
/// request without one must not be sent; only [`Proxy::direct`] permits a direct connection to the
/// origin.
///
/// It parses from URLs with the schemes `http`, `https`, `socks5` and `socks5h`, and from the word
/// `direct`. The default ports are 80, 443 and 1080. `user:password@` before the host sets the
/// credentials, which are percent-decoded: write `%` as `%25`, `/` as `%2F`, and `:` in the user
/// name as `%3A`. The last `@` ends the credentials, and the first `:` separates them.
///
/// `Display` and `Debug` show the scheme, host and port, and never the credentials.
///
/// # Clone
///
/// Clones share one allocation.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::profile::{Proxy, ProxyScheme};
///
/// let proxy: Proxy = "socks5://me:s%3Acret@[2001:db8::1]".parse()?;
/// let server = proxy.server().unwrap();
/// assert_eq!(server.scheme(), ProxyScheme::Socks5);
/// assert_eq!((server.host(), server.port()), ("2001:db8::1", 1080));
/// assert_eq!(server.credentials().unwrap().password(), "s:cret");
/// assert_eq!(proxy.to_string(), "socks5://***@[2001:db8::1]:1080");
///
/// assert!(Proxy::direct().server().is_none());
/// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy(Option<Arc<ProxyServer>>);

impl Proxy {
    /// Creates a direct connection to the origin.
    pub fn direct() -> Self {
        Self(None)
    }

    /// Returns the proxy server; `None` for [`Proxy::direct`].
    pub fn server(&self) -> Option<&ProxyServer> {
        self.0.as_deref()
    }

    /// Replaces the credentials, which are used as written and not percent-decoded.
    ///
    /// # Errors
    ///
    /// Returns an error for [`Proxy::direct`], or if the scheme does not support the credentials.
    /// No scheme supports control characters. HTTP does not support `:` in the user name. SOCKS5
    /// supports 1 to 255 bytes of user name and at most 255 of password.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::profile::Proxy;
    ///
    /// let proxy = "http://proxy.example".parse::<Proxy>()?.with_credentials("user-session-7", "100%")?;
    /// assert_eq!(proxy.server().unwrap().credentials().unwrap().username(), "user-session-7");
    /// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
    /// ```
    pub fn with_credentials(
        self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self, ProfileError> {
        let Some(server) = self.0 else {
            return Err(issue("direct takes no credentials").at_field("proxy.username").into());
        };
        let credentials = Credentials::new(server.scheme, username.into(), password.into())
            .map_err(|(part, text)| issue(text).at_field(part.field()))?;
        let mut server = Arc::unwrap_or_clone(server);
        server.credentials = Some(credentials);
        Ok(Self(Some(Arc::new(server))))
    }
}

impl FromStr for Proxy {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        parse(text).map_err(|text| issue(text).at_field("proxy").into())
    }
}

impl TryFrom<&str> for Proxy {
    type Error = ProfileError;

    fn try_from(text: &str) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl TryFrom<String> for Proxy {
    type Error = ProfileError;

    fn try_from(text: String) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("direct"),
            Some(server) => server.fmt(f),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// A proxy server: its protocol, address and credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyServer {
    scheme: ProxyScheme,
    host: Box<str>,
    port: u16,
    credentials: Option<Credentials>,
}

impl ProxyServer {
    /// Returns the protocol of the proxy.
    pub fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// Returns the host: a lowercase name or an address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, by default that of the scheme. It is never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the user name and password, if there are any.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if self.credentials.is_some() {
            f.write_str("***@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyServer({self})")
    }
}

/// A proxy protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyScheme {
    /// HTTP: requests for `http` origins are forwarded, others are tunnelled by `CONNECT`.
    Http,
    /// HTTP over TLS to the proxy.
    Https,
    /// SOCKS5. The proxy resolves host names, for `socks5` as well as for `socks5h`.
    Socks5,
}

impl ProxyScheme {
    /// Returns the port for a URL without one: 80, 443 or 1080.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }
}

impl fmt::Display for ProxyScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        })
    }
}

/// The user name and password of a proxy. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    username: Box<str>,
    password: Box<str>,
    basic: HeaderValue,
}

impl Credentials {
    fn new(scheme: ProxyScheme, username: String, password: String) -> Result<Self, (Part, &'static str)> {
        for (part, text) in [(Part::Username, &username), (Part::Password, &password)] {
            if text.chars().any(char::is_control) {
                return Err((
                    part,
                    part.pick(
                        "user name contains a control character",
                        "password contains a control character",
                    ),
                ));
            }
            if scheme == ProxyScheme::Socks5 && text.len() > 255 {
                return Err((part, part.pick("user name exceeds 255 bytes", "password exceeds 255 bytes")));
            }
        }
        match scheme {
            ProxyScheme::Socks5 if username.is_empty() => {
                return Err((Part::Username, "user name is empty"));
            }
            // RFC 7617, section 2: the first colon ends the user name.
            ProxyScheme::Http | ProxyScheme::Https if username.contains(':') => {
                return Err((
                    Part::Username,
                    "user name contains a colon, which separates it from the password in HTTP",
                ));
            }
            _ => {}
        }
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        let mut basic = HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 is visible ASCII");
        basic.set_sensitive(true);
        Ok(Self { username: username.into(), password: password.into(), basic })
    }

    /// Returns the decoded user name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Returns the decoded password; empty if there was none.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns the value of `Proxy-Authorization` for the Basic scheme, marked sensitive.
    pub fn to_basic_auth(&self) -> HeaderValue {
        self.basic.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The part of the credentials that an issue is about.
#[derive(Clone, Copy)]
enum Part {
    Username,
    Password,
}

impl Part {
    fn field(self) -> &'static str {
        self.pick("proxy.username", "proxy.password")
    }

    fn pick(self, username: &'static str, password: &'static str) -> &'static str {
        match self {
            Self::Username => username,
            Self::Password => password,
        }
    }
}

fn issue(text: impl Into<std::borrow::Cow<'static, str>>) -> ProfileIssue {
    ProfileIssue::new(ProfileErrorKind::Proxy, text)
}

/// Parses according to RFC 3986, section 3.2.
///
/// Messages quote nothing but a scheme: in an invalid URL, any other part may belong to the
/// password.
fn parse(text: &str) -> Result<Proxy, String> {
    if text.eq_ignore_ascii_case("direct") {
        return Ok(Proxy::direct());
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => {
            return Err("no scheme; start with http://, https:// or socks5://, or use direct".into());
        }
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => ProxyScheme::Http,
        "https" => ProxyScheme::Https,
        "socks5" | "socks5h" => ProxyScheme::Socks5,
        other => {
            return Err(format!("unknown scheme \"{other}\"; use http, https or socks5"));
        }
    };
    let authority = match rest.find(['/', '?', '#', '\\']) {
        None => rest,
        Some(end) if &rest[end..] == "/" => &rest[..end],
        // An unescaped slash in a password ends the authority within the credentials.
        Some(end) if rest[end..].contains('@') => {
            return Err("credentials contain /, ?, # or \\; write it as %2F, %3F, %23 or %5C".into());
        }
        Some(_) => {
            return Err("unexpected text after the port; a proxy URL has a host and a port only".into());
        }
    };
    let (userinfo, address) = match authority.rsplit_once('@') {
        Some((userinfo, address)) => (Some(userinfo), address),
        None => (None, authority),
    };
    let (host, port) = split_port(address)?;
    let host = parse_host(host)?;
    let port = match port {
        None => scheme.default_port(),
        Some(port) => parse_port(port)?,
    };
    let credentials = match userinfo.map(|userinfo| userinfo.split_once(':').unwrap_or((userinfo, ""))) {
        None | Some(("", "")) => None,
        Some((username, password)) => {
            let username = decode(username, Part::Username)?;
            let password = decode(password, Part::Password)?;
            Some(Credentials::new(scheme, username, password).map_err(|(_, text)| text)?)
        }
    };
    Ok(Proxy(Some(Arc::new(ProxyServer { scheme, host: host.into(), port, credentials }))))
}

/// Returns whether this has the syntax of a scheme and is too short for a secret.
fn is_scheme(text: &str) -> bool {
    text.len() <= 12
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_port(address: &str) -> Result<(&str, Option<&str>), &'static str> {
    if address.starts_with('[') {
        let end = address.find(']').ok_or("missing ] after the host")? + 1;
        return match &address[end..] {
            "" => Ok((address, None)),
            rest => Ok((
                &address[..end],
                Some(rest.strip_prefix(':').ok_or("unexpected text between ] and the port")?),
            )),
        };
    }
    match address.split_once(':') {
        None => Ok((address, None)),
        Some((_, port)) if port.contains(':') => {
            Err("more than one colon in host and port; write IPv6 addresses in [ ]")
        }
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    match port.parse() {
        // `u16` alone would accept a plus sign.
        Ok(number @ 1..) if !port.starts_with('+') => Ok(number),
        _ => Err("port is not a number from 1 to 65535"),
    }
}

fn parse_host(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "host in [ ] is not an IPv6 address")?;
        return Ok(address.to_string());
    }
    if host.is_empty() {
        return Err("no host");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err("host contains an invalid character; write non-ASCII names as punycode");
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.len() > 253 || labels.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err("a label of the host is empty or too long");
    }
    // A name cannot end in a number: `http://8080` and `1.2.3.400` are typing errors.
    let numeric = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("host ends in a number, but is not an IPv4 address");
    }
    Ok(host.to_ascii_lowercase())
}

/// Percent-decodes strictly: a stray `%` is rejected, since it may be meant literally.
fn decode(text: &str, part: Part) -> Result<String, &'static str> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(part.pick(
                "user name contains a % without two hex digits; write it as %25",
                "password contains a % without two hex digits; write it as %25",
            ));
        };
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| part.pick("user name is not UTF-8", "password is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks scheme, host, port and credentials of what `text` parses to.
    #[track_caller]
    fn check(text: &str, scheme: ProxyScheme, host: &str, port: u16, credentials: Option<(&str, &str)>) {
        let proxy: Proxy = text.parse().expect(text);
        let server = proxy.server().expect(text);
        assert_eq!((server.scheme(), server.host(), server.port()), (scheme, host, port), "{text}");
        let parsed = server.credentials().map(|it| (it.username(), it.password()));
        assert_eq!(parsed, credentials, "{text}");
    }

    #[track_caller]
    fn rejected(text: &str, because: &str) {
        let error = text.parse::<Proxy>().expect_err(text);
        assert_eq!(error.kind(), ProfileErrorKind::Proxy);
        assert_eq!(error.field(), Some("proxy"));
        assert!(error.to_string().contains(because), "{text}: {error}");
    }

    #[test]
    fn urls_parse() {
        use ProxyScheme::{Http, Https, Socks5};
        for (text, scheme, host, port) in [
            ("http://proxy.example:8080", Http, "proxy.example", 8080),
            ("http://proxy.example:8080/", Http, "proxy.example", 8080),
            ("HTTP://Proxy.Example", Http, "proxy.example", 80),
            ("https://proxy.example", Https, "proxy.example", 443),
            ("socks5://proxy.example", Socks5, "proxy.example", 1080),
            ("socks5h://10.0.0.1:9050", Socks5, "10.0.0.1", 9050),
            ("http://[::1]", Http, "::1", 80),
            ("http://[2001:DB8:0::1]:65535", Http, "2001:db8::1", 65535),
            ("http://my_proxy", Http, "my_proxy", 80),
            ("http://proxy.example.:1", Http, "proxy.example.", 1),
        ] {
            check(text, scheme, host, port, None);
        }
    }

    #[test]
    fn credentials_parse_with_special_characters() {
        for (userinfo, username, password) in [
            ("user:pass", "user", "pass"),
            ("user:p@ss", "user", "p@ss"),
            ("user@corp:pass", "user@corp", "pass"),
            ("user:p:a:ss", "user", "p:a:ss"),
            ("user:p%40%3a%25%2Fss", "user", "p@:%/ss"),
            ("us%C3%A9r:p%20w", "usér", "p w"),
            ("usér:pass", "usér", "pass"),
            ("user", "user", ""),
            ("user:", "user", ""),
            (":pass", "", "pass"),
        ] {
            check(&format!("http://{userinfo}@h:1"), ProxyScheme::Http, "h", 1, Some((username, password)));
        }
        check("socks5://a%3Ab:c@[::1]", ProxyScheme::Socks5, "::1", 1080, Some(("a:b", "c")));
        check("http://@h", ProxyScheme::Http, "h", 80, None);
        check("http://:@h", ProxyScheme::Http, "h", 80, None);
    }

    #[test]
    fn invalid_urls_are_rejected_with_a_reason() {
        let long_label = format!("http://{}", "a".repeat(64));
        let long_host = format!("http://{}", "a.".repeat(127) + "a");
        let long_user = format!("socks5://{}:p@h", "u".repeat(256));
        let long_password = format!("socks5://u:{}@h", "p".repeat(256));
        for (text, because) in [
            ("", "no scheme"),
            ("proxy.example:8080", "no scheme"),
            ("user:pass@proxy:8080", "no scheme"),
            ("user:pass://x@proxy:8080", "no scheme"),
            (" http://proxy", "no scheme"),
            ("ftp://proxy", "unknown scheme \"ftp\"; use http, https or socks5"),
            ("SOCKS4://proxy", "unknown scheme \"socks4\""),
            ("http://", "no host"),
            ("http://:8080", "no host"),
            ("http://user:pass@", "no host"),
            ("http://user:pass@:80", "no host"),
            ("http://proxy:", "port"),
            ("http://proxy:0", "port"),
            ("http://proxy:+80", "port"),
            ("http://proxy:65536", "port"),
            ("http://proxy:80a", "port"),
            ("http://proxy:80:80", "IPv6"),
            ("http://::1:80", "IPv6"),
            ("http://[::1", "]"),
            ("http://[::1]80", "]"),
            ("http://[proxy]", "IPv6"),
            ("http://[fe80::1%eth0]", "IPv6"),
            ("http://8080", "number"),
            ("http://1.2.3.400", "number"),
            ("http://pro xy", "host"),
            ("http://proxy\n", "host"),
            ("http://prøxy", "punycode"),
            ("http://pro%78y", "host"),
            ("http://a..b", "label"),
            (&long_label, "label"),
            (&long_host, "label"),
            ("http://proxy/path", "after the port"),
            ("http://proxy?a=b", "after the port"),
            ("http://user:pa/ss@proxy", "%2F"),
            ("http://user:pa#ss@proxy", "%23"),
            ("http://user:50%@proxy", "password contains a %"),
            ("http://us%er:p@proxy", "user name contains a %"),
            ("http://user:%FF@proxy", "password is not UTF-8"),
            ("http://us%3Aer:p@proxy", "colon"),
            ("http://user:p%0A@proxy", "password contains a control"),
            ("socks5://:pass@proxy", "user name is empty"),
            (&long_user, "user name exceeds"),
            (&long_password, "password exceeds"),
        ] {
            rejected(text, because);
        }
    }

    #[test]
    fn separate_credentials_are_used_as_written() {
        let proxy =
            "https://old:old@proxy".parse::<Proxy>().unwrap().with_credentials("u@x", "5%:/").unwrap();
        let credentials = proxy.server().unwrap().credentials().unwrap();
        assert_eq!((credentials.username(), credentials.password()), ("u@x", "5%:/"));
        assert_eq!(credentials.to_basic_auth(), "Basic dUB4OjUlOi8=");
        assert!(credentials.to_basic_auth().is_sensitive());

        for (proxy, username, password, field) in [
            ("http://h", "a:b", "", "proxy.username"),
            ("http://h", "a", "\n", "proxy.password"),
            ("socks5://h", "", "p", "proxy.username"),
            ("direct", "a", "b", "proxy.username"),
        ] {
            let error = proxy.parse::<Proxy>().unwrap().with_credentials(username, password).unwrap_err();
            assert_eq!(error.field(), Some(field));
        }
    }

    #[test]
    fn display_and_debug_hide_the_credentials() {
        for (text, shown) in [
            ("direct", "direct"),
            ("http://proxy", "http://proxy:80"),
            ("http://user:pass@proxy:8080", "http://***@proxy:8080"),
            ("socks5h://user@[::1]", "socks5://***@[::1]:1080"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        }
        assert_eq!("DIRECT".parse::<Proxy>().unwrap(), Proxy::direct());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*", scheme in "(https?|socks5h?|[a-z]{1,4})", rest in "[a-z0-9@:%/?#.\\[\\]é]*") {
            let _ = text.parse::<Proxy>();
            let _ = format!("{scheme}://{rest}").parse::<Proxy>();
        }

        // Capitals occur neither in messages nor in parsed hosts, so that every leak is detected.
        #[test]
        fn the_credentials_never_show(
            scheme in "(http|https|socks5|ftp)",
            username in "[XYZ@:%/]{0,8}[XYZ]{5}",
            password in "[XYZ@:%/?#\\[\\] é]{0,8}[XYZ]{5}[QW@:%/\n]{0,3}",
            host in "(proxy|pro xy|\\[::1\\]|\\[|8080||a:b:c)",
            port in "(|:8080|:0|:)",
        ) {
            let text = format!("{scheme}://{username}:{password}@{host}{port}");
            let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let escaped = format!("{scheme}://{}:{}@{host}{port}", encoded(&username), encoded(&password));
            let mut shown = String::new();
            for text in [text, escaped] {
                match text.parse::<Proxy>() {
                    Ok(proxy) => {
                        let server = proxy.server().expect("a URL is never direct");
                        shown += &format!("{proxy} {proxy:?} {server} {server:?} {:?}", server.credentials());
                    }
                    Err(error) => shown += &format!("{error} {error:?}"),
                }
            }
            let given = "http://proxy".parse::<Proxy>().expect("is a proxy").with_credentials(&username, &password);
            shown += &format!("{given:?}");
            for capital in ["XX", "XY", "XZ", "YX", "YY", "YZ", "ZX", "ZY", "ZZ"] {
                prop_assert!(!shown.contains(capital), "{shown}");
            }
        }

        #[test]
        fn encoded_credentials_are_decoded(username in "[^\\pC:]{1,20}", password in "[^\\pC]{0,20}") {
            let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let text = format!("http://{}:{}@proxy", encoded(&username), encoded(&password));
            let proxy: Proxy = text.parse().expect("is a proxy");
            let credentials = proxy.server().and_then(ProxyServer::credentials).expect("has credentials");
            prop_assert_eq!((credentials.username(), credentials.password()), (username.as_str(), password.as_str()));
        }
    }
}
