//! Fetches many pages concurrently from a site whose sessions keep expiring, with as few logins as
//! possible.
//!
//! `cargo run --release --example crawl` runs it against a local site; `-- --help` lists the
//! options.

mod args;
#[path = "crawl/options.rs"]
mod options;
mod site;

use std::{
    error::Error,
    io::{IsTerminal, stderr},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
#[cfg(not(feature = "client"))]
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressStyle};
use options::{Options, fill};
use site::Site;
use tokio::{task::JoinSet, time::timeout};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, PoolLayer, ProfileLayer, Profiles, Renewal, RenewalLayer, Session, SessionLayer, SessionPool,
    Sessions,
    gate::{GateConfig, PermanentError, RenewalError},
    redirect::follow_redirects,
};

type Body = Empty<Bytes>;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::from_env() {
        Ok(Some(options)) => crawl(options).await,
        Ok(None) => Ok(true),
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", chain(&*error));
            ExitCode::from(2)
        }
    }
}

/// Fetches all pages; `false` if some could not be had.
async fn crawl(options: Options) -> Result<bool, BoxError> {
    let mut builder = Sessions::builder().login_first();
    if let Some(file) = &options.profiles {
        let profiles = wearable(Profiles::from_path(file)?)?;
        // Where there is a profile for each session, a session keeps to one of its own.
        builder = builder.profiles(match options.sessions <= profiles.len() {
            true => profiles.exclusive(),
            false => profiles,
        });
    }
    let sessions = builder.build()?;
    // Members of a pool come and go; what they fetch is counted together.
    let accounts: Arc<[Account]> = match options.pool {
        Some(_) => [Account::default()].into(),
        None => (0..options.sessions).map(|name| Account::new(&sessions, name)).collect(),
    };
    let pool = SessionPool::builder(&sessions).size(options.pool.unwrap_or(1));
    let pool = if options.exclusive { pool.exclusive() } else { pool }.build()?;

    let (site, (page_url, login_url)) = match options.urls.clone() {
        Some(urls) => (None, urls),
        None => {
            let site = Site::start(options.site()).await?;
            // Which member of a pool fetches a page is not known before; the site knows it by its
            // `sid`.
            let page = if options.pool.is_some() { "/page/{page}" } else { "/page/{page}?acct={session}" };
            let urls = (site.url(page), site.url("/login?acct={session}"));
            (Some(site), urls)
        }
    };
    if options.serve {
        println!("--page-url '{page_url}' --login-url '{login_url}'");
        return std::future::pending().await;
    }
    // More connections do not fit into the line of those that a server on this machine has yet to
    // accept. Each takes a file descriptor, and a second one if its other end is here, too; as many
    // again may be idle or about to be opened.
    let files = rlimit::increase_nofile_limit(u64::MAX).map_or(1024, |files| files as usize);
    let connections = (files.saturating_sub(100) / if site.is_some() { 4 } else { 2 }).clamp(1, 4096);

    let log_in = {
        let accounts = accounts.clone();
        move |renewal: Renewal<Body>| {
            let (accounts, login_url) = (accounts.clone(), login_url.clone());
            async move {
                let id = renewal.session_id();
                let name = if accounts.len() > 1 { id.to_string().parse()? } else { 0 };
                let request = Request::get(fill(&login_url, 0, id)).body(Body::new())?;
                let answer = renewal.send(request).await?;
                let status = answer.status();
                renewal
                    .ensure(
                        status.is_success() && !renewal.cookies().is_empty(),
                        "the login was not accepted",
                    )
                    .map_err(|error| format!("{error}: {status}, {} cookies", renewal.cookies().len()))?;
                accounts[name].logged_in()
            }
        }
    };
    // A failing login is tried ten times before those who wait are told, and all of them wait long
    // enough to hear it.
    let attempt = Duration::from_millis(options.login_ms) + Duration::from_secs(5);
    let gate = GateConfig::new()
        .attempt_timeout(attempt)
        .max_attempts(10)
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .max_wait(12 * attempt + Duration::from_secs(60))
        // How fast logins are spent is up to the site; `Account::logged_in` notices when they lead
        // nowhere.
        .renewal_rate_limit(usize::MAX, Duration::from_secs(60));
    let stack = ServiceBuilder::new()
        // Requests that name their session pass it by.
        .layer(PoolLayer::new(&pool))
        .layer(
            RenewalLayer::new(&sessions)
                .expired_when(Expired::status([401, 403]))
                .renew_with(log_in)
                .replay_limit(4)
                .gate_config(gate),
        )
        .layer(follow_redirects(10))
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(connections)
        .timeout(options.timeout())
        .service(client(connections)?);

    let progress = match stderr().is_terminal() {
        true => ProgressBar::new(options.pages as u64)
            .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} pages, {per_sec}, {eta} left")?),
        false => ProgressBar::hidden(),
    };
    let job = Arc::new(Job {
        options,
        pool,
        page_url,
        accounts,
        progress,
        next: 0.into(),
        failed: 0.into(),
        again: 0.into(),
        causes: Mutex::default(),
    });
    let started = Instant::now();
    let workers = job.options.concurrency.min(job.options.pages);
    let workers: JoinSet<()> = (0..workers).map(|_| job.clone().work(stack.clone())).collect();
    workers.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    job.progress.finish_and_clear();
    job.summarize(&sessions, site, connections, seconds).await;
    Ok(job.failed.load(Relaxed) == 0)
}

