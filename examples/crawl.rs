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
    Expired, PoolLayer, ProfileLayer, Profiles, RedirectLayer, Renewal, RenewalLayer, Session, SessionInfo,
    SessionLayer, SessionPool, Sessions,
    gate::{GateConfig, PermanentError, RenewalError},
    session::ResponseOutcome,
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

/// Fetches all pages. Returns `false` if some of them failed.
async fn crawl(options: Options) -> Result<bool, BoxError> {
    let mut builder = Sessions::builder().login_first();
    if let Some(file) = &options.profiles {
        let profiles = supported(Profiles::from_path(file)?)?;
        // If there are enough profiles, each session has one of its own.
        builder = builder.profiles(match options.sessions <= profiles.len() {
            true => profiles.exclusive(),
            false => profiles,
        });
    }
    let sessions = builder.build()?;
    // The members of a pool change, so their pages are counted together.
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
            // The member that fetches a page is not known in advance. The site identifies it by its
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
    // More connections do not fit into the accept queue of a local server. Each takes a file
    // descriptor, and a second one if its other end is local too. As many may be idle or about to
    // be opened.
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
                let response = renewal.send(request).await?;
                let status = response.status();
                renewal
                    .ensure_transient(
                        status.is_success() && !renewal.cookies().is_empty(),
                        "the login was rejected",
                    )
                    .map_err(|error| format!("{error}: {status}, {} cookies", renewal.cookies().len()))?;
                accounts[name].logged_in()
            }
        }
    };
    // A failing login is attempted ten times. The waiters wait longer than that, so that all of
    // them receive its error.
    let attempt = Duration::from_millis(options.login_ms) + Duration::from_secs(5);
    let gate = GateConfig::new()
        .attempt_timeout(attempt)
        .max_attempts(10)
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .max_wait(12 * attempt + Duration::from_secs(60));
    let stack = ServiceBuilder::new()
        // The pool ignores requests that name their session.
        .layer(PoolLayer::new(&pool))
        .layer(
            RenewalLayer::new(&sessions)
                .expired_when(Expired::status([401, 403]))
                .renew_with(log_in)
                .gate_config(gate),
        )
        .layer(RedirectLayer::new(10))
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
        forbidden: 0.into(),
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

/// The state of a session, or of all sessions of a pool.
#[derive(Default)]
struct Account {
    /// `None` if the pool chooses the session.
    session: Option<Session>,
    /// The number of pages fetched, and that number at the last login.
    good: AtomicUsize,
    good_at_login: AtomicUsize,
    /// Consecutive logins without a page.
    fruitless: AtomicUsize,
}

impl Account {
    fn new(sessions: &Sessions, name: usize) -> Self {
        Self { session: Some(sessions.session(name)), ..Self::default() }
    }

    /// Records a login. Fails permanently if too many logins in a row led to no page.
    fn logged_in(&self) -> Result<(), BoxError> {
        const MAX: usize = 50;
        let good = self.good.load(Relaxed);
        if self.good_at_login.swap(good, Relaxed) != good {
            self.fruitless.store(0, Relaxed);
        }
        match self.fruitless.fetch_add(1, Relaxed) {
            MAX.. => Err(PermanentError::new(format!("{MAX} consecutive logins led to no page")).into()),
            _ => Ok(()),
        }
    }
}

/// What the site has delivered for a page.
enum Fetched {
    Page,
    /// The site forbids the page, whatever the session.
    Forbidden,
}

/// The state that all workers share.
struct Job {
    options: Options,
    pool: SessionPool,
    page_url: String,
    accounts: Arc<[Account]>,
    next: AtomicUsize,
    failed: AtomicUsize,
    /// Pages that the site forbids whatever the session.
    forbidden: AtomicUsize,
    /// Repeated requests for a page, not counting the replays of the renewal layer.
    again: AtomicUsize,
    /// Why pages failed: each cause, with its first page and the number of pages.
    causes: Mutex<Vec<(String, usize, usize)>>,
    progress: ProgressBar,
}

