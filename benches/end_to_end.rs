//! The share of the layers in the cost of a real request.
//!
//! hyper's client and server over loopback with 64 requests in flight: bare, through the layers of
//! this crate, and through reqwest's cookie layer. Only the client's thread is timed.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use support::{
    Sets,
    loopback::Loopback,
    time::{ThreadTime, short},
};

fn end_to_end(criterion: &mut Criterion<ThreadTime>) {
    for (word, sets) in [("no-set-cookie", Sets::Nothing), ("set-cookie", Sets::Same)] {
        let loopback = Loopback::new(sets);
        for domains in [1, 100] {
            let mut group = criterion.benchmark_group(format!("end-to-end/{word}/D{domains}/k5"));
            let mut bench = |name: &str, drive: &dyn Fn(usize) -> Duration| {
                group.bench_function(name, |bencher| bencher.iter_custom(|rounds| drive(rounds as usize)));
            };
            bench("bare", &|requests| loopback.bare(requests));
            let (sessions, session) = support::profiled_sessions(domains, 5);
            support::share(&session, &loopback.page);
            bench("session", &|requests| loopback.session(requests, &sessions, &session));
            bench("whole", &|requests| loopback.whole(requests, &sessions, &session));
            let jar = support::reqwest_jar_for(domains, &loopback.page);
            bench("reqwest", &|requests| loopback.reqwest(requests, jar.clone()));
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = short();
    targets = end_to_end
}
criterion_main!(benches);
