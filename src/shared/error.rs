//! What can go wrong with a store of shared sessions.

use std::{error::Error, fmt, sync::Arc};

use crate::{gate::BoxError, session::snapshot::RestoreError};

/// Why a store could not do what it was asked for.
///
/// No payload and no credential is ever in it.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    key: Option<Box<str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a [`StoreError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached.
    Unreachable,
    /// The store did not answer within its deadline; what it was asked for may yet happen.
    TimedOut,
    /// The store answered that it will not: it is full, it is read-only, or it does not know the user.
    Rejected,
    /// The record is not one that this crate has written, or not as it has written it.
    Corrupt,
    /// The record was written in a format that this version of the crate does not know.
    UnsupportedFormat,
    /// The record is sealed, and not by the key that was given, or is not sealed although a key was given.
    DecryptionFailed,
    /// The record names a profile that this process does not have.
    UnknownProfile,
    /// The address of the store is not one.
    BadAddress,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, key: None, source: None }
    }

    /// An error of this kind with what it came from, which must not show a payload or a credential.
    pub fn caused_by(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, key: None, source: Some(source.into().into()) }
    }

    /// Names the key that it is about.
    pub fn at_key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The key of the record that it is about, if it is about one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// A record whose profile cannot be had.
pub(super) fn profile(error: RestoreError, key: &str) -> StoreError {
    StoreError::caused_by(StoreErrorKind::UnknownProfile, error).at_key(key)
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unreachable => "the store of shared sessions cannot be reached; is it running at its address?",
            StoreErrorKind::TimedOut => "the store of shared sessions did not answer in time",
            StoreErrorKind::Rejected => "the store of shared sessions refused",
            StoreErrorKind::Corrupt => {
                "the record is not a shared session as this crate writes it; delete it, or give the sessions another prefix"
            }
            StoreErrorKind::UnsupportedFormat => {
                "the record was written by another version of this crate; run one version in the whole fleet, or delete it"
            }
            StoreErrorKind::DecryptionFailed => {
                "the record cannot be opened: give every process the same key, or delete what was written under another"
            }
            StoreErrorKind::UnknownProfile => {
                "the record names a profile that is not in the list; give every process the same profiles"
            }
            StoreErrorKind::BadAddress => "the address of the store is not one that this store understands",
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
