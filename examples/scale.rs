//! Creates a million sessions and a hundred thousand waiting requests in one process, and prints
//! their memory use and how fast the waiters are released.
//!
//! `cargo run --release --example scale` (memory is measured on Linux only). Two arguments replace
//! these numbers.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_client_sessions::{Renewal, RenewalLayer, SessionId, SessionLayer, Sessions, gate::GateConfig};

type Body = Empty<Bytes>;

const PAGE: &str = "https://www.shop.example/cart";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let count = arguments.next().transpose()?.unwrap_or(1_000_000);
    let crowd = arguments.next().transpose()?.unwrap_or(100_000);

    let logins = Arc::new((Semaphore::new(0), AtomicUsize::new(0)));
    let sessions = Sessions::new();
    let login = logins.clone();
    let client = ServiceBuilder::new()
        .layer(
            RenewalLayer::new(&sessions)
                .renew_with(move |_: Renewal<Body>| {
                    let login = login.clone();
                    async move {
                        login.0.acquire().await?.forget();
                        login.1.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    }
                })
                .gate_config(GateConfig::new().max_waiting(crowd)),
        )
        .layer(SessionLayer::new(&sessions))
        .service(service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::new())) }));
    let request = |name: usize| Request::get(PAGE).extension(SessionId::from(name)).body(Body::new());

    let (before, start) = (resident(), Instant::now());
    for name in 0..count {
        let session = sessions.session(name);
        for cookie in ["sid=0123456789abcdef0123456789abcdef", "csrf=0123456789abcdef", "lang=en"] {
            session.set_cookie(&format!("{cookie}; Path=/; Secure; HttpOnly"), PAGE)?;
        }
        // A session in use also has a cached header.
        client.clone().oneshot(request(name)?).await?;
    }
    let took = start.elapsed();
    println!("{count} sessions of 3 cookies, each used once: {took:.1?}{}", each(before, resident(), count));

    let (before, start) = (resident(), Instant::now());
    sessions.session(0_u32).clear();
    let mut tasks = JoinSet::new();
    for _ in 0..crowd {
        tasks.spawn(client.clone().oneshot(request(0)?));
    }
    while sessions.session(0_u32).waiting() < crowd {
        tokio::task::yield_now().await;
    }
    println!("{crowd} requests waiting: {:.0?}{}", start.elapsed(), each(before, resident(), crowd));

    let start = Instant::now();
    logins.0.add_permits(1);
    let mut responses = 0;
    while let Some(response) = tasks.join_next().await {
        responses += usize::from(response??.status().is_success());
    }
    let took = start.elapsed();
    let one = took.as_nanos() / responses.max(1) as u128;
    println!(
        "released and completed after {} login: {took:.0?}, {one} ns each",
        logins.1.load(Ordering::Relaxed)
    );
    assert_eq!((responses, logins.1.load(Ordering::Relaxed)), (crowd, 1));
    Ok(())
}

fn each(before: Option<usize>, after: Option<usize>, count: usize) -> String {
    match (before, after) {
        (Some(before), Some(after)) => {
            format!(", {} bytes each", after.saturating_sub(before) / count.max(1))
        }
        _ => String::new(),
    }
}

/// The resident memory of this process in bytes, if the system reports it.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}
