//! Fetches pages from a site with several processes that share one session, and logs in once for all of them.
//!
//! `cargo run --release --features redis --example fleet` starts the processes, with their session in a folder;
//! `--redis redis://127.0.0.1/` keeps it there instead. `-- --help` has the options.

#[path = "fleet/options.rs"]
mod options;
mod site;
#[path = "fleet/worker.rs"]
mod worker;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use options::{Options, Role};
use site::{Site, SiteConfig};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::timeout,
};
use tower::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::from_env() {
        Ok(Some(options)) => match options.role.clone() {
            Role::Worker { page_url, login_url } => {
                worker::work(options, page_url, login_url).await.map(|()| true)
            }
            Role::Fleet => fleet(options).await,
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

/// What one worker says, or that it says no more.
struct Said {
    worker: usize,
    line: Option<String>,
}

/// One process and the pages that it has been told and has not answered for.
struct Worker {
    child: Child,
    input: ChildStdin,
    outstanding: HashSet<usize>,
}

/// What all workers together have counted.
#[derive(Default)]
struct Sums {
    counters: BTreeMap<String, u64>,
    /// When a version was committed, and when each other process had it, in microseconds.
    committed: BTreeMap<u64, u64>,
    adopted: Vec<(u64, u64)>,
}

/// Runs the site and the workers until every page was answered for; `false` if some could not be had.
async fn fleet(options: Options) -> Result<bool, BoxError> {
    let site = Site::start(SiteConfig {
        budget: options.budget,
        login_ms: options.login_ms,
        latency_ms: options.latency_ms,
        ..SiteConfig::default()
    })
    .await?;
    let (said, mut lines) = mpsc::unbounded_channel();
    let start = |worker| start_worker(worker, &options, &site, said.clone());
    let mut workers: Vec<Worker> = (0..options.workers).map(start).collect::<Result<_, _>>()?;
    let (mut alive, mut killed) = (options.workers, 0);
    let mut todo: VecDeque<usize> = (0..options.pages).collect();
    let (mut ok, mut failed) = (0, 0);
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    let mut sums = Sums::default();
    let started = Instant::now();
    let mut seconds = 0.0;
    while alive > 0 {
        for worker in &mut workers {
            while worker.outstanding.len() < options.concurrency {
                let Some(page) = todo.pop_front() else { break };
                worker.outstanding.insert(page);
                // One that is gone says so; its pages are others' then.
                let _ = worker.input.write_all(format!("{page}\n").as_bytes()).await;
            }
        }
        let Some(Said { worker, line }) = timeout(Duration::from_secs(120), lines.recv())
            .await
            .map_err(|_| "no worker has said anything for two minutes")?
        else {
            break;
        };
        let Some(line) = line else {
            // Gone, killed or done: what it was told and has not answered for, others have to fetch.
            todo.extend(workers[worker].outstanding.drain());
            let status = workers[worker].child.wait().await?;
            alive -= 1;
            if ok + failed < options.pages {
                if killed == 0 || status.code().is_some() {
                    return Err(format!("a worker has ended by itself: {status}").into());
                }
                workers[worker] = start(worker)?;
                alive += 1;
            }
            continue;
        };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let mut numbers = rest.split(' ').map(|number| number.parse::<u64>());
        match word {
            "ok" | "failed" => {
                let (page, cause) = rest.split_once(' ').unwrap_or((rest, ""));
                // A worker that was killed may have answered for it already.
                if workers[worker].outstanding.remove(&page.parse()?) {
                    match word {
                        "ok" => ok += 1,
                        _ => {
                            failed += 1;
                            *causes.entry(cause.to_owned()).or_default() += 1;
                        }
                    }
                    let due = killed < options.kill
                        && (ok + failed) * (options.kill + 1) > options.pages * (killed + 1);
                    if due {
                        workers[killed % options.workers].child.start_kill()?;
                        killed += 1;
                    }
                }
                if ok + failed == options.pages && seconds == 0.0 {
                    seconds = started.elapsed().as_secs_f64();
                    // The end of what they are told is the end of their work.
                    for worker in &mut workers {
                        let _ = worker.input.shutdown().await;
                    }
                }
            }
            "committed" => {
                if let (Some(Ok(version)), Some(Ok(at))) = (numbers.next(), numbers.next()) {
                    sums.committed.insert(version, at);
                }
            }
            "adopted" => {
                if let (Some(Ok(version)), Some(Ok(at))) = (numbers.next(), numbers.next()) {
                    sums.adopted.push((version, at));
                }
            }
            counter => {
                if let Some(Ok(count)) = numbers.next() {
                    *sums.counters.entry(counter.to_owned()).or_default() += count;
                }
            }
        }
    }
    let seen = site.shutdown().await;
    summarize(&options, ok, failed, killed, seconds, &seen, sums);
    for (cause, count) in causes.iter().take(5) {
        eprintln!("  {count} pages: {cause}");
    }
    Ok(failed == 0 && ok == options.pages)
}

fn start_worker(
    worker: usize,
    options: &Options,
    site: &Site,
    said: mpsc::UnboundedSender<Said>,
) -> Result<Worker, BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(options.worker_args(&site.url("/page/{page}?acct=0"), &site.url("/login?acct=0")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take().ok_or("a worker has no input")?;
    let output = child.stdout.take().ok_or("a worker has no output")?;
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = said.send(Said { worker, line: Some(line) });
        }
        let _ = said.send(Said { worker, line: None });
    });
    Ok(Worker { child, input, outstanding: HashSet::new() })
}