/// One session and how it fares, or all of a pool.
#[derive(Default)]
struct Account {
    /// Nothing where the pool chooses.
    session: Option<Session>,
    /// Pages that were fetched, and how many they were at the last login.
    good: AtomicUsize,
    good_at_login: AtomicUsize,
    /// Logins in a row that led to no page.
    fruitless: AtomicUsize,
}

impl Account {
    fn new(sessions: &Sessions, name: usize) -> Self {
        Self { session: Some(sessions.session(name)), ..Self::default() }
    }

    /// Takes note of a login; refuses it for good if all that came before it have led nowhere for
    /// too long.
    fn logged_in(&self) -> Result<(), BoxError> {
        const MOST: usize = 50;
        let good = self.good.load(Relaxed);
        if self.good_at_login.swap(good, Relaxed) != good {
            self.fruitless.store(0, Relaxed);
        }
        match self.fruitless.fetch_add(1, Relaxed) {
            MOST.. => {
                Err(PermanentError::new(format!("{MOST} logins in a row were good for no page")).into())
            }
            _ => Ok(()),
        }
    }
}

/// What the workers share.
struct Job {
    options: Options,
    pool: SessionPool,
    page_url: String,
    accounts: Arc<[Account]>,
    next: AtomicUsize,
    failed: AtomicUsize,
    /// Sends of a page beyond the first one and those of the renewal layer.
    again: AtomicUsize,
    /// Why pages failed: each cause, with the first page of it and the number of them.
    causes: Mutex<Vec<(String, usize, usize)>>,
    progress: ProgressBar,
}

