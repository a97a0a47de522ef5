//! [`FormatError`]: why a text was not read as cookies.

use std::{error::Error, fmt};

use crate::cookies::CookieError;

/// A text could not be read as cookies.
///
/// The error has the [kind](Self::kind) and the line, entry and field that it is about. It never
/// contains the value of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: FormatErrorKind,
    line: Option<usize>,
    entry: Option<usize>,
    field: Option<&'static str>,
    expected: &'static str,
    source: Option<CookieError>,
}

/// The kind of a [`FormatError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The text is in none of the formats.
    Unknown,
    /// The text or an entry does not have the syntax of the format.
    Syntax,
    /// A field is missing.
    MissingField,
    /// A field has an invalid value.
    InvalidField,
    /// The cookie violates a rule. The source of the error names it.
    InvalidCookie,
    /// A `Set-Cookie` line comes before any URL.
    NoUrl,
}

impl FormatError {
    fn new(kind: FormatErrorKind) -> Self {
        Self(Box::new(Inner { kind, line: None, entry: None, field: None, expected: "", source: None }))
    }

    pub(super) fn unknown() -> Self {
        Self::new(FormatErrorKind::Unknown)
    }

    pub(super) fn no_url() -> Self {
        Self::new(FormatErrorKind::NoUrl)
    }

    pub(super) fn syntax(expected: &'static str) -> Self {
        let mut error = Self::new(FormatErrorKind::Syntax);
        error.0.expected = expected;
        error
    }

    pub(super) fn missing(field: &'static str) -> Self {
        let mut error = Self::new(FormatErrorKind::MissingField);
        error.0.field = Some(field);
        error
    }

    pub(super) fn invalid_field(field: &'static str, expected: &'static str) -> Self {
        let mut error = Self::new(FormatErrorKind::InvalidField);
        error.0.field = Some(field);
        error.0.expected = expected;
        error
    }

    pub(super) fn invalid_cookie(source: CookieError) -> Self {
        let mut error = Self::new(FormatErrorKind::InvalidCookie);
        error.0.source = Some(source);
        error
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        let expected = if error.is_eof() { "more JSON, but the text ends" } else { "JSON" };
        Self::syntax(expected).at_line(error.line())
    }

    /// Sets the line. It replaces the line within an entry by that of the whole text.
    pub(super) fn at_line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    pub(super) fn at_entry(mut self, entry: usize) -> Self {
        self.0.entry = Some(entry);
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> FormatErrorKind {
        self.0.kind
    }

    /// Returns the line, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.0.line
    }

    /// Returns the entry of the list, counted from 1.
    pub fn entry(&self) -> Option<usize> {
        self.0.entry
    }

    /// Returns the name of the field.
    pub fn field(&self) -> Option<&'static str> {
        self.0.field
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, line, entry, field, expected, .. } = &*self.0;
        if let Some(line) = line {
            write!(f, "line {line}: ")?;
        }
        if let Some(entry) = entry {
            write!(f, "entry {entry}: ")?;
        }
        if let Some(field) = field {
            write!(f, "field `{field}`: ")?;
        }
        match kind {
            FormatErrorKind::Unknown => f.write_str("unrecognised cookie format; specify one"),
            FormatErrorKind::Syntax | FormatErrorKind::InvalidField => write!(f, "expected {expected}"),
            FormatErrorKind::MissingField => f.write_str("missing"),
            FormatErrorKind::InvalidCookie => f.write_str("invalid cookie"),
            FormatErrorKind::NoUrl => {
                f.write_str("no URL for this `Set-Cookie`; pass one, or add a comment above it: # https://…")
            }
        }
    }
}

impl Error for FormatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
