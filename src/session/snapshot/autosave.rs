//! Periodic saving of all sessions.

use std::{
    fmt,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{SnapshotError, SnapshotOptions};
use crate::session::Sessions;

/// Saves all sessions to a file periodically, optionally after changes, and a last time when it is
/// shut down or dropped.
///
/// Built by [`Sessions::autosave`]. Writes never overlap. A failed save is reported, and retried at
/// the next interval.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessions.json");
/// use std::time::Duration;
/// use tower_client_sessions::Sessions;
///
/// let sessions = Sessions::new();
/// let autosave = sessions
///     .autosave(&path)
///     .interval(Duration::from_secs(30))
///     .debounce(Duration::from_secs(1))
///     .start();
/// sessions.session("alice").set_cookie("sid=abc; Path=/", "https://shop.example/")?;
/// autosave.shutdown().await?;
///
/// let (sessions, _) = Sessions::load(&path, Sessions::builder()).await?;
/// assert_eq!(sessions.session("alice").cookies().len(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<_, std::io::Error>(())
/// ```
#[must_use = "dropping it saves a last time and ends the task"]
pub struct Autosave {
    /// Dropping it ends the task.
    _running: oneshot::Sender<()>,
    task: JoinHandle<Result<(), SnapshotError>>,
}

impl Autosave {
    /// Saves a last time and ends the task.
    ///
    /// # Errors
    ///
    /// If the last save failed.
    ///
    /// # Panics
    ///
    /// If the function given to [`AutosaveBuilder::on_error`] panicked.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the last save is still made, unless the runtime shuts down.
    pub async fn shutdown(self) -> Result<(), SnapshotError> {
        let Self { _running, task } = self;
        drop(_running);
        match task.await {
            Ok(last) => last,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(failed) => {
                    let lost = std::io::Error::other(failed);
                    Err(SnapshotError::io(super::SnapshotErrorKind::Write, lost))
                }
            },
        }
    }
}

impl fmt::Debug for Autosave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autosave").finish_non_exhaustive()
    }
}

/// Builder of [`Autosave`].
#[must_use = "nothing is saved before `start` is called"]
pub struct AutosaveBuilder {
    sessions: Sessions,
    path: PathBuf,
    options: SnapshotOptions,
    interval: Duration,
    debounce: Option<Duration>,
    on_error: Box<dyn FnMut(&SnapshotError) + Send>,
}

impl Sessions {
    /// Returns a builder for periodic saving of all sessions to `path`.
    pub fn autosave(&self, path: impl Into<PathBuf>) -> AutosaveBuilder {
        AutosaveBuilder {
            sessions: self.clone(),
            path: path.into(),
            options: SnapshotOptions::new(),
            interval: Duration::from_secs(60),
            debounce: None,
            on_error: Box::new(|error| tracing::warn!(%error, "the sessions were not saved")),
        }
    }
}

impl AutosaveBuilder {
    /// Sets the interval between saves. Default: one minute.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Also saves this long after a change. Further changes in the meantime do not restart the
    /// delay. Default: saves at the interval only.
    ///
    /// Changes are additions, removals and updates of cookies, identities, sessions and their data.
    /// Uses of an identity are not changes.
    pub fn debounce(mut self, delay: Duration) -> Self {
        self.debounce = Some(delay);
        self
    }

    /// Sets what is saved. Default: everything except the secrets of profiles.
    pub fn options(mut self, options: SnapshotOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the function that is called when a save fails. Default: log a warning with `tracing`.
    pub fn on_error(mut self, on_error: impl FnMut(&SnapshotError) + Send + 'static) -> Self {
        self.on_error = Box::new(on_error);
        self
    }

    /// Starts the task that saves.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime with time enabled.
    pub fn start(self) -> Autosave {
        let (running, stopped) = oneshot::channel();
        let dirty = self.sessions.registry.context.dirty.watch();
        let task = tokio::spawn(self.run(stopped, dirty));
        Autosave { _running: running, task }
    }

    async fn run(
        mut self,
        mut stopped: oneshot::Receiver<()>,
        mut dirty: watch::Receiver<()>,
    ) -> Result<(), SnapshotError> {
        loop {
            let due = Instant::now().checked_add(self.interval);
            let stop = match due {
                Some(due) => {
                    timeout_at(due, until_due(self.debounce, &mut stopped, &mut dirty)).await.unwrap_or(false)
                }
                None => until_due(self.debounce, &mut stopped, &mut dirty).await,
            };
            // Before the snapshot is taken, so that a change after it is notified.
            dirty.mark_unchanged();
            self.sessions.registry.context.dirty.clear();
            let saved = self.sessions.save_with(&self.path, &self.options).await;
            if let Err(error) = &saved {
                (self.on_error)(error);
            }
            if stop {
                return saved;
            }
        }
    }
}

/// Waits for the shutdown, which is `true`, or until a change was debounced.
async fn until_due(
    debounce: Option<Duration>,
    stopped: &mut oneshot::Receiver<()>,
    dirty: &mut watch::Receiver<()>,
) -> bool {
    let mut changed = pin!(async {
        match debounce {
            // The sender lives as long as the sessions, and the task owns a handle to them.
            Some(delay) if dirty.changed().await.is_ok() => sleep(delay).await,
            _ => std::future::pending().await,
        }
    });
    poll_fn(|context| {
        if pin!(&mut *stopped).poll(context).is_ready() {
            return Poll::Ready(true);
        }
        changed.as_mut().poll(context).map(|()| false)
    })
    .await
}

impl fmt::Debug for AutosaveBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutosaveBuilder")
            .field("path", &self.path)
            .field("options", &self.options)
            .field("interval", &self.interval)
            .field("debounce", &self.debounce)
            .finish_non_exhaustive()
    }
}