impl Job {
    /// Fetches the next page until there is none.
    async fn work<S, R>(self: Arc<Self>, stack: S)
    where
        S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            let page = self.next.fetch_add(1, Relaxed);
            if page >= self.options.pages {
                return;
            }
            if let Err(error) = self.fetch(&stack, page).await {
                self.failed.fetch_add(1, Relaxed);
                let cause = chain(&*error);
                let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
                match causes.iter_mut().find(|(known, ..)| *known == cause) {
                    Some((.., count)) => *count += 1,
                    None => causes.push((cause, page, 1)),
                }
            }
            self.progress.inc(1);
        }
    }

    async fn fetch<S, R>(&self, stack: &S, page: usize) -> Result<(), BoxError>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let name = page % self.accounts.len();
        let account = &self.accounts[name];
        let url = fill(&self.page_url, page, name);
        let (begun, mut broken) = (account.good.load(Relaxed), 0);
        loop {
            let before = account.good.load(Relaxed);
            let mut request = Request::get(&url).body(Body::new())?;
            if let Some(session) = &account.session {
                request.extensions_mut().insert(session.clone());
            }
            let error = match stack.clone().oneshot(request).await {
                Ok(response) if response.status().is_success() => {
                    match timeout(self.options.timeout(), response.into_body().collect()).await? {
                        Ok(_) => {
                            account.good.fetch_add(1, Relaxed);
                            return Ok(());
                        }
                        Err(error) => error.into(),
                    }
                }
                Ok(response) if matches!(response.status().as_u16(), 401 | 403) => {
                    // Where more requests go out at once than a login is good for, most of them
                    // lose each round. This one's turn comes, as long as others have theirs, and
                    // unless so many had that it cannot be for want of luck.
                    let good = account.good.load(Relaxed);
                    let share = self.options.concurrency.div_ceil(self.accounts.len());
                    if good == before || good - begun > 100 * share {
                        return Err(
                            format!("page {page} was refused, and also after logging in again").into()
                        );
                    }
                    self.again.fetch_add(1, Relaxed);
                    continue;
                }
                Ok(response) => return Err(format!("answered with {}", response.status()).into()),
                Err(error) => error,
            };
            // A connection can break for no fault of the page's.
            broken += 1;
            if broken == 3 || error.is::<RenewalError>() {
                return Err(error);
            }
            self.again.fetch_add(1, Relaxed);
        }
    }

    async fn summarize(&self, sessions: &Sessions, site: Option<Site>, connections: usize, seconds: f64) {
        let stats = sessions.stats();
        let Options { pages, concurrency, json, .. } = self.options;
        let failed = self.failed.load(Relaxed);
        let ok = pages - failed;
        let replays = stats.replayed() + self.again.load(Relaxed) as u64;
        let per_second = ok as f64 / seconds;
        println!("{ok} of {pages} pages in {seconds:.2} s, {per_second:.0} a second");
        println!("  requests  {}, of which {replays} pages again", stats.sent);
        println!(
            "  renewals  {} that worked, {} that failed",
            stats.renewals_committed, stats.renewals_failed
        );
        println!("  held      at most {} requests at once", stats.waiting_peak);
        if connections < concurrency {
            println!("  on their way at once were at most {connections}");
        }
        // Only the embedded site tells.
        let (mut addresses, mut of_one_session) = ("null".to_owned(), "null".to_owned());
        let (mut overlaps, mut at_once) = (0, 0);
        if let Some(site) = site {
            let seen = site.shutdown().await;
            (overlaps, at_once) = (seen.overlaps, seen.pages_at_once_max);
            println!(
                "  the site  gave {} logins, at most {} of one session at once, and refused {} pages",
                seen.logins(),
                seen.logins_at_once_max(),
                seen.pages_refused
            );
            println!(
                "            and was asked from {} addresses, at most {} for one session",
                seen.peers().len(),
                seen.peers_max()
            );
            (addresses, of_one_session) = (seen.peers().len().to_string(), seen.peers_max().to_string());
        }
        let mut of_pool = String::new();
        if self.options.pool.is_some() {
            println!("{}", self.pool.snapshot());
            let pool = self.pool.stats();
            of_pool = format!(
                ", \"leases\": {}, \"retired\": {}, \"waited\": {}, \"overlaps\": {overlaps}, \"pages_at_once_max\": {at_once}",
                pool.leases,
                pool.retired(),
                pool.waited
            );
        }
        if failed > 0 {
            eprintln!("{failed} pages failed. The first causes:");
            let causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
            for (cause, page, count) in causes.iter().take(5) {
                eprintln!("  page {page} and {} others: {cause}", count - 1);
            }
        }
        if json {
            println!(
                "{{\"pages_ok\": {ok}, \"pages_failed\": {failed}, \"requests\": {}, \"replays\": {replays}, \
                 \"renewals\": {}, \"renewals_failed\": {}, \"waiting_peak\": {}, \"seconds\": {seconds:.3}, \
                 \"pages_per_second\": {per_second:.1}, \"addresses\": {addresses}, \
                 \"addresses_of_one_session\": {of_one_session}{of_pool}}}",
                stats.sent, stats.renewals_committed, stats.renewals_failed, stats.waiting_peak
            );
        }
    }
}

/// What sends: by the proxy of the request's profile, and directly where there is no profile.
#[cfg(feature = "client")]
fn client(connections: usize) -> Result<tower_client_sessions::IdentityClient<Body>, BoxError> {
    let client = tower_client_sessions::IdentityClient::builder()
        .max_connections(connections)
        .max_idle_per_host(connections)
        .allow_direct()
        .build()?;
    Ok(client)
}

/// What sends where the crate was built without its client: directly, or not at all.
#[cfg(not(feature = "client"))]
fn client(
    connections: usize,
) -> Result<
    impl Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Clone + Send,
    BoxError,
> {
    use tower_client_sessions::profile::Proxy;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .pool_max_idle_per_host(connections)
        .build_http::<Body>();
    Ok(tower::service_fn(move |request: Request<Body>| {
        // Fail closed: what is to go through a proxy never goes directly.
        let proxied = request.extensions().get::<Proxy>().is_some_and(|proxy| proxy.server().is_some());
        let sent = (!proxied).then(|| client.request(request));
        async move { Ok::<_, BoxError>(sent.ok_or("this client connects directly, not through a proxy")?.await?) }
    }))
}

/// The profiles, if this client can wear all of them.
fn wearable(profiles: Profiles) -> Result<Profiles, BoxError> {
    for (entry, profile) in (1..).zip(profiles.iter()) {
        let direct = cfg!(not(feature = "client"));
        if direct
            && (profile.proxy().is_some_and(|proxy| proxy.server().is_some())
                || profile.local_address().is_some())
        {
            return Err(format!(
                "profile {entry} names a proxy or a local address, which needs the crate's feature `client`; nothing was sent"
            )
            .into());
        }
    }
    Ok(profiles)
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
