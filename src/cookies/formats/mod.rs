//! Cookies as browsers and their tools exchange them.

mod cookie_store_json;
mod error;
mod json;
mod netscape;
mod set_cookie;

pub use self::error::{FormatError, FormatErrorKind};
use super::{ConversionReport, Jar, LossReason, SameSite, StoredCookie, Timestamp};

/// A form in which browsers and their tools exchange cookies.
///
/// [`ImportedCookies`] are read from any [`CookieFormat`]: all of a text or, with the line or the entry of the first mistake, nothing. They
/// become a session's by [`Session::import`](crate::Session::import) or [`replace`](crate::Session::replace).
/// [`Session::export`](crate::Session::export) writes them and reports what the format cannot hold.
///
/// | format | host-only | no end | `SameSite` | partition key | what it cannot hold |
/// |---|---|---|---|---|---|
/// | [`Netscape`](CookieFormat::Netscape) | second field | 0 | – | – | no name; a tab; parts of seconds |
/// | [`Playwright`](CookieFormat::Playwright) | no dot | -1 | `Strict`, `Lax`, `None` or missing | yes | |
/// | [`DevTools`](CookieFormat::DevTools) | no dot | -1 | the same | yes | |
/// | [`ChromeCookies`](CookieFormat::ChromeCookies) | `hostOnly` | no `expirationDate` | `no_restriction`, `lax`, `strict`, `unspecified` | yes | |
/// | [`SetCookie`](CookieFormat::SetCookie) | no `Domain` | no `Expires` | the attribute | – | a path with a `;`; parts of seconds |
/// | [`CookieStore`](CookieFormat::CookieStore) | `HostOnly` | `SessionEnd` | in `raw_cookie` | – | no name; one for a host beside one for its domain |
///
/// None holds what is not UTF-8, when a cookie was created and used, or who gave it.
///
/// ```
/// use tower_client_sessions::{Sessions, cookies::{ImportedCookies, CookieFormat}};
///
/// let storage_state = r#"{
///   "cookies": [{"name": "sid", "value": "abc", "domain": ".shop.example", "path": "/", "expires": -1,
///                "httpOnly": true, "secure": true, "sameSite": "Lax"}],
///   "origins": []
/// }"#;
/// let alice = Sessions::new().session("alice");
/// alice.replace(ImportedCookies::from_playwright(storage_state)?);
///
/// let (text, report) = alice.export(CookieFormat::Netscape);
/// assert_eq!(text, "# Netscape HTTP Cookie File\n\n#HttpOnly_.shop.example\tTRUE\t/\tTRUE\t0\tsid\tabc\n");
/// assert_eq!(report.losses()[0].to_string(), "cookie `sid` of shop.example: kept lose_part_if its samesite");
///
/// assert_eq!(alice.import(CookieFormat::Netscape, &text)?, 1);
/// let error = alice.import(CookieFormat::Netscape, "shop.example\tsecret").unwrap_err();
/// assert_eq!(error.to_string(), "line 1: expected seven fields with tabs between them");
/// # Ok::<(), tower_client_sessions::cookies::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieFormat {
    /// `cookies.txt`: curl, wget, yt-dlp.
    Netscape,
    /// Playwright's `storageState`. What it holds of local storage is passed over.
    Playwright,
    /// The DevTools protocol's list of cookies, and Puppeteer's.
    DevTools,
    /// The list of the extension API `chrome.cookies`, and that of EditThisCookie.
    ChromeCookies,
    /// `Set-Cookie` lines, with or without the header's name, after a comment with the URL that they come from: `# https://…`.
    SetCookie,
    /// The JSON of the crate `cookie_store`: its list, and its older form of a cookie a line.
    CookieStore,
}

impl CookieFormat {
    /// The format that a text is in, as its beginning and its fields tell; `None` if it is none.
    ///
    /// That it can be read is not said.
    pub fn detect(text: &str) -> Option<Self> {
        let text = without_bom(text);
        if text.trim_start().starts_with(['{', '[']) {
            return match json::parse(text) {
                Ok(value) => json::detect(&value),
                Err(_) => cookie_store_json::is_json_lines(text).then_some(Self::CookieStore),
            };
        }
        if netscape::is_format(text) {
            return Some(Self::Netscape);
        }
        set_cookie::is_format(text).then_some(Self::SetCookie)
    }

    /// Writes cookies, their values included, and reports what the format cannot hold.
    pub fn write(self, cookies: &[StoredCookie]) -> (String, ConversionReport) {
        let mut losses = Losses::default();
        let text = match self {
            Self::Netscape => netscape::write(cookies, &mut losses),
            Self::SetCookie => set_cookie::write(cookies, &mut losses),
            Self::CookieStore => cookie_store_json::write(cookies, &mut losses),
            Self::Playwright | Self::DevTools | Self::ChromeCookies => {
                json::write(self, cookies, &mut losses)
            }
        };
        (text, losses.0)
    }
}

