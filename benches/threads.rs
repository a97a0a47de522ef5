//! What a second thread adds to the cost of a request, with a session of its own or the same one.
//!
//! Shared locks and counters would show as more CPU time for the same requests. Prints for each
//! stack the time added to the bare service on one thread alone and on each of two threads, and the
//! ratio. The times are medians of alternating rounds. Each thread parses its own URI, because
//! clones of one URI share a counter, whatever service they are sent through.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{hint::black_box, sync::Barrier, thread, time::Duration};

use support::{Bare, Replays, Sets, time::thread_time};
use tower::{Layer, Service};
use tower_client_sessions::{Session, SessionLayer, Sessions};

const ROUNDS: usize = 41;

fn main() {
    let requests: u32 = if std::env::args().any(|argument| argument == "--bench") { 40_000 } else { 10 };
    let sessions = Sessions::new();
    let [one, two] = ["one", "two"].map(|name| {
        let session = sessions.session(name);
        support::share(&session, &support::page(1));
        session
    });
    let bare = || Bare::new(Sets::Nothing);
    let base = measure(requests, [&one, &two], bare);
    println!(
        "{:<34} {} ns alone, {} ns on each of two threads",
        "bare",
        base.alone.as_nanos(),
        base.together.as_nanos()
    );
    let layer = SessionLayer::new(&sessions);
    for (sessions_used, pair) in [("one session", [&one, &one]), ("two sessions", [&one, &two])] {
        let name = |stack| format!("{stack}, {sessions_used}");
        report(&name("session layer"), base, measure(requests, pair, || layer.layer(bare())));
        for (stack, replays) in [("gate, no replays", Replays::Off), ("gate, replays", Replays::On)] {
            let gate = support::renewal(&sessions, replays);
            let times = measure(requests, pair, || gate.layer(layer.layer(bare())));
            report(&name(stack), base, times);
        }
    }
}

/// The time of one request.
#[derive(Clone, Copy)]
struct Times {
    alone: Duration,
    together: Duration,
}

fn report(name: &str, base: Times, times: Times) {
    let alone = times.alone.saturating_sub(base.alone);
    let together = times.together.saturating_sub(base.together);
    println!(
        "{name:<34} {} ns added alone, {} ns on each of two threads: x {:.2}",
        alone.as_nanos(),
        together.as_nanos(),
        together.as_secs_f64() / alone.as_secs_f64()
    );
}

fn measure<S>(requests: u32, pair: [&Session; 2], service: impl Fn() -> S) -> Times
where
    S: Service<
            http::Request<support::Body>,
            Response = http::Response<support::Body>,
            Error: std::fmt::Debug,
        > + Send,
{
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(send(requests, pair[0], service()));
        let start = Barrier::new(2);
        together.push(thread::scope(|scope| {
            let both = pair.map(|session| {
                let (service, start) = (service(), &start);
                scope.spawn(move || {
                    start.wait();
                    send(requests, session, service)
                })
            });
            let times = both.map(|thread| thread.join().expect("no thread panics"));
            (times[0] + times[1]) / 2
        }));
    }
    Times { alone: median(alone) / requests, together: median(together) / requests }
}

fn send<S>(requests: u32, session: &Session, mut service: S) -> Duration
where
    S: Service<
            http::Request<support::Body>,
            Response = http::Response<support::Body>,
            Error: std::fmt::Debug,
        >,
{
    let page = support::page(1);
    let start = thread_time();
    for _ in 0..requests {
        let mut request = support::request(&page);
        request.extensions_mut().insert(session.id().clone());
        drop(black_box(support::send(&mut service, request)));
    }
    thread_time().saturating_sub(start)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