impl Job {
    /// Fetches pages until there are none left.
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
            match self.fetch(&stack, page).await {
                Ok(Fetched::Page) => {}
                Ok(Fetched::Forbidden) => drop(self.forbidden.fetch_add(1, Relaxed)),
                Err(error) => {
                    self.failed.fetch_add(1, Relaxed);
                    let cause = chain(&*error);
                    let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
                    match causes.iter_mut().find(|(known, ..)| *known == cause) {
                        Some((.., count)) => *count += 1,
                        None => causes.push((cause, page, 1)),
                    }
                }
            }
            self.progress.inc(1);
        }
    }

    async fn fetch<S, R>(&self, stack: &S, page: usize) -> Result<Fetched, BoxError>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let name = page % self.accounts.len();
        let account = &self.accounts[name];
        let url = fill(&self.page_url, page, name);
        let (begun, mut errors) = (account.good.load(Relaxed), 0);
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
                            return Ok(Fetched::Page);
                        }
                        Err(error) => error.into(),
                    }
                }
                Ok(response) if is_refused(&response) => return Ok(Fetched::Forbidden),
                Ok(response) if matches!(response.status().as_u16(), 401 | 403) => {
                    // If more requests are in flight than a login allows, most of them fail in each
                    // round. Repeat this one while others succeed, up to a limit that bad luck
                    // cannot explain.
                    let good = account.good.load(Relaxed);
                    let share = self.options.concurrency.div_ceil(self.accounts.len());
                    if good == before || good - begun > 100 * share {
                        return Err(format!("page {page} was rejected, and again after a new login").into());
                    }
                    self.again.fetch_add(1, Relaxed);
                    continue;
                }
                Ok(response) => return Err(format!("unexpected status {}", response.status()).into()),
                Err(error) => error,
            };
            // A connection error says nothing about the page.
            errors += 1;
            if errors == 3 || error.is::<RenewalError>() {
                return Err(error);
            }
            self.again.fetch_add(1, Relaxed);
        }
    }

    async fn summarize(&self, sessions: &Sessions, site: Option<Site>, connections: usize, seconds: f64) {
        let stats = sessions.stats();
        let Options { pages, concurrency, json, .. } = self.options;
        let failed = self.failed.load(Relaxed);
        let forbidden = self.forbidden.load(Relaxed);
        let ok = pages - failed - forbidden;
        let replays = stats.replayed() + self.again.load(Relaxed) as u64;
        let per_second = ok as f64 / seconds;
        println!("{ok} of {pages} pages in {seconds:.2} s, {per_second:.0} pages/s");
        if forbidden > 0 {
            println!("  forbidden {forbidden} pages");
        }
        println!("  requests  {}, including {replays} repeated ones", stats.sent);
        println!("  renewals  {} committed, {} failed", stats.renewals_committed, stats.renewals_failed);
        println!("  waiting   at most {} requests", stats.waiting_peak);
        if connections < concurrency {
            println!("  in flight at most {connections} requests");
        }
        // Only the embedded site reports this.
        let (mut addresses, mut of_one_session) = ("null".to_owned(), "null".to_owned());
        let (mut overlaps, mut in_flight) = (0, 0);
        if let Some(site) = site {
            let seen = site.shutdown().await;
            (overlaps, in_flight) = (seen.overlaps, seen.pages_in_flight_max);
            println!(
                "  the site  served {} logins, at most {} concurrent per session, and rejected {} pages",
                seen.logins(),
                seen.logins_concurrent_max(),
                seen.pages_refused
            );
            println!(
                "            and was used from {} addresses, at most {} per session",
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
                ", \"leases\": {}, \"retired\": {}, \"waited\": {}, \"overlaps\": {overlaps}, \"pages_in_flight_max\": {in_flight}",
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
                "{{\"pages_ok\": {ok}, \"pages_failed\": {failed}, \"pages_forbidden\": {forbidden}, \"requests\": {}, \"replays\": {replays}, \
                 \"renewals\": {}, \"renewals_failed\": {}, \"held_peak\": {}, \"seconds\": {seconds:.3}, \
                 \"pages_per_second\": {per_second:.1}, \"addresses\": {addresses}, \
                 \"addresses_of_one_session\": {of_one_session}{of_pool}}}",
                stats.sent, stats.renewals_committed, stats.renewals_failed, stats.waiting_peak
            );
        }
    }
}

/// The client: it uses the proxy of the request's profile, and connects directly without a profile.
#[cfg(feature = "client")]
fn client(connections: usize) -> Result<tower_client_sessions::IdentityClient<Body>, BoxError> {
    let client = tower_client_sessions::IdentityClient::builder()
        .max_connections(connections)
        .max_idle_per_host(connections)
        .allow_direct()
        .build()?;
    Ok(client)
}

/// The client without the feature `client`: it connects directly, or fails.
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
        // Fail closed: a request with a proxy never connects directly.
        let proxied = request.extensions().get::<Proxy>().is_some_and(|proxy| proxy.server().is_some());
        let sent = (!proxied).then(|| client.request(request));
        async move { Ok::<_, BoxError>(sent.ok_or("this client connects directly, not through a proxy")?.await?) }
    }))
}

/// The profiles, if this client supports all of them.
fn supported(profiles: Profiles) -> Result<Profiles, BoxError> {
    for (entry, profile) in (1..).zip(profiles.iter()) {
        let direct = cfg!(not(feature = "client"));
        if direct
            && (profile.proxy().is_some_and(|proxy| proxy.server().is_some())
                || profile.local_address().is_some())
        {
            return Err(format!(
                "profile {entry} names a proxy or a local address, which requires the feature `client`; nothing was sent"
            )
            .into());
        }
    }
    Ok(profiles)
}

/// Whether the site forbids the page, although the session works: the renewal layer says so, or the
/// embedded site.
fn is_refused<R>(response: &Response<R>) -> bool {
    let outcome = response.extensions().get::<SessionInfo>().map(SessionInfo::outcome);
    outcome == Some(ResponseOutcome::Refused) || response.headers().contains_key("x-forbidden")
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
