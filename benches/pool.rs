//! Measures the cost of leasing a session of a pool and returning it.
//!
//! The baseline is a permit of a tokio semaphore of the same size, which does the minimum of such
//! work. The number is the size of the pool. With two threads, each thread leases and returns
//! repeatedly, and there are enough sessions for both.

use std::{
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::sync::Semaphore;
use tower_client_sessions::{SessionPool, Sessions, pool::Strategy};

const SIZES: [u32; 3] = [8, 64, 1000];

/// Returns the output of a future that is ready immediately.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the output is ready"),
    }
}

/// Creates an exclusive pool with all of its members.
fn filled(size: u32, strategy: Strategy) -> SessionPool {
    let pool =
        SessionPool::builder(&Sessions::new()).size(size).exclusive().strategy(strategy).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut leases = Vec::new();
        for _ in 0..size {
            leases.push(pool.lease().await.expect("the pool has room"));
        }
    });
    pool
}

fn lease_and_return(pool: &SessionPool) {
    let mut lease = ready(pool.lease()).expect("one is free");
    black_box(lease.session());
}

fn acquire_and_release(semaphore: &Arc<Semaphore>) {
    drop(black_box(ready(semaphore.clone().acquire_owned()).expect("the semaphore is open")));
}

/// Returns the time that two threads take for `iterations` each.
fn on_two_threads(iterations: u64, work: impl Fn() + Sync) -> Duration {
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..iterations).for_each(|_| work()));
        }
    });
    started.elapsed()
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one-thread");
    for size in SIZES {
        let semaphore = Arc::new(Semaphore::new(size as usize));
        group.bench_function(BenchmarkId::new("semaphore", size), |bencher| {
            bencher.iter(|| acquire_and_release(&semaphore));
        });
        for strategy in [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::FillFirst, Strategy::Random] {
            let pool = filled(size, strategy);
            group.bench_function(BenchmarkId::new(format!("{strategy:?}"), size), |bencher| {
                bencher.iter(|| lease_and_return(&pool));
            });
        }
    }
    group.finish();
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two-threads");
    for size in SIZES {
        let semaphore = Arc::new(Semaphore::new(size as usize));
        group.bench_function(BenchmarkId::new("semaphore", size), |bencher| {
            bencher.iter_custom(|iterations| on_two_threads(iterations, || acquire_and_release(&semaphore)));
        });
        let pool = filled(size, Strategy::RoundRobin);
        group.bench_function(BenchmarkId::new("RoundRobin", size), |bencher| {
            bencher.iter_custom(|iterations| on_two_threads(iterations, || lease_and_return(&pool)));
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = one_thread, two_threads
}
criterion_main!(benches);
