//! Errors of reading and writing snapshots.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, error::Category};

use super::model::{SnapshotFormat, Version};
use crate::gate::{BoxError, ConfigError};

/// Error of reading or writing a snapshot: what is wrong, and where. Never contains a value of the
/// snapshot.
#[derive(Debug)]
pub struct SnapshotError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: SnapshotErrorKind,
    file: Option<PathBuf>,
    json_path: Option<String>,
    line_and_column: Option<(usize, usize)>,
    detail: String,
    source: Option<BoxError>,
}

/// The kind of a [`SnapshotError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotErrorKind {
    /// The file cannot be read.
    Read,
    /// The file cannot be written.
    Write,
    /// The file is larger than 1 GiB.
    TooLarge,
    /// The text ends unexpectedly.
    Truncated,
    /// The text is not JSON.
    NotJson,
    /// The text is JSON, but not a snapshot.
    NotASnapshot,
    /// The snapshot has a version that this crate does not support.
    UnsupportedVersion,
    /// The snapshot has invalid content.
    Invalid,
    /// The [`SessionsBuilder`](crate::session::SessionsBuilder) has an invalid setting. The source
    /// names it.
    Config,
}

impl SnapshotError {
    pub(super) fn new(kind: SnapshotErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            file: None,
            json_path: None,
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

    /// The error for `bytes` that could not be read.
    pub(super) fn read(json_path: &str, cause: &serde_json::Error, bytes: &[u8]) -> Self {
        let kind = match cause.classify() {
            Category::Io => SnapshotErrorKind::Read,
            Category::Eof => SnapshotErrorKind::Truncated,
            Category::Syntax => SnapshotErrorKind::NotJson,
            Category::Data => kind_of_content(bytes),
        };
        let mut error = Self::new(kind);
        error.0.line_and_column = Some((cause.line(), cause.column()));
        // If the text is no snapshot at all, a path in it is no help.
        let is_useful = json_path != "." && kind != SnapshotErrorKind::NotASnapshot;
        error.0.json_path = is_useful.then(|| shortened(json_path));
        if matches!(kind, SnapshotErrorKind::Invalid | SnapshotErrorKind::NotJson) {
            error.0.detail = without_values(&cause.to_string());
        }
        error
    }

    /// The kind of the error.
    pub fn kind(&self) -> SnapshotErrorKind {
        self.0.kind
    }

    /// The path of the file, as it was given.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The path of the invalid value, such as `sessions[3].cookies[0].expires`.
    pub fn json_path(&self) -> Option<&str> {
        self.0.json_path.as_deref()
    }

    /// The line, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.0.line_and_column.map(|(line, _)| line)
    }

    /// The column, counted from 1.
    pub fn column(&self) -> Option<usize> {
        self.0.line_and_column.map(|(_, column)| column)
    }
}

/// Distinguishes other JSON and other versions from invalid content.
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

/// serde quotes an unexpected value, which may be a secret. Only what it expected is shown.
fn without_values(message: &str) -> String {
    let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    let quotes = ["invalid ", "unknown variant"].iter().any(|start| message.starts_with(start));
    match message.rfind(", expected ") {
        Some(at) if quotes => message[at + 2..].to_owned(),
        None if quotes => String::from("invalid value"),
        _ => shortened(message),
    }
}

/// Bounds keys of the file, which may have any length.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { shown + "…" } else { shown }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, file, json_path, line_and_column, detail, .. } = &*self.0;
        if let Some(file) = file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(match kind {
            SnapshotErrorKind::Read => "the snapshot cannot be read",
            SnapshotErrorKind::Write => "the snapshot cannot be written",
            SnapshotErrorKind::TooLarge => "larger than 1 GiB",
            SnapshotErrorKind::Truncated => "unexpected end of file",
            SnapshotErrorKind::NotJson => "not JSON",
            SnapshotErrorKind::NotASnapshot => "not a snapshot",
            SnapshotErrorKind::UnsupportedVersion => {
                "unsupported snapshot version; upgrade tower-client-sessions"
            }
            SnapshotErrorKind::Invalid => "invalid snapshot",
            SnapshotErrorKind::Config => "invalid setting of the sessions",
        })?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if let Some(json_path) = json_path {
            write!(f, ", at {json_path}")?;
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
