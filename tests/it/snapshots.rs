//! Snapshots: sessions are restored from data, in the same process or another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};

use http::{Request, Response};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use tower_client_sessions::{
    Profile, Profiles, SessionInfo, SessionLayer, Sessions,
    cookies::Limits,
    gate::BoxError,
    session::{
        SessionsBuilder,
        snapshot::{
            ProfileDetail, RestoreReport, SessionSnapshot, SessionsSnapshot, SkipReason, SnapshotOptions,
        },
    },
};

use crate::support::*;

const START: u64 = 1_700_000_000;

/// Sessions whose wall clock shows `START` plus these seconds.
fn at(seconds: &Arc<AtomicU64>) -> SessionsBuilder {
    let seconds = seconds.clone();
    Sessions::builder().clock(move || UNIX_EPOCH + Duration::from_secs(START + seconds.load(Relaxed)))
}

fn now() -> SessionsBuilder {
    at(&Arc::default())
}

fn written(sessions: &Sessions) -> String {
    serde_json::to_string(&sessions.snapshot()).unwrap()
}

#[track_caller]
fn read(text: &str) -> SessionsSnapshot {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn reasons(report: &RestoreReport) -> Vec<(String, usize, SkipReason)> {
    let entries = report.skipped().iter();
    entries.map(|entry| (entry.session().to_string(), entry.cookies(), entry.reason())).collect()
}

// The clocks are stopped, so that all times are equal.
#[tokio::test(start_paused = true)]
async fn every_session_is_restored_with_cookies_and_data() {
    let sessions = now().build().unwrap();
    let alice = sessions.session("alice");
    for cookie in [
        "sid=abc==; Path=/; HttpOnly; Secure; SameSite=None; Partitioned",
        "theme=dark; Domain=shop.example; Max-Age=600; SameSite=Strict",
        "=nameless",
    ] {
        alice.set_cookie(cookie, "https://www.shop.example/a/b").unwrap();
    }
    alice.set_data("csrf", "4711");
    sessions.session(7).set_cookie("ü=ö", "http://7.example/").unwrap();
    sessions.session("empty");

    let text = written(&sessions);
    let back = now().build().unwrap();
    let report = back.restore_all(&read(&text));
    assert!(report.is_complete());
    assert_eq!((report.restored(), report.cookies(), report.expired()), (3, 4, 0));
    assert_eq!(written(&back), text);
    let alice = back.session("alice");
    assert_eq!(alice.data("csrf").as_deref(), Some("4711"));
    assert_eq!(alice.cookies_for("https://www.shop.example/a/b").unwrap().len(), 3);
    assert!(back.get(7).is_some(), "a number equals its decimal digits");
}

#[tokio::test(start_paused = true)]
async fn a_restored_session_keeps_its_generation_age_and_uses() {
    let (site, seconds) = (Site::new(), Arc::default());
    let first = at(&seconds).build().unwrap();
    let old = client(&renewing(&first), &first, site.clone());
    for _ in 0..3 {
        get(&old, "a", "/").await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(100)).await;
    seconds.fetch_add(100, Relaxed);
    let identity = first.session("a").identity().unwrap();
    assert_eq!((identity.generation(), identity.uses(), identity.age().as_secs()), (2, 3, 100));
    let text = written(&first);

    // A minute without any process.
    seconds.fetch_add(60, Relaxed);
    let second = at(&seconds).build().unwrap();
    assert!(second.restore_all(&read(&text)).is_complete());
    let identity = second.session("a").identity().unwrap();
    assert_eq!((identity.generation(), identity.uses(), identity.age().as_secs()), (2, 3, 160));

    let client = client(&renewing(&second).max_uses(5), &second, site.clone());
    for _ in 0..2 {
        assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    }
    assert_eq!(site.logins(), 1, "no second login");
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(response.extensions().get::<SessionInfo>().unwrap().generation(), 3);
    assert_eq!(site.logins(), 2, "five uses in both processes together");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waits_for_its_renewal_is_restored_as_waiting() {
    let (site, sessions) = (Site::new(), now().login_first().build().unwrap());
    sessions.session("a").set_cookie("edit=1; Path=/", "http://a/").unwrap();
    let text = written(&sessions);
    assert!(text.contains(r#""current":false"#));

    for builder in [now(), now().login_first()] {
        let back = builder.build().unwrap();
        assert!(back.restore_all(&read(&text)).is_complete());
        let session = back.session("a");
        assert_eq!((session.generation(), session.cookies().len()), (None, 1));
        let client = client(&renewing(&back), &back, site.clone());
        assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
        assert_eq!((session.generation(), session.cookies().len()), (Some(2), 2));
        // The same for a session that is in use.
        session.restore(&read(&text).sessions[0]).unwrap();
        assert_eq!((session.generation(), session.cookies().len()), (None, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_session_needs_no_login_even_with_login_first() {
    let (site, sessions) = (Site::new(), now().login_first().build().unwrap());
    let old = client(&renewing(&sessions), &sessions, site.clone());
    get(&old, "a", "/").await.unwrap();
    let back = now().login_first().build().unwrap();
    back.restore(&sessions.session("a").snapshot()).unwrap();
    let client = client(&renewing(&back), &back, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn restoring_a_session_releases_its_waiting_requests() {
    let (site, sessions) = (Site::new(), now().build().unwrap());
    let old = client(&renewing(&sessions), &sessions, site.clone());
    get(&old, "a", "/").await.unwrap();
    let snapshot = sessions.session("a").snapshot();

    let waiting_sessions = Sessions::builder().login_first().build().unwrap();
    site.logins_go([Login::Never]);
    let client = client(&renewing(&waiting_sessions), &waiting_sessions, site.clone());
    let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(waiting.poll());
    settle().await;
    waiting_sessions.restore(&snapshot).unwrap();
    settle().await;
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().status(), 200);
    // The snapshot's generation is used by the login that hangs, and no generation is used twice.
    assert_eq!((snapshot.generation, waiting_sessions.session("a").generation()), (2, Some(3)));
    let fresh = Sessions::new();
    for generation in [2, 3] {
        fresh.restore(&snapshot).unwrap();
        assert_eq!(fresh.session("a").generation(), Some(generation));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_response_stores_cookies_in_the_identity_of_its_request_not_in_the_restored_one() {
    let (respond, response) = tokio::sync::oneshot::channel::<()>();
    let response = Arc::new(tokio::sync::Mutex::new(Some(response)));
    let sessions = now().build().unwrap();
    let service = SessionLayer::new(&sessions).layer(service_fn(move |_: Request<Body>| {
        let response = response.clone();
        async move {
            response.lock().await.take().expect("one request").await.unwrap();
            Ok::<_, BoxError>(Response::builder().header("set-cookie", "late=1").body(Body::default())?)
        }
    }));
    let session = sessions.session("a");
    let snapshot = session.snapshot();
    let mut request = task::spawn(service.oneshot(page("a", "/")));
    assert_pending!(request.poll());
    session.restore(&snapshot).unwrap();
    respond.send(()).unwrap();
    assert!(assert_ready!(request.poll()).is_ok());
    assert!(session.cookies().is_empty());
}

fn secret_profile(name: Option<&str>, password: &str) -> Profile {
    let builder = Profile::builder()
        .proxy(format!("http://user:{password}@[2001:db8::1]:3128"))
        .user_agent("crawler/1.0")
        .header("x-b", "1")
        .header("authorization", "Bearer hidden")
        .header("x-a", "2");
    match name {
        Some(name) => builder.name(name),
        None => builder,
    }
    .build()
    .unwrap()
}

#[test]
fn a_session_is_restored_with_its_own_profile_or_not_at_all() {
    use ProfileDetail::{Full, NameOnly, Redacted};
    let named = secret_profile(Some("de-1"), "hidden");
    let nameless = secret_profile(None, "hidden");
    let other = secret_profile(None, "other");
    let plain = Profile::builder().user_agent("plain/1.0").build().unwrap();
    let lists: [&[&Profile]; 5] = [&[], &[&named], &[&plain, &nameless], &[&nameless, &other], &[&other]];
    let (made, missing) = (Some(true), Some(false));
    // For each list: the list's own profile, one made from the snapshot, or skipped.
    for (profile, detail, expected) in [
        (&named, NameOnly, [missing, None, missing, missing, missing]),
        (&named, Redacted, [missing, None, missing, missing, missing]),
        (&named, Full, [made, None, made, made, made]),
        (&nameless, NameOnly, [missing, missing, None, missing, None]),
        (&nameless, Redacted, [missing, missing, None, missing, None]),
        (&nameless, Full, [made, made, None, None, made]),
        (&plain, Redacted, [made, made, None, made, made]),
    ] {
        let sessions = now().profiles(Profiles::new([profile.clone()]).unwrap()).build().unwrap();
        let options = SnapshotOptions::new().profiles(detail);
        let snapshot = sessions.session("a").snapshot_with(&options);
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(text.contains("hidden"), detail == Full && profile != &plain, "{text}");
        assert!(!format!("{snapshot:?}").contains("hidden"));
        for (list, expected) in lists.iter().zip(expected) {
            let mut builder = now();
            if !list.is_empty() {
                let list = list.iter().map(|&profile| profile.clone());
                builder = builder.profiles(Profiles::new(list).unwrap());
            }
            let back = builder.build().unwrap();
            let restored = back.restore(&serde_json::from_str::<SessionSnapshot>(&text).unwrap());
            match restored {
                Err(error) => {
                    assert_eq!(expected, missing, "{detail:?} {text}");
                    assert_eq!(error.reason(), SkipReason::ProfileMissing);
                    assert!(back.get("a").is_none(), "no session was created");
                }
                Ok(session) => {
                    assert_ne!(expected, missing, "{detail:?} {text}");
                    let restored = session.profile().unwrap();
                    assert_eq!(expected == made, !list.iter().any(|own| own.ptr_eq(&restored)));
                    if detail == Full {
                        assert_eq!(&restored, profile);
                    }
                }
            }
        }
    }
}

#[test]
fn limits_apply_and_the_report_lists_what_was_skipped() {
    let seconds = Arc::default();
    let sessions = at(&seconds).max_sessions(10).build().unwrap();
    for name in 0..5 {
        let session = sessions.session(name);
        for cookie in 0..4 {
            let cookie = format!("c{cookie}=1; Max-Age={}", if cookie == 3 { 10 } else { 1000 });
            session.set_cookie(&cookie, "http://a.example/").unwrap();
        }
    }
    // Used again, so that it is not the first to be skipped.
    sessions.session(0);
    let text = written(&sessions);
    seconds.fetch_add(20, Relaxed);
    let back = at(&seconds).max_sessions(2).cookie_limits(Limits::default().per_domain(2)).build().unwrap();
    let report = back.restore_all(&read(&text));
    assert_eq!((report.restored(), report.cookies(), report.expired()), (2, 4, 2));
    assert!(!report.is_complete());
    let limit = SkipReason::SessionLimit;
    let cookies = SkipReason::CookieLimit;
    let mut seen = reasons(&report);
    assert_eq!(seen.split_off(3), [("4".into(), 1, cookies), ("0".into(), 1, cookies)]);
    assert_eq!(seen, [("1".into(), 4, limit), ("2".into(), 4, limit), ("3".into(), 4, limit)]);
    assert!(back.get(0).is_some() && back.get(4).is_some());
}

#[test]
fn session_cookies_are_excluded_only_by_the_option() {
    let sessions = now().build().unwrap();
    let session = sessions.session("a");
    session.set_cookie("stays=1; Max-Age=10", "http://a/").unwrap();
    session.set_cookie("goes=1", "http://a/").unwrap();
    assert_eq!(session.snapshot().cookies.len(), 2);
    let fewer = session.snapshot_with(&SnapshotOptions::new().without_session_cookies());
    assert_eq!(fewer.cookies.len(), 1);
    assert_eq!(fewer.cookies[0].name(), Some("stays"));
}

#[test]
fn an_invalid_snapshot_is_rejected_without_a_value_in_the_error() {
    let sessions =
        now().profiles(Profiles::new([secret_profile(None, "pass-word")]).unwrap()).build().unwrap();
    let session = sessions.session("a");
    session.set_cookie("sid=top-secret; Path=/", "http://a/").unwrap();
    session.set_data("k", "top-secret");
    let options = SnapshotOptions::new().profiles(ProfileDetail::Full);
    let good = serde_json::to_string(&sessions.snapshot_with(&options)).unwrap();
    read(&good);
    let one = &good[good.find(r#"{"version":1,"id""#).unwrap()..good.len() - 2];
    let cookie = &good[good.find(r#"{"name":"sid""#).unwrap()..good.find(r#"],"data""#).unwrap()];
    for (from, to, expected) in [
        (r#""version":1,"saved_at""#, r#""version":2,"saved_at""#, "version 2 is not 1"),
        (r#""version":1,"id""#, r#""version":0,"id""#, "version 0 is not 1"),
        ("tower-client-sessions", "something", "format"),
        (r#""uses":0"#, r#""uses":0,"more":1"#, "unknown field `more`"),
        (r#""uses":0"#, r#""uses":0,"uses":0"#, "duplicate field `uses`"),
        (r#""uses":0"#, r#""uses":-1"#, "expected u64"),
        (r#""uses":0"#, r#""uses":9007199254740992"#, "2^53"),
        (r#""uses":0,"#, "", "missing field `uses`"),
        (r#"{"k":"top-secret"}"#, r#"{"k":"1","k":"2"}"#, "duplicate key"),
        (cookie, &format!("{cookie},{cookie}"), "cookie 1 is a duplicate"),
        (one, &format!("{one},{one}"), "session 1 is a duplicate"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = serde_json::from_str::<SessionsSnapshot>(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        for secret in ["top-secret", "pass-word", "hidden"] {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}

#[test]
fn a_snapshot_shows_no_secret() {
    let sessions =
        now().profiles(Profiles::new([secret_profile(None, "pass-word")]).unwrap()).build().unwrap();
    let session = sessions.session("a");
    session.set_cookie("sid=top-secret", "http://a/").unwrap();
    session.set_data("k", "top-secret");
    let options = SnapshotOptions::new().profiles(ProfileDetail::Full);
    let shown = format!("{:?}", sessions.snapshot_with(&options));
    assert!(shown.contains("sid") && shown.contains("authorization") && shown.contains("\"k\""));
    for secret in ["top-secret", "pass-word", "hidden"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
