//! Sessions in files: saves are atomic, and a file is validated before anything is restored.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::time::{Instant, advance};
use tower_client_sessions::{
    Sessions,
    session::snapshot::{SessionSnapshot, SessionsSnapshot, SnapshotErrorKind},
};

use crate::support::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn three() -> Sessions {
    let sessions = Sessions::new();
    for name in ["a", "b", "c"] {
        let session = sessions.session(name);
        session.set_cookie("sid=top-secret; Path=/; Max-Age=600", "https://shop.example/").unwrap();
        session.set_cookie("tab=2", "https://shop.example/").unwrap();
    }
    sessions
}

fn ids(sessions: &Sessions) -> Vec<String> {
    let mut ids: Vec<_> = sessions.all().iter().map(|session| session.id().to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_saved_file_is_loaded() {
    let folder = folder();
    let path = folder.path().join("sessions.json");
    three().save(&path).await.unwrap();
    let (sessions, report) = Sessions::load(&path, Sessions::builder()).await.unwrap();
    assert!(report.is_complete());
    assert_eq!((ids(&sessions), report.cookies()), (vec!["a".into(), "b".into(), "c".into()], 6));

    // Replaces the old file, and leaves no other file.
    sessions.session("d");
    sessions.save(&path).await.unwrap();
    let (sessions, _) = Sessions::load(&path, Sessions::builder()).await.unwrap();
    assert_eq!(sessions.len(), 4);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only the owner can read it");
    }
}

#[tokio::test]
async fn a_failed_save_does_not_change_the_old_file_and_names_the_path() {
    let folder = folder();
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), "").unwrap();
    for path in [taken.clone(), folder.path().join("missing/sessions.json")] {
        let error = three().save(&path).await.unwrap_err();
        assert_eq!((error.kind(), error.file()), (SnapshotErrorKind::Write, Some(&*path)));
        assert!(std::error::Error::source(&error).is_some());
    }
    assert!(taken.join("file").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_file_changes_nothing_and_the_error_says_where() {
    use SnapshotErrorKind::{Invalid, NotASnapshot, NotJson, Read, Truncated, UnsupportedVersion};
    let folder = folder();
    let path = folder.path().join("sessions.json");
    three().save(&path).await.unwrap();
    let good = fs::read_to_string(&path).unwrap();

    let running = clocked();
    running.session("a").set_cookie("own=1", "https://shop.example/").unwrap();
    let before = running.snapshot().sessions;
    let unchanged = |running: &Sessions| {
        let now = running.snapshot().sessions;
        assert_eq!(serde_json::to_string(&now).unwrap(), serde_json::to_string(&before).unwrap());
    };
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let deep_inside = good.replacen("\"uses\":0", &format!("\"uses\":{deep}"), 1);
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from));
        good.replacen(from, to, 1)
    };
    for (text, kind, json_path, message) in [
        (String::new(), Truncated, None, "unexpected end"),
        (good[..good.len() / 2].to_owned(), Truncated, Some("sessions["), "unexpected end"),
        (good.clone() + "x", NotJson, None, "trailing"),
        ("sid=top-secret; Path=/".into(), NotJson, None, "not JSON"),
        ("\u{0}\u{1}".into(), NotJson, None, "not JSON"),
        (deep, NotASnapshot, None, "not a snapshot"),
        (deep_inside, Invalid, Some("sessions[0].uses"), "expected u64"),
        ("[]".into(), NotASnapshot, None, "not a snapshot"),
        ("{\"cookies\": [], \"origins\": []}".into(), NotASnapshot, None, "not a snapshot"),
        (changed("\"version\":1", "\"version\":2"), UnsupportedVersion, Some("version"), "unsupported"),
        (changed("\"top-secret\"", "17"), Invalid, Some("sessions[0].cookies[0].value"), "a string or"),
        (changed("\"tab\"", "\"__Host-tab\""), Invalid, Some("cookies[1]"), "its name"),
        (
            changed("\"host_only\":true", "\"host_only\":\"top-secret\""),
            Invalid,
            Some("host_only"),
            "a boolean",
        ),
        (changed("\"created_at\":", "\"created_at\":1e400,\"x\":"), Invalid, Some("created_at"), ""),
        (changed("\"id\":\"b\"", "\"id\":\"a\""), Invalid, Some("sessions"), "session 1 is a duplicate"),
    ] {
        fs::write(&path, &text).unwrap();
        let error = running.restore_from(&path).await.unwrap_err();
        let shown = error.to_string();
        let text: String = text.chars().take(99).collect();
        // A number that is too large is a syntax error to some parsers, and invalid content to
        // others.
        let kinds: &[_] = if json_path == Some("created_at") { &[Invalid, NotJson] } else { &[kind] };
        assert!(kinds.contains(&error.kind()), "{text}: {shown}");
        assert_eq!(error.file(), Some(&*path));
        assert!(error.line().is_some() && error.column().is_some());
        match json_path {
            None => assert_eq!(error.json_path(), None, "{shown}"),
            Some(path) => assert!(error.json_path().unwrap_or("").contains(path), "{text}: {shown}"),
        }
        assert!(shown.contains(message), "{text}: {shown}");
        assert!(!shown.contains("top-secret") && !format!("{error:?}").contains("top-secret"), "{shown}");
        unchanged(&running);
        assert!(Sessions::load(&path, Sessions::builder()).await.is_err());
    }
    let error = running.restore_from(folder.path().join("none")).await.unwrap_err();
    assert_eq!(error.kind(), Read);
    let one = SessionSnapshot::from_json(&running.session("a").snapshot().to_json()).unwrap();
    assert_eq!(one.cookies.len(), 1);
    assert_eq!(SessionsSnapshot::from_json(good.as_bytes()).unwrap().sessions.len(), 3);
    let newer = br#"{"version": 7, "id": "a"}"#;
    assert_eq!(SessionSnapshot::from_json(newer).unwrap_err().kind(), UnsupportedVersion);
}

