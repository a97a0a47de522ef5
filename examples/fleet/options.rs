//! The command line of the fleet.

use std::{fmt::Display, path::PathBuf, str::FromStr};

use lexopt::{Arg, Parser, ValueExt};
use tower::BoxError;

const HELP: &str = "\
Crawls the embedded site with several processes that share one session.

Usage: fleet [OPTIONS]

      --workers N        processes [8]
      --pages N          pages to fetch, by all of them together [2000]
      --concurrency N    requests of one process at once [16]
      --redis URL        keep the session in this Redis; needs `--features redis`
      --folder PATH      keep the session in this folder [a new one among the temporary files]
      --alone            share nothing: every process has a session of its own, to compare with
      --budget N         pages that one login is good for [500]
      --login-ms N       how long a login takes [50]
      --latency-ms N     how long a page takes [5]
      --kill N           kill this many processes on the way, and start others in their places [0]
      --json             end with a line of JSON

Exit status: 0 if every page was fetched, 1 if not, 2 if it could not be tried.
";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) pages: usize,
    pub(crate) concurrency: usize,
    pub(crate) store: Store,
    pub(crate) budget: u32,
    pub(crate) login_ms: u64,
    pub(crate) latency_ms: u64,
    pub(crate) kill: usize,
    pub(crate) json: bool,
    pub(crate) role: Role,
}

/// Where the session is kept.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Alone,
    Folder(PathBuf),
    Redis { url: String, prefix: String },
}

/// Which process this is.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    Fleet,
    Worker { page_url: String, login_url: String },
}

impl Options {
    /// Reads the command line; `None` if all it wants is help, which is then printed.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        // Each run has a session of its own.
        let name = format!("fleet-{}", std::process::id());
        let mut options = Self {
            workers: 8,
            pages: 2000,
            concurrency: 16,
            store: Store::Folder(std::env::temp_dir().join(&name)),
            budget: 500,
            login_ms: 50,
            latency_ms: 5,
            kill: 0,
            json: false,
            role: Role::Fleet,
        };
        let mut urls = (None, None);
        let mut prefix = format!("{name}:");
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("workers") => options.workers = number(&mut parser, "--workers", 1)?,
                Arg::Long("pages") => options.pages = number(&mut parser, "--pages", 1)?,
                Arg::Long("concurrency") => options.concurrency = number(&mut parser, "--concurrency", 1)?,
                Arg::Long("budget") => options.budget = number(&mut parser, "--budget", 1)?,
                Arg::Long("login-ms") => options.login_ms = number(&mut parser, "--login-ms", 0)?,
                Arg::Long("latency-ms") => options.latency_ms = number(&mut parser, "--latency-ms", 0)?,
                Arg::Long("kill") => options.kill = number(&mut parser, "--kill", 0)?,
                Arg::Long("alone") => options.store = Store::Alone,
                Arg::Long("folder") => options.store = Store::Folder(parser.value()?.into()),
                Arg::Long("redis") => {
                    options.store = Store::Redis { url: parser.value()?.string()?, prefix: String::new() };
                }
                Arg::Long("json") => options.json = true,
                // What the fleet tells its workers.
                Arg::Long("prefix") => prefix = parser.value()?.string()?,
                Arg::Long("page-url") => urls.0 = Some(parser.value()?.string()?),
                Arg::Long("login-url") => urls.1 = Some(parser.value()?.string()?),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                unknown => return Err(format!("{}; see --help", unknown.unexpected()).into()),
            }
        }
        if let Store::Redis { prefix: own, .. } = &mut options.store {
            *own = prefix;
        }
        if let (Some(page_url), Some(login_url)) = urls {
            options.role = Role::Worker { page_url, login_url };
        }
        Ok(Some(options))
    }

    /// What makes a process a worker of this fleet.
    pub(crate) fn worker_args(&self, page_url: &str, login_url: &str) -> Vec<String> {
        let mut args: Vec<String> =
            ["--page-url", page_url, "--login-url", login_url, "--concurrency"].map(String::from).into();
        args.push(self.concurrency.to_string());
        args.extend(["--login-ms".to_owned(), self.login_ms.to_string()]);
        match &self.store {
            Store::Alone => args.push("--alone".to_owned()),
            Store::Folder(path) => args.extend(["--folder".to_owned(), path.display().to_string()]),
            Store::Redis { url, prefix } => {
                args.extend(["--redis", url, "--prefix", prefix].map(String::from));
            }
        }
        args
    }
}

fn number<T>(parser: &mut Parser, option: &str, least: T) -> Result<T, BoxError>
where
    T: FromStr + PartialOrd + Display,
{
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => {
            Err(format!("{option} {text:?}: give a whole number, at least {least} and not too large").into())
        }
    }
}
