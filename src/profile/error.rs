//! The errors of profiles.

use std::{
    borrow::Cow,
    convert::Infallible,
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

/// All issues that were found in profiles, in order.
///
/// `Display` prints one line for each. [`kind`](Self::kind), [`file`](Self::file),
/// [`entry`](Self::entry) and [`field`](Self::field) are those of the first issue;
/// [`issues`](Self::issues) returns all of them.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::profile::{Profile, ProfileErrorKind};
///
/// let error = Profile::builder()
///     .proxy("ftp://proxy.example")
///     .header("Host", "shop.example")
///     .build()
///     .unwrap_err();
///
/// assert_eq!(error.kind(), ProfileErrorKind::Proxy);
/// assert_eq!(error.field(), Some("proxy"));
/// assert_eq!(
///     error.to_string(),
///     "proxy: unknown scheme \"ftp\"; use http, https or socks5\n\
///      headers.host: not allowed in a profile: it is derived from the request URI",
/// );
/// ```
#[derive(Debug)]
pub struct ProfileError {
    /// Never empty.
    issues: Vec<ProfileIssue>,
    source: Option<io::Error>,
}

impl ProfileError {
    /// Wraps the collected issues; there must be at least one.
    pub(super) fn new(issues: Vec<ProfileIssue>) -> Self {
        debug_assert!(!issues.is_empty(), "an error has at least one issue");
        Self { issues, source: None }
    }

    #[cfg(feature = "profile-files")]
    pub(super) fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    #[cfg(feature = "profile-files")]
    pub(super) fn in_file(mut self, file: &Path) -> Self {
        for issue in &mut self.issues {
            issue.file = Some(file.to_owned());
        }
        self
    }

    pub(super) fn into_issues(self) -> Vec<ProfileIssue> {
        self.issues
    }

    /// Returns all issues, in the order in which they were found.
    pub fn issues(&self) -> &[ProfileIssue] {
        &self.issues
    }

    /// Returns the kind of the first issue.
    pub fn kind(&self) -> ProfileErrorKind {
        self.first().kind
    }

    /// Returns the file, as it was passed to `Profiles::from_path`.
    pub fn file(&self) -> Option<&Path> {
        self.first().file()
    }

    /// Returns the entry of the first issue, counted from 1.
    pub fn entry(&self) -> Option<usize> {
        self.first().entry
    }

    /// Returns the field of the first issue, such as `proxy.url`.
    pub fn field(&self) -> Option<&str> {
        self.first().field()
    }

    fn first(&self) -> &ProfileIssue {
        self.issues.first().expect("an error has at least one issue")
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, issue) in self.issues.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            issue.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for ProfileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<ProfileIssue> for ProfileError {
    fn from(issue: ProfileIssue) -> Self {
        Self::new(vec![issue])
    }
}

impl From<Infallible> for ProfileError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// One issue of a profile.
#[derive(Clone, Debug)]
pub struct ProfileIssue {
    kind: ProfileErrorKind,
    file: Option<PathBuf>,
    entry: Option<usize>,
    field: Option<Cow<'static, str>>,
    line: Option<usize>,
    /// The message, which contains no part of a credential or header value.
    text: Cow<'static, str>,
}

impl ProfileIssue {
    pub(super) fn new(kind: ProfileErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, file: None, entry: None, field: None, line: None, text: text.into() }
    }

    pub(super) fn at_field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(super) fn at_entry(mut self, entry: usize) -> Self {
        self.entry = Some(entry);
        self
    }

    /// Sets the line, unless a more precise one is known.
    #[cfg(feature = "profile-files")]
    pub(super) fn at_line(mut self, line: Option<usize>) -> Self {
        self.line = self.line.or(line);
        self
    }

    /// Returns the kind of the issue.
    pub fn kind(&self) -> ProfileErrorKind {
        self.kind
    }

    /// Returns the file, as it was passed to `Profiles::from_path`.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the position of the profile in its list, counted from 1.
    pub fn entry(&self) -> Option<usize> {
        self.entry
    }

    /// Returns the field, such as `proxy.url` or `headers.accept-language`.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Returns the line, counted from 1, if the parser provides it.
    ///
    /// TOML provides it for all issues, JSON for syntax errors.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for ProfileIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(entry) = self.entry {
            write!(f, "profile {entry}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        Ok(())
    }
}

/// What a [`ProfileIssue`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileErrorKind {
    /// The file cannot be read; the `source` of the error is the reason.
    Read,
    /// The file's extension is neither `toml` nor `json`.
    UnknownFormat,
    /// The text is not TOML or not JSON.
    Syntax,
    /// The list has no profiles.
    NoProfiles,
    /// The profile sets nothing.
    NothingSet,
    /// The field is unknown.
    UnknownField,
    /// A field, a header or a name occurs twice.
    Duplicate,
    /// The value has the wrong type, such as a table instead of text.
    WrongType,
    /// A field is missing that another field requires.
    Missing,
    /// The name of the profile is invalid.
    Name,
    /// The scheme, host, port or credentials of the proxy are invalid.
    Proxy,
    /// The name or value of a header, including the user agent, is not valid in HTTP.
    Header,
    /// The header belongs to the session, the connection or the body.
    RefusedHeader,
    /// The value is not an IP address.
    LocalAddress,
}

/// The error of pinning a session to a profile that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProfile {
    /// In the form in which it may be shown.
    name: String,
}

impl UnknownProfile {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: shown(name).into_owned() }
    }
}

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no profile is named {}; add one to the profiles of the sessions", self.name)
    }
}

impl Error for UnknownProfile {}

/// Returns a foreign name in a form that may be shown: plain names as they are, and a placeholder
/// for anything that could be a URL or a credential.
pub(super) fn shown(name: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 40 && name.chars().all(plain) {
        Cow::Borrowed(name)
    } else {
        Cow::Borrowed("(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_shows_its_file_entry_field_and_line() {
        let mut issue =
            ProfileIssue::new(ProfileErrorKind::Proxy, "no host").at_field("proxy.url").at_entry(3);
        assert_eq!(issue.to_string(), "profile 3: proxy.url: no host");
        issue.file = Some("profiles.toml".into());
        issue.line = Some(7);
        assert_eq!(issue.to_string(), "profiles.toml: profile 3: proxy.url: no host (line 7)");
        let error = ProfileError::from(issue);
        assert_eq!(error.file(), Some(Path::new("profiles.toml")));
        assert_eq!((error.entry(), error.field()), (Some(3), Some("proxy.url")));
        assert!(error.source().is_none());
    }

    #[test]
    fn a_name_that_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("user_agent"), "user_agent");
        for odd in ["", "http://u:p@h", "a b", &"x".repeat(41)] {
            assert_eq!(shown(odd), "(not shown)");
        }
    }
}
