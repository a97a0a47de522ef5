//! The summary of a run, as text and as JSON.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tower::BoxError;

use crate::{options::Options, site::Counters};

/// The counters of all processes together.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) ok: usize,
    pub(crate) failed: usize,
    /// The causes of failed pages, with their counts.
    pub(crate) causes: BTreeMap<String, usize>,
    pub(crate) killed: usize,
    pub(crate) took: Duration,
    /// The longest time without a reported page.
    pub(crate) pause: Duration,
    /// The sums of the counters that each process prints at its end; those of killed processes are
    /// lost.
    counts: BTreeMap<String, u64>,
    /// The commit time of each version, and the adoptions by other processes, in microseconds.
    committed: BTreeMap<u64, u64>,
    adopted: Vec<(u64, u64)>,
}

impl Summary {
    /// Returns the number of pages that succeeded or failed.
    pub(crate) fn reported(&self) -> usize {
        self.ok + self.failed
    }

    pub(crate) fn is_complete(&self, options: &Options) -> bool {
        self.ok == options.pages
    }

    /// Adds a line of a process that reports no page.
    pub(crate) fn count(&mut self, word: &str, rest: &str) -> Result<(), BoxError> {
        match rest.split_once(' ') {
            Some((version, at)) if word == "committed" => {
                self.committed.insert(version.parse()?, at.parse()?);
            }
            Some((version, at)) if word == "adopted" => self.adopted.push((version.parse()?, at.parse()?)),
            _ => *self.counts.entry(word.to_owned()).or_default() += rest.parse::<u64>()?,
        }
        Ok(())
    }

    /// Returns the delay of each adoption after its commit, in milliseconds, in ascending order.
    fn delays(&self) -> Vec<f64> {
        let delay = |(version, at): &(u64, u64)| {
            Some(at.saturating_sub(*self.committed.get(version)?) as f64 / 1000.0)
        };
        let mut delays: Vec<f64> = self.adopted.iter().filter_map(delay).collect();
        delays.sort_unstable_by(f64::total_cmp);
        delays
    }

    pub(crate) fn print(&self, options: &Options, seen: &Counters) {
        let count = |name: &str| self.counts.get(name).copied().unwrap_or(0);
        let seconds = self.took.as_secs_f64();
        let per_second = self.ok as f64 / seconds;
        let pause = self.pause.as_secs_f64() * 1000.0;
        let delays = self.delays();
        let median = delays.get(delays.len() / 2).copied().unwrap_or(0.0);
        let worst = delays.last().copied().unwrap_or(0.0);
        let logins = seen.logins();
        let per_login = |number: u64| number as f64 / f64::from(logins.max(1));
        println!(
            "{} of {} pages by {} processes in {seconds:.2} s, {per_second:.0} per second; the longest pause was {pause:.0} ms",
            self.ok, options.pages, options.workers
        );
        println!(
            "  site      {logins} logins, at most {} concurrent, for {} served pages",
            seen.logins_concurrent_max(),
            seen.pages_ok
        );
        println!(
            "            {} of them with a refresh token; {} tokens used twice",
            seen.refreshes, seen.refreshes_reused
        );
        println!(
            "  store     {} requests, {:.1} per login; {} commits, {} conflicts, {} failures",
            count("store_requests"),
            per_login(count("store_requests")),
            count("store_commits"),
            count("store_conflicts"),
            count("store_failures")
        );
        println!(
            "  adoption  {median:.1} ms after the commit in the median, {worst:.1} ms at worst, of {} adoptions",
            delays.len()
        );
        if self.killed > 0 {
            println!(
                "  killed    {} processes, which were replaced; their counters are not included",
                self.killed
            );
        }
        for (cause, count) in self.causes.iter().take(5) {
            eprintln!("  {count} pages failed: {cause}");
        }
        if options.json {
            let summary = json!({
                "pages_ok": self.ok,
                "pages_failed": self.failed,
                "requests": count("requests"),
                "replays": count("replays"),
                "renewals": count("renewals"),
                "renewals_failed": count("renewals_failed"),
                "waiting_peak": count("waiting_peak"),
                "seconds": seconds,
                "pages_per_second": per_second,
                "addresses": seen.peers().len(),
                "addresses_of_one_session": seen.peers_max(),
                "workers": options.workers,
                "killed": self.killed,
                "pause_ms": pause,
                "pages_served": seen.pages_ok,
                "pages_refused": seen.pages_refused,
                "logins": logins,
                "login_tries": seen.accounts.values().map(|account| account.tries).sum::<u32>(),
                "logins_concurrent_max": seen.logins_concurrent_max(),
                "refreshes": seen.refreshes,
                "refreshes_reused": seen.refreshes_reused,
                "store_requests": count("store_requests"),
                "store_failures": count("store_failures"),
                "store_commits": count("store_commits"),
                "store_conflicts": count("store_conflicts"),
                "versions_adopted": delays.len(),
                "adoption_ms_median": median,
                "adoption_ms_worst": worst,
            });
            println!("{summary}");
        }
    }
}
