//! Instruction counts of the open path, of `Set-Cookie` and of the gate, by callgrind.
//!
//! `cargo bench --bench instructions` runs itself under valgrind and compares the counts with
//! `benches/instructions.txt`; `-- --save` rewrites that file. Differences are only printed: a
//! compiler, an allocator or a dependency can change a count as well as this crate.
//!
//! Each scenario runs N times and then 2N times. The difference is the cost of N rounds without the
//! setup. "Added" is a round minus a round of the base scenario, which is usually the bare service.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{
    collections::BTreeMap,
    env, fs, hint,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use http::{HeaderValue, header};
use support::{Replays, Sets, now_or_never};
use tower::Layer;
use tower_client_sessions::{
    RenewalGate, SessionId, SessionLayer,
    cookies::{CookieUrl, Jar, Timestamp},
    gate::BoxError,
};

/// The number of rounds N.
const ROUNDS: usize = 100;

/// The argument of the process that runs under valgrind.
const COUNTED: &str = "--counted";

/// An operation that is repeated.
struct Scenario {
    name: String,
    /// The scenario that it is compared with, which is listed before it.
    base: Option<&'static str>,
    round: Box<dyn FnMut()>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has(COUNTED) {
        each_scenario(|scenario| {
            run(scenario, 10);
            mark();
            run(scenario, ROUNDS);
            mark();
            run(scenario, 2 * ROUNDS);
            mark();
        });
        return ExitCode::SUCCESS;
    }
    if !has("--bench") || has("--test") {
        // Under `cargo test` each scenario runs without being counted, like criterion's benches.
        each_scenario(|scenario| run(scenario, 2));
        return ExitCode::SUCCESS;
    }
    match count() {
        Ok(counts) => report(&counts, has("--save")),
        Err(error) => {
            eprintln!("the instructions could not be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: &mut Scenario, rounds: usize) {
    for _ in 0..rounds {
        (scenario.round)();
    }
}

/// Makes callgrind dump its counts at each call.
#[inline(never)]
fn mark() {
    hint::black_box(());
}

/// Runs this program under callgrind and returns the instructions of one round of each scenario.
fn count() -> Result<Vec<(Scenario, u64)>, Box<dyn std::error::Error>> {
    let folder = env::temp_dir().join(format!("instructions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let counts = folder.join("counts");
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-before=*instructions*mark*", "--quiet"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe()?)
        .arg(COUNTED)
        .status()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !ended.success() {
        return Err(format!("valgrind: {ended}").into());
    }
    let mut scenarios = Vec::new();
    let mut dump = 0;
    let mut failed = None;
    each_scenario(|scenario| {
        let total = |part: usize| total(&folder, dump + part);
        match (total(2), total(3)) {
            (Ok(once), Ok(twice)) => {
                let name = std::mem::take(&mut scenario.name);
                let counted = Scenario { name, base: scenario.base, round: Box::new(|| ()) };
                scenarios.push((counted, (twice.saturating_sub(once)) / ROUNDS as u64));
            }
            (Err(error), _) | (_, Err(error)) => failed = Some(error),
        }
        dump += 3;
    });
    fs::remove_dir_all(&folder)?;
    failed.map_or(Ok(scenarios), Err)
}

/// Returns the count between a mark and the one before.
fn total(folder: &Path, dump: usize) -> Result<u64, Box<dyn std::error::Error>> {
    let path = folder.join(format!("counts.{dump}"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("the dump of callgrind has no total")?.trim().parse()?)
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Prints the counts next to those of the file, and rewrites the file if `save`.
fn report(counts: &[(Scenario, u64)], save: bool) -> ExitCode {
    let by_name: BTreeMap<&str, u64> =
        counts.iter().map(|(scenario, count)| (scenario.name.as_str(), *count)).collect();
    let before: BTreeMap<String, u64> = fs::read_to_string(file())
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, count)| Some((name.trim().to_owned(), count.parse().ok()?)))
        .collect();
    println!("{:<52} {:>12} {:>12}   against the file", "", "a round", "added");
    let mut lines = String::from(
        "# Instructions of one round; written by `cargo bench --bench instructions -- --save`.\n",
    );
    for (scenario, count) in counts {
        let added = scenario.base.map_or(String::new(), |base| {
            let base = by_name.get(base).copied().unwrap_or_default();
            (*count as i64 - base as i64).to_string()
        });
        let against = match before.get(&scenario.name) {
            None => String::from("new"),
            Some(before) if before == count => String::new(),
            Some(before) => {
                let change = (*count as f64 / *before as f64 - 1.0) * 100.0;
                format!("{before}, {change:+.1} %")
            }
        };
        println!("{:<52} {count:>12} {added:>12}   {against}", scenario.name);
        lines.push_str(&format!("{:<52} {count}\n", scenario.name));
    }
    if save && let Err(error) = fs::write(file(), lines) {
        eprintln!("{}: {error}", file().display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

const BARE: &str = "bare";

/// Passes each scenario to `show`, always in the same order.
fn each_scenario(mut show: impl FnMut(&mut Scenario)) {
    let mut scenario = |name: String, base: Option<&'static str>, round: Box<dyn FnMut()>| {
        show(&mut Scenario { name, base, round });
    };
    open_path(&mut scenario);
    set_cookies(&mut scenario);
    jar(&mut scenario);
    gate(&mut scenario);
}

type Show<'a> = dyn FnMut(String, Option<&'static str>, Box<dyn FnMut()>) + 'a;

/// A round that sends one request through a stack, with a session name if `named`.
fn request_through(mut stack: support::Stack, domains: usize, named: bool) -> Box<dyn FnMut()> {
    let page = support::page(domains);
    Box::new(move || {
        let mut request = support::request(&page);
        if named {
            request.extensions_mut().insert(SessionId::from(support::NAME));
        }
        drop(hint::black_box(stack(request)));
    })
}

fn open_path(scenario: &mut Show<'_>) {
    let bare = || support::boxed(support::Bare::new(Sets::Nothing));
    scenario(BARE.into(), None, request_through(bare(), 1, false));
    scenario("bare, a name in the request".into(), Some(BARE), request_through(bare(), 1, true));
    let (page, mut bare_stack) = (support::page(1), bare());
    let cookie = HeaderValue::from_static("a=b");
    let floor = move || {
        let mut request = support::request(&page);
        request.extensions_mut().insert(SessionId::from(support::NAME));
        request.headers_mut().insert(header::COOKIE, cookie.clone());
        drop(hint::black_box(bare_stack(request)));
    };
    scenario("bare, a name and a cookie set explicitly".into(), Some(BARE), Box::new(floor));
    for (domains, cookies) in [(1, 1), (1, 5), (1, 20), (100, 5), (10_000, 5)] {
        let (sessions, session) = support::sessions(domains, cookies);
        let stack = support::session_stack(&sessions, Sets::Nothing);
        let name = format!("session layer, D={domains} k={cookies}");
        scenario(name, Some(BARE), request_through(stack, domains, true));

        if (domains, cookies) == (1, 5) {
            let mut stack = support::session_stack(&sessions, Sets::Nothing);
            let page = support::page(1);
            let with_handle = move || {
                let mut request = support::request(&page);
                request.extensions_mut().insert(session.clone());
                drop(hint::black_box(stack(request)));
            };
            scenario("session layer by a handle, D=1 k=5".into(), Some(BARE), Box::new(with_handle));
            let layer = SessionLayer::new(&sessions).without_info();
            let stack = support::boxed(layer.layer(support::Bare::new(Sets::Nothing)));
            let name = "session layer without info, D=1 k=5";
            scenario(name.into(), Some(BARE), request_through(stack, 1, true));
            for (name, replays) in [("no replays", Replays::Off), ("replays", Replays::On)] {
                let stack = support::gate_stack(&sessions, replays, Sets::Nothing);
                let name = format!("gate and session layer, {name}, D=1 k=5");
                scenario(name, Some(BARE), request_through(stack, 1, true));
            }
        }
    }
    let (sessions, _) = support::profiled_sessions(1, 5);
    let stack = support::profile_stack(&sessions, Sets::Nothing);
    scenario("session and profile layer, D=1 k=5".into(), Some(BARE), request_through(stack, 1, true));
    let stack = support::redirect_stack(Sets::Nothing);
    scenario("redirect layer".into(), Some(BARE), request_through(stack, 1, true));
    let stack = support::tower_http_redirect_stack(Sets::Nothing);
    scenario("tower-http's redirects alone".into(), Some(BARE), request_through(stack, 1, true));
    let stack = support::whole_stack(&sessions, Sets::Nothing);
    scenario("the whole stack, D=1 k=5".into(), Some(BARE), request_through(stack, 1, true));

    for (domains, cookies) in [(1, 1), (1, 5), (1, 20), (100, 5), (10_000, 5)] {
        let stack = support::peer_stack(support::reqwest_jar(domains, cookies), Sets::Nothing);
        let name = format!("reqwest's cookie layer, D={domains} k={cookies}");
        scenario(name, Some(BARE), request_through(stack, domains, false));
    }
    let stack = support::peer_stack(support::cookie_store(1, 5), Sets::Nothing);
    scenario("the same over cookie_store, D=1 k=5".into(), Some(BARE), request_through(stack, 1, false));
}

fn set_cookies(scenario: &mut Show<'_>) {
    for (word, base, sets) in [
        ("the same Set-Cookie", "bare, the same Set-Cookie", Sets::Same),
        ("a changed Set-Cookie", "bare, a changed Set-Cookie", Sets::Changed),
    ] {
        let bare = support::boxed(support::Bare::new(sets));
        scenario(base.into(), None, request_through(bare, 1, false));
        let (sessions, _) = support::sessions(1, 5);
        let stack = support::session_stack(&sessions, sets);
        scenario(format!("session layer, {word}"), Some(base), request_through(stack, 1, true));
        let stack = support::gate_stack(&sessions, Replays::On, sets);
        scenario(format!("gate and session layer, {word}"), Some(base), request_through(stack, 1, true));
        let stack = support::peer_stack(support::reqwest_jar(1, 5), sets);
        scenario(format!("reqwest's cookie layer, {word}"), Some(base), request_through(stack, 1, false));
    }
}

fn jar(scenario: &mut Show<'_>) {
    let now = Timestamp::from_secs(1_700_000_000);
    let page = support::page(1);
    let filled = |cookies: usize| {
        let mut jar = Jar::default();
        let target = CookieUrl::parse(&support::url(0)).map(|target| target.host().to_owned());
        let url = format!("https://{}/", target.expect("the url is well formed"));
        let target = CookieUrl::parse(&url).expect("the url is well formed");
        for cookie in 0..cookies {
            jar.store_set_cookie(&target, support::set_cookie(cookie).as_bytes(), now)
                .expect("the cookie is good");
        }
        jar
    };
    let uri = page.clone();
    scenario(
        "a target out of a uri".into(),
        None,
        Box::new(move || drop(hint::black_box(CookieUrl::from_uri(&uri)))),
    );
    for cookies in support::COOKIES {
        let (mut jar, uri) = (filled(cookies), page.clone());
        let hit = move || {
            let target = CookieUrl::from_uri(&uri).expect("the uri is absolute");
            drop(hint::black_box(jar.cookie_header(&target, || now)));
        };
        scenario(format!("jar, a hit, k={cookies}"), Some("a target out of a uri"), Box::new(hit));
    }
    let same = support::set_cookie(0);
    let changed = [same.replace("value", "other"), same.clone()];
    let (mut jar, uri) = (filled(5), page.clone());
    let store_set_cookie = move || {
        let target = CookieUrl::from_uri(&uri).expect("the uri is absolute");
        let _ = hint::black_box(jar.store_set_cookie(&target, same.as_bytes(), now).is_ok());
    };
    scenario("jar, the same Set-Cookie".into(), Some("a target out of a uri"), Box::new(store_set_cookie));
    for cookies in [5, 20] {
        let (mut jar, uri, changed, mut turn) = (filled(cookies), page.clone(), changed.clone(), 0);
        let store_set_cookie = move || {
            turn ^= 1;
            let target = CookieUrl::from_uri(&uri).expect("the uri is absolute");
            let _ = hint::black_box(jar.store_set_cookie(&target, changed[turn].as_bytes(), now).is_ok());
            drop(hint::black_box(jar.cookie_header(&target, || now)));
        };
        let name = format!("jar, a changed value and its header, k={cookies}");
        scenario(name, Some("a target out of a uri"), Box::new(store_set_cookie));
    }
}

fn gate(scenario: &mut Show<'_>) {
    let floor = std::sync::atomic::AtomicBool::new(true);
    let open = move || {
        let open = std::future::poll_fn(|_| match floor.load(std::sync::atomic::Ordering::Acquire) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        now_or_never(hint::black_box(open));
    };
    scenario("gate: a flag alone, open".into(), None, Box::new(open));
    let gate = RenewalGate::new(7_u64, || async { Ok::<_, BoxError>(7) });
    let acquired = gate.clone();
    let acquire = move || drop(hint::black_box(now_or_never(acquired.acquire())));
    scenario("gate: acquire, open".into(), None, Box::new(acquire));
    scenario(
        "gate: try_acquire, open".into(),
        None,
        Box::new(move || drop(hint::black_box(gate.try_acquire()))),
    );
}
