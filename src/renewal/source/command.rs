use std::{
    ffi::{OsStr, OsString},
    fmt,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command, time::sleep};

use super::{Demand, OnEmpty, SessionSource, SessionSourceError, SessionSourceErrorKind, Source};
use crate::{
    cookies::{ImportedCookies, Jar, Timestamp},
    gate::BoxError,
    renewal::rule::BoxFuture,
};

/// A supply out of a command that prints the cookies of one session, in any [format](crate::cookies::CookieFormat).
///
/// It runs once for each renewal. The name of the session and the reason of the renewal are in its environment, as
/// `SESSION` and `REASON`; its standard error is the program's. A command that prints nothing says that there is none left. One
/// that is no longer waited for is killed.
///
/// It needs a tokio runtime with `enable_io`.
#[must_use = "it supplies nothing until it is given to a layer"]
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

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets how often the command is run while a renewal waits for cookies. Default: every second.
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

/// Arguments may be secret.
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
    fn next(self: Arc<Self>, demand: Demand, wait: bool) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            loop {
                let text = self.run(&demand).await?;
                if !text.trim().is_empty() {
                    let wrong = |error| SessionSourceError::caused_by(SessionSourceErrorKind::Output, error);
                    return Ok(Some(ImportedCookies::detect(&text, Timestamp::now()).map_err(wrong)?.into()));
                }
                if !wait {
                    return Ok(None);
                }
                sleep(self.interval).await;
            }
        })
    }
}

impl SessionCommand {
    async fn run(&self, demand: &Demand) -> Result<String, BoxError> {
        /// No list of cookies is longer.
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
        let output = child.stdout.take().expect("it is piped");
        let mut text = Vec::new();
        output.take(MAX_OUTPUT + 1).read_to_end(&mut text).await.map_err(|error| failed(error.into()))?;
        if text.len() as u64 > MAX_OUTPUT {
            return Err(failed("it prints more than 64 MiB".into()).into());
        }
        let status = child.wait().await.map_err(|error| failed(error.into()))?;
        if !status.success() {
            return Err(failed(status.to_string().into()).into());
        }
        let wrong = |_| SessionSourceError::caused_by(SessionSourceErrorKind::Output, "it is not utf-8");
        Ok(String::from_utf8(text).map_err(wrong)?)
    }
}
