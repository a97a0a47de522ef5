//! Sessions collected elsewhere: each is used once, the next one when it has expired, and what happens when none is left.

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

/// A site that takes any `sid` that is not spent; its page is the `sid`.
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
                let answer = Response::builder().status(if spent { 401 } else { 200 });
                Ok::<_, BoxError>(answer.body(Body::from(cookie.unwrap_or_default()))?)
            }
        }))
    }
}

fn jar(sid: &str) -> Jar {
    let mut jar = Jar::default();
    jar.set(&format!("sid={sid}; Path=/"), "http://a/", Timestamp::now()).unwrap();
    jar
}

fn patient() -> GateConfig {
    let hour = Duration::from_secs(3600);
    GateConfig::new().attempt_timeout(hour).max_wait(hour)
}

async fn sid(answer: SiteResult) -> String {
    use http_body_util::BodyExt;
    let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The supply's error below the one that a request is told.
#[track_caller]
fn supply_error(answer: &SiteResult) -> SessionSourceErrorKind {
    let mut error: &(dyn std::error::Error + 'static) = &**answer.as_ref().expect_err("an error is expected");
    loop {
        if let Some(error) = error.downcast_ref::<SessionSourceError>() {
            return error.kind();
        }
        error = error.source().unwrap_or_else(|| panic!("not the supply's: {answer:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn on_each_expiry_the_next_one_is_taken() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (supply, queue) = SessionSource::queue();
    for sid in ["1", "2", "3"] {
        queue.push(jar(sid));
    }
    let client = client(&ruleless(&sessions).renew_from(supply), &sessions, shop.service());
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1");
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1");
    shop.spend("1");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        tasks.spawn(client.clone().oneshot(page("a", "/")));
    }
    for answer in tasks.join_all().await {
        assert_eq!(sid(answer).await, "sid=2");
    }
    assert_eq!(queue.len(), 1, "one for all of them");
    // Another session takes from the same supply.
    let mut other = page("a", "/");
    other.extensions_mut().insert(sessions.session("b"));
    assert_eq!(sid(client.clone().oneshot(other).await).await, "sid=3");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn where_none_is_left_requests_wait_and_go_when_one_comes() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (supply, queue) = SessionSource::queue();
    let supply = supply.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let client =
        client(&ruleless(&sessions).gate_config(patient()).renew_from(supply), &sessions, shop.service());
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
    assert!(first.is_woken() && !second.is_woken(), "the one that has waited longer");
    assert_eq!(sid(assert_ready!(first.poll())).await, "sid=1");
    tokio::time::advance(Duration::from_secs(50)).await;
    settle().await;
    assert!(!second.is_woken());
    queue.push(jar("2"));
    settle().await;
    assert_eq!(sid(assert_ready!(second.poll())).await, "sid=2");
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_its_bound() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (supply, queue) = SessionSource::queue();
    let supply = supply.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let gate = patient().max_attempts(1);
    let client = client(&ruleless(&sessions).gate_config(gate).renew_from(supply), &sessions, shop.service());
    let began = tokio::time::Instant::now();
    let answer = get(&client, "a", "/").await;
    assert_eq!(
        (kind(&answer), supply_error(&answer)),
        (RenewalErrorKind::Failed, SessionSourceErrorKind::Empty)
    );
    assert_eq!(began.elapsed().as_secs(), 60);
    queue.push(jar("1"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(sid(get(&client, "a", "/").await).await, "sid=1", "after a rest it is tried again");
}

#[tokio::test(start_paused = true)]
async fn where_none_is_left_requests_fail_or_are_refused_as_configured() {
    for (on_empty, expected) in
        [(OnEmpty::Fail, RenewalErrorKind::Failed), (OnEmpty::FailPermanently, RenewalErrorKind::Permanent)]
    {
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let (supply, queue) = SessionSource::queue();
        let client =
            client(&ruleless(&sessions).renew_from(supply.on_empty(on_empty)), &sessions, shop.service());
        let answer = get(&client, "a", "/").await;
        assert_eq!((kind(&answer), supply_error(&answer)), (expected, SessionSourceErrorKind::Empty));
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
async fn a_renewal_that_is_ended_while_it_waits_takes_none() {
    let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
    let (supply, queue) = SessionSource::queue();
    let supply = supply.on_empty(OnEmpty::Wait(Duration::from_secs(60)));
    let client =
        client(&ruleless(&sessions).gate_config(patient()).renew_from(supply), &sessions, shop.service());
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
    async fn each_file_of_a_folder_is_used_once_and_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (name, sid) in [("2.txt", "2"), ("1.txt", "1"), ("3.txt", "3")] {
            put(path, name, sid);
        }
        fs::write(path.join(".hidden"), "x").unwrap();
        fs::write(path.join("0.txt.part"), "x").unwrap();
        fs::write(path.join("0.txt"), "not the cookies of a session").unwrap();
        fs::create_dir(path.join("spent")).unwrap();
        fs::write(path.join("spent/1.txt"), "an older one of this name").unwrap();

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
        assert_eq!(names(path), [".hidden", "0.txt", "0.txt.part", "spent"], "what cannot be read stays");
        let answer = get(&client, "a", "/").await;
        assert_eq!(supply_error(&answer), SessionSourceErrorKind::Empty);

        // One that could not be read is tried again when it has changed.
        put(path, "0.txt", "mended");
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(sid(get(&client, "a", "/").await).await, "sid=mended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_watched_while_a_renewal_waits() {
        let directory = tempfile::tempdir().unwrap();
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let supply = SessionSource::directory(directory.path()).poll_interval(Duration::from_secs(5));
        let supply = supply.on_empty(OnEmpty::Wait(Duration::from_secs(600)));
        let client =
            client(&ruleless(&sessions).gate_config(patient()).renew_from(supply), &sessions, shop.service());
        let waiting = tokio::spawn(client.oneshot(page("a", "/")));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!waiting.is_finished());
        let began = tokio::time::Instant::now();
        put(directory.path(), "1.txt", "1");
        assert_eq!(sid(waiting.await.unwrap()).await, "sid=1");
        assert!(began.elapsed() <= Duration::from_secs(6));
    }

    #[tokio::test]
    async fn sessions_that_start_together_take_a_file_each() {
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
        for answer in tasks.join_all().await {
            sids.insert(sid(answer).await);
        }
        assert_eq!(sids.len(), 20);
        assert_eq!(names(directory.path()), ["spent"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let (shop, sessions) = (Shop::default(), Sessions::builder().login_first().build().unwrap());
        let layer = ruleless(&sessions).renew_from(SessionSource::directory("no/such/folder"));
        let answer = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
        assert_eq!(supply_error(&answer), SessionSourceErrorKind::Directory);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_prints_the_cookies_of_the_session_that_asks() {
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
            let answer = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
            assert_eq!(supply_error(&answer), expected, "{script}");
            assert!(!format!("{answer:?}").contains("top-secret"));
        }
        let sessions = Sessions::builder().login_first().build().unwrap();
        let layer = ruleless(&sessions).renew_from(SessionSource::command("no-such-program"));
        let layer = layer.gate_config(GateConfig::new().max_attempts(1));
        let answer = get(&client(&layer, &sessions, shop.service()), "a", "/").await;
        assert_eq!(supply_error(&answer), SessionSourceErrorKind::Command);
    }
}
