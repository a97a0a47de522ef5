//! One profile and its builder.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::{
    error::{ProfileError, ProfileErrorKind, ProfileIssue, shown},
    proxy::Proxy,
};

/// The client that a session presents: a proxy, a user agent, further headers, a local address, and
/// an optional name.
///
/// A profile always sets something: [`ProfileBuilder::build`] rejects an empty one. `==` compares
/// the contents, and [`ptr_eq`](Self::ptr_eq) checks whether two values are clones of one profile.
/// See the [module documentation](super).
///
/// # Clone
///
/// Clones share one allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    inner: Arc<Inner>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Inner {
    name: Option<String>,
    proxy: Option<Proxy>,
    user_agent: Option<HeaderValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
    local_address: Option<IpAddr>,
}

impl Profile {
    /// Creates a builder that sets nothing.
    pub fn builder() -> ProfileBuilder {
        ProfileBuilder::default()
    }

    /// Returns the name, by which sessions are pinned to the profile. It is not sent.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Returns the proxy.
    ///
    /// A client must reject a request whose profile has none; to connect without a proxy, set
    /// [`Proxy::direct`].
    pub fn proxy(&self) -> Option<&Proxy> {
        self.inner.proxy.as_ref()
    }

    /// Returns the value of `User-Agent`.
    pub fn user_agent(&self) -> Option<&HeaderValue> {
        self.inner.user_agent.as_ref()
    }

    /// Returns the further headers in the order in which they were added; each name occurs once.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.inner.headers
    }

    /// Returns the local address to connect from.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.inner.local_address
    }

    /// Returns whether both values are clones of one profile.
    ///
    /// Two profiles with the same contents are equal, but not clones.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::profile::Profile;
    ///
    /// let one = Profile::builder().user_agent("crawler/1.0").build()?;
    /// let other = Profile::builder().user_agent("crawler/1.0").build()?;
    /// assert!(one.ptr_eq(&one.clone()));
    /// assert!(one == other && !one.ptr_eq(&other));
    /// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
    /// ```
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

/// Builds a [`Profile`].
///
/// Invalid values are collected, and [`build`](Self::build) reports all of them.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::profile::Profile;
///
/// let profile = Profile::builder()
///     .name("de-1")
///     .proxy("socks5://proxy.example")
///     .user_agent("Mozilla/5.0 (X11; Linux x86_64)")
///     .header("accept-language", "de-DE")
///     .header("authorization", "Bearer secret")
///     .build()?;
///
/// assert_eq!(profile.headers()[0].0, "accept-language");
/// assert!(!format!("{profile:?}").contains("secret"));
/// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ProfileBuilder {
    inner: Inner,
    issues: Vec<ProfileIssue>,
}

