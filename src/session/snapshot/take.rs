//! Taking snapshots of sessions, and importing and exporting cookies.

use http::HeaderValue;

use super::{
    ProfileSnapshot, ProxySnapshot, SessionSnapshot, SessionsSnapshot,
    model::{SnapshotFormat, Version},
};
#[cfg(feature = "formats")]
use crate::cookies::{self, ConversionReport, FormatError, ImportedCookies};
use crate::{
    gate::{GateSnapshot, Generation},
    profile::{Profile, Proxy, ProxyServer},
    session::{IdentityInner, InitialIdentity, Session, Sessions},
};

/// What a snapshot contains.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until a snapshot is taken with them"]
pub struct SnapshotOptions {
    session_cookies: bool,
    profiles: ProfileDetail,
}

/// How much of a profile a snapshot contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileDetail {
    /// The name. For a profile without a name, everything except secrets.
    NameOnly,
    /// Everything except the credentials of the proxy and the values of sensitive headers.
    #[default]
    Redacted,
    /// Everything.
    Full,
}

impl SnapshotOptions {
    /// Creates options for everything except the secrets of profiles.
    pub const fn new() -> Self {
        Self { session_cookies: true, profiles: ProfileDetail::Redacted }
    }

    /// Excludes session cookies, which do not expire. Default: they are included.
    pub fn without_session_cookies(mut self) -> Self {
        self.session_cookies = false;
        self
    }

    /// Sets how much of each profile is included. Default: [`ProfileDetail::Redacted`].
    pub fn profiles(mut self, profiles: ProfileDetail) -> Self {
        self.profiles = profiles;
        self
    }
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// Takes a snapshot of this session, without the secrets of its profile. Does not block
    /// requests.
    pub fn snapshot(&self) -> SessionSnapshot {
        self.snapshot_with(&SnapshotOptions::new())
    }

    /// Like [`snapshot`](Self::snapshot), with options.
    pub fn snapshot_with(&self, options: &SnapshotOptions) -> SessionSnapshot {
        let GateSnapshot { last, is_current, value } = self.gate().snapshot();
        self.snapshot_of(value.as_deref(), Some(last), InitialIdentity::current_if(is_current), options)
    }

    /// Takes a snapshot of this session as if `inner` were its identity.
    pub(crate) fn snapshot_of(
        &self,
        inner: Option<&IdentityInner>,
        last: Option<Generation>,
        identity: InitialIdentity,
        options: &SnapshotOptions,
    ) -> SessionSnapshot {
        let clock = self.0.context.timestamp();
        let mut cookies = inner.map_or_else(Vec::new, |inner| inner.jar.lock().by_creation(clock));
        cookies.retain(|cookie| options.session_cookies || cookie.expires().is_some());
        let age =
            inner.map_or_else(Default::default, |inner| self.now().saturating_sub(inner.version.created_at));
        SessionSnapshot {
            version: Version,
            id: self.id().clone(),
            generation: last.map_or(0, Generation::get).min((1 << 53) - 1),
            current: identity.is_current(),
            created_at: clock.saturating_sub(age),
            uses: inner.map_or(0, |inner| inner.version.uses()),
            profile: inner
                .and_then(|inner| inner.profile())
                .map(|profile| ProfileSnapshot::of(profile, options.profiles)),
            cookies,
            data: self.all_data(),
        }
    }
}

#[cfg(feature = "formats")]
impl Session {
    /// Exports all cookies, including session cookies. The text contains their values.
    ///
    /// The report lists what the format cannot represent.
    pub fn export(&self, format: cookies::CookieFormat) -> (String, ConversionReport) {
        format.write(&self.snapshot().cookies)
    }

    /// Imports the cookies of a text: all of them, or none on an error. Returns the number of
    /// unexpired ones.
    ///
    /// To discard the session's other cookies, pass [`ImportedCookies`] to
    /// [`replace`](Self::replace), which starts a new identity.
    ///
    /// # Errors
    ///
    /// If the text is invalid. The error has the line or entry. No cookie was added.
    pub fn import(&self, format: cookies::CookieFormat, text: &str) -> Result<usize, FormatError> {
        let now = self.0.context.timestamp();
        Ok(self.insert_imported(ImportedCookies::read(format, text, now)?))
    }

    /// Like [`import`](Self::import), with the format detected from the text.
    ///
    /// # Errors
    ///
    /// If no format is recognised, and as for [`import`](Self::import).
    pub fn import_detect(&self, text: &str) -> Result<usize, FormatError> {
        let now = self.0.context.timestamp();
        Ok(self.insert_imported(ImportedCookies::detect(text, now)?))
    }

    fn insert_imported(&self, cookies: ImportedCookies) -> usize {
        let now = self.0.context.timestamp();
        let alive = cookies.as_slice().iter().filter(|cookie| !cookie.is_expired(now)).count();
        // Imported cookies are valid, so this cannot fail.
        let _ = self.edit(|jar| {
            cookies.clone().insert_into(jar, now);
            Ok(())
        });
        alive
    }
}

impl Sessions {
    /// Takes a snapshot of all sessions, one after the other. Does not block requests.
    pub fn snapshot(&self) -> SessionsSnapshot {
        self.snapshot_with(&SnapshotOptions::new())
    }

    /// Like [`snapshot`](Self::snapshot), with options.
    pub fn snapshot_with(&self, options: &SnapshotOptions) -> SessionsSnapshot {
        let saved_at = self.registry.context.timestamp();
        let sessions = self.registry.by_use().iter().map(|session| session.snapshot_with(options)).collect();
        SessionsSnapshot { format: SnapshotFormat, version: Version, saved_at, sessions }
    }
}

impl ProfileSnapshot {
    pub(super) fn of(profile: &Profile, detail: ProfileDetail) -> Self {
        let name = profile.name().map(str::to_owned);
        if detail == ProfileDetail::NameOnly && name.is_some() {
            return Self { name, redacted: true, ..Self::default() };
        }
        let mut redacted = false;
        let mut text = |value: &HeaderValue| {
            let secret = value.is_sensitive() && detail != ProfileDetail::Full;
            let text = if secret { None } else { String::from_utf8(value.as_bytes().to_vec()).ok() };
            redacted |= text.is_none();
            text
        };
        let user_agent = profile.user_agent().and_then(&mut text);
        let headers = profile.headers().iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect();
        let proxy = profile.proxy().map(|proxy| {
            let (proxy, whole) = ProxySnapshot::of(proxy, detail);
            redacted |= !whole;
            proxy
        });
        Self { name, proxy, user_agent, headers, local_address: profile.local_address(), redacted }
    }
}

impl ProxySnapshot {
    /// The proxy, and whether nothing was omitted.
    fn of(proxy: &Proxy, detail: ProfileDetail) -> (Self, bool) {
        let Some(server) = proxy.server() else {
            return (Self::Direct, true);
        };
        let credentials = server
            .credentials()
            .filter(|_| detail == ProfileDetail::Full)
            .map(|credentials| (credentials.username().to_owned(), credentials.password().to_owned()));
        let whole = credentials.is_some() || server.credentials().is_none();
        (Self::Server { url: url(server), credentials }, whole)
    }
}

fn url(server: &ProxyServer) -> String {
    let (scheme, host, port) = (server.scheme(), server.host(), server.port());
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}
