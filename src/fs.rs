//! Files that are replaced as a whole, and file access from asynchronous code.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use tokio::task::{JoinError, spawn_blocking};

/// What a replaced file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the process.
    #[cfg(feature = "shared")]
    Process,
    /// A power failure.
    PowerLoss,
}

/// Options for a file that only its owner may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Replaces `path` in one step with a private file that `write` fills.
///
/// The content is written to `temporary`, which must be in the same directory and not be written by
/// anything else. A reader sees the old file or the new one. On an error the old file is unchanged.
pub(crate) fn replace(
    temporary: &Path,
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = private().create(true).truncate(true).write(true).open(temporary)?;
    write(&mut file)?;
    if durability == Durability::PowerLoss {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(temporary, path)?;
    // The rename is durable only once the directory is synced as well.
    if durability == Durability::PowerLoss && cfg!(unix) {
        File::open(parent(path))?.sync_all()?;
    }
    Ok(())
}

/// The directory of a file, which is the current one for a bare file name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Runs `work` on a blocking thread of the runtime; `cancelled` is its error if the runtime shuts
/// down.
///
/// # Panics
///
/// If `work` panics.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
    cancelled: impl FnOnce(JoinError) -> E,
) -> Result<T, E> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(failed) => Err(cancelled(failed)),
        },
    }
}
