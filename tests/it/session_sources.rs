//! Session sources: each session is used once, an expiry takes the next one, and an empty source
//! fails or waits.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{ServiceExt, util::BoxCloneService};
use tower_client_sessions::{
    Sessions,
    cookies::{Jar, Timestamp},
    gate::{BoxError, GateConfig, RenewalErrorKind},
    renewal::{OnEmpty, SessionSource, SessionSourceError, SessionSourceErrorKind},
};

use crate::support::{Body, SiteResult, client, get, kind, page, ruleless, settle};

type Service = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// A site that accepts any `sid` that is not spent. Its page is the `Cookie` header.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<HashSet<String>>>);

impl Shop {
    fn spend(&self, sid: &str) {
        self.0.lock().unwrap().insert(format!("sid={sid}"));
    }

    fn service(&self) -> Service {
        let shop = self.clone();
        BoxCloneService::new(tower::service_fn(move |request: Request<Body>| {
            let cookie =
                request.headers().get(header::COOKIE).map(|cookie| cookie.to_str().unwrap().to_owned());
            let spent = cookie.as_ref().is_none_or(|cookie| shop.0.lock().unwrap().contains(cookie));
            async move {
                let result = Response::builder().status(if spent { 401 } else { 200 });
                Ok::<_, BoxError>(result.body(Body::from(cookie.unwrap_or_default()))?)
            }
        }))
    }
}

fn jar(sid: &str) -> Jar {
    let mut jar = Jar::default();
    jar.set(&format!("sid={sid}; Path=/"), "http://a/", Timestamp::now()).unwrap();
    jar
}

fn long_timeouts() -> GateConfig {
    let hour = Duration::from_secs(3600);
    GateConfig::new().attempt_timeout(hour).max_wait(hour)
}

