//! Snapshots in files: written whole or not at all, checked whole before anything is changed.

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

/// No file of more bytes than this is read: one gibibyte.
const MOST: u64 = 1 << 30;

impl SessionSnapshot {
    /// Reads one session from JSON.
    ///
    /// # Errors
    ///
    /// What is wrong, and where; never a value.
    pub fn from_json(json: &[u8]) -> Result<Self, SnapshotError> {
        read(json)
    }

    /// Writes the session as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a snapshot has only texts as keys")
    }
}

impl SessionsSnapshot {
    /// Reads all sessions from JSON.
    ///
    /// # Errors
    ///
    /// What is wrong, and where; never a value.
    pub fn from_json(json: &[u8]) -> Result<Self, SnapshotError> {
        read(json)
    }

    /// Writes the sessions as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a snapshot has only texts as keys")
    }
}

impl Sessions {
    /// Saves all sessions: everything but the secrets of their profiles.
    ///
    /// The file is written beside its place, synced and then moved there, so that at any moment, whatever happens to the program
    /// or the machine, there is the old file or the new one and both are whole. Only its owner may read it. Requests go on
    /// meanwhile; of two saves at once, the one that began last is the one that stays.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; then the old one is as it was.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Once begun, the save goes on to its end though nobody waits for it.
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<(), SnapshotError> {
        self.save_with(path, &SnapshotOptions::new()).await
    }

    /// As [`save`](Self::save), as far as `options` say.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub async fn save_with(
        &self,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<(), SnapshotError> {
        let (sessions, path, options) = (self.clone(), path.as_ref().to_owned(), options.clone());
        let save = move || {
            // Whoever comes later has the newer snapshot.
            let _saving = sessions.registry.saving.lock();
            let written = write(&path, &sessions.snapshot_with(&options));
            written.map_err(|error| SnapshotError::io(SnapshotErrorKind::Write, error).in_file(&path))
        };
        blocking(save, cancelled).await
    }

    /// Makes sessions out of a file, with the settings of `builder`, and says what was left out.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or anything in it is not as it has to be.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
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
    /// let (sessions, report) = Sessions::load(&path, Sessions::builder().max_sessions(10_000)).await?;
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

    /// Makes sessions what a file says, as [`restore_all`](Self::restore_all) does; others stay as they are.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); then all sessions are as they were.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Once begun, it goes on to its end though nobody waits for it.
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

/// What temporary files end in.
const PART: &str = ".part";

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = parent(path);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // Deleted if the write fails.
    let part = tempfile::Builder::new().prefix(&prefix).suffix(PART).tempfile_in(folder)?.into_temp_path();
    replace(&part, path, Durability::PowerLoss, |file| {
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        serde_json::to_writer(&mut writer, value)?;
        writer.write_all(b"\n")?;
        writer.flush()
    })?;
    // It has been moved: there is nothing left to delete.
    let _ = part.keep();
    sweep(folder, &prefix);
    Ok(())
}

/// Removes what programs that were killed while they saved have left behind; nobody writes for an hour.
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
        // The next save tries again.
        let _ = fs::remove_file(path);
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SnapshotError> {
    let unreadable = |error| SnapshotError::io(SnapshotErrorKind::Read, error);
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One more, so that what is too large shows, whatever its metadata say.
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST {
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