#[tokio::test]
async fn of_too_many_cookies_the_most_recently_used_are_restored() {
    const COOKIES: usize = 100_000;
    let folder = folder();
    let path = folder.path().join("sessions.json");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    write!(
        file,
        r#"{{"format":"tower-client-sessions","version":1,"saved_at":0,"sessions":[{{"version":1,"id":"a","generation":1,"#
    )
    .unwrap();
    write!(file, r#""current":true,"created_at":0,"uses":0,"cookies":["#).unwrap();
    for cookie in 0..COOKIES {
        let comma = if cookie == 0 { "" } else { "," };
        let domain = cookie % 100;
        write!(
            file,
            r#"{comma}{{"name":"c{cookie}","value":"","domain":"d{domain}.example","host_only":true,"path":"/","created":{cookie},"last_used":{cookie}}}"#
        )
        .unwrap();
    }
    write!(file, "]}}]}}").unwrap();
    file.into_inner().unwrap();
    let (sessions, report) = Sessions::load(&path, Sessions::builder()).await.unwrap();
    assert_eq!(report.cookies(), 100 * 180);
    assert_eq!(report.skipped()[0].cookies(), COOKIES - 100 * 180);
    let restored = sessions.session("a").cookies();
    let oldest = restored.iter().map(|cookie| cookie.created().as_millis()).min();
    assert_eq!(oldest, Some((COOKIES - 100 * 180) as i64), "the most recently used are restored");
}

/// The child process: saves repeatedly to a path from the environment, and prints a line after each
/// save.
#[test]
fn saving_child() {
    let Some(path) = std::env::var_os("SAVING_CHILD") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let sessions = Sessions::new();
        for number in 0_u64.. {
            // A different size each time.
            let session = sessions.session(number % 97);
            let value = "x".repeat((number * 37 % 4000) as usize);
            session.set_cookie(&format!("n={value}"), "https://shop.example/").unwrap();
            session.set_data("number", number.to_string());
            sessions.save(&path).await.unwrap();
            println!("saved {number}");
        }
    });
}

#[tokio::test]
async fn a_process_killed_during_a_save_leaves_a_file_that_loads() {
    let folder = folder();
    let path = folder.path().join("sessions.json");
    for round in 0..30_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["files::saving_child", "--exact", "--nocapture"])
            .env("SAVING_CHILD", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let saves = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Killed at some point of the next save.
        let last = saves.filter(|line| line.contains("saved ")).nth(round * 7 % 40).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let last: u64 = last.rsplit(' ').next().unwrap().parse().unwrap();
        let (sessions, report) = Sessions::load(&path, Sessions::builder()).await.unwrap();
        assert!(report.is_complete());
        let newest =
            sessions.all().iter().filter_map(|session| session.data("number")?.parse::<u64>().ok()).max();
        assert!(newest >= Some(last), "a reported save is in the file: {newest:?} {last}");
    }
}

/// Sessions whose wall clock follows tokio's clock.
fn clocked() -> Sessions {
    let start = Instant::now();
    Sessions::builder()
        .clock(move || UNIX_EPOCH + Duration::from_secs(1_700_000_000) + start.elapsed())
        .build()
        .unwrap()
}

/// The second at which the file was saved, and the cookies of session "a" in it.
fn saved(path: &Path) -> Option<(i64, usize)> {
    let snapshot = SessionsSnapshot::from_json(&fs::read(path).ok()?).unwrap();
    let a = snapshot.sessions.iter().find(|session| session.id == "a".into());
    Some((snapshot.saved_at.as_secs() - 1_700_000_000, a.map_or(0, |session| session.cookies.len())))
}