impl ProfileBuilder {
    /// Sets the name, which must not be empty or contain control characters. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if name.is_empty() || name.chars().any(char::is_control) {
            self.issue(
                ProfileIssue::new(ProfileErrorKind::Name, "is empty or contains a control character")
                    .at_field("name"),
            );
        }
        self.inner.name = Some(name);
        self
    }

    /// Sets the proxy: a [`Proxy`], or text that parses as one. Default: none.
    pub fn proxy<P>(mut self, proxy: P) -> Self
    where
        P: TryInto<Proxy>,
        P::Error: Into<ProfileError>,
    {
        match proxy.try_into() {
            Ok(proxy) => self.inner.proxy = Some(proxy),
            Err(error) => self.issues.extend(error.into().into_issues()),
        }
        self
    }

    /// Sets `User-Agent`. Default: none, which leaves the value of the request.
    pub fn user_agent<V>(mut self, value: V) -> Self
    where
        HeaderValue: TryFrom<V>,
    {
        match HeaderValue::try_from(value) {
            Ok(value) if !value.is_empty() => self.inner.user_agent = Some(value),
            _ => self.issue(
                ProfileIssue::new(
                    ProfileErrorKind::Header,
                    "is empty or contains a character that is not allowed in a header",
                )
                .at_field("user-agent"),
            ),
        }
        self
    }

    /// Adds a header after those added before.
    ///
    /// Each name can be added once. Headers that belong to the session (`Cookie`), the connection
    /// (`Connection`, `Transfer-Encoding`), the body (`Content-Length`), the URI (`Host`) or the
    /// proxy (`Proxy-Authorization`) are rejected. Values of headers whose names indicate
    /// credentials, such as `Authorization`, are marked sensitive.
    pub fn header<V>(mut self, name: impl AsRef<str>, value: V) -> Self
    where
        HeaderValue: TryFrom<V>,
    {
        let name = name.as_ref();
        match self.inner.checked_header(name, value) {
            Ok(header) => self.inner.headers.push(header),
            Err((kind, text)) => {
                let field = format!("headers.{}", shown(&name.to_ascii_lowercase()));
                self.issue(ProfileIssue::new(kind, text).at_field(field));
            }
        }
        self
    }

    /// Sets the local address to connect from. Default: the operating system's choice.
    pub fn local_address(mut self, address: impl Into<IpAddr>) -> Self {
        self.inner.local_address = Some(address.into());
        self
    }

    /// Builds the profile.
    ///
    /// # Errors
    ///
    /// Returns all issues of the builder, or an error if the profile sets nothing but a name.
    pub fn build(mut self) -> Result<Profile, ProfileError> {
        if self.issues.is_empty() && self.inner.sets_nothing() {
            self.issue(ProfileIssue::new(
                ProfileErrorKind::NothingSet,
                "sets nothing; give it a proxy, a user agent, headers or a local address",
            ));
        }
        if self.issues.is_empty() {
            Ok(Profile { inner: Arc::new(self.inner) })
        } else {
            Err(ProfileError::new(self.issues))
        }
    }

    pub(super) fn issue(&mut self, issue: ProfileIssue) {
        self.issues.push(issue);
    }

    #[cfg(feature = "profile-files")]
    pub(super) fn with_issue(mut self, issue: ProfileIssue) -> Self {
        self.issue(issue);
        self
    }

    /// Sets the line of the issues that have none.
    #[cfg(feature = "profile-files")]
    pub(super) fn locate(&mut self, line: Option<usize>) {
        self.issues = self.issues.drain(..).map(|issue| issue.at_line(line)).collect();
    }
}

impl Inner {
    fn sets_nothing(&self) -> bool {
        self.proxy.is_none()
            && self.user_agent.is_none()
            && self.headers.is_empty()
            && self.local_address.is_none()
    }

    fn checked_header<V>(
        &self,
        name: &str,
        value: V,
    ) -> Result<(HeaderName, HeaderValue), (ProfileErrorKind, String)>
    where
        HeaderValue: TryFrom<V>,
    {
        let name = HeaderName::try_from(name)
            .map_err(|_| (ProfileErrorKind::Header, "is not a header name".to_owned()))?;
        if let Some(reason) = rejection(&name) {
            return Err((ProfileErrorKind::RefusedHeader, format!("not allowed in a profile: {reason}")));
        }
        if self.headers.iter().any(|(known, _)| *known == name) {
            return Err((ProfileErrorKind::Duplicate, "occurs twice".to_owned()));
        }
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            (ProfileErrorKind::Header, "contains a character that is not allowed in a header".to_owned())
        })?;
        if is_sensitive(&name) {
            value.set_sensitive(true);
        }
        Ok((name, value))
    }
}

/// Returns why a profile must not set this header, if it must not.
fn rejection(name: &HeaderName) -> Option<&'static str> {
    Some(match name.as_str() {
        "cookie" | "cookie2" | "set-cookie" => "cookies belong to the session",
        "host" => "it is derived from the request URI",
        "content-length" => "it is derived from the request body",
        // RFC 9110, section 7.6.1.
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding"
        | "upgrade" | "http2-settings" => "it belongs to one connection",
        "proxy-authorization" | "proxy-authenticate" => "set the credentials in the proxy field",
        "user-agent" => "use the user-agent field",
        _ => return None,
    })
}

