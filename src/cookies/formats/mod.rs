//! Cookies in the formats of browsers and tools.
//!
//! A format is a [`Codec`] in a file of its own, and a line in the list of [`CookieFormat`].

mod cookie_store_json;
mod error;
mod json;
mod netscape;
mod set_cookie;

use serde_json::Value;

pub use self::error::{FormatError, FormatErrorKind};
use super::{ConversionReport, Jar, LossReason, SameSite, StoredCookie, Timestamp};

/// Reads and writes one format.
trait Codec {
    /// Whether a text looks like this format. It may still have errors.
    fn detect(&self, sample: &Sample<'_>) -> bool;

    /// Reads all cookies. A `Max-Age` is relative to `now`.
    fn read(&self, text: &str, now: Timestamp) -> Result<Vec<StoredCookie>, FormatError>;

    /// Writes the cookies, and adds what the format cannot represent to `losses`.
    fn write(&self, cookies: &[StoredCookie], losses: &mut Losses) -> String;
}

/// Defines [`CookieFormat`] with the codec of each format. Detection tries them in this order.
macro_rules! formats {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $format:ident => $codec:expr,)*
        }
    ) => {
        $(#[$attribute])*
        pub enum $name {
            $($(#[$doc])* $format,)*
        }

        impl $name {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$format),*];

            fn codec(self) -> &'static dyn Codec {
                match self {
                    $(Self::$format => &$codec,)*
                }
            }
        }
    };
}

formats! {
    /// A format in which browsers and tools exchange cookies.
    ///
    /// [`ImportedCookies::read`] reads all cookies of a text, or fails with the line or entry of
    /// the first error. [`Session::import`](crate::Session::import) adds cookies to a session, and
    /// [`Session::replace`](crate::Session::replace) replaces its cookies.
    /// [`Session::export`](crate::Session::export) writes the cookies of a session, and reports
    /// what the format cannot represent.
    ///
    /// | format | host-only | session cookie | `SameSite` | partition key | not representable |
    /// |---|---|---|---|---|---|
    /// | [`Netscape`](CookieFormat::Netscape) | second field | 0 | – | – | nameless cookies; tabs; fractions of seconds |
    /// | [`Playwright`](CookieFormat::Playwright) | no dot | -1 | `Strict`, `Lax`, `None` or missing | yes | |
    /// | [`DevTools`](CookieFormat::DevTools) | no dot | -1 | `Strict`, `Lax`, `None` or missing | yes | |
    /// | [`ChromeCookies`](CookieFormat::ChromeCookies) | `hostOnly` | no `expirationDate` | `no_restriction`, `lax`, `strict`, `unspecified` | yes | |
    /// | [`SetCookie`](CookieFormat::SetCookie) | no `Domain` | no `Expires` | the attribute | – | a path with a `;`; fractions of seconds |
    /// | [`CookieStore`](CookieFormat::CookieStore) | `HostOnly` | `SessionEnd` | in `raw_cookie` | – | nameless cookies; a host-only cookie beside one of the domain |
    ///
    /// No format can represent cookies that are not UTF-8, the times of creation and use, or
    /// whether the user set a cookie.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::{Sessions, cookies::{CookieFormat, ImportedCookies}};
    ///
    /// let storage_state = r#"{
    ///   "cookies": [{"name": "sid", "value": "abc", "domain": ".shop.example", "path": "/",
    ///                "expires": -1, "httpOnly": true, "secure": true, "sameSite": "Lax"}],
    ///   "origins": []
    /// }"#;
    /// let alice = Sessions::new().session("alice");
    /// alice.replace(ImportedCookies::from_playwright(storage_state)?);
    ///
    /// let (text, report) = alice.export(CookieFormat::Netscape);
    /// assert_eq!(
    ///     text,
    ///     "# Netscape HTTP Cookie File\n\n#HttpOnly_.shop.example\tTRUE\t/\tTRUE\t0\tsid\tabc\n",
    /// );
    /// assert_eq!(
    ///     report.losses()[0].to_string(),
    ///     "cookie `sid` of shop.example: kept without its samesite attribute",
    /// );
    ///
    /// assert_eq!(alice.import(CookieFormat::Netscape, &text)?, 1);
    /// let error = alice.import(CookieFormat::Netscape, "shop.example\tsecret").unwrap_err();
    /// assert_eq!(error.to_string(), "line 1: expected seven fields separated by tabs");
    /// # Ok::<(), tower_client_sessions::cookies::FormatError>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum CookieFormat {
        /// A `cookies.txt` file of curl, wget or yt-dlp.
        Netscape => netscape::Netscape,
        /// A `storageState` of Playwright. Its local storage is ignored.
        Playwright => json::Dialect::Playwright,
        /// A list of cookies of the DevTools protocol or Puppeteer.
        DevTools => json::Dialect::DevTools,
        /// A list of cookies of the extension API `chrome.cookies` or of EditThisCookie.
        ChromeCookies => json::Dialect::ChromeCookies,
        /// `Set-Cookie` lines, with or without the header name.
        ///
        /// A comment with a URL, `# https://…`, names the URL that sets the cookies of the lines
        /// below.
        SetCookie => set_cookie::SetCookieLines,
        /// The JSON of the crate `cookie_store`: a list, or one cookie per line in older versions.
        CookieStore => cookie_store_json::CookieStoreJson,
    }
}

