//! `SessionSourceError`: why a source has returned no session.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use crate::gate::BoxError;

/// Error of a [`SessionSource`](super::SessionSource) that returned no session.
#[derive(Debug)]
pub struct SessionSourceError {
    kind: SessionSourceErrorKind,
    path: Option<PathBuf>,
    source: Option<BoxError>,
}

/// Kind of a [`SessionSourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionSourceErrorKind {
    /// The source is empty.
    Empty,
    /// The directory cannot be read, or a used file cannot be moved.
    Directory,
    /// The command cannot be started, or failed.
    Command,
    /// The output of the command is not a list of cookies.
    Output,
}

impl SessionSourceError {
    pub(super) fn new(kind: SessionSourceErrorKind) -> Self {
        Self { kind, path: None, source: None }
    }

    #[cfg(feature = "formats")]
    pub(super) fn caused_by(kind: SessionSourceErrorKind, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind) }
    }

    #[cfg(feature = "formats")]
    pub(super) fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Kind of the error.
    pub fn kind(&self) -> SessionSourceErrorKind {
        self.kind
    }

    /// Path of the directory that caused the error.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for SessionSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(match self.kind {
            SessionSourceErrorKind::Empty => "the session source is empty",
            SessionSourceErrorKind::Directory => {
                "the session directory cannot be read, or a used file cannot be moved"
            }
            SessionSourceErrorKind::Command => "the command of the session source failed",
            SessionSourceErrorKind::Output => "the output of the session command is not a list of cookies",
        })
    }
}

impl Error for SessionSourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