/// Returns whether the name indicates that the value is a credential.
fn is_sensitive(name: &HeaderName) -> bool {
    ["auth", "token", "secret", "api-key", "apikey", "password"]
        .iter()
        .any(|word| name.as_str().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejected(builder: ProfileBuilder) -> ProfileError {
        builder.build().expect_err("the profile is invalid")
    }

    #[test]
    fn headers_keep_their_order() {
        let names = ["x-c", "accept-language", "x-a", "dnt", "x-b"];
        let profile = names.iter().fold(Profile::builder(), |builder, name| builder.header(name, "v"));
        let profile = profile.build().unwrap();
        let kept: Vec<_> = profile.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, names);
    }

    #[test]
    fn headers_of_the_session_and_the_connection_are_rejected() {
        for (name, reason) in [
            ("Cookie", "session"),
            ("set-cookie", "session"),
            ("Host", "URI"),
            ("Content-Length", "body"),
            ("Transfer-Encoding", "one connection"),
            ("connection", "one connection"),
            ("Keep-Alive", "one connection"),
            ("TE", "one connection"),
            ("upgrade", "one connection"),
            ("Proxy-Authorization", "proxy field"),
            ("User-Agent", "user-agent"),
        ] {
            let error = rejected(Profile::builder().header(name, "v"));
            assert_eq!(error.kind(), ProfileErrorKind::RefusedHeader, "{name}");
            assert_eq!(error.field(), Some(format!("headers.{}", name.to_ascii_lowercase()).as_str()));
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn credentials_in_headers_are_marked_sensitive() {
        for (name, sensitive) in [
            ("authorization", true),
            ("X-Auth", true),
            ("x-api-key", true),
            ("x-csrf-token", true),
            ("accept", false),
            ("dnt", false),
        ] {
            let profile = Profile::builder().header(name, "hidden-value").build().unwrap();
            assert_eq!(profile.headers()[0].1.is_sensitive(), sensitive, "{name}");
            assert_eq!(format!("{profile:?}").contains("hidden-value"), !sensitive, "{name}");
        }
    }

    #[test]
    fn every_issue_is_reported_and_no_value_is_shown() {
        let error = rejected(
            Profile::builder()
                .name("")
                .proxy("hunter2@proxy")
                .user_agent("hunter2\n")
                .header("b d", "hunter2")
                .header("x-a", "hunter2\0")
                .header("x-b", "1")
                .header("X-B", "hunter2"),
        );
        let found: Vec<_> = error.issues().iter().map(|m| (m.kind(), m.field().unwrap())).collect();
        assert_eq!(
            found,
            [
                (ProfileErrorKind::Name, "name"),
                (ProfileErrorKind::Proxy, "proxy"),
                (ProfileErrorKind::Header, "user-agent"),
                (ProfileErrorKind::Header, "headers.(not shown)"),
                (ProfileErrorKind::Header, "headers.x-a"),
                (ProfileErrorKind::Duplicate, "headers.x-b"),
            ]
        );
        assert_eq!(error.to_string().lines().count(), 6);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_profile_that_sets_nothing_is_rejected() {
        for builder in [Profile::builder(), Profile::builder().name("alone")] {
            assert_eq!(rejected(builder).kind(), ProfileErrorKind::NothingSet);
        }
        for builder in [
            Profile::builder().proxy(Proxy::direct()),
            Profile::builder().user_agent("a"),
            Profile::builder().header("x-a", ""),
            Profile::builder().local_address([127, 0, 0, 1]),
        ] {
            assert!(builder.build().is_ok());
        }
    }
}
