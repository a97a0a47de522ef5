//! The command line of the main example.

use std::{fmt::Display, num::NonZeroUsize, path::PathBuf, time::Duration};

use http::Uri;
use lexopt::{Arg, Parser, ValueExt};
use tower::BoxError;

use crate::{
    args::number,
    site::{LoginFault, SiteConfig},
};

const HELP: &str = "\
Crawls a site through one stack, and logs in again whenever a session has expired.

Usage: crawl [OPTIONS]

      --pages N          pages to fetch [2000]
      --concurrency N    concurrent requests [64]
      --sessions N       sessions, which fetch the pages in turn [1]
      --pool N           use a pool of N sessions instead of --sessions
      --exclusive        one page per session at a time; the embedded site bans sessions that request two
      --profiles FILE    profiles for the sessions, TOML or JSON; proxies need `--features client`;
                         each session has its own if there are enough
      --timeout-ms N     timeout of one send, in addition to --login-ms and --latency-ms [30000]
      --json             print a line of JSON at the end

The embedded site:
      --budget N         pages per login [500]
      --login-ms N       duration of a login; on any site, it may take 5 s longer [50]
      --latency-ms N     duration of a page [5]
      --login-faults L   faults of the first logins, a list such as
                         error,no-cookie,close,never
      --forbid-every N   rejects pages N, 2N and so on with 403, whatever the session; 0 forbids none [0]
      --serve            do not crawl; print the URLs of the site and serve it until killed

Any other site, where status 401 or 403 means that the session has expired:
      --page-url URL     http URL of a page, with {page} (from 0) and {session}
      --login-url URL    http URL whose response sets the cookies of {session}

Exit status: 0 if every page was fetched or is forbidden, 1 if not, 2 if the options are invalid.
";

/// The options with their defaults.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) pages: usize,
    pub(crate) concurrency: usize,
    pub(crate) sessions: usize,
    pub(crate) budget: u32,
    pub(crate) login_ms: u64,
    pub(crate) latency_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) login_faults: Vec<LoginFault>,
    pub(crate) pool: Option<u32>,
    pub(crate) exclusive: bool,
    pub(crate) forbid_every: Option<NonZeroUsize>,
    pub(crate) profiles: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) serve: bool,
    /// Templates of the page and login URLs; `None` for the embedded site.
    pub(crate) urls: Option<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pages: 2000,
            concurrency: 64,
            sessions: 1,
            budget: 500,
            login_ms: 50,
            latency_ms: 5,
            timeout_ms: 30_000,
            login_faults: Vec::new(),
            pool: None,
            exclusive: false,
            forbid_every: None,
            profiles: None,
            json: false,
            serve: false,
            urls: None,
        }
    }
}

impl Options {
    /// Parses the command line. Returns `None` for `--help`, after printing the help.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        let mut options = Self::default();
        let (mut page_url, mut login_url, mut sessions) = (None, None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("pages") => options.pages = number(&mut parser, "--pages", 1)?,
                Arg::Long("concurrency") => options.concurrency = number(&mut parser, "--concurrency", 1)?,
                Arg::Long("sessions") => sessions = Some(number(&mut parser, "--sessions", 1)?),
                Arg::Long("budget") => options.budget = number(&mut parser, "--budget", 1)?,
                Arg::Long("login-ms") => options.login_ms = number(&mut parser, "--login-ms", 0)?,
                Arg::Long("latency-ms") => options.latency_ms = number(&mut parser, "--latency-ms", 0)?,
                Arg::Long("timeout-ms") => options.timeout_ms = number(&mut parser, "--timeout-ms", 1)?,
                Arg::Long("login-faults") => options.login_faults = faults(&parser.value()?.string()?)?,
                Arg::Long("pool") => options.pool = Some(number(&mut parser, "--pool", 1)?),
                Arg::Long("exclusive") => options.exclusive = true,
                Arg::Long("profiles") => options.profiles = Some(parser.value()?.into()),
                Arg::Long("forbid-every") => {
                    options.forbid_every = NonZeroUsize::new(number(&mut parser, "--forbid-every", 0)?);
                }
                Arg::Long("json") => options.json = true,
                Arg::Long("serve") => options.serve = true,
                Arg::Long("page-url") => page_url = Some(template(&mut parser, "--page-url", true)?),
                Arg::Long("login-url") => login_url = Some(template(&mut parser, "--login-url", false)?),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                unknown => return Err(format!("{}; see --help", unknown.unexpected()).into()),
            }
        }
        if options.exclusive && options.pool.is_none() {
            return Err("--exclusive requires --pool; see --help".into());
        }
        if options.pool.is_some() && sessions.is_some() {
            return Err("--pool replaces --sessions; use only one of them".into());
        }
        options.sessions = sessions.unwrap_or(options.sessions);
        options.urls = match (page_url, login_url) {
            (Some(page), Some(login)) => Some((page, login)),
            (None, None) => None,
            _ => {
                return Err("--page-url and --login-url require each other".into());
            }
        };
        Ok(Some(options))
    }

    /// Returns the configuration of the embedded site.
    pub(crate) fn site(&self) -> SiteConfig {
        SiteConfig {
            budget: self.budget,
            login_ms: self.login_ms,
            latency_ms: self.latency_ms,
            login_faults: self.login_faults.clone(),
            exclusive: self.exclusive,
            forbid_every: self.forbid_every,
            ..SiteConfig::default()
        }
    }

    /// Returns the timeout of one send, including the time that the embedded site takes.
    pub(crate) fn timeout(&self) -> Duration {
        let site = self.login_ms.max(self.latency_ms);
        Duration::from_millis(self.timeout_ms.saturating_add(site))
    }
}

fn faults(list: &str) -> Result<Vec<LoginFault>, String> {
    let fault = |name: &str| match name.trim() {
        "error" => Ok(LoginFault::Error),
        "no-cookie" => Ok(LoginFault::NoCookie),
        "close" => Ok(LoginFault::Close),
        "never" => Ok(LoginFault::Never),
        other => Err(format!("--login-faults {other:?}: use a list of error, no-cookie, close and never")),
    };
    list.split(',').map(fault).collect()
}

fn template(parser: &mut Parser, option: &str, is_page: bool) -> Result<String, BoxError> {
    let template = parser.value()?.string()?;
    if is_page && !template.contains("{page}") {
        return Err(format!(
            "{option} {template:?}: {{page}} is missing, which stands for the number of the page"
        )
        .into());
    }
    let url = fill(&template, 0, 0);
    if url.contains(['{', '}']) {
        return Err(
            format!("{option} {template:?}: the only placeholders are {{page}} and {{session}}").into()
        );
    }
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(template),
        _ => Err(format!("{option} {template:?}: use an absolute URL that starts with http://").into()),
    }
}

/// Returns the URL of a template for a page and a session.
pub(crate) fn fill(template: &str, page: usize, session: impl Display) -> String {
    template.replace("{page}", &page.to_string()).replace("{session}", &session.to_string())
}
