//! Why a snapshot could not be read or written.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, error::Category};

use super::model::{SnapshotFormat, Version};
use crate::gate::{BoxError, ConfigError};

/// Why a snapshot could not be read or written: what, and where. Never a value that was written.
#[derive(Debug)]
pub struct SnapshotError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: SnapshotErrorKind,
    file: Option<PathBuf>,
    place: Option<String>,
    line_and_column: Option<(usize, usize)>,
    detail: String,
    source: Option<BoxError>,
}

/// What a [`SnapshotError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotErrorKind {
    /// The file cannot be read.
    Read,
    /// The file cannot be written.
    Write,
    /// The file is larger than a gibibyte.
    TooLarge,
    /// The text ends too early.
    Truncated,
    /// The text is not JSON.
    NotJson,
    /// The text is JSON of something else.
    NotASnapshot,
    /// The text is of a version that this crate does not know.
    UnsupportedVersion,
    /// Something in it is not as it has to be.
    Invalid,
    /// The settings of the [`SessionsBuilder`](crate::session::SessionsBuilder) are invalid; the source names the setting.
    Config,
}

impl SnapshotError {
    pub(super) fn new(kind: SnapshotErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            file: None,
            place: None,
            line_and_column: None,
            detail: String::new(),
            source: None,
        }))
    }

    pub(super) fn io(kind: SnapshotErrorKind, source: io::Error) -> Self {
        let mut error = Self::new(kind);
        error.0.source = Some(source.into());
        error
    }

    pub(super) fn config(source: ConfigError) -> Self {
        let mut error = Self::new(SnapshotErrorKind::Config);
        error.0.source = Some(source.into());
        error
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.0.file = Some(file.to_owned());
        self
    }

    /// Why `bytes` could not be read.
    pub(super) fn read(place: &str, cause: &serde_json::Error, bytes: &[u8]) -> Self {
        let kind = match cause.classify() {
            Category::Io => SnapshotErrorKind::Read,
            Category::Eof => SnapshotErrorKind::Truncated,
            Category::Syntax => SnapshotErrorKind::NotJson,
            Category::Data => kind_of_content(bytes),
        };
        let mut error = Self::new(kind);
        error.0.line_and_column = Some((cause.line(), cause.column()));
        // Of something else the place says nothing.
        let placed = place != "." && kind != SnapshotErrorKind::NotASnapshot;
        error.0.place = placed.then(|| shortened(place));
        if matches!(kind, SnapshotErrorKind::Invalid | SnapshotErrorKind::NotJson) {
            error.0.detail = without_values(&cause.to_string());
        }
        error
    }

    /// What the error is about.
    pub fn kind(&self) -> SnapshotErrorKind {
        self.0.kind
    }

    /// The file, as it was named.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The place in the data, such as `sessions[3].cookies[0].expires`.
    pub fn json_path(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// The line in the text, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.0.line_and_column.map(|(line, _)| line)
    }

    /// The column in the line, counted from 1.
    pub fn column(&self) -> Option<usize> {
        self.0.line_and_column.map(|(_, column)| column)
    }
}

/// Tells something else, and another version, from a mistake in what is ours.
fn kind_of_content(bytes: &[u8]) -> SnapshotErrorKind {
    #[derive(Deserialize)]
    struct Head {
        format: Option<Value>,
        version: Option<Value>,
        id: Option<Value>,
    }
    let Ok(head) = serde_json::from_slice::<Head>(bytes) else {
        return SnapshotErrorKind::NotASnapshot;
    };
    let ours = head.format.as_ref().is_some_and(|format| format == SnapshotFormat::NAME) || head.id.is_some();
    match head.version.as_ref().and_then(Value::as_u64) {
        Some(version) if ours && version > Version::NUMBER => SnapshotErrorKind::UnsupportedVersion,
        Some(_) if ours => SnapshotErrorKind::Invalid,
        _ => SnapshotErrorKind::NotASnapshot,
    }
}

/// serde quotes what it did not expect, which may be a secret: only the expectation is shown.
fn without_values(message: &str) -> String {
    let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    let quotes = ["invalid ", "unknown variant"].iter().any(|start| message.starts_with(start));
    match message.rfind(", expected ") {
        Some(at) if quotes => message[at + 2..].to_owned(),
        None if quotes => String::from("not what it has to be"),
        _ => shortened(message),
    }
}

/// Keys come from the file and may be of any length.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { shown + "…" } else { shown }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, file, place, line_and_column, detail, .. } = &*self.0;
        if let Some(file) = file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(match kind {
            SnapshotErrorKind::Read => "the snapshot cannot be read",
            SnapshotErrorKind::Write => "the snapshot cannot be written",
            SnapshotErrorKind::TooLarge => "larger than a snapshot may be, a gibibyte",
            SnapshotErrorKind::Truncated => "ends in the middle; it was cut short, or is still being written",
            SnapshotErrorKind::NotJson => "not JSON",
            SnapshotErrorKind::NotASnapshot => "not a snapshot of sessions",
            SnapshotErrorKind::UnsupportedVersion => {
                "of a later version than this crate reads; read it with a newer one"
            }
            SnapshotErrorKind::Invalid => "not a snapshot that this crate has written",
            SnapshotErrorKind::Config => "the settings of the sessions are invalid",
        })?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if let Some(place) = place {
            write!(f, ", at {place}")?;
        }
        if let Some((line, column)) = line_and_column {
            write!(f, " (line {line}, column {column})")?;
        }
        Ok(())
    }
}

impl Error for SnapshotError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}
