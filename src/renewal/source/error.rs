use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use crate::gate::BoxError;

/// Why a [`SessionSource`](super::SessionSource) gave no session.
#[derive(Debug)]
pub struct SessionSourceError {
    kind: SessionSourceErrorKind,
    file: Option<PathBuf>,
    source: Option<BoxError>,
}

/// What a [`SessionSourceError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionSourceErrorKind {
    /// There is none left.
    Empty,
    /// The folder cannot be read, or a file cannot be moved aside.
    Directory,
    /// The command cannot be started, or has failed.
    Command,
    /// What the command printed is no list of cookies.
    Output,
}

impl SessionSourceError {
    pub(super) fn new(kind: SessionSourceErrorKind) -> Self {
        Self { kind, file: None, source: None }
    }

    #[cfg(feature = "formats")]
    pub(super) fn caused_by(kind: SessionSourceErrorKind, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind) }
    }

    #[cfg(feature = "formats")]
    pub(super) fn at(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> SessionSourceErrorKind {
        self.kind
    }

    /// The file or folder.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for SessionSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(match self.kind {
            SessionSourceErrorKind::Empty => "the supply of sessions is empty",
            SessionSourceErrorKind::Directory => "the folder of sessions cannot be used",
            SessionSourceErrorKind::Command => "the command that prints cookies has failed",
            SessionSourceErrorKind::Output => "the command printed no list of cookies",
        })
    }
}

impl Error for SessionSourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
