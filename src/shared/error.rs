//! Errors of a session store.

use std::{error::Error, fmt, sync::Arc};

use crate::{gate::BoxError, session::snapshot::RestoreError};

/// An error of a session store.
///
/// It never contains a payload or a credential.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    key: Option<Box<str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached.
    Unreachable,
    /// The store did not respond in time; the request may still be carried out.
    TimedOut,
    /// The store rejected the request: it is full or read-only, or denies access.
    Rejected,
    /// The record is damaged, or was not written by this crate.
    Corrupt,
    /// The record has a format that this version of the crate does not support.
    UnsupportedFormat,
    /// The record is encrypted with another key, or only one of record and process uses encryption.
    DecryptionFailed,
    /// The record names a profile that this process does not have.
    UnknownProfile,
    /// The address of the store is invalid.
    BadAddress,
}

impl StoreError {
    /// Creates an error of this kind.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, key: None, source: None }
    }

    /// Creates an error of this kind with its cause, which must not show a payload or a credential.
    pub fn caused_by(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, key: None, source: Some(source.into().into()) }
    }

    /// Adds the key of the record.
    pub fn at_key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns the key of the record, if the error is about one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// The error for a record whose profile cannot be restored.
pub(super) fn profile(error: RestoreError, key: &str) -> StoreError {
    StoreError::caused_by(StoreErrorKind::UnknownProfile, error).at_key(key)
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unreachable => "the session store is unreachable",
            StoreErrorKind::TimedOut => "the session store did not respond in time",
            StoreErrorKind::Rejected => "the session store rejected the request",
            StoreErrorKind::Corrupt => {
                "the record is damaged or was not written by this crate; delete it, or use another key prefix"
            }
            StoreErrorKind::UnsupportedFormat => {
                "the format of the record is not supported; use one crate version in all processes, or delete it"
            }
            StoreErrorKind::DecryptionFailed => {
                "the record cannot be decrypted; use the same key in all processes, or delete it"
            }
            StoreErrorKind::UnknownProfile => {
                "the record names an unknown profile; use the same profiles in all processes"
            }
            StoreErrorKind::BadAddress => "the address of the session store is invalid",
        })?;
        match &self.key {
            Some(key) => write!(f, " (key {key:?})"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
