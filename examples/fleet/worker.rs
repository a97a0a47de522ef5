//! A worker process: reads page numbers from its input, fetches the pages, and prints the results.

use std::{
    io::{Write, stdout},
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, Session, SessionLayer, Sessions,
    gate::GateConfig,
    shared::{FileStore, SharingConfig},
};

use crate::options::{Options, Store};

type Body = Empty<Bytes>;

/// The name of the shared session.
const SESSION: &str = "crawler";

/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn work(options: Options, page_url: String, login_url: String) -> Result<(), BoxError> {
    let builder = Sessions::builder().login_first();
    let sessions = match sharing_with_retry(&options).await? {
        Some(sharing) => builder.shared(sharing).build()?,
        None => builder.build()?,
    };
    let log_in = move |renewal: Renewal<Body>| {
        let login_url = login_url.clone();
        async move {
            print(format_args!("login"));
            // After an interrupted renewal the token may be used up. A second use would end its
            // session.
            let token = renewal.session().data("refresh").filter(|_| !renewal.follows_interrupted());
            let mut url = login_url.clone();
            if let Some(token) = &token {
                url += &format!("&refresh={token}");
            }
            let mut response = renewal.send(Request::get(url).body(Body::new())?).await?;
            if token.is_some() && response.status() == 401 {
                response = renewal.send(Request::get(login_url).body(Body::new())?).await?;
            }
            renewal.ensure_transient(
                response.status().is_success() && renewal.has_cookie("sid"),
                "the login failed or set no session cookie",
            )?;
            if let Some(token) = response.headers().get("x-refresh") {
                renewal.session().set_data("refresh", token.to_str()?);
            }
            Ok(())
        }
    };
    let gate = GateConfig::new()
        .attempt_timeout(Duration::from_millis(options.login_ms) + Duration::from_secs(60))
        // A store that restarts is unreachable for some seconds.
        .max_attempts(30)
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .max_wait(Duration::from_secs(600))
        .renewal_rate_limit(usize::MAX, Duration::from_secs(60));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .pool_max_idle_per_host(options.concurrency)
        .build_http::<Body>();
    let stack = ServiceBuilder::new()
        .layer(
            RenewalLayer::new(&sessions)
                .expired_when(Expired::status([401, 403]))
                .renew_with(log_in)
                // With fewer pages left than requests in flight, most requests fail in each round.
                .replay_limit(100)
                .gate_config(gate),
        )
        .layer(SessionLayer::new(&sessions))
        .timeout(TIMEOUT)
        .service(client);

    let session = sessions.session(SESSION);
    let watch = tokio::spawn(print_versions(sessions.clone(), session.clone()));
    let page_url = Arc::new(page_url);
    let (mut pages, mut running) = (BufReader::new(stdin()).lines(), JoinSet::new());
    while let Some(page) = pages.next_line().await? {
        let page: usize = page.parse()?;
        let (stack, session, page_url) = (stack.clone(), session.clone(), page_url.clone());
        running.spawn(async move {
            match fetch(stack, session, &page_url, page).await {
                Ok(()) => print(format_args!("ok {page}")),
                Err(error) => print(format_args!("failed {page} {error}")),
            }
        });
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;
    watch.abort();
    let stats = sessions.stats();
    print(format_args!("requests {}", stats.sent));
    print(format_args!("replays {}", stats.replayed()));
    print(format_args!("renewals {}", stats.renewals_committed));
    print(format_args!("renewals_failed {}", stats.renewals_failed));
    print(format_args!("waiting_peak {}", stats.waiting_peak));
    if let Some(store) = sessions.sharing_stats() {
        print(format_args!("store_requests {}", store.requests));
        print(format_args!("store_commits {}", store.commits));
        print(format_args!("store_conflicts {}", store.conflicts));
        print(format_args!("store_failures {}", store.failures));
    }
    Ok(())
}

/// Prints a whole line.
fn print(line: std::fmt::Arguments<'_>) {
    // A closed output means that the fleet has exited.
    if writeln!(stdout().lock(), "{line}").is_err() {
        std::process::exit(1);
    }
}

/// Returns how the session is shared, or `None` with `--alone`.
pub(crate) async fn sharing(options: &Options) -> Result<Option<SharingConfig>, BoxError> {
    let sharing: SharingConfig = match &options.store {
        Store::Alone | Store::Scratch => return Ok(None),
        Store::Folder(path) => FileStore::open(path)?.into(),
        #[cfg(feature = "redis")]
        Store::Redis { url, prefix } => {
            tower_client_sessions::shared::RedisStore::connect(url, prefix.as_str()).await?.into()
        }
        #[cfg(not(feature = "redis"))]
        Store::Redis { .. } => return Err("--redis needs the crate's feature `redis`".into()),
    };
    let sharing = sharing.lease_ttl(Duration::from_millis(options.lease_ms));
    Ok(Some(sharing.poll_interval(Duration::from_millis(options.poll_ms))))
}

/// Retries [`sharing`]: the store may be unreachable when a process is replaced.
async fn sharing_with_retry(options: &Options) -> Result<Option<SharingConfig>, BoxError> {
    let started = Instant::now();
    loop {
        match sharing(options).await {
            Err(_) if started.elapsed() < TIMEOUT => sleep(Duration::from_millis(100)).await,
            done => return done,
        }
    }
}

/// Deletes the session of this run from Redis. A directory is left to the user.
pub(crate) async fn delete(store: &Store) -> Result<(), BoxError> {
    #[cfg(feature = "redis")]
    if let Store::Redis { url, prefix } = store {
        let mut redis = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
        let keys = [format!("{prefix}{SESSION}"), format!("{prefix}{SESSION} lease")];
        redis::cmd("DEL").arg(&keys).query_async::<()>(&mut redis).await?;
    }
    let _ = store;
    Ok(())
}

/// Prints each version that this process commits or adopts, with the time.
async fn print_versions(sessions: Sessions, session: Session) {
    let Some(mut versions) = sessions.shared_versions() else { return };
    while let Some(version) = versions.recv().await {
        if version.session == *session.id() {
            let at = version.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            let word = if version.is_own { "committed" } else { "adopted" };
            print(format_args!("{word} {} {at}", version.number));
        }
    }
}

async fn fetch<S, R>(stack: S, session: Session, page_url: &str, page: usize) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<R>, Error = BoxError>,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let url = page_url.replace("{page}", &page.to_string());
    let request = Request::get(url).extension(session).body(Body::new())?;
    let response = stack.oneshot(request).await?;
    let status = response.status();
    timeout(TIMEOUT, response.into_body().collect()).await?.map_err(Into::into)?;
    if status.is_success() { Ok(()) } else { Err(format!("status {status}").into()) }
}
