//! Benchmarks of a gate: acquiring a permit while it is open, and releasing waiters. The baseline
//! is a flag with a list of wakers, the minimum that could do it.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{
    Replays, Sets, crowd, now_or_never,
    time::{ThreadTime, short},
};
use tower::{Layer, Service};
use tower_client_sessions::{RenewalGate, Sessions, gate::BoxError};

const CROWDS: [usize; 4] = [1, 100, 10_000, 100_000];

fn open(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("gate-open");
    let flag = AtomicBool::new(true);
    group.bench_function("flag", |bencher| bencher.iter(|| black_box(&flag).load(Ordering::Acquire)));
    let gate = RenewalGate::new(7_u64, || async { Ok::<_, BoxError>(7) });
    group.bench_function("acquire", |bencher| bencher.iter(|| now_or_never(gate.acquire()).is_ok()));
    group.bench_function("try_acquire", |bencher| bencher.iter(|| gate.try_acquire().is_some()));
    group.finish();
}

/// Prints the size of a waiting request, and the counts of 10,000 concurrent requests. Not timed.
fn sizes(_criterion: &mut Criterion<ThreadTime>) {
    let sessions = Sessions::new();
    let gate = RenewalGate::new(7_u64, || async { Ok::<_, BoxError>(7) });
    let request = support::request(&support::page(1));
    let of_request = size_of_val(&request);
    let mut stack = support::renewal(&sessions, Replays::On).layer(support::Bare::new(Sets::Nothing));
    let of_future = size_of_val(&stack.call(request));
    println!(
        "a request: {of_request} bytes; its future at the gate: {of_future}; at a gate alone: {}",
        size_of_val(&gate.acquire())
    );
    for ends in [false, true] {
        println!("10,000 requests, the session expires halfway: {ends}; {:?}", crowd::drain(10_000, ends));
    }
}

fn release(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("gate-release");
    group.sample_size(10);
    for waiters in CROWDS {
        group.throughput(Throughput::Elements(waiters as u64));
        for (name, release) in [
            ("flag", crowd::release_of_a_flag as fn(usize) -> Duration),
            ("flag-deadline", crowd::release_of_a_flag_with_timeouts as fn(usize) -> Duration),
            ("gate", crowd::release_of_a_gate as fn(usize) -> Duration),
        ] {
            group.bench_function(BenchmarkId::new(name, waiters), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| release(waiters)).sum());
            });
        }
    }
    group.finish();
}

/// All requests of one session, with a renewal halfway and without one.
fn renewal_in_the_middle(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("gate-renewal-in-the-middle");
    group.sample_size(10);
    for requests in [100, 10_000] {
        group.throughput(Throughput::Elements(requests as u64));
        for (name, renews) in [("none", false), ("one", true)] {
            group.bench_function(BenchmarkId::new(name, requests), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| crowd::drain(requests, renews).time).sum());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = short();
    targets = sizes, open, release, renewal_in_the_middle
}
criterion_main!(benches);
