//! The cost of a look-up and of a `Set-Cookie`, by domains in the jar (D) and cookies sent (k).
//!
//! The baselines are `cookie_store` and reqwest's `Jar` with the same cookies. They start from a
//! parsed `Url`, and the jar of this crate starts from the `http::Uri` of a request.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Uri};
use reqwest::{Url, cookie::CookieStore as _};
use support::{
    COOKIES, DOMAINS, cookie_store_header, filled_cookie_store, filled_reqwest_jar, jar, set_cookie, url,
};
use tower_client_sessions::cookies::{CookieUrl, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn look_up(criterion: &mut Criterion) {
    for cookies in COOKIES {
        let mut group = criterion.benchmark_group(format!("header/k{cookies}"));
        for domains in DOMAINS {
            let middle = url(domains / 2);
            let uri: Uri = middle.parse().expect("the url is well formed");
            let parsed = Url::parse(&middle).expect("the url is well formed");

            let mut jar = jar(domains, cookies, NOW);
            group.bench_function(BenchmarkId::new("ours", domains), |bencher| {
                bencher.iter(|| {
                    let url = CookieUrl::from_uri(black_box(&uri)).expect("the uri is absolute");
                    jar.cookie_header(&url, || NOW)
                });
            });
            let store = filled_cookie_store(domains, cookies);
            group.bench_function(BenchmarkId::new("cookie_store", domains), |bencher| {
                bencher.iter(|| cookie_store_header(&store, black_box(&parsed)));
            });
            let jar = filled_reqwest_jar(domains, cookies);
            group.bench_function(BenchmarkId::new("reqwest", domains), |bencher| {
                bencher.iter(|| jar.cookies(black_box(&parsed)));
            });
        }
        group.finish();
    }
}

/// Looks up another host each time, so that no look-up profits from the previous one.
fn look_up_elsewhere(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header-any-host/k5");
    for domains in DOMAINS {
        let uris: Vec<Uri> = (0..domains)
            .map(|domain| url((domain * 7_919) % domains).parse().expect("the url is well formed"))
            .collect();
        let mut jar = jar(domains, 5, NOW);
        for uri in &uris {
            jar.cookie_header(&CookieUrl::from_uri(uri).expect("the uri is absolute"), || NOW);
        }
        let mut uris = uris.iter().cycle();
        group.bench_function(BenchmarkId::new("ours", domains), |bencher| {
            bencher.iter(|| {
                let uri = uris.next().expect("a cycle has no end");
                let url = CookieUrl::from_uri(uri).expect("the uri is absolute");
                jar.cookie_header(&url, || NOW)
            });
        });
    }
    group.finish();
}

/// The first look-up after a change, and look-ups with cookies of the request, write the header.
fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebuild");
    let own = HeaderValue::from_static("own=1");
    let middle = url(0);
    let uri: Uri = middle.parse().expect("the url is well formed");
    let url = CookieUrl::from_uri(&uri).expect("the uri is absolute");
    for cookies in COOKIES {
        let mut jar = jar(1, cookies, NOW);
        group.bench_function(BenchmarkId::new("first", cookies), |bencher| {
            bencher.iter_batched_ref(
                || jar.clone(),
                |jar| jar.cookie_header(&url, || NOW),
                BatchSize::NumIterations(64),
            );
        });
        group.bench_function(BenchmarkId::new("with-own", cookies), |bencher| {
            bencher.iter(|| jar.cookie_header_with(&url, [black_box(&own)].into_iter(), || NOW));
        });
    }
    group.finish();
}

fn store_set_cookie(criterion: &mut Criterion) {
    let middle = url(0);
    let uri: Uri = middle.parse().expect("the url is well formed");
    let parsed = Url::parse(&middle).expect("the url is well formed");
    let same = set_cookie(2);
    let changed = [same.clone(), same.replace("value", "other")];

    let mut group = criterion.benchmark_group("set-cookie/k5");
    let mut jar = jar(1, 5, NOW);
    group.bench_function("ours/same", |bencher| {
        bencher.iter(|| {
            let url = CookieUrl::from_uri(black_box(&uri)).expect("the uri is absolute");
            jar.store_set_cookie(&url, black_box(same.as_bytes()), NOW).is_ok()
        });
    });
    let mut turn = 0;
    group.bench_function("ours/changed", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            let url = CookieUrl::from_uri(black_box(&uri)).expect("the uri is absolute");
            jar.store_set_cookie(&url, black_box(changed[turn].as_bytes()), NOW).is_ok()
        });
    });
    group.bench_function("ours/changed-and-header", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            let url = CookieUrl::from_uri(black_box(&uri)).expect("the uri is absolute");
            let stored = jar.store_set_cookie(&url, black_box(changed[turn].as_bytes()), NOW).is_ok();
            (stored, jar.cookie_header(&url, || NOW))
        });
    });
    let mut store = filled_cookie_store(1, 5);
    group.bench_function("cookie_store/same", |bencher| {
        bencher.iter(|| store.parse(black_box(&same), &parsed).is_ok());
    });
    group.bench_function("cookie_store/changed-and-header", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            let stored = store.parse(black_box(&changed[turn]), &parsed).is_ok();
            (stored, cookie_store_header(&store, &parsed))
        });
    });
    let jar = filled_reqwest_jar(1, 5);
    group.bench_function("reqwest/same", |bencher| {
        bencher.iter(|| jar.add_cookie_str(black_box(&same), &parsed));
    });
    group.bench_function("reqwest/changed-and-header", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            jar.add_cookie_str(black_box(&changed[turn]), &parsed);
            jar.cookies(&parsed)
        });
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = look_up, look_up_elsewhere, rebuild, store_set_cookie
}
criterion_main!(benches);
