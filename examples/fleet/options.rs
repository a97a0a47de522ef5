//! Command line options.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use tower::BoxError;

use crate::args::number;

const HELP: &str = "\
Crawls the embedded site with several processes that share one session.

Usage: fleet [OPTIONS]

      --workers N        processes [8]
      --pages N          pages to fetch, by all of them together [2000]
      --concurrency N    concurrent requests of one process [16]
      --kill N           kill and replace this many processes during the run, at a random point and
                         during a login, in turn [0]
      --json             print a summary in JSON as the last line

The store of the session:
      --redis URL        this Redis; needs `--features redis`
      --folder PATH      this directory [a temporary one]
      --alone            none: every process has its own session, for comparison
      --lease-ms N       TTL of the lease: how long a killed process blocks other logins [3000]
      --poll-ms N        interval at which a process compares its session with the store [1000]

The embedded site:
      --budget N         pages for which one login is valid [500]
      --login-ms N       how long a login takes [50]
      --latency-ms N     how long a page takes [5]

Exit status: 0 if every page was fetched, 1 if not, 2 on other errors.
";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) pages: usize,
    pub(crate) concurrency: usize,
    pub(crate) kill: usize,
    pub(crate) json: bool,
    pub(crate) store: Store,
    pub(crate) lease_ms: u64,
    pub(crate) poll_ms: u64,
    pub(crate) budget: u32,
    pub(crate) login_ms: u64,
    pub(crate) latency_ms: u64,
    pub(crate) role: Role,
}

/// The store of the session.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Alone,
    Scratch,
    Folder(PathBuf),
    /// With keys that start with the prefix.
    Redis {
        url: String,
        prefix: String,
    },
}

/// The role of this process.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    Fleet,
    Worker { page_url: String, login_url: String },
}

impl Options {
    /// Parses the command line. Prints the help and returns `None` if that is requested.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        let mut options = Self {
            workers: 8,
            pages: 2000,
            concurrency: 16,
            kill: 0,
            json: false,
            store: Store::Scratch,
            lease_ms: 3000,
            poll_ms: 1000,
            budget: 500,
            login_ms: 50,
            latency_ms: 5,
            role: Role::Fleet,
        };
        // Each run has its own session.
        let mut prefix = format!("fleet-{}:", std::process::id());
        let (mut page, mut login) = (None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("workers") => options.workers = number(&mut parser, "--workers", 1)?,
                Arg::Long("pages") => options.pages = number(&mut parser, "--pages", 1)?,
                Arg::Long("concurrency") => options.concurrency = number(&mut parser, "--concurrency", 1)?,
                Arg::Long("kill") => options.kill = number(&mut parser, "--kill", 0)?,
                Arg::Long("json") => options.json = true,
                Arg::Long("redis") => {
                    options.store = Store::Redis { url: parser.value()?.string()?, prefix: String::new() };
                }
                Arg::Long("folder") => options.store = Store::Folder(parser.value()?.into()),
                Arg::Long("alone") => options.store = Store::Alone,
                Arg::Long("lease-ms") => options.lease_ms = number(&mut parser, "--lease-ms", 1)?,
                Arg::Long("poll-ms") => options.poll_ms = number(&mut parser, "--poll-ms", 1)?,
                Arg::Long("budget") => options.budget = number(&mut parser, "--budget", 1)?,
                Arg::Long("login-ms") => options.login_ms = number(&mut parser, "--login-ms", 0)?,
                Arg::Long("latency-ms") => options.latency_ms = number(&mut parser, "--latency-ms", 0)?,
                // Options that the fleet passes to its workers.
                Arg::Long("prefix") => prefix = parser.value()?.string()?,
                Arg::Long("page-url") => page = Some(parser.value()?.string()?),
                Arg::Long("login-url") => login = Some(parser.value()?.string()?),
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
        if let (Some(page_url), Some(login_url)) = (page, login) {
            options.role = Role::Worker { page_url, login_url };
        }
        Ok(Some(options))
    }

    /// Returns the arguments of a worker of this fleet.
    pub(crate) fn for_worker(&self, page_url: &str, login_url: &str) -> Vec<String> {
        let mut args: Vec<String> =
            ["--page-url", page_url, "--login-url", login_url].map(String::from).into();
        for (option, value) in [
            ("--concurrency", self.concurrency as u64),
            ("--lease-ms", self.lease_ms),
            ("--poll-ms", self.poll_ms),
            ("--login-ms", self.login_ms),
        ] {
            args.extend([option.to_owned(), value.to_string()]);
        }
        match &self.store {
            Store::Alone | Store::Scratch => args.push("--alone".to_owned()),
            Store::Folder(path) => args.extend(["--folder".to_owned(), path.display().to_string()]),
            Store::Redis { url, prefix } => {
                args.extend(["--redis", url, "--prefix", prefix].map(String::from));
            }
        }
        args
    }
}
