//! The time of a request that does not wait: by layer, by domains in the jar (D) and by cookies
//! sent (k), with and without a `Set-Cookie`.
//!
//! The baselines, in the same run, are the bare service and the cookie layer of reqwest.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use support::{
    Replays, Sets, Stack,
    time::{ThreadTime, short},
};
use tower_client_sessions::SessionId;

/// What a request has in its extensions.
#[derive(Clone, Copy, PartialEq)]
enum Selects {
    Session,
    Nothing,
}

fn bench(
    group: &mut BenchmarkGroup<'_, ThreadTime>,
    name: &str,
    domains: usize,
    selects: Selects,
    mut stack: Stack,
) {
    let page = support::page(domains);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut request = support::request(&page);
            if selects == Selects::Session {
                request.extensions_mut().insert(SessionId::from(support::NAME));
            }
            stack(request)
        });
    });
}

fn bare(group: &mut BenchmarkGroup<'_, ThreadTime>, sets: Sets) {
    bench(group, "bare", 1, Selects::Nothing, support::boxed(support::Bare::new(sets)));
}

/// Each layer alone, and the whole stack.
fn layers(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("layers/D1/k5");
    bare(&mut group, Sets::Nothing);
    let (sessions, _) = support::sessions(1, 5);
    bench(&mut group, "session", 1, Selects::Session, support::session_stack(&sessions, Sets::Nothing));
    for (name, replays) in [("gate-no-replays", Replays::Off), ("gate-replays", Replays::On)] {
        bench(&mut group, name, 1, Selects::Session, support::gate_stack(&sessions, replays, Sets::Nothing));
    }
    let (sessions, _) = support::profiled_sessions(1, 5);
    bench(
        &mut group,
        "session-profile",
        1,
        Selects::Session,
        support::profile_stack(&sessions, Sets::Nothing),
    );
    bench(&mut group, "redirects-alone", 1, Selects::Session, support::redirect_stack(Sets::Nothing));
    bench(&mut group, "whole", 1, Selects::Session, support::whole_stack(&sessions, Sets::Nothing));
    group.finish();
}

/// The session layer, the whole stack and the peers, by domains and cookies.
fn growth(criterion: &mut Criterion<ThreadTime>) {
    let points = support::DOMAINS
        .iter()
        .flat_map(|&domains| support::COOKIES.iter().map(move |&cookies| (domains, cookies)));
    for (domains, cookies) in points {
        let mut group = criterion.benchmark_group(format!("growth/D{domains}/k{cookies}"));
        bare(&mut group, Sets::Nothing);
        let (sessions, _) = support::profiled_sessions(domains, cookies);
        bench(
            &mut group,
            "session",
            domains,
            Selects::Session,
            support::session_stack(&sessions, Sets::Nothing),
        );
        bench(&mut group, "whole", domains, Selects::Session, support::whole_stack(&sessions, Sets::Nothing));
        drop(sessions);
        let jar = support::reqwest_jar(domains, cookies);
        bench(&mut group, "reqwest", domains, Selects::Nothing, support::peer_stack(jar, Sets::Nothing));
        let store = support::cookie_store(domains, cookies);
        bench(
            &mut group,
            "cookie_store",
            domains,
            Selects::Nothing,
            support::peer_stack(store, Sets::Nothing),
        );
        group.finish();
    }
}

/// A response that sets a cookie: always the same, or alternating between two values.
fn set_cookie(criterion: &mut Criterion<ThreadTime>) {
    for (name, sets) in [("same", Sets::Same), ("changed", Sets::Changed)] {
        let mut group = criterion.benchmark_group(format!("set-cookie/{name}/D1/k5"));
        bare(&mut group, sets);
        let (sessions, _) = support::sessions(1, 5);
        bench(&mut group, "session", 1, Selects::Session, support::session_stack(&sessions, sets));
        bench(
            &mut group,
            "gate-replays",
            1,
            Selects::Session,
            support::gate_stack(&sessions, Replays::On, sets),
        );
        bench(
            &mut group,
            "reqwest",
            1,
            Selects::Nothing,
            support::peer_stack(support::reqwest_jar(1, 5), sets),
        );
        bench(
            &mut group,
            "cookie_store",
            1,
            Selects::Nothing,
            support::peer_stack(support::cookie_store(1, 5), sets),
        );
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = short();
    targets = layers, growth, set_cookie
}
criterion_main!(benches);