/// Advances the clock by this many seconds and runs what becomes due.
async fn pass(seconds: u64) {
    // Writes run on another thread. While one runs, the paused clock does not advance by itself.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn autosave_saves_at_the_interval_and_when_it_is_shut_down() {
    let (folder, sessions) = (folder(), clocked());
    let path = folder.path().join("sessions.json");
    let autosave = sessions.autosave(&path).interval(Duration::from_secs(10)).start();
    pass(5).await;
    assert_eq!(saved(&path), None);
    pass(6).await;
    assert_eq!(saved(&path), Some((10, 0)));
    sessions.session("a").set_cookie("x=1", "http://a/").unwrap();
    pass(5).await;
    assert_eq!(saved(&path), Some((10, 0)), "changes are not saved without `debounce`");
    pass(5).await;
    assert_eq!(saved(&path), Some((20, 1)));
    sessions.session("a").set_cookie("y=1", "http://a/").unwrap();
    autosave.shutdown().await.unwrap();
    assert_eq!(saved(&path), Some((21, 2)));
    pass(100).await;
    assert_eq!(saved(&path), Some((21, 2)), "it has ended");

    let dropped = sessions.autosave(&path).start();
    sessions.session("a").set_cookie("z=1", "http://a/").unwrap();
    drop(dropped);
    pass(1).await;
    assert_eq!(saved(&path).unwrap().1, 3);
}

#[tokio::test(start_paused = true)]
async fn autosave_saves_after_each_kind_of_change_debounced() {
    let (folder, sessions, site) = (folder(), clocked(), Site::new());
    let path = folder.path().join("sessions.json");
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let hour = Duration::from_secs(3600);
    let autosave = sessions.autosave(&path).interval(hour).debounce(Duration::from_secs(2)).start();
    pass(10).await;
    let mut last = saved(&path).expect("the initial state counts as a change").0;
    let session = sessions.session("a");
    let mut quiet = true;
    for step in 0..12 {
        match step {
            0 => drop(session.set_cookie("x=1", "http://a/")),
            1 => drop(session.set_data("k", "1")),
            2 => drop(session.remove_data("k")),
            3 => drop(session.remove_cookie("a", "/", "x")),
            4 => drop(sessions.session("new")),
            5 => drop(sessions.remove("new")),
            6 => drop(session.fork("fork")),
            7 => drop(sessions.session("fork").rename("fork-2")),
            8 => session.clear(),
            9 => drop(get(&client, "a", "/").await.unwrap()),
            10 => drop(get(&client, "a", "/?set=later=1").await.unwrap()),
            11 => drop(get(&client, "a", "/").await.unwrap()),
            _ => unreachable!(),
        }
        // A second change during the delay causes no second save.
        advance(Duration::from_secs(1)).await;
        if step == 0 {
            session.set_cookie("x=2", "http://a/").unwrap();
        }
        pass(10).await;
        let now = saved(&path).unwrap().0;
        quiet &= step != 11 || now == last;
        assert!(now > last || step == 11, "step {step} was not saved");
        last = now;
    }
    assert!(quiet, "a request that changes nothing saves nothing");
    autosave.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn autosave_reports_a_failed_save_and_retries() {
    let (folder, sessions) = (folder(), clocked());
    let parent = folder.path().join("later");
    let path = parent.join("sessions.json");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let autosave = sessions
        .autosave(&path)
        .interval(Duration::from_secs(10))
        .on_error({
            let errors = errors.clone();
            move |error| errors.lock().unwrap().push(error.kind())
        })
        .start();
    pass(25).await;
    assert_eq!(*errors.lock().unwrap(), [SnapshotErrorKind::Write; 2]);
    fs::create_dir(&parent).unwrap();
    pass(10).await;
    assert_eq!(saved(&path).unwrap().0, 30);
    fs::remove_dir_all(&parent).unwrap();
    assert_eq!(autosave.shutdown().await.unwrap_err().kind(), SnapshotErrorKind::Write);
    assert_eq!(errors.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_saves_the_last_started_remains() {
    let folder = folder();
    let path = folder.path().join("sessions.json");
    let sessions = Sessions::new();
    let session = sessions.session("a");
    let mut saves = tokio::task::JoinSet::new();
    for number in 0..50 {
        session.set_data("number", number.to_string());
        let (sessions, path) = (sessions.clone(), path.clone());
        saves.spawn(async move { sessions.save(&path).await.unwrap() });
    }
    saves.join_all().await;
    let (back, _) = Sessions::load(&path, Sessions::builder()).await.unwrap();
    assert_eq!(back.session("a").data("number").as_deref(), Some("49"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
