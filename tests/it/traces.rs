//! Spans and events of `tracing`: they follow a request and never contain secrets.

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::Request;
use http_body_util::Full;
use tokio_test::{assert_pending, task};
use tower::ServiceExt;
use tower_client_sessions::{SessionId, Sessions};
use tracing::span::Id;
use tracing_subscriber::{Layer, fmt::format::FmtSpan, layer, layer::SubscriberExt, registry::LookupSpan};

use crate::support::*;

/// The output of a subscriber.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let to = self.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || to.clone())
            .finish()
    }

    /// The lines of this crate's events and spans.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("tower_client_sessions::")).map(str::to_owned).collect()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn spans_follow_a_request_through_wait_replay_and_renewal_without_any_secret() {
    let written = Written::default();
    let _default = listen(written.subscriber());
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let request = Request::get("http://a/page?set=given%3Dhidden-1&token=hidden-2")
        .extension(SessionId::from("a"))
        .header("authorization", "hidden-3")
        .header("cookie", "own=hidden-4")
        .body(Full::default())
        .unwrap();
    let mut request = task::spawn(client.oneshot(request));
    assert_pending!(request.poll());
    settle().await;
    site.end_logins(1);
    settle().await;
    assert_eq!(request.await.unwrap().status(), 200);
    let lines = written.lines();
    let expected = [
        "}: tower_client_sessions::request: new",
        "}:send{generation=1}: tower_client_sessions::request: new",
        "}: tower_client_sessions::request: replayed generation=1 cause=Expired",
        "}:wait: tower_client_sessions::request: new",
        "renewal{session=a generation=2 reason=Expired}: tower_client_sessions::renewal: new",
        "renewal{session=a generation=2 reason=Expired}:send{generation=2}: tower_client_sessions::request: new",
        "}:wait: tower_client_sessions::request: close",
        "}:send{generation=2}: tower_client_sessions::request: new",
        "}: tower_client_sessions::request: completed generation=2 status=200",
        "}: tower_client_sessions::request: close",
    ];
    let mut rest = lines.iter();
    for wanted in expected {
        assert!(rest.any(|line| line.contains(wanted)), "no {wanted:?}, in this order, in {lines:#?}");
    }
    let own = "request{session=a method=GET host=\"a\" path=\"/page\"}";
    let of_request = lines.iter().filter(|line| line.contains("replayed") || line.contains("completed"));
    assert!(
        of_request.clone().count() == 2 && of_request.clone().all(|line| line.contains(own)),
        "{lines:#?}"
    );
    // The values of the site's cookies are a-1 and so on.
    for secret in ["hidden", "a-1"] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{secret} in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.contains("sid=…")), "the names of cookies are shown");
}

/// Records which spans follow from which.
#[derive(Clone, Default)]
struct Follows(Arc<Mutex<Vec<(&'static str, &'static str)>>>);

impl<S> Layer<S> for Follows
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_follows_from(&self, span: &Id, follows: &Id, context: layer::Context<'_, S>) {
        let name = |id| context.span(id).unwrap().name();
        self.0.lock().unwrap().push((name(span), name(follows)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_span_follows_from_the_request_that_started_it() {
    let follows = Follows::default();
    let _default = listen(tracing_subscriber::registry().with(follows.clone()));
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site);
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(*follows.0.lock().unwrap(), [("renewal", "request")]);
}
