//! Snapshots in files: written atomically, and validated before anything is restored.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinError;

use super::{
    RestoreReport, SessionSnapshot, SessionsSnapshot, SnapshotError, SnapshotErrorKind, SnapshotOptions,
};
use crate::{
    fs::{Durability, blocking, parent, replace},
    session::{Sessions, SessionsBuilder},
};

/// Larger files are not read: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;

impl SessionSnapshot {
    /// Parses the snapshot of one session from JSON.
    ///
    /// # Errors
    ///
    /// If the JSON is not a valid snapshot. The error says where, and never contains a value.
    pub fn from_json(json: &[u8]) -> Result<Self, SnapshotError> {
        read(json)
    }

    /// Returns the snapshot as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the keys of a snapshot are strings")
    }
}

impl SessionsSnapshot {
    /// Parses the snapshot of all sessions from JSON.
    ///
    /// # Errors
    ///
    /// If the JSON is not a valid snapshot. The error says where, and never contains a value.
    pub fn from_json(json: &[u8]) -> Result<Self, SnapshotError> {
        read(json)
    }

    /// Returns the snapshot as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the keys of a snapshot are strings")
    }
}

impl Sessions {
    /// Saves all sessions to a file, without the secrets of their profiles.
    ///
    /// The save is atomic: a temporary file in the same directory is written, synced and renamed.
    /// After a crash or a power failure, the path has the complete old file or the complete new
    /// one. Only its owner may read the file. Requests are not blocked. Of concurrent saves, the
    /// one that started last remains.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The old file is not changed.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the save completes even if the future is dropped.
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<(), SnapshotError> {
        self.save_with(path, &SnapshotOptions::new()).await
    }

    /// Like [`save`](Self::save), with options.
    ///
    /// # Errors
    ///
    /// As for [`save`](Self::save).
    pub async fn save_with(
        &self,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<(), SnapshotError> {
        let (sessions, path, options) = (self.clone(), path.as_ref().to_owned(), options.clone());
        let save = move || {
            // The snapshot is taken under the lock, so that a later save has a newer one.
            let _saving = sessions.registry.saving.lock();
            let written = write(&path, &sessions.snapshot_with(&options));
            written.map_err(|error| SnapshotError::io(SnapshotErrorKind::Write, error).in_file(&path))
        };
        blocking(save, cancelled).await
    }

    /// Builds sessions and restores the sessions of a file. The report says what was skipped.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, if any part of it is invalid, or if `builder` has an invalid
    /// setting.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("sessions.json");
    /// use tower_client_sessions::Sessions;
    ///
    /// let sessions = Sessions::new();
    /// sessions.session("alice").set_cookie("sid=abc; Path=/", "https://shop.example/")?;
    /// sessions.save(&path).await?;
    ///
    /// let builder = Sessions::builder().max_sessions(10_000);
    /// let (sessions, report) = Sessions::load(&path, builder).await?;
    /// assert!(report.is_complete());
    /// assert_eq!(sessions.get("alice").unwrap().cookies()[0].value(), Some("abc"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<_, std::io::Error>(())
    /// ```
    pub async fn load(
        path: impl AsRef<Path>,
        builder: SessionsBuilder,
    ) -> Result<(Self, RestoreReport), SnapshotError> {
        let sessions = builder.build().map_err(SnapshotError::config)?;
        let report = sessions.restore_from(path).await?;
        Ok((sessions, report))
    }

    /// Restores the sessions of a file, like [`restore_all`](Self::restore_all). Other sessions are
    /// not changed.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or if any part of it is invalid. No session is changed.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the restore completes even if the future is dropped.
    pub async fn restore_from(&self, path: impl AsRef<Path>) -> Result<RestoreReport, SnapshotError> {
        let (sessions, path) = (self.clone(), path.as_ref().to_owned());
        let load = move || {
            let snapshot: SessionsSnapshot = load(&path).map_err(|error| error.in_file(&path))?;
            Ok(sessions.restore_all(&snapshot))
        };
        blocking(load, cancelled).await
    }
}

fn cancelled(error: JoinError) -> SnapshotError {
    SnapshotError::io(SnapshotErrorKind::Write, io::Error::other(error))
}

/// The suffix of temporary files.
const PART: &str = ".part";

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = parent(path);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // Dropping it deletes the file, if the write fails.
    let part = tempfile::Builder::new().prefix(&prefix).suffix(PART).tempfile_in(folder)?.into_temp_path();
    replace(&part, path, Durability::PowerLoss, |file| {
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        serde_json::to_writer(&mut writer, value)?;
        writer.write_all(b"\n")?;
        writer.flush()
    })?;
    // It was renamed, so there is nothing to delete.
    let _ = part.keep();
    sweep(folder, &prefix);
    Ok(())
}

/// Removes temporary files of processes that were killed during a save. No save takes an hour.
fn sweep(folder: &Path, prefix: &OsString) {
    let old = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let ours = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(PART.as_bytes());
        let written = || fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let age = |written| SystemTime::now().duration_since(written).unwrap_or_default();
        ours && written().is_some_and(|written| age(written) > Duration::from_secs(3_600))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(old) {
        // If this fails, the next save tries again.
        let _ = fs::remove_file(path);
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SnapshotError> {
    let unreadable = |error| SnapshotError::io(SnapshotErrorKind::Read, error);
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more, to detect a larger file whatever its metadata says.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SnapshotError::new(SnapshotErrorKind::TooLarge));
    }
    read(&bytes)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| SnapshotError::read(&error.path().to_string(), error.inner(), bytes))?;
    reader.end().map_err(|error| SnapshotError::read(".", &error, bytes))?;
    Ok(value)
}
