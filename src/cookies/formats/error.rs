//! Why a text could not be read as cookies.

use std::{error::Error, fmt};

use crate::cookies::CookieError;

/// Why a text could not be read as cookies: the rule, and the line or the entry. Never a cookie's value.
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

/// What a [`FormatError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The text is in none of the formats.
    Unknown,
    /// The text, or an entry of it, is not in the format.
    Syntax,
    /// A field is missing.
    MissingField,
    /// A field is not what it has to be.
    Field,
    /// The cookie breaks a rule; the source says which.
    InvalidCookie,
    /// A `Set-Cookie` line comes before any URL.
    NoUrl,
}

impl FormatError {
    pub(super) fn new(kind: FormatErrorKind, expected: &'static str) -> Self {
        Self(Box::new(Inner { kind, line: None, entry: None, field: None, expected, source: None }))
    }

    pub(super) fn missing(field: &'static str) -> Self {
        let mut error = Self::new(FormatErrorKind::MissingField, "");
        error.0.field = Some(field);
        error
    }

    pub(super) fn bad_field(field: &'static str, expected: &'static str) -> Self {
        let mut error = Self::new(FormatErrorKind::Field, expected);
        error.0.field = Some(field);
        error
    }

    pub(super) fn invalid_cookie(source: CookieError) -> Self {
        let mut error = Self::new(FormatErrorKind::InvalidCookie, "");
        error.0.source = Some(source);
        error
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        let expected = if error.is_eof() { "JSON, which does not end here" } else { "JSON" };
        Self::new(FormatErrorKind::Syntax, expected).at_line(error.line())
    }

    /// Gives it the line, unless a place within a longer text is what it has.
    pub(super) fn at_line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    pub(super) fn at_entry(mut self, entry: usize) -> Self {
        self.0.entry = Some(entry);
        self
    }

    /// Returns what the error is about.
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

    /// Returns the field.
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
            write!(f, "{field}: ")?;
        }
        match kind {
            FormatErrorKind::Unknown => f.write_str("no known format of cookies; say which it is"),
            FormatErrorKind::Syntax | FormatErrorKind::Field => write!(f, "expected {expected}"),
            FormatErrorKind::MissingField => f.write_str("is missing"),
            FormatErrorKind::InvalidCookie => f.write_str("cannot be a cookie here"),
            FormatErrorKind::NoUrl => f.write_str(
                "no URL is known that sets this; give one, or write it as a comment before: # https://…",
            ),
        }
    }
}

impl Error for FormatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
