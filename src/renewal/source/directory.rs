use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{task::spawn_blocking, time::sleep};

use super::{Demand, OnEmpty, SessionSource, SessionSourceError, SessionSourceErrorKind, Source};
use crate::{
    cookies::{ImportedCookies, Jar, Timestamp},
    gate::BoxError,
    renewal::rule::BoxFuture,
};

/// A supply out of the files of a folder, each with the cookies of one session in any [format](crate::cookies::CookieFormat).
///
/// The next one is the first by name. It is moved into the folder `spent` inside before it is used, so that it is used once,
/// also by several programs on one folder, and never again after a crash. Move files in when they are complete: those whose name
/// begins with a dot or ends in `.part` or `.tmp` are passed over. One that cannot be read stays, with a warning by `tracing`,
/// and is tried again when it has changed.
#[derive(Clone, Debug)]
#[must_use = "it supplies nothing until it is given to a layer"]
pub struct SessionDirectory {
    path: PathBuf,
    interval: Duration,
}

impl SessionDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, interval: Duration::from_secs(1) }
    }

    /// Sets how often the folder is looked into while a renewal waits for a file. Default: every second.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// As [`SessionSource::on_empty`].
    #[must_use]
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
    /// The files that renewals of this program are about to use.
    claimed: Mutex<HashSet<PathBuf>>,
    /// The files that could not be read, as they were then.
    unreadable: Mutex<HashMap<PathBuf, FileStamp>>,
}

/// Tells a file that has changed from one that has not.
type FileStamp = (u64, Option<SystemTime>);

/// A file that nobody else of this program takes meanwhile.
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
    fn next(self: Arc<Self>, _demand: Demand, wait: bool) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            loop {
                while let Some(file) = self.clone().take_first().await? {
                    if let Some(jar) = file.spend().await? {
                        return Ok(Some(jar));
                    }
                }
                if !wait {
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
    /// Reads the file and moves it aside; `None` if another program was faster, or it cannot be read.
    async fn spend(self) -> Result<Option<Jar>, BoxError> {
        let path = self.path.clone();
        let read = spawn_blocking(move || read(&path)).await.map_err(|error| self.directory.error(error))?;
        let cookies = match read {
            Ok(cookies) => cookies,
            Err(error) => {
                let gone = error.downcast_ref::<io::Error>().is_some_and(is_gone);
                if !gone {
                    tracing::warn!(file = %self.path.display(), %error, "not the cookies of a session");
                    self.directory.unreadable.lock().insert(self.path.clone(), self.stamp);
                }
                return Ok(None);
            }
        };
        // A rename is over before anybody could want to wait; and whoever made it has the file.
        match move_aside(&self.path) {
            Ok(()) => Ok(Some(cookies.into())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(self.directory.error(error)),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The files that may be used, by name.
fn files(directory: &Path) -> io::Result<Vec<(PathBuf, FileStamp)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") || name.ends_with(b".part") || name.ends_with(b".tmp") {
            continue;
        }
        // It may have gone since; then it is not there.
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

fn move_aside(path: &Path) -> io::Result<()> {
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
        f.debug_struct("Folder").field("path", &self.path).finish_non_exhaustive()
    }
}
