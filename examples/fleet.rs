//! Fetches pages with several processes that share one session, and one login for all of them.
//!
//! `cargo run --release --features shared --example fleet` starts the processes, with their session
//! in a directory. With `--features redis`, `--redis redis://127.0.0.1/` stores it there instead.
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

/// Fetches all pages. Returns `false` if some of them failed.
async fn run(mut options: Options) -> Result<bool, BoxError> {
    // Without an option, the session is removed after the run.
    let scratch = tempfile::tempdir()?;
    if let Store::Scratch = options.store {
        options.store = Store::Folder(scratch.path().to_owned());
    }
    // Report an error of the store once, and not in each process.
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
    if let Err(error) = worker::forget(&options.store).await {
        eprintln!("the session was not removed from Redis: {error}");
    }
    let seen = site.shutdown().await;
    summary.print(&options, &seen);
    Ok(summary.is_complete(&options))
}

/// An event of the processes.
enum Event {
    /// A worker printed a line.
    Said { worker: usize, line: String },
    /// The output of a worker ended.
    Gone { worker: usize },
    /// A worker must be killed.
    Kill { worker: usize },
}

/// A process, and its assigned pages that have no result yet.
struct Worker {
    child: Child,
    /// `None` after the last page. The process ends when its input is closed.
    input: Option<ChildStdin>,
    outstanding: HashSet<usize>,
    is_killed: bool,
}

/// The state of the parent process.
struct Fleet {
    options: Options,
    site: Site,
    workers: BTreeMap<usize, Worker>,
    /// The number of processes started, which numbers the next one.
    started: usize,
    todo: VecDeque<usize>,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    kills: usize,
    /// Whether to kill the next process that begins a login.
    ambush: bool,
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
            ambush: false,
            summary: Summary::default(),
        }
    }

    /// Runs until all pages have results and all processes have ended.
    async fn crawl(&mut self) -> Result<(), BoxError> {
        let begun = Instant::now();
        let mut answered_at = None;
        for _ in 0..self.options.workers {
            self.start()?;
        }
        while !self.workers.is_empty() {
            self.feed().await;
            // Far longer than a page takes.
            let event = timeout(Duration::from_secs(120), self.events.1.recv()).await;
            match event.map_err(|_| "no process has printed anything for two minutes")? {
                Some(Event::Said { worker, line }) => {
                    if !self.hear(worker, &line)? {
                        continue;
                    }
                    let now = Instant::now();
                    let pause = answered_at.replace(now).map_or(Duration::ZERO, |before| now - before);
                    self.summary.pause = self.summary.pause.max(pause);
                    self.kill_on_time()?;
                    if self.summary.answered() == self.options.pages {
                        self.summary.took = begun.elapsed();
                        self.workers.values_mut().for_each(|worker| worker.input = None);
                    }
                }
                Some(Event::Gone { worker }) => self.replace(worker).await?,
                Some(Event::Kill { worker }) => self.kill(worker)?,
                None => break,
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), BoxError> {
        let number = self.started;
        self.started += 1;
        // Processes that share no session use different accounts, because a login ends the other
        // sessions of its account.
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
                let _ = events.send(Event::Said { worker: number, line });
            }
            let _ = events.send(Event::Gone { worker: number });
        });
        let worker =
            Worker { input: child.stdin.take(), child, outstanding: HashSet::new(), is_killed: false };
        self.workers.insert(number, worker);
        Ok(())
    }

    /// Assigns pages to the processes that have capacity.
    async fn feed(&mut self) {
        for worker in self.workers.values_mut().filter(|worker| !worker.is_killed) {
            let mut lines = String::new();
            while worker.outstanding.len() < self.options.concurrency {
                let Some(page) = self.todo.pop_front() else { break };
                worker.outstanding.insert(page);
                let _ = writeln!(lines, "{page}");
            }
            if let Some(input) = worker.input.as_mut().filter(|_| !lines.is_empty()) {
                // The end of the process is an event too, which reassigns its pages.
                let _ = input.write_all(lines.as_bytes()).await;
            }
        }
    }

    /// Handles a line. Returns `true` if it is the result of a page.
    fn hear(&mut self, number: usize, line: &str) -> Result<bool, BoxError> {
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
                if std::mem::take(&mut self.ambush) {
                    // A random delay, so that the process is killed before, during or after the
                    // work of the site, and before or after the other processes notice.
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

    /// Kills processes at regular intervals, alternately at any time and during a login.
    fn kill_on_time(&mut self) -> Result<(), BoxError> {
        let (answered, Options { kill, pages, .. }) = (self.summary.answered(), &self.options);
        if self.kills == *kill || answered * (kill + 1) < pages * (self.kills + 1) || answered == *pages {
            return Ok(());
        }
        self.kills += 1;
        if self.kills.is_multiple_of(2) {
            self.ambush = true;
            return Ok(());
        }
        let alive: Vec<usize> = self.workers.keys().copied().collect();
        self.kill(alive[random(alive.len() as u64) as usize])
    }

    fn kill(&mut self, number: usize) -> Result<(), BoxError> {
        let is_over = self.summary.answered() == self.options.pages;
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| !worker.is_killed && !is_over) {
            worker.child.start_kill()?;
            worker.is_killed = true;
            self.summary.killed += 1;
        }
        Ok(())
    }

    /// Handles the end of a process. The others fetch its pages without results.
    async fn replace(&mut self, number: usize) -> Result<(), BoxError> {
        let Some(mut worker) = self.workers.remove(&number) else { return Ok(()) };
        let status = worker.child.wait().await?;
        self.todo.extend(worker.outstanding.drain());
        if self.summary.answered() == self.options.pages {
            return Ok(());
        }
        if !worker.is_killed {
            return Err(format!("a process has ended unexpectedly: {status}").into());
        }
        self.start()
    }
}

/// A number below `end`, or 0. Its quality as a random number does not matter.
fn random(end: u64) -> u64 {
    RandomState::new().hash_one(()) % end.max(1)
}
