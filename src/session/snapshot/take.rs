//! From sessions to snapshots.

use http::HeaderValue;

use super::{
    ProfileSnapshot, ProxySnapshot, SessionSnapshot, SessionsSnapshot,
    model::{SnapshotFormat, Version},
};
#[cfg(feature = "formats")]
use crate::cookies::{self, ConversionReport, FormatError, ImportedCookies};
use crate::{
    gate::GateSnapshot,
    gate::Generation,
    profile::{Profile, Proxy, ProxyServer},
    session::{IdentityInner, Session, Sessions},
};

/// What a snapshot keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until a snapshot is taken with them"]
pub struct SnapshotOptions {
    session_cookies: bool,
    profiles: ProfileDetail,
}

/// How much of a profile a snapshot keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileDetail {
    /// The name. Of a profile without one, all but the secrets.
    NameOnly,
    /// All but the credentials of the proxy and the values of sensitive headers.
    #[default]
    Redacted,
    /// All of it.
    Full,
}

impl SnapshotOptions {
    /// Keeps everything but the secrets of profiles.
    pub fn new() -> Self {
        Self { session_cookies: true, profiles: ProfileDetail::default() }
    }

    /// Leaves out cookies without an end. Default: they are kept.
    pub fn without_session_cookies(mut self) -> Self {
        self.session_cookies = false;
        self
    }

    /// Sets how much of profiles is kept. Default: [`ProfileDetail::Redacted`].
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
    /// What this session is at this moment, everything but the secrets of its profile. Holds nobody up.
    pub fn snapshot(&self) -> SessionSnapshot {
        self.snapshot_with(&SnapshotOptions::new())
    }

    /// As [`snapshot`](Self::snapshot), as far as `options` say.
    pub fn snapshot_with(&self, options: &SnapshotOptions) -> SessionSnapshot {
        let GateSnapshot { last, is_current, value } = self.gate().snapshot();
        self.snapshot_of(value.as_deref(), last, is_current, options)
    }

    /// What this session is, or would be, under an identity of its own.
    pub(crate) fn snapshot_of(
        &self,
        inner: Option<&IdentityInner>,
        last: Generation,
        is_current: bool,
        options: &SnapshotOptions,
    ) -> SessionSnapshot {
        let clock = self.0.context.timestamp();
        let mut cookies = inner.map_or_else(Vec::new, |inner| inner.jar.lock().by_creation(clock));
        cookies.retain(|cookie| options.session_cookies || cookie.expires().is_some());
        let age =
            inner.map_or_else(Default::default, |inner| self.now().saturating_sub(inner.life.created_at));
        SessionSnapshot {
            version: Version,
            id: self.id().clone(),
            generation: last.min((1 << 53) - 1),
            current: is_current,
            created_at: clock.saturating_sub(age),
            uses: inner.map_or(0, |inner| inner.life.uses()),
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
    /// Writes all cookies, session cookies included, and reports what the format cannot hold. The text has their values.
    pub fn export(&self, format: cookies::CookieFormat) -> (String, ConversionReport) {
        format.write(&self.snapshot().cookies)
    }

    /// Adds the cookies of a text, as given by the user: all of them or none. Returns how many there were, without those that
    /// have ended.
    ///
    /// To make them all that the session has, under a new identity, [`replace`](Self::replace) it with
    /// [`ImportedCookies`].
    ///
    /// # Errors
    ///
    /// The first mistake, with its line or entry; then nothing was added.
    pub fn import(&self, format: cookies::CookieFormat, text: &str) -> Result<usize, FormatError> {
        let now = self.0.context.timestamp();
        Ok(self.take_in(ImportedCookies::read(format, text, now)?))
    }

    /// As [`import`](Self::import), in whichever format the text is.
    ///
    /// # Errors
    ///
    /// If it is in none, or as [`import`](Self::import).
    pub fn import_detect(&self, text: &str) -> Result<usize, FormatError> {
        let now = self.0.context.timestamp();
        Ok(self.take_in(ImportedCookies::detect(text, now)?))
    }

    fn take_in(&self, cookies: ImportedCookies) -> usize {
        let now = self.0.context.timestamp();
        let alive = cookies.as_slice().iter().filter(|cookie| !cookie.is_expired(now)).count();
        // What was read is within the rules, and nothing is refused.
        let _ = self.edit(|jar| {
            cookies.clone().insert_into(jar, now);
            Ok(())
        });
        alive
    }
}

impl Sessions {
    /// What all sessions are, each at the moment at which its turn comes. Holds nobody up.
    pub fn snapshot(&self) -> SessionsSnapshot {
        self.snapshot_with(&SnapshotOptions::new())
    }

    /// As [`snapshot`](Self::snapshot), as far as `options` say.
    pub fn snapshot_with(&self, options: &SnapshotOptions) -> SessionsSnapshot {
        let saved_at = self.registry.context.timestamp();
        let sessions = self.registry.by_use().iter().map(|session| session.snapshot_with(options)).collect();
        SessionsSnapshot { format: SnapshotFormat, version: Version, saved_at, sessions }
    }
}

impl ProfileSnapshot {
    pub(super) fn of(profile: &Profile, keep: ProfileDetail) -> Self {
        let name = profile.name().map(str::to_owned);
        if keep == ProfileDetail::NameOnly && name.is_some() {
            return Self { name, redacted: true, ..Self::default() };
        }
        let mut redacted = false;
        let mut text = |value: &HeaderValue| {
            let secret = value.is_sensitive() && keep != ProfileDetail::Full;
            let text = if secret { None } else { String::from_utf8(value.as_bytes().to_vec()).ok() };
            redacted |= text.is_none();
            text
        };
        let user_agent = profile.user_agent().and_then(&mut text);
        let headers = profile.headers().iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect();
        let proxy = profile.proxy().map(|proxy| {
            let (proxy, whole) = ProxySnapshot::of(proxy, keep);
            redacted |= !whole;
            proxy
        });
        Self { name, proxy, user_agent, headers, local_address: profile.local_address(), redacted }
    }
}

impl ProxySnapshot {
    /// The proxy, and whether that is all of it.
    fn of(proxy: &Proxy, keep: ProfileDetail) -> (Self, bool) {
        let Some(server) = proxy.server() else {
            return (Self::Direct, true);
        };
        let credentials = server
            .credentials()
            .filter(|_| keep == ProfileDetail::Full)
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
