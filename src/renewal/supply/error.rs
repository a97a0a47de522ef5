use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use crate::gate::BoxError;

/// Why a [`Supply`](super::Supply) gave no session.
#[derive(Debug)]
pub struct SupplyError {
    kind: SupplyErrorKind,
    file: Option<PathBuf>,
    source: Option<BoxError>,
}

/// What a [`SupplyError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SupplyErrorKind {
    /// There is none left.
    Empty,
    /// The folder cannot be read, or a file cannot be moved aside.
    Folder,
    /// The command cannot be started, or has failed.
    Command,
    /// What the command printed is no list of cookies.
    Output,
}

impl SupplyError {
    pub(super) fn new(kind: SupplyErrorKind) -> Self {
        Self { kind, file: None, source: None }
    }

    #[cfg(feature = "formats")]
    pub(super) fn caused_by(kind: SupplyErrorKind, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind) }
    }

    #[cfg(feature = "formats")]
    pub(super) fn at(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> SupplyErrorKind {
        self.kind
    }

    /// The file or folder.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for SupplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(match self.kind {
            SupplyErrorKind::Empty => "the supply of sessions is empty",
            SupplyErrorKind::Folder => "the folder of sessions cannot be used",
            SupplyErrorKind::Command => "the command that prints cookies has failed",
            SupplyErrorKind::Output => "the command printed no list of cookies",
        })
    }
}

impl Error for SupplyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
