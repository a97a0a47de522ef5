//! Fetches pages with several processes that share one session, with one login for all of them.
//!
//! `cargo run --release --features shared --example fleet` starts the processes, with the session
//! in a directory. With `--features redis`, `--redis redis://127.0.0.1/` keeps it in Redis instead.
//! `-- --help` lists the options.

mod args;
#[path = "fleet/options.rs"]
mod options;
mod site;
#[path = "fleet/summary.rs"]
mod summary;
#[path = "fleet/worker.rs"]
mod worker;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt::Write,
    hash::{BuildHasher, RandomState},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use options::{Options, Role, Store};
use site::{Site, SiteConfig};
use summary::Summary;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::from_env() {
        Ok(Some(options)) => match options.role.clone() {
            Role::Worker { page_url, login_url } => {
                worker::work(options, page_url, login_url).await.map(|()| true)
            }
            Role::Fleet => run(options).await,
        },
        Ok(None) => Ok(true),
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Fetches all pages; `false` if some failed.
async fn run(mut options: Options) -> Result<bool, BoxError> {
    // By default, the session is deleted at the end of the run.
    let scratch = tempfile::tempdir()?;
    if let Store::Scratch = options.store {
        options.store = Store::Folder(scratch.path().to_owned());
    }
    // A wrong store is reported once here, instead of by every process.
    worker::sharing(&options).await?;
    let site = Site::start(SiteConfig {
        budget: options.budget,
        login_ms: options.login_ms,
        latency_ms: options.latency_ms,
        ..SiteConfig::default()
    })
    .await?;
    let mut fleet = Fleet::new(options, site);
    fleet.crawl().await?;
    let Fleet { options, site, summary, .. } = fleet;
    if let Err(error) = worker::delete(&options.store).await {
        eprintln!("the session could not be deleted from Redis: {error}");
    }
    let seen = site.shutdown().await;
    summary.print(&options, &seen);
    Ok(summary.is_complete(&options))
}

/// An event of a worker.
enum Event {
    /// The worker printed a line.
    Line { worker: usize, line: String },
    /// The output of the worker has ended.
    Exited { worker: usize },
    /// The worker has to be killed.
    Kill { worker: usize },
}

/// A process, and the pages that it was given and has not reported.
struct Worker {
    child: Child,
    /// Closed after the last page, so that the process exits.
    input: Option<ChildStdin>,
    outstanding: HashSet<usize>,
    is_killed: bool,
}

/// The state of the process that starts the others.
struct Fleet {
    options: Options,
    site: Site,
    workers: BTreeMap<usize, Worker>,
    /// The number of processes started so far, which is the number of the next one.
    started: usize,
    todo: VecDeque<usize>,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    kills: usize,
    /// The next process that starts to log in is killed.
    kill_at_login: bool,
    summary: Summary,
}

impl Fleet {
    fn new(options: Options, site: Site) -> Self {
        Self {
            todo: (0..options.pages).collect(),
            options,
            site,
            workers: BTreeMap::new(),
            started: 0,
            events: mpsc::unbounded_channel(),
            kills: 0,
            kill_at_login: false,
            summary: Summary::default(),
        }
    }

    /// Runs until every page was reported and every process has exited.
    async fn crawl(&mut self) -> Result<(), BoxError> {
        let started_at = Instant::now();
        let mut reported_at = None;
        for _ in 0..self.options.workers {
            self.start()?;
        }
        while !self.workers.is_empty() {
            self.feed().await;
            // Much longer than any page takes.
            let event = timeout(Duration::from_secs(120), self.events.1.recv()).await;
            match event.map_err(|_| "no process has printed a line for two minutes")? {
                Some(Event::Line { worker, line }) => {
                    if !self.handle_line(worker, &line)? {
                        continue;
                    }
                    let now = Instant::now();
                    let pause = reported_at.replace(now).map_or(Duration::ZERO, |before| now - before);
                    self.summary.pause = self.summary.pause.max(pause);
                    self.kill_on_time()?;
                    if self.summary.reported() == self.options.pages {
                        self.summary.took = started_at.elapsed();
                        self.workers.values_mut().for_each(|worker| worker.input = None);
                    }
                }
                Some(Event::Exited { worker }) => self.replace(worker).await?,
                Some(Event::Kill { worker }) => self.kill(worker)?,
                None => break,
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), BoxError> {
        let number = self.started;
        self.started += 1;
        // Without sharing, each process needs its own account: logins of one account end each
        // other.
        let account = if let Store::Alone = self.options.store { number } else { 0 };
        let page_url = self.site.url(&format!("/page/{{page}}?acct={account}"));
        let login_url = self.site.url(&format!("/login?acct={account}"));
        let mut child = Command::new(std::env::current_exe()?)
            .args(self.options.for_worker(&page_url, &login_url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("a process has no output")?;
        let events = self.events.0.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = events.send(Event::Line { worker: number, line });
            }
            let _ = events.send(Event::Exited { worker: number });
        });
        let worker =
            Worker { input: child.stdin.take(), child, outstanding: HashSet::new(), is_killed: false };
        self.workers.insert(number, worker);
        Ok(())
    }

    /// Sends pages to the processes that have room for more.
    async fn feed(&mut self) {
        for worker in self.workers.values_mut().filter(|worker| !worker.is_killed) {
            let mut lines = String::new();
            while worker.outstanding.len() < self.options.concurrency {
                let Some(page) = self.todo.pop_front() else { break };
                worker.outstanding.insert(page);
                let _ = writeln!(lines, "{page}");
            }
            if let Some(input) = worker.input.as_mut().filter(|_| !lines.is_empty()) {
                // A process that has exited is handled later; its pages go to others.
                let _ = input.write_all(lines.as_bytes()).await;
            }
        }
    }

    /// Handles a line of output; `true` if it reports a page.
    fn handle_line(&mut self, number: usize, line: &str) -> Result<bool, BoxError> {
        let Some(worker) = self.workers.get_mut(&number) else { return Ok(false) };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ok" | "failed" => {
                let (page, cause) = rest.split_once(' ').unwrap_or((rest, ""));
                worker.outstanding.remove(&page.parse()?);
                if word == "ok" {
                    self.summary.ok += 1;
                } else {
                    self.summary.failed += 1;
                    *self.summary.causes.entry(cause.to_owned()).or_default() += 1;
                }
                return Ok(true);
            }
            "login" => {
                if std::mem::take(&mut self.kill_at_login) {
                    // Before, during or after the login, and before or after the others can adopt
                    // it.
                    let wait = random(self.options.login_ms * 1_300 + 2_000);
                    let events = self.events.0.clone();
                    tokio::spawn(async move {
                        sleep(Duration::from_micros(wait)).await;
                        let _ = events.send(Event::Kill { worker: number });
                    });
                }
            }
            word => self.summary.count(word, rest)?,
        }
        Ok(false)
    }

    /// Kills processes at regular intervals: at a random point and during a login, in turn.
    fn kill_on_time(&mut self) -> Result<(), BoxError> {
        let (reported, Options { kill, pages, .. }) = (self.summary.reported(), &self.options);
        if self.kills == *kill || reported * (kill + 1) < pages * (self.kills + 1) || reported == *pages {
            return Ok(());
        }
        self.kills += 1;
        if self.kills.is_multiple_of(2) {
            self.kill_at_login = true;
            return Ok(());
        }
        let alive: Vec<usize> = self.workers.keys().copied().collect();
        self.kill(alive[random(alive.len() as u64) as usize])
    }

    fn kill(&mut self, number: usize) -> Result<(), BoxError> {
        let is_over = self.summary.reported() == self.options.pages;
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| !worker.is_killed && !is_over) {
            worker.child.start_kill()?;
            worker.is_killed = true;
            self.summary.killed += 1;
        }
        Ok(())
    }

    /// Replaces a process that has exited. Its unreported pages go to the others.
    async fn replace(&mut self, number: usize) -> Result<(), BoxError> {
        let Some(mut worker) = self.workers.remove(&number) else { return Ok(()) };
        let status = worker.child.wait().await?;
        self.todo.extend(worker.outstanding.drain());
        if self.summary.reported() == self.options.pages {
            return Ok(());
        }
        if !worker.is_killed {
            return Err(format!("a process has exited unexpectedly: {status}").into());
        }
        self.start()
    }
}

/// Returns a number below `end`, or 0. The quality of the randomness does not matter.
fn random(end: u64) -> u64 {
    RandomState::new().hash_one(()) % end.max(1)
}
