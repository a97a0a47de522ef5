//! The cost that a second thread with another session adds to the first.
//!
//! Shared locks and counters would show as more CPU time for the same requests. Prints for each
//! stack the time of a request on one thread alone and on each of two threads, and the ratio. The
//! times are medians of alternating rounds.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{hint::black_box, sync::Barrier, thread, time::Duration};

use http::Uri;
use support::{Bare, Replays, Sets, time::thread_time};
use tower::{Layer, Service};
use tower_client_sessions::{Session, SessionLayer, Sessions};

const ROUNDS: usize = 41;

fn main() {
    let requests = if std::env::args().any(|argument| argument == "--bench") { 40_000 } else { 10 };
    let sessions = Sessions::new();
    let page = support::page(1);
    let pair = ["one", "two"].map(|name| {
        let session = sessions.session(name);
        support::share(&session, &page);
        session
    });
    let bare = || Bare::new(Sets::Nothing);
    compare("bare", requests, &page, &pair, bare);
    let layer = SessionLayer::new(&sessions);
    compare("session layer", requests, &page, &pair, || layer.layer(bare()));
    let gate = support::renewal(&sessions, Replays::Off);
    compare("gate, no replays", requests, &page, &pair, || gate.layer(layer.layer(bare())));
}

fn compare<S>(name: &str, requests: usize, page: &Uri, pair: &[Session; 2], service: impl Fn() -> S)
where
    S: Service<
            http::Request<support::Body>,
            Response = http::Response<support::Body>,
            Error: std::fmt::Debug,
        > + Send,
{
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(send(requests, page, &pair[0], service()));
        let start = Barrier::new(2);
        together.push(thread::scope(|scope| {
            let both = pair.each_ref().map(|session| {
                let (service, start) = (service(), &start);
                scope.spawn(move || {
                    start.wait();
                    send(requests, page, session, service)
                })
            });
            let times = both.map(|thread| thread.join().expect("no thread panics"));
            (times[0] + times[1]) / 2
        }));
    }
    let (alone, together) = (median(alone), median(together));
    let of_one = |time: Duration| time.as_nanos() / requests as u128;
    let ratio = together.as_secs_f64() / alone.as_secs_f64();
    println!(
        "{name:<20} {} ns alone, {} ns on each of two threads: x {ratio:.2}",
        of_one(alone),
        of_one(together)
    );
}

fn send<S>(requests: usize, page: &Uri, session: &Session, mut service: S) -> Duration
where
    S: Service<
            http::Request<support::Body>,
            Response = http::Response<support::Body>,
            Error: std::fmt::Debug,
        >,
{
    let start = thread_time();
    for _ in 0..requests {
        let mut request = support::request(page);
        request.extensions_mut().insert(session.id().clone());
        drop(black_box(support::send(&mut service, request)));
    }
    thread_time().saturating_sub(start)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