impl CookieFormat {
    /// Detects the format of a text from its beginning and its fields.
    ///
    /// The text may still have errors. Returns `None` if it is in none of the formats.
    pub fn detect(text: &str) -> Option<Self> {
        let sample = Sample::new(without_bom(text));
        Self::ALL.iter().copied().find(|format| format.codec().detect(&sample))
    }

    /// Writes cookies with their values, and reports what the format cannot represent.
    pub fn write(self, cookies: &[StoredCookie]) -> (String, ConversionReport) {
        let mut losses = Losses::default();
        let text = self.codec().write(cookies, &mut losses);
        (text, losses.0)
    }
}

/// A text of an unknown format.
enum Sample<'t> {
    /// The text does not begin like JSON.
    Text(&'t str),
    /// The text is JSON.
    Json(&'t str, Value),
    /// The text begins like JSON, but has errors or consists of several documents.
    MalformedJson(&'t str),
}

impl<'t> Sample<'t> {
    fn new(text: &'t str) -> Self {
        if !text.trim_start().starts_with(['{', '[']) {
            return Self::Text(text);
        }
        match json::parse(text) {
            Ok(value) => Self::Json(text, value),
            Err(_) => Self::MalformedJson(text),
        }
    }
}

/// The cookies of a text.
///
/// Each cookie is valid, but may have expired. The conversion to a [`Jar`] omits the cookies that
/// have expired by the system clock.
#[derive(Clone, Debug, Default)]
pub struct ImportedCookies {
    cookies: Vec<StoredCookie>,
}

impl ImportedCookies {
    /// Reads cookies in `format`. A `Max-Age` is relative to `now`.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its line or entry.
    pub fn read(format: CookieFormat, text: &str, now: Timestamp) -> Result<Self, FormatError> {
        let cookies = format.codec().read(without_bom(text), now)?;
        Ok(Self { cookies })
    }

    /// Reads cookies and [detects](CookieFormat::detect) their format.
    ///
    /// # Errors
    ///
    /// Returns [`Unknown`](FormatErrorKind::Unknown) if no format matches, or an error of
    /// [`read`](Self::read).
    pub fn detect(text: &str, now: Timestamp) -> Result<Self, FormatError> {
        let format = CookieFormat::detect(text).ok_or_else(FormatError::unknown)?;
        Self::read(format, text, now)
    }

    /// Reads a `storageState` of Playwright.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its entry.
    pub fn from_playwright(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::Playwright, text, Timestamp::MIN)
    }

    /// Reads a `cookies.txt` file.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its line.
    pub fn from_netscape(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::Netscape, text, Timestamp::MIN)
    }

    /// Reads a list of cookies of `chrome.cookies` or EditThisCookie.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its entry.
    pub fn from_chrome(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::ChromeCookies, text, Timestamp::MIN)
    }

    /// Reads a list of cookies of the DevTools protocol or Puppeteer.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its entry.
    pub fn from_devtools(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::DevTools, text, Timestamp::MIN)
    }

    /// Reads `Set-Cookie` lines of a response from `url`, with or without the header name.
    ///
    /// # Errors
    ///
    /// Returns the first error, with its line, or the error of the URL.
    pub fn from_set_cookie(text: &str, url: &str, now: Timestamp) -> Result<Self, FormatError> {
        let cookies = set_cookie::read(without_bom(text), Some(url), now)?;
        Ok(Self { cookies })
    }

    /// Returns the cookies in the order of the text.
    pub fn as_slice(&self) -> &[StoredCookie] {
        &self.cookies
    }

    /// Inserts the cookies into a jar as set by the user.
    ///
    /// Returns the number of cookies that have not expired at `now`.
    pub fn insert_into(self, jar: &mut Jar, now: Timestamp) -> usize {
        let mut inserted = 0;
        for cookie in self.cookies {
            if !cookie.is_expired(now) {
                jar.insert(cookie, now);
                inserted += 1;
            }
        }
        inserted
    }
}

