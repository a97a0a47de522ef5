//! Saving by itself.

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

/// Saves all sessions to one file: at an interval, after changes if wanted, and at last when it is shut down or dropped.
///
/// [`Sessions::autosave`] starts from the defaults. There is never more than one write at a time. A save that fails is told, and
/// tried again at the next interval.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessions.json");
/// use std::time::Duration;
/// use tower_client_sessions::Sessions;
///
/// let sessions = Sessions::new();
/// let autosave = sessions.autosave(&path).every(Duration::from_secs(30)).on_change(Duration::from_secs(1)).start();
/// sessions.session("alice").set_cookie("sid=abc; Path=/", "https://shop.example/")?;
/// autosave.shutdown().await?;
///
/// let (sessions, _) = Sessions::load(&path, Sessions::builder()).await?;
/// assert_eq!(sessions.session("alice").cookies().len(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<_, std::io::Error>(())
/// ```
#[must_use = "dropped, it saves once more and ends"]
pub struct Autosave {
    /// Ends the task when it is dropped.
    _running: oneshot::Sender<()>,
    task: JoinHandle<Result<(), SnapshotError>>,
}

impl Autosave {
    /// Saves once more and ends.
    ///
    /// # Errors
    ///
    /// That of the last save.
    ///
    /// # Panics
    ///
    /// If the function given to [`AutosaveBuilder::on_error`] did.
    ///
    /// # Cancel safety
    ///
    /// The last save is made though nobody waits for it, as long as the runtime lives.
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

/// Settings of [`Autosave`].
#[must_use = "nothing is saved before `start`"]
pub struct AutosaveBuilder {
    sessions: Sessions,
    path: PathBuf,
    options: SnapshotOptions,
    interval: Duration,
    rest: Option<Duration>,
    told: Box<dyn FnMut(&SnapshotError) + Send>,
}

impl Sessions {
    /// Saves all sessions to `path` from time to time; the settings begin with their defaults.
    pub fn autosave(&self, path: impl Into<PathBuf>) -> AutosaveBuilder {
        AutosaveBuilder {
            sessions: self.clone(),
            path: path.into(),
            options: SnapshotOptions::new(),
            interval: Duration::from_secs(60),
            rest: None,
            told: Box::new(|error| tracing::warn!(%error, "sessions were not saved")),
        }
    }
}

impl AutosaveBuilder {
    /// Saves at least so often, whether or not anything has changed. Default: every minute.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Saves also so long after a change, with all that has changed until then. Default: at the interval alone.
    ///
    /// A change is a cookie, an identity, a session or its data that came, went or is another; how often an identity was used
    /// and when, is none.
    pub fn debounce(mut self, rest: Duration) -> Self {
        self.rest = Some(rest);
        self
    }

    /// Sets what is kept. Default: everything but the secrets of profiles.
    pub fn options(mut self, options: SnapshotOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets who is told of a save that failed. Default: a warning by `tracing`.
    pub fn on_error(mut self, told: impl FnMut(&SnapshotError) + Send + 'static) -> Self {
        self.told = Box::new(told);
        self
    }

    /// Starts saving.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its clock enabled.
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
                    timeout_at(due, until_wanted(self.rest, &mut stopped, &mut dirty)).await.unwrap_or(false)
                }
                None => until_wanted(self.rest, &mut stopped, &mut dirty).await,
            };
            // Marked before the snapshot is taken: what changes after it is told again.
            dirty.mark_unchanged();
            self.sessions.registry.context.dirty.clear();
            let saved = self.sessions.save_with(&self.path, &self.options).await;
            if let Err(error) = &saved {
                (self.told)(error);
            }
            if stop {
                return saved;
            }
        }
    }
}

/// Waits until it is shut down, which is `true`, or something has changed and rested.
async fn until_wanted(
    rest: Option<Duration>,
    stopped: &mut oneshot::Receiver<()>,
    dirty: &mut watch::Receiver<()>,
) -> bool {
    let mut changed = pin!(async {
        match rest {
            // Their sender lives as long as the sessions, which are held meanwhile.
            Some(rest) if dirty.changed().await.is_ok() => sleep(rest).await,
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
            .field("on_change", &self.rest)
            .finish_non_exhaustive()
    }
}
