//! `SessionCommand`: a source of sessions that runs a command.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command, time::sleep};

use super::{Demand, IfEmpty, OnEmpty, SessionSource, SessionSourceError, SessionSourceErrorKind, Source};
use crate::{
    cookies::{ImportedCookies, Jar, Timestamp},
    gate::BoxError,
    renewal::renewal::BoxFuture,
};

/// Source that runs a command, which prints the cookies of one session in any
/// [format](crate::cookies::CookieFormat).
///
/// The command runs once per renewal. The environment variables `SESSION` and `REASON` contain the
/// id of the session and the [reason](crate::gate::RenewalReason) of the renewal. Standard error is
/// inherited. Empty output means that no session is available. The process is killed if the renewal
/// is dropped.
///
/// The tokio runtime must have I/O enabled (`enable_io`).
#[must_use = "a source does nothing until it is given to a layer"]
#[derive(Clone)]
pub struct SessionCommand {
    program: OsString,
    args: Vec<OsString>,
    interval: Duration,
}

impl SessionCommand {
    pub(super) fn new(program: &OsStr) -> Self {
        Self { program: program.to_owned(), args: Vec::new(), interval: Duration::from_secs(1) }
    }

    /// Adds an argument of the command.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets the pause before the command runs again while a renewal waits for a session. Default:
    /// one second.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets what a renewal does when the output is empty. See [`SessionSource::on_empty`].
    pub fn on_empty(self, on_empty: OnEmpty) -> SessionSource {
        SessionSource::from(self).on_empty(on_empty)
    }
}

/// Omits the arguments, which may be secret.
impl fmt::Debug for SessionCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCommand").field("program", &self.program).finish_non_exhaustive()
    }
}

impl From<SessionCommand> for SessionSource {
    fn from(command: SessionCommand) -> Self {
        Self::new(Arc::new(command))
    }
}

impl Source for SessionCommand {
    fn next(self: Arc<Self>, demand: Demand, if_empty: IfEmpty) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            loop {
                let text = self.run(&demand).await?;
                if !text.trim().is_empty() {
                    let wrong = |error| SessionSourceError::caused_by(SessionSourceErrorKind::Output, error);
                    return Ok(Some(ImportedCookies::detect(&text, Timestamp::now()).map_err(wrong)?.into()));
                }
                if if_empty == IfEmpty::ReturnNone {
                    return Ok(None);
                }
                sleep(self.interval).await;
            }
        })
    }
}

impl SessionCommand {
    async fn run(&self, demand: &Demand) -> Result<String, BoxError> {
        /// Limit of the output, in bytes; far above any real list of cookies.
        const MAX_OUTPUT: u64 = 1 << 26;
        let failed = |error: BoxError| SessionSourceError::caused_by(SessionSourceErrorKind::Command, error);
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env("SESSION", demand.session.to_string())
            .env("REASON", format!("{:?}", demand.reason))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.into()))?;
        let output = child.stdout.take().expect("stdout is piped");
        let mut text = Vec::new();
        output.take(MAX_OUTPUT + 1).read_to_end(&mut text).await.map_err(|error| failed(error.into()))?;
        if text.len() as u64 > MAX_OUTPUT {
            return Err(failed("the output is longer than 64 MiB".into()).into());
        }
        let status = child.wait().await.map_err(|error| failed(error.into()))?;
        if !status.success() {
            return Err(failed(status.to_string().into()).into());
        }
        let wrong =
            |_| SessionSourceError::caused_by(SessionSourceErrorKind::Output, "the output is not UTF-8");
        Ok(String::from_utf8(text).map_err(wrong)?)
    }
}