impl IntoIterator for ImportedCookies {
    type Item = StoredCookie;
    type IntoIter = std::vec::IntoIter<StoredCookie>;

    fn into_iter(self) -> Self::IntoIter {
        self.cookies.into_iter()
    }
}

impl From<Vec<StoredCookie>> for ImportedCookies {
    fn from(cookies: Vec<StoredCookie>) -> Self {
        Self { cookies }
    }
}

impl From<ImportedCookies> for Jar {
    /// Omits the cookies that have expired by the system clock.
    fn from(cookies: ImportedCookies) -> Self {
        let mut jar = Self::default();
        cookies.insert_into(&mut jar, Timestamp::now());
        jar
    }
}

/// Strips the byte order mark that some editors write.
fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The latest expiry time. [`Timestamp::MAX`] means that a cookie does not expire.
const LATEST: Timestamp = Timestamp::from_millis(i64::MAX - 1);

/// A cookie as an entry describes it, before validation.
struct CookieDraft<'d> {
    name: &'d str,
    value: &'d str,
    domain: &'d str,
    host_only: bool,
    path: &'d str,
    secure: bool,
    http_only: bool,
    same_site: Option<SameSite>,
    partition_key: Option<&'d str>,
    expires: Option<Timestamp>,
}

impl Default for CookieDraft<'_> {
    fn default() -> Self {
        Self {
            name: "",
            value: "",
            domain: "",
            host_only: true,
            path: "/",
            secure: false,
            http_only: false,
            same_site: None,
            partition_key: None,
            expires: None,
        }
    }
}

impl CookieDraft<'_> {
    /// Validates the cookie. A cookie with a partition key is partitioned.
    fn build(self) -> Result<StoredCookie, FormatError> {
        let partitioned = self.partition_key.is_some();
        self.build_partitioned(partitioned)
    }

    fn build_partitioned(self, partitioned: bool) -> Result<StoredCookie, FormatError> {
        let builder = match self.host_only {
            true => StoredCookie::for_host(self.name, self.value, self.domain),
            false => StoredCookie::for_domain(self.name, self.value, self.domain),
        };
        builder
            .path(self.path)
            .secure(self.secure)
            .http_only(self.http_only)
            .same_site(self.same_site)
            .partitioned(partitioned)
            .partition_key(self.partition_key.unwrap_or_default())
            .expires(self.expires)
            .build()
            .map_err(FormatError::invalid_cookie)
    }
}

/// The losses of a conversion in progress.
#[derive(Default)]
struct Losses(ConversionReport);

impl Losses {
    /// Returns name, value and path as text, or records a loss if one of them is not UTF-8.
    fn texts<'c>(&mut self, cookie: &'c StoredCookie) -> Option<(&'c str, &'c str, &'c str)> {
        let texts = cookie.name().zip(cookie.value()).zip(cookie.path());
        if texts.is_none() {
            self.add(cookie, LossReason::NotUtf8);
        }
        texts.map(|((name, value), path)| (name, value, path))
    }

    fn add(&mut self, cookie: &StoredCookie, reason: LossReason) {
        self.0.add_loss(cookie.name_bytes(), cookie.domain(), reason);
    }

    /// Records the loss of an attribute if the cookie `has` it.
    fn add_if(&mut self, has: bool, cookie: &StoredCookie, reason: LossReason) {
        if has {
            self.add(cookie, reason);
        }
    }

    fn add_converted(&mut self) {
        self.0.add_converted();
    }
}