/// Cookies that were read from a text, each within the rules, those that have ended included.
///
/// As a [`Jar`], they are those that have not ended by the system's clock.
#[derive(Clone, Debug, Default)]
pub struct ImportedCookies {
    cookies: Vec<StoredCookie>,
}

impl ImportedCookies {
    /// Reads cookies in `format`; `now` is what a `Max-Age` counts from.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line or entry.
    pub fn read(format: CookieFormat, text: &str, now: Timestamp) -> Result<Self, FormatError> {
        let text = without_bom(text);
        let cookies = match format {
            CookieFormat::Netscape => netscape::read(text),
            CookieFormat::SetCookie => set_cookie::read(text, None, now),
            CookieFormat::CookieStore => cookie_store_json::read(text),
            CookieFormat::Playwright | CookieFormat::DevTools | CookieFormat::ChromeCookies => {
                json::read(format, text)
            }
        };
        cookies.map(|cookies| Self { cookies })
    }

    /// Reads cookies in whichever format the text is.
    ///
    /// # Errors
    ///
    /// If it is in none, or as [`read`](Self::read).
    pub fn detect(text: &str, now: Timestamp) -> Result<Self, FormatError> {
        let format =
            CookieFormat::detect(text).ok_or_else(|| FormatError::new(FormatErrorKind::Unknown, ""))?;
        Self::read(format, text, now)
    }

    /// Reads Playwright's `storageState`.
    ///
    /// # Errors
    ///
    /// The first mistake, with its entry.
    pub fn from_playwright(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::Playwright, text, Timestamp::MIN)
    }

    /// Reads a `cookies.txt`.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line.
    pub fn from_netscape(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::Netscape, text, Timestamp::MIN)
    }

    /// Reads the list of `chrome.cookies` or EditThisCookie.
    ///
    /// # Errors
    ///
    /// The first mistake, with its entry.
    pub fn from_chrome(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::ChromeCookies, text, Timestamp::MIN)
    }

    /// Reads the DevTools protocol's list, or Puppeteer's.
    ///
    /// # Errors
    ///
    /// The first mistake, with its entry.
    pub fn from_devtools(text: &str) -> Result<Self, FormatError> {
        Self::read(CookieFormat::DevTools, text, Timestamp::MIN)
    }

    /// Reads `Set-Cookie` lines, with or without the header's name, as `url` sends them.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line; or the URL.
    pub fn from_set_cookie(text: &str, url: &str, now: Timestamp) -> Result<Self, FormatError> {
        set_cookie::read(without_bom(text), Some(url), now).map(|cookies| Self { cookies })
    }

    /// The cookies, in the order of the text.
    pub fn as_slice(&self) -> &[StoredCookie] {
        &self.cookies
    }

    /// Puts them into a jar as given by the user, and returns how many have not ended at `now`.
    pub fn insert_into(self, jar: &mut Jar, now: Timestamp) -> usize {
        let mut put = 0;
        for cookie in self.cookies {
            if !cookie.is_expired(now) {
                jar.insert(cookie, now);
                put += 1;
            }
        }
        put
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

/// Those that have not ended by the system's clock.
impl From<ImportedCookies> for Jar {
    fn from(cookies: ImportedCookies) -> Self {
        let mut jar = Self::default();
        cookies.insert_into(&mut jar, Timestamp::now());
        jar
    }
}

/// A text without the mark that some editors put in front.
fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The last moment that a cookie can end at; the one after it stands for no end.
const LATEST: Timestamp = Timestamp::from_millis(i64::MAX - 1);

/// A cookie as an entry says it.
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
    /// Judges it; what has a partition key is partitioned.
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

/// The report, while it is written.
#[derive(Default)]
struct Losses(ConversionReport);

impl Losses {
    /// Name, value and path as text, or notes that one of them is none.
    fn texts<'c>(&mut self, cookie: &'c StoredCookie) -> Option<(&'c str, &'c str, &'c str)> {
        let texts = cookie.name().zip(cookie.value()).zip(cookie.path());
        if texts.is_none() {
            self.lose(cookie, LossReason::NotUtf8);
        }
        texts.map(|((name, value), path)| (name, value, path))
    }

    fn lose(&mut self, cookie: &StoredCookie, reason: LossReason) {
        self.0.lose(cookie.name_bytes(), cookie.domain(), reason);
    }

    /// Notes that a cookie comes without a part that it has.
    fn lose_part_if(&mut self, cookie: &StoredCookie, has: bool, reason: LossReason) {
        if has {
            self.lose(cookie, reason);
        }
    }

    fn converted(&mut self) {
        self.0.add_converted();
    }
}
