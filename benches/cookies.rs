//! What one look-up or one `Set-Cookie` costs, by domains held (D) and cookies sent (k).
//!
//! Beside our jar stand `cookie_store` and reqwest's `Jar` on the same cookies. They are given a
//! `Url` that is parsed already; ours starts from the `http::Uri` of a request, which is what a
//! client has.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Uri};
use reqwest::Url;
use reqwest::cookie::CookieStore as _;
use tower_client_sessions::cookies::{Jar, Limits, Target, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const DOMAINS: [usize; 3] = [1, 100, 10_000];
const COOKIES: [usize; 3] = [1, 5, 20];

fn url(domain: usize) -> String {
    format!("https://www.site{domain}.com/account/orders?page=2")
}

fn set_cookie(cookie: usize) -> String {
    // Far in the future for the peers, whose clock is the system's.
    format!("name{cookie}=value-of-some-length-{cookie}; Path=/; Secure; HttpOnly; Max-Age=31536000")
}

fn ours(domains: usize, cookies: usize) -> Jar {
    let mut jar = Jar::with_limits(Limits::default().total(u32::MAX));
    for domain in 0..domains {
        let url = url(domain);
        let target = Target::parse(&url).expect("the url is well formed");
        for cookie in 0..cookies {
            jar.absorb(&target, set_cookie(cookie).as_bytes(), NOW).expect("the cookie is good");
        }
    }
    jar
}

fn cookie_store(domains: usize, cookies: usize) -> cookie_store::CookieStore {
    let mut store = cookie_store::CookieStore::default();
    for domain in 0..domains {
        let url = Url::parse(&url(domain)).expect("the url is well formed");
        for cookie in 0..cookies {
            store.parse(&set_cookie(cookie), &url).expect("the cookie is good");
        }
    }
    store
}

fn reqwest_jar(domains: usize, cookies: usize) -> reqwest::cookie::Jar {
    let jar = reqwest::cookie::Jar::default();
    for domain in 0..domains {
        let url = Url::parse(&url(domain)).expect("the url is well formed");
        for cookie in 0..cookies {
            jar.add_cookie_str(&set_cookie(cookie), &url);
        }
    }
    jar
}

/// What a layer over `cookie_store` does for a request, as reqwest does it.
fn cookie_store_header(store: &cookie_store::CookieStore, url: &Url) -> Option<HeaderValue> {
    let pairs: Vec<_> =
        store.get_request_values(url).map(|(name, value)| format!("{name}={value}")).collect();
    let text = pairs.join("; ");
    (!text.is_empty()).then(|| HeaderValue::from_maybe_shared(Bytes::from(text)).expect("it is ascii"))
}

fn look_up(criterion: &mut Criterion) {
    for cookies in COOKIES {
        let mut group = criterion.benchmark_group(format!("header/k{cookies}"));
        for domains in DOMAINS {
            let middle = url(domains / 2);
            let uri: Uri = middle.parse().expect("the url is well formed");
            let parsed = Url::parse(&middle).expect("the url is well formed");

            let mut jar = ours(domains, cookies);
            group.bench_function(BenchmarkId::new("ours", domains), |bencher| {
                bencher.iter(|| {
                    let target = Target::from_uri(black_box(&uri)).expect("the uri is absolute");
                    jar.header(&target, || NOW)
                });
            });
            let store = cookie_store(domains, cookies);
            group.bench_function(BenchmarkId::new("cookie_store", domains), |bencher| {
                bencher.iter(|| cookie_store_header(&store, black_box(&parsed)));
            });
            let jar = reqwest_jar(domains, cookies);
            group.bench_function(BenchmarkId::new("reqwest", domains), |bencher| {
                bencher.iter(|| jar.cookies(black_box(&parsed)));
            });
        }
        group.finish();
    }
}

/// Another host each time, so that nothing is where the last look-up left it.
fn look_up_elsewhere(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header-any-host/k5");
    for domains in DOMAINS {
        let uris: Vec<Uri> = (0..domains)
            .map(|domain| url((domain * 7_919) % domains).parse().expect("the url is well formed"))
            .collect();
        let mut jar = ours(domains, 5);
        for uri in &uris {
            jar.header(&Target::from_uri(uri).expect("the uri is absolute"), || NOW);
        }
        let mut uris = uris.iter().cycle();
        group.bench_function(BenchmarkId::new("ours", domains), |bencher| {
            bencher.iter(|| {
                let uri = uris.next().expect("a cycle has no end");
                let target = Target::from_uri(uri).expect("the uri is absolute");
                jar.header(&target, || NOW)
            });
        });
    }
    group.finish();
}

/// The first look-up after a change writes the header; and one with own cookies always does.
fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebuild");
    let own = HeaderValue::from_static("own=1");
    let middle = url(0);
    let uri: Uri = middle.parse().expect("the url is well formed");
    let target = Target::from_uri(&uri).expect("the uri is absolute");
    for cookies in COOKIES {
        let mut jar = ours(1, cookies);
        group.bench_function(BenchmarkId::new("first", cookies), |bencher| {
            bencher.iter_batched_ref(
                || jar.clone(),
                |jar| jar.header(&target, || NOW),
                BatchSize::NumIterations(64),
            );
        });
        group.bench_function(BenchmarkId::new("with-own", cookies), |bencher| {
            bencher.iter(|| jar.header_with(&target, [black_box(&own)].into_iter(), || NOW));
        });
    }
    group.finish();
}

fn absorb(criterion: &mut Criterion) {
    let middle = url(0);
    let uri: Uri = middle.parse().expect("the url is well formed");
    let parsed = Url::parse(&middle).expect("the url is well formed");
    let same = set_cookie(2);
    let changed = [same.clone(), same.replace("value", "other")];

    let mut group = criterion.benchmark_group("absorb/k5");
    let mut jar = ours(1, 5);
    group.bench_function("ours/same", |bencher| {
        bencher.iter(|| {
            let target = Target::from_uri(black_box(&uri)).expect("the uri is absolute");
            jar.absorb(&target, black_box(same.as_bytes()), NOW).is_ok()
        });
    });
    let mut turn = 0;
    group.bench_function("ours/changed", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            let target = Target::from_uri(black_box(&uri)).expect("the uri is absolute");
            jar.absorb(&target, black_box(changed[turn].as_bytes()), NOW).is_ok()
        });
    });
    group.bench_function("ours/changed-and-header", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            let target = Target::from_uri(black_box(&uri)).expect("the uri is absolute");
            let stored = jar.absorb(&target, black_box(changed[turn].as_bytes()), NOW).is_ok();
            (stored, jar.header(&target, || NOW))
        });
    });
    let mut store = cookie_store(1, 5);
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
    let jar = reqwest_jar(1, 5);
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
    targets = look_up, look_up_elsewhere, rebuild, absorb
}
criterion_main!(benches);
