//! `SessionDirectory`: a source of sessions that takes the files of a directory.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{task::spawn_blocking, time::sleep};

use super::{Demand, IfEmpty, OnEmpty, SessionSource, SessionSourceError, SessionSourceErrorKind, Source};
use crate::{
    cookies::{ImportedCookies, Jar, Timestamp},
    gate::BoxError,
    renewal::renewal::BoxFuture,
};

/// Source that takes the files of a directory. Each file contains the cookies of one session in any
/// [format](crate::cookies::CookieFormat).
///
/// A renewal takes the first file by name. It moves the file to the subdirectory `spent` before it
/// uses the cookies. A file is therefore used once, even if several processes share the directory,
/// and never again after a crash.
///
/// Move files in when they are complete. Files whose names start with a dot or end in `.part` or
/// `.tmp` are ignored. A file that cannot be read stays, with a warning in `tracing`, and is tried
/// again when it has changed.
#[derive(Clone, Debug)]
#[must_use = "a source does nothing until it is given to a layer"]
pub struct SessionDirectory {
    path: PathBuf,
    interval: Duration,
}

impl SessionDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, interval: Duration::from_secs(1) }
    }

    /// Sets the pause before the directory is read again while a renewal waits for a file. Default:
    /// one second.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets what a renewal does when the directory has no file left. See
    /// [`SessionSource::on_empty`].
    pub fn on_empty(self, on_empty: OnEmpty) -> SessionSource {
        SessionSource::from(self).on_empty(on_empty)
    }
}

impl From<SessionDirectory> for SessionSource {
    fn from(directory: SessionDirectory) -> Self {
        let SessionDirectory { path, interval } = directory;
        Self::new(Arc::new(Directory {
            path,
            interval,
            claimed: Mutex::default(),
            unreadable: Mutex::default(),
        }))
    }
}

struct Directory {
    path: PathBuf,
    interval: Duration,
    /// Files that renewals of this process are using.
    claimed: Mutex<HashSet<PathBuf>>,
    /// Files that could not be read, with their stamps at that time.
    unreadable: Mutex<HashMap<PathBuf, FileStamp>>,
}

/// Length and modification time of a file, which show whether it has changed.
type FileStamp = (u64, Option<SystemTime>);

/// A file that no other renewal of this process takes.
struct ClaimedFile {
    directory: Arc<Directory>,
    path: PathBuf,
    stamp: FileStamp,
}

impl Drop for ClaimedFile {
    fn drop(&mut self) {
        self.directory.claimed.lock().remove(&self.path);
    }
}

impl Source for Directory {
    fn next(self: Arc<Self>, _demand: Demand, if_empty: IfEmpty) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            loop {
                while let Some(file) = self.clone().take_first().await? {
                    if let Some(jar) = file.spend().await? {
                        return Ok(Some(jar));
                    }
                }
                if if_empty == IfEmpty::ReturnNone {
                    return Ok(None);
                }
                sleep(self.interval).await;
            }
        })
    }
}

impl Directory {
    fn error(&self, error: impl Into<BoxError>) -> BoxError {
        SessionSourceError::caused_by(SessionSourceErrorKind::Directory, error).at(&self.path).into()
    }

    async fn take_first(self: Arc<Self>) -> Result<Option<ClaimedFile>, BoxError> {
        let directory = self.clone();
        let files = spawn_blocking(move || files(&directory.path)).await;
        let files = files.map_err(|error| self.error(error))?.map_err(|error| self.error(error))?;
        self.unreadable.lock().retain(|path, stamp| files.contains(&(path.clone(), *stamp)));
        for (path, stamp) in files {
            let unreadable = self.unreadable.lock().contains_key(&path);
            if !unreadable && self.claimed.lock().insert(path.clone()) {
                return Ok(Some(ClaimedFile { directory: self, path, stamp }));
            }
        }
        Ok(None)
    }
}

impl ClaimedFile {
    /// Reads the file and moves it to `spent`. Returns `None` if another process took it, or if it
    /// cannot be read.
    async fn spend(self) -> Result<Option<Jar>, BoxError> {
        let path = self.path.clone();
        let read = spawn_blocking(move || read(&path)).await.map_err(|error| self.directory.error(error))?;
        let cookies = match read {
            Ok(cookies) => cookies,
            Err(error) => {
                let is_taken = error.downcast_ref::<io::Error>().is_some_and(is_missing);
                if !is_taken {
                    tracing::warn!(file = %self.path.display(), %error, "the file does not contain the cookies of a session");
                    self.directory.unreadable.lock().insert(self.path.clone(), self.stamp);
                }
                return Ok(None);
            }
        };
        // Not in `spawn_blocking`: a rename is short, and the process whose rename succeeds has the
        // file.
        match move_to_spent(&self.path) {
            Ok(()) => Ok(Some(cookies.into())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.directory.error(error)),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Returns the files that may be used, by name.
fn files(directory: &Path) -> io::Result<Vec<(PathBuf, FileStamp)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") || name.ends_with(b".part") || name.ends_with(b".tmp") {
            continue;
        }
        // Another process may have moved the file meanwhile.
        if let Ok(meta) = fs::metadata(entry.path())
            && meta.is_file()
        {
            files.push((entry.path(), (meta.len(), meta.modified().ok())));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<ImportedCookies, BoxError> {
    Ok(ImportedCookies::detect(&fs::read_to_string(path)?, Timestamp::now())?)
}

fn move_to_spent(path: &Path) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::InvalidFilename);
    let (directory, name) = (path.parent().ok_or_else(missing)?, path.file_name().ok_or_else(missing)?);
    let spent = directory.join("spent");
    fs::create_dir_all(&spent)?;
    let mut to = spent.join(name);
    for number in 1.. {
        if !to.exists() {
            break;
        }
        let mut other = name.to_owned();
        other.push(format!(".{number}"));
        to = spent.join(other);
    }
    fs::rename(path, to)
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}