async fn sid(result: SiteResult) -> String {
    use http_body_util::BodyExt;
    let body = result.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The kind of the source's error in the chain of the request's error.
#[track_caller]
fn source_error(result: &SiteResult) -> SessionSourceErrorKind {
    let mut error: &(dyn std::error::Error + 'static) = &**result.as_ref().expect_err("an error is expected");
    loop {
        if let Some(error) = error.downcast_ref::<SessionSourceError>() {
            return error.kind();
        }
        error = error.source().unwrap_or_else(|| panic!("not an error of the source: {result:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn each_expiry_takes_the_next_session() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (source, queue) = SessionSource::queue();
    for sid in ["1", "2", "3"] {
        queue.push(jar(sid));
    }
    let client = client(&ruleless(&sessions).renew_from(source), &sessions, shop.service());
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1");
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1");
    shop.spend("1");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        tasks.spawn(client.clone().oneshot(page("a", "/")));
    }
    for result in tasks.join_all().await {
        assert_eq!(sid(result).await, "sid=2");
    }
    assert_eq!(queue.len(), 1, "one session for all requests");
    // Another session takes from the same source.
    let mut other = page("a", "/");
    other.extensions_mut().insert(sessions.session("b"));
    assert_eq!(sid(client.clone().oneshot(other).await).await, "sid=3");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_wait_at_an_empty_source_until_a_session_arrives() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (source, queue) = SessionSource::queue();
    let source = source.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let client = client(
        &ruleless(&sessions).gate_config(long_timeouts()).renew_from(source),
        &sessions,
        shop.service(),
    );
    let mut first = task::spawn(client.clone().oneshot(page("a", "/")));
    let mut second = task::spawn({
        let mut request = page("a", "/");
        request.extensions_mut().insert(sessions.session("b"));
        client.clone().oneshot(request)
    });
    assert_pending!(first.poll());
    settle().await;
    assert_pending!(second.poll());
    settle().await;
    queue.push(jar("1"));
    settle().await;
    assert!(first.is_woken() && !second.is_woken(), "the renewal that has waited longer");
    assert_eq!(sid(assert_ready!(first.poll())).await, "sid=1");
    tokio::time::advance(Duration::from_secs(50)).await;
    settle().await;
    assert!(!second.is_woken());
    queue.push(jar("2"));
    settle().await;
    assert_eq!(sid(assert_ready!(second.poll())).await, "sid=2");
}

#[tokio::test(start_paused = true)]
async fn a_wait_at_an_empty_source_times_out() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (source, queue) = SessionSource::queue();
    let source = source.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let gate = long_timeouts().max_attempts(1);
    let client = client(&ruleless(&sessions).gate_config(gate).renew_from(source), &sessions, shop.service());
    let began = tokio::time::Instant::now();
    let result = get(&client, "a", "/").await;
    assert_eq!(
        (kind(&result), source_error(&result)),
        (RenewalErrorKind::Failed, SessionSourceErrorKind::Empty)
    );
    assert_eq!(began.elapsed().as_secs(), 60);
    queue.push(jar("1"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1", "another attempt is made after the backoff");
}

#[tokio::test(start_paused = true)]
async fn an_empty_source_fails_the_attempt_or_the_renewal_as_configured() {
    for (on_empty, expected) in
        [(OnEmpty::Fail, RenewalErrorKind::Failed), (OnEmpty::FailPermanently, RenewalErrorKind::Permanent)]
    {
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let (source, queue) = SessionSource::queue();
        let client =
            client(&ruleless(&sessions).renew_from(source.on_empty(on_empty)), &sessions, shop.service());
        let result = get(&client, "a", "/").await;
        assert_eq!((kind(&result), source_error(&result)), (expected, SessionSourceErrorKind::Empty));
        queue.push(jar("1"));
        tokio::time::advance(Duration::from_secs(120)).await;
        if on_empty == OnEmpty::FailPermanently {
            assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Permanent);
            sessions.session("a").renew().await.unwrap();
        }
        assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_renewal_takes_no_session() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (source, queue) = SessionSource::queue();
    let source = source.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let client = client(
        &ruleless(&sessions).gate_config(long_timeouts()).renew_from(source),
        &sessions,
        shop.service(),
    );
    let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(waiting.poll());
    settle().await;
    sessions.session("a").replace(jar("own"));
    settle().await;
    assert_eq!(sid(assert_ready!(waiting.poll())).await, "sid=own");
    queue.push(jar("1"));
    settle().await;
    assert_eq!(queue.len(), 1);
}

#[cfg(feature = "formats")]
mod files {
    use std::{fs, path::Path};

    use super::*;

    fn put(directory: &Path, name: &str, sid: &str) {
        let part = directory.join(".part");
        fs::write(&part, format!("# Netscape HTTP Cookie File\na\tFALSE\t/\tFALSE\t0\tsid\t{sid}\n"))
            .unwrap();
        fs::rename(part, directory.join(name)).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn each_file_of_a_directory_is_used_once_and_moved_to_spent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (name, sid) in [("2.txt", "2"), ("1.txt", "1"), ("3.txt", "3")] {
            put(path, name, sid);
        }
        fs::write(path.join(".hidden"), "x").unwrap();
        fs::write(path.join("0.txt.part"), "x").unwrap();
        fs::write(path.join("0.txt"), "not a list of cookies").unwrap();
        fs::create_dir(path.join("spent")).unwrap();
        fs::write(path.join("spent/1.txt"), "an older file of this name").unwrap();

        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let client = client(
            &ruleless(&sessions).renew_from(SessionSource::directory(path)),
            &sessions,
            shop.service(),
        );
        for expected in ["1", "2", "3"] {
            assert_eq!(sid(get(&client, "a", "/").await).await, format!("sid={expected}"));
            shop.spend(expected);
        }
        assert_eq!(names(&path.join("spent")), ["1.txt", "1.txt.1", "2.txt", "3.txt"]);
        assert_eq!(names(path), [".hidden", "0.txt", "0.txt.part", "spent"], "an unreadable file stays");
        let result = get(&client, "a", "/").await;
        assert_eq!(source_error(&result), SessionSourceErrorKind::Empty);

        // An unreadable file is tried again when it has changed.
        put(path, "0.txt", "repaired");
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(sid(get(&client, "a", "/").await).await, "sid=repaired");
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_polled_while_a_renewal_waits() {
        let directory = tempfile::tempdir().unwrap();
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let source = SessionSource::directory(directory.path()).poll_interval(Duration::from_secs(5));
        let source = source.on_empty(OnEmpty::Wait(Duration::from_secs(600)));
        let client = client(
            &ruleless(&sessions).gate_config(long_timeouts()).renew_from(source),
            &sessions,
            shop.service(),
        );
        let waiting = tokio::spawn(client.oneshot(page("a", "/")));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!waiting.is_finished());
        let began = tokio::time::Instant::now();
        put(directory.path(), "1.txt", "1");
        assert_eq!(sid(waiting.await.unwrap()).await, "sid=1");
        assert!(began.elapsed() <= Duration::from_secs(6));
    }

    #[tokio::test]
    async fn concurrent_sessions_take_one_file_each() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..20 {
            put(directory.path(), &format!("{number}.txt"), &number.to_string());
        }
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let layer = ruleless(&sessions).renew_from(SessionSource::directory(directory.path()));
        let client = client(&layer, &sessions, shop.service());
        let mut tasks = tokio::task::JoinSet::new();
        for name in 0..20 {
            let mut request = page("a", "/");
            request.extensions_mut().insert(sessions.session(name));
            tasks.spawn(client.clone().oneshot(request));
        }
        let mut sids = HashSet::new();
        for result in tasks.join_all().await {
            sids.insert(sid(result).await);
        }
        assert_eq!(sids.len(), 20);
        assert_eq!(names(directory.path()), ["spent"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_directory_is_an_error() {
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let layer = ruleless(&sessions).renew_from(SessionSource::directory("no/such/folder"));
        let result = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
        assert_eq!(source_error(&result), SessionSourceErrorKind::Directory);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_gets_the_session_and_the_reason() {
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let script = r#"printf '# http://a/\nsid=%s-%s; Path=/\n' "$SESSION" "$REASON""#;
        let command = SessionSource::command("sh").arg("-c").arg(script);
        let with_command = client(&ruleless(&sessions).renew_from(command), &sessions, shop.service());
        assert_eq!(sid(get(&with_command, "a", "/").await).await, "sid=a-Initial");
        shop.spend("a-Initial");
        assert_eq!(sid(get(&with_command, "a", "/").await).await, "sid=a-Expired");

        for (script, expected) in [
            ("true", SessionSourceErrorKind::Empty),
            ("exit 3", SessionSourceErrorKind::Command),
            ("echo no cookies; echo top-secret", SessionSourceErrorKind::Output),
            (r"printf '\377=1'", SessionSourceErrorKind::Output),
        ] {
            let sessions = Sessions::builder().login_first().build().unwrap();
            let layer = ruleless(&sessions)
                .gate_config(GateConfig::new().max_attempts(1))
                .renew_from(SessionSource::command("sh").arg("-c").arg(script));
            let result = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
            assert_eq!(source_error(&result), expected, "{script}");
            assert!(!format!("{result:?}").contains("top-secret"));
        }
        let sessions = Sessions::builder().login_first().build().unwrap();
        let layer = ruleless(&sessions).renew_from(SessionSource::command("no-such-program"));
        let layer = layer.gate_config(GateConfig::new().max_attempts(1));
        let result = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
        assert_eq!(source_error(&result), SessionSourceErrorKind::Command);
    }
}
