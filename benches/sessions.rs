//! The memory of a session, and the time of a request of a random session, by the number of
//! sessions.
//!
//! The baseline is the bare service with the same requests.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Uri;
use support::{
    Sets, memory,
    time::{ThreadTime, short},
};
use tower_client_sessions::{SessionId, Sessions};

const COUNTS: [usize; 3] = [10_000, 100_000, 1_000_000];

fn random_session(criterion: &mut Criterion<ThreadTime>) {
    let page = Uri::from_static("https://www.shop.example/cart");
    let mut group = criterion.benchmark_group("random-session");
    let mut bare = support::boxed(support::Bare::new(Sets::Nothing));
    group.bench_function("bare", |bencher| bencher.iter(|| bare(support::request(&page))));
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    for count in COUNTS.into_iter().filter(|&count| is_bench || count == COUNTS[0]) {
        let before = memory::resident();
        let sessions = Sessions::new();
        drop(memory::fill(&sessions, count));
        let mut stack = support::session_stack(&sessions, Sets::Nothing);
        let mut send = |id: usize| {
            let mut request = support::request(&page);
            request.extensions_mut().insert(SessionId::from(id));
            stack(request)
        };
        // Each session builds its header once, as in a process that has run for a while.
        (0..count).for_each(|id| drop(send(id)));
        if let (Some(before), Some(after)) = (before, memory::resident()) {
            println!(
                "{count} sessions of 3 cookies: {} bytes each",
                after.saturating_sub(before) / count as u64
            );
        }
        let mut ids = memory::scattered(count);
        group.bench_function(BenchmarkId::new("session", count), |bencher| {
            bencher.iter(|| send(ids.next().expect("the iterator is infinite")));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = short();
    targets = random_session
}
criterion_main!(benches);