fn summarize(
    options: &Options,
    ok: usize,
    failed: usize,
    killed: usize,
    seconds: f64,
    seen: &site::Counters,
    sums: Sums,
) {
    let counter = |name: &str| sums.counters.get(name).copied().unwrap_or(0);
    let per_second = ok as f64 / seconds;
    // By how much later than its commit each other process had a version.
    let mut delays: Vec<u64> = sums
        .adopted
        .iter()
        .filter_map(|(version, at)| Some(at.saturating_sub(*sums.committed.get(version)?)))
        .collect();
    delays.sort_unstable();
    let median = delays.get(delays.len() / 2).copied().unwrap_or(0) as f64 / 1000.0;
    let worst = delays.last().copied().unwrap_or(0) as f64 / 1000.0;
    let logins = seen.logins();
    let renewals = counter("renewals").max(1);
    let trips = counter("store_requests") as f64 / f64::from(logins.max(1));
    println!(
        "{ok} of {} pages by {} processes in {seconds:.2} s, {per_second:.0} a second",
        options.pages, options.workers
    );
    println!("  the site  gave {logins} logins, at most {} at once", seen.logins_at_once_max());
    println!(
        "  refreshed {} times by a token, of which {} were used twice",
        seen.refreshes, seen.refreshes_reused
    );
    println!(
        "  the store was asked {} times, {trips:.1} for each login; {} commits, {} conflicts, {} failures",
        counter("store_requests"),
        counter("store_commits"),
        counter("store_conflicts"),
        counter("store_failures")
    );
    println!(
        "  adopted   {} times, {median:.1} ms after the commit in the median, {worst:.1} ms at worst",
        delays.len()
    );
    if killed > 0 {
        println!("  killed    {killed} processes");
    }
    if options.json {
        println!(
            "{{\"pages_ok\": {ok}, \"pages_failed\": {failed}, \"requests\": {}, \"replays\": {}, \"renewals\": {renewals}, \
             \"renewals_failed\": {}, \"held_peak\": {}, \"seconds\": {seconds:.3}, \"pages_per_second\": {per_second:.1}, \
             \"workers\": {}, \"killed\": {killed}, \"logins\": {logins}, \"logins_at_once\": {}, \"refreshes\": {}, \
             \"refreshes_reused\": {}, \"store_requests\": {}, \"store_commits\": {}, \"store_conflicts\": {}, \
             \"store_failures\": {}, \"adoptions\": {}, \"adoption_ms_median\": {median:.3}, \"adoption_ms_worst\": {worst:.3}}}",
            counter("requests"),
            counter("replays"),
            counter("renewals_failed"),
            counter("held_peak"),
            options.workers,
            seen.logins_at_once_max(),
            seen.refreshes,
            seen.refreshes_reused,
            counter("store_requests"),
            counter("store_commits"),
            counter("store_conflicts"),
            counter("store_failures"),
            delays.len(),
        );
    }
}
