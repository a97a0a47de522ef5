//! The redirect layer: which responses it follows, what each hop sends, and what it holds
//! meanwhile.
//!
//! The cases are those of RFC 9110, of the Fetch standard, and of the tests of tower-http's and
//! reqwest's redirect layers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_client_sessions::{
    CookieMode, Expired, Identity, RedirectLayer, RequestCookies, SessionId, SessionInfo, SessionLayer,
    Sessions, gate::BoxError, profile::Proxy, renewal::ReplayBudget,
};

use crate::support::*;

/// A request as the script received it.
struct Received {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    extensions: Extensions,
}

/// The status of a response, and its `Location`.
type Step = (u16, Option<HeaderValue>);

/// A service whose responses are scripted: a status and a `Location` each, and then 200.
#[derive(Clone, Default)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    received: Arc<Mutex<Vec<Received>>>,
    /// Panics if a call was not preceded by readiness of this clone.
    is_ready: bool,
}

impl Script {
    fn new<'a>(steps: impl IntoIterator<Item = (u16, &'a str)>) -> Self {
        let steps = steps.into_iter().map(|(status, location)| {
            let location =
                (!location.is_empty()).then(|| HeaderValue::from_bytes(location.as_bytes()).unwrap());
            (status, location)
        });
        Self { steps: Arc::new(Mutex::new(steps.collect())), ..Self::default() }
    }

    /// The method and the URI of each request, in order.
    fn lines(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received.iter().map(|request| format!("{} {}", request.method, request.uri)).collect()
    }

    /// Reads the last request.
    fn last<T>(&self, read: impl FnOnce(&Received) -> T) -> T {
        read(self.received.lock().unwrap().last().expect("a request was received"))
    }

    /// The value of a header in each request, in order.
    fn header(&self, name: &str) -> Vec<Option<String>> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let received = self.received.lock().unwrap();
        received.iter().map(|request| request.headers.get(name).map(text)).collect()
    }
}

impl<B> Service<Request<B>> for Script
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::future::Ready<SiteResult>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "the service was called before it was ready");
        let (head, body) = request.into_parts();
        let collected = tokio_test::task::spawn(body.collect()).poll();
        let Poll::Ready(Ok(body)) = collected else { panic!("the body is at hand") };
        self.received.lock().unwrap().push(Received {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            body: body.to_bytes(),
            extensions: head.extensions,
        });
        let (status, location) = self.steps.lock().unwrap().pop_front().unwrap_or((200, None));
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        std::future::ready(Ok(response))
    }
}

fn at(method: Method, uri: &str) -> http::request::Builder {
    Request::builder().method(method).uri(uri)
}

async fn send(script: &Script, layer: RedirectLayer<Body>, request: Request<Body>) -> Response<Body> {
    layer.layer(script.clone()).oneshot(request).await.unwrap()
}

/// Sends a GET whose first response redirects to `location`, and returns the URI of the hop.
async fn hop(from: &str, location: &str) -> Option<String> {
    let script = Script::new([(302, location)]);
    let response =
        send(&script, RedirectLayer::new(10), at(Method::GET, from).body(Body::default()).unwrap()).await;
    let uris: Vec<_> = script.lines();
    assert_eq!(response.status() == 200, uris.len() == 2);
    uris.get(1).map(|line| line.strip_prefix("GET ").unwrap().to_owned())
}

#[tokio::test]
async fn the_status_decides_the_method_and_the_body_of_the_hop() {
    for (status, method, expected) in [
        (301, "GET", "GET"),
        (301, "HEAD", "HEAD"),
        (301, "POST", "GET, no body"),
        (301, "PUT", "PUT"),
        (302, "GET", "GET"),
        (302, "HEAD", "HEAD"),
        (302, "POST", "GET, no body"),
        (302, "DELETE", "DELETE"),
        (303, "GET", "GET, no body"),
        (303, "HEAD", "HEAD, no body"),
        (303, "POST", "GET, no body"),
        (303, "PUT", "GET, no body"),
        (303, "PATCH", "GET, no body"),
        (307, "GET", "GET"),
        (307, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (307, "PATCH", "PATCH"),
        (308, "GET", "GET"),
        (308, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ] {
        let script = Script::new([(status, "/next")]);
        let request = at(method.parse().unwrap(), "http://a.example/")
            .header("content-type", "text/plain")
            .header("content-length", "4")
            .header("content-encoding", "identity")
            .header("transfer-encoding", "chunked")
            .header("accept", "*/*")
            .body(Body::from("text"))
            .unwrap();
        let response = send(&script, RedirectLayer::new(1).clone_bodies(), request).await;
        assert_eq!(response.status(), 200, "{status} {method}");
        script.last(|hop| {
            let has_body = hop.body == "text";
            assert!(has_body || hop.body.is_empty());
            for name in ["content-type", "content-length", "content-encoding", "transfer-encoding"] {
                assert_eq!(hop.headers.contains_key(name), has_body, "{status} {method}: {name}");
            }
            assert_eq!(hop.headers["accept"], "*/*");
            let suffix = if has_body { "" } else { ", no body" };
            assert_eq!(format!("{}{suffix}", hop.method), expected, "{status} {method}");
        });
    }
}

#[tokio::test]
async fn a_response_that_is_no_redirect_is_returned() {
    for (status, location) in [
        (200, "/next"),
        (201, "/next"),
        (300, "/next"),
        (304, "/next"),
        (305, "/next"),
        (306, "/next"),
        (302, ""),
        (307, ""),
        (302, "ftp://a.example/"),
        (302, "javascript:alert(1)"),
        (302, "http://"),
        (302, "http://a b/"),
        (302, "http://a.example:99999/"),
        (404, "/next"),
    ] {
        let script = Script::new([(status, location)]);
        let request = at(Method::GET, "http://a.example/").body(Body::default()).unwrap();
        let response = send(&script, RedirectLayer::new(10), request).await;
        assert_eq!(response.status(), status);
        assert_eq!(script.lines().len(), 1, "{status} {location}");
    }
}

#[tokio::test]
async fn a_location_is_resolved_against_the_uri_of_the_hop_before() {
    for (from, location, expected) in [
        ("http://a.example/x/y?z", "w", "http://a.example/x/w"),
        ("http://a.example/x/y?z", "./../w?v#u", "http://a.example/w?v"),
        ("http://a.example/x/y?z", "?v", "http://a.example/x/y?v"),
        ("http://a.example/x/y?z", "//b.example", "http://b.example/"),
        ("https://a.example", "https:/w", "https://a.example/w"),
        ("https://a.example/", "/caf\u{e9}", "https://a.example/caf%C3%A9"),
        ("https://a.example/", "https://m\u{fc}nchen.example/", "https://xn--mnchen-3ya.example/"),
        ("https://a.example/", "/a b", "https://a.example/a%20b"),
        ("https://a.example/", "http://[2001:db8::1]:8080/w", "http://[2001:db8::1]:8080/w"),
        ("http://[::1]:8080/x", "w", "http://[::1]:8080/w"),
        ("https://a.example/", "https://user:secret@b.example/w", "https://b.example/w"),
    ] {
        assert_eq!(hop(from, location).await.as_deref(), Some(expected), "{location} at {from}");
    }
    let script = Script::new([(302, "/x/y"), (302, "http://b.example/z/"), (302, "w")]);
    let request = at(Method::GET, "http://a.example/").body(Body::default()).unwrap();
    assert_eq!(send(&script, RedirectLayer::new(10), request).await.status(), 200);
    let last = script.last(|hop| hop.uri.clone());
    assert_eq!(last, "http://b.example/z/w");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Compared with the crate url, an implementation of the WHATWG standard. Only credentials
    /// differ: they are dropped.
    #[test]
    fn a_location_is_resolved_as_browsers_do(
        base in "https?://[a-c](\\.example)?(:80|:8080)?(/[a-c%]{0,4}){0,3}(\\?[a-c/]{0,3})?",
        location in "((https?:|HTTP:)[/\\\\]{0,3}|[/\\\\]{0,2})[a-c.@:]{0,4}[a-c./%2e\u{e9}\\\\ {}|^`\"<>']{0,8}(\\?[a-c/?' ]{0,4})?(#[a-c]{0,2})?",
    ) {
        // Without a scheme, the crate url does not ignore a third slash as the standard does.
        let slashes = location.bytes().take_while(|byte| b"/\\".contains(byte)).count();
        prop_assume!(slashes < 3);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let from: Uri = base.parse().unwrap();
        let expected = reqwest::Url::parse(&from.to_string()).unwrap().join(&location).ok();
        let expected = expected.filter(|url| matches!(url.scheme(), "http" | "https")).and_then(|mut url| {
            url.set_fragment(None);
            url.set_username("").unwrap();
            url.set_password(None).unwrap();
            // A request cannot have every URL.
            url.to_string().parse::<Uri>().is_ok().then(|| url.to_string())
        });
        let resolved = match location.is_empty() {
            // The script takes an empty location for none.
            true => expected.clone(),
            false => runtime.block_on(hop(&base, &location)),
        };
        let canonical = |uri: String| reqwest::Url::parse(&uri).unwrap().to_string();
        prop_assert_eq!(resolved.map(canonical), expected, "{:?} at {}", location, base);
    }
}

#[tokio::test]
async fn at_the_limit_the_redirect_is_returned() {
    for limit in 0..4 {
        let script = Script::new((1..10).map(|_| (302, "/again")));
        let request = at(Method::GET, "http://a.example/").body(Body::default()).unwrap();
        let response = send(&script, RedirectLayer::new(limit), request).await;
        assert_eq!((response.status().as_u16(), script.lines().len()), (302, limit + 1));
        assert_eq!(response.headers()["location"], "/again");
    }
}

#[tokio::test]
async fn a_redirect_to_the_same_url_that_sets_a_cookie_is_followed() {
    let sessions = Sessions::new();
    let client = ServiceBuilder::new()
        .layer(RedirectLayer::new(5))
        .layer(SessionLayer::new(&sessions))
        .service(service_fn(|request: Request<Body>| async move {
            let response = Response::builder();
            let response = match request.headers().get(header::COOKIE) {
                None => response.status(302).header("set-cookie", "seen=1").header("location", "/"),
                Some(_) => response,
            };
            Ok::<_, BoxError>(response.body(Body::default())?)
        }));
    let response = client.oneshot(page("a", "/")).await.unwrap();
    assert_eq!(response.status(), 200);
    let info = response.extensions().get::<SessionInfo>().unwrap();
    assert_eq!(info.final_uri().unwrap(), "http://a/");
}

#[tokio::test]
async fn a_body_that_cannot_be_cloned_is_never_sent_again() {
    let stream = || Stream(Some(Bytes::from("text")));
    let layer = || RedirectLayer::<Stream>::new(10);
    for (status, expected) in [(307, 307), (308, 308), (301, 200), (302, 200), (303, 200)] {
        let script = Script::new([(status, "/next")]);
        let request = at(Method::POST, "http://a.example/").body(stream()).unwrap();
        let response = layer().layer(script.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{status}");
        script.last(|last| assert_eq!(last.body.is_empty(), expected == 200));
    }
    // An empty body is sent again without the settings for others.
    let script = Script::new([(307, "/next"), (308, "/next")]);
    let request = at(Method::POST, "http://a.example/").body(Stream::default()).unwrap();
    assert_eq!(layer().layer(script.clone()).oneshot(request).await.unwrap().status(), 200);
    let next = "POST http://a.example/next";
    assert_eq!(script.lines(), ["POST http://a.example/", next, next]);
}

/// A body of one frame that cannot be cloned.
#[derive(Default)]
struct Stream(Option<Bytes>);

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

#[tokio::test]
async fn a_clone_function_is_asked_for_each_hop() {
    let clones = Arc::new(Mutex::new(2));
    let left = clones.clone();
    let layer = RedirectLayer::new(10).clone_bodies_with(move |body: &Body| {
        let mut left = left.lock().unwrap();
        let more = *left > 0;
        *left -= i32::from(more);
        more.then(|| body.clone())
    });
    let script = Script::new((1..10).map(|_| (307, "/next")));
    let request = at(Method::POST, "http://a.example/").body(Body::from("text")).unwrap();
    assert_eq!(send(&script, layer, request).await.status(), 307);
    assert_eq!(script.lines().len(), 3, "the second hop had no further clone");
    script.last(|last| assert_eq!(last.body, "text"));
}

#[tokio::test]
async fn another_origin_gets_no_credentials_and_none_come_back() {
    const SECRETS: [&str; 7] =
        ["authorization", "cookie", "cookie2", "proxy-authorization", "www-authenticate", "x-token", "host"];
    for (location, is_same) in [
        ("/next", true),
        ("http://a.example:80/next", true),
        ("http://A.EXAMPLE/next", true),
        ("https://a.example/next", false),
        ("http://a.example:8080/next", false),
        ("http://www.a.example/next", false),
        ("http://b.example/next", false),
        ("//b.example/next", false),
    ] {
        let script = Script::new([(307, location), (307, "http://a.example/last")]);
        let mut request = at(Method::GET, "http://a.example/").header("x-plain", "1");
        for name in SECRETS {
            let mut value = HeaderValue::from_static("secret");
            value.set_sensitive(name == "x-token");
            request = request.header(name, value);
        }
        let request = request.body(Body::default()).unwrap();
        assert_eq!(send(&script, RedirectLayer::new(10), request).await.status(), 200);
        for name in SECRETS {
            let has: Vec<_> = script.header(name).iter().map(Option::is_some).collect();
            assert_eq!(has, [true, is_same, is_same], "{name} to {location}");
        }
        assert_eq!(script.header("x-plain"), vec![Some(String::from("1")); 3]);
    }
}

#[tokio::test]
async fn a_repeated_header_is_sent_with_all_its_values() {
    let script = Script::new([(302, "/next"), (302, "/last")]);
    let mut request = at(Method::GET, "http://a.example/");
    for value in 0..20 {
        request = request.header("x-many", value).header(format!("x-{value}"), value);
    }
    send(&script, RedirectLayer::new(10), request.body(Body::default()).unwrap()).await;
    let received = script.received.lock().unwrap();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|request| request.headers == received[0].headers));
}

#[tokio::test]
async fn a_referer_shows_another_origin_no_more_than_an_origin() {
    for (from, referer, to, expected) in [
        ("https://a.example/", None, "/next", None),
        ("https://a.example/", Some("https://a.example/x?y"), "/next", Some("https://a.example/x?y")),
        ("https://a.example/", Some("https://a.example/x?y"), "//b.example", Some("https://a.example/")),
        (
            "https://a.example/",
            Some("https://u:p@a.example:81/x"),
            "//b.example",
            Some("https://a.example:81/"),
        ),
        ("https://a.example/", Some("https://a.example/x"), "http://a.example/", None),
        ("http://a.example/", Some("http://a.example/x"), "https://b.example/", Some("http://a.example/")),
        ("http://a.example/", Some("/no/origin"), "https://b.example/", None),
    ] {
        let script = Script::new([(302, to)]);
        let mut request = at(Method::GET, from);
        if let Some(referer) = referer {
            request = request.header("referer", referer);
        }
        send(&script, RedirectLayer::new(10), request.body(Body::default()).unwrap()).await;
        assert_eq!(script.header("referer")[1].as_deref(), expected, "{from} {referer:?} {to}");
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Foreign(u32);

#[tokio::test]
async fn extensions_stay_on_one_origin_and_those_of_this_crate_stay_everywhere() {
    let cookies = RequestCookies::new([("once", "1")]);
    for (location, has_foreign) in [("/next", true), ("http://b.example/", false)] {
        let script = Script::new([(302, location), (302, "http://a.example/last")]);
        let request = at(Method::GET, "http://a.example/")
            .extension(SessionId::from("a"))
            .extension(CookieMode::SendOnly)
            .extension(ReplayBudget::new(3))
            .extension(Proxy::direct())
            .extension(Foreign(7))
            .extension(cookies.clone())
            .body(Body::default())
            .unwrap();
        send(&script, RedirectLayer::new(10), request).await;
        let received = script.received.lock().unwrap();
        assert!(received[0].extensions.get::<RequestCookies>().is_some());
        for hop in &received[1..] {
            let extensions = &hop.extensions;
            assert_eq!(extensions.get(), Some(&SessionId::from("a")));
            assert_eq!(extensions.get(), Some(&CookieMode::SendOnly));
            assert!(extensions.get::<ReplayBudget>().is_some() && extensions.get::<Proxy>().is_some());
            assert!(extensions.get::<RequestCookies>().is_none());
            assert_eq!(extensions.get::<Foreign>().is_some(), has_foreign, "{location}");
        }
    }
}

#[tokio::test]
async fn each_hop_sends_and_stores_the_cookies_of_its_own_url() {
    let sessions = Sessions::new();
    let received: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = received.clone();
    let client = ServiceBuilder::new()
        .layer(RedirectLayer::new(5))
        .layer(SessionLayer::new(&sessions))
        .service(service_fn(move |request: Request<Body>| {
            let cookie = request.headers().get(header::COOKIE).map_or("", |value| value.to_str().unwrap());
            let host = request.uri().host().unwrap();
            seen.lock().unwrap().push(format!("{host}: {cookie}"));
            let next = match (host, request.uri().path()) {
                ("a.example", "/") => Some("http://b.example/"),
                ("b.example", _) => Some("http://a.example/last"),
                _ => None,
            };
            let response = Response::builder().header("set-cookie", format!("{}=1", &host[..1]));
            let response = match next {
                Some(next) => response.status(302).header("location", next),
                None => response,
            };
            async move { Ok::<_, BoxError>(response.body(Body::default())?) }
        }));
    let request = || {
        at(Method::GET, "http://a.example/")
            .extension(SessionId::from("alice"))
            .header("cookie", "own=1")
            .extension(RequestCookies::new([("once", "1")]))
            .body(Body::default())
            .unwrap()
    };
    client.oneshot(request()).await.unwrap();
    // The request's own header is not for the other origin, and does not come back.
    assert_eq!(
        *received.lock().unwrap(),
        ["a.example: own=1; once=1", "b.example: ", "a.example: once=1; a=1"]
    );
    let alice = sessions.session("alice");
    assert_eq!(alice.cookies_for("http://b.example/").unwrap()[0].name(), Some("b"));
    assert_eq!(sessions.len(), 1);
}

#[tokio::test]
async fn a_path_stays_a_path_on_its_host() {
    let script = Script::new([(302, "/next?q"), (302, "http://a.example/last"), (302, "http://b.example/")]);
    let request = at(Method::GET, "/").header("host", "a.example").body(Body::default()).unwrap();
    assert_eq!(send(&script, RedirectLayer::new(10), request).await.status(), 200);
    assert_eq!(script.lines(), ["GET /", "GET /next?q", "GET /last", "GET http://b.example/"]);
    let host = Some(String::from("a.example"));
    assert_eq!(script.header("host"), [host.clone(), host.clone(), host, None]);
    // Without a host, nothing says where the location leads.
    let script = Script::new([(302, "/next")]);
    let request = at(Method::GET, "/").body(Body::default()).unwrap();
    assert_eq!(send(&script, RedirectLayer::new(10), request).await.status(), 302);
}

#[tokio::test]
async fn a_redirect_to_a_named_uri_is_returned_and_not_fetched() {
    let layer = || {
        RedirectLayer::new(10)
            .stop_at(|uri| uri.path() == "/login")
            .stop_at(|uri| uri.host() == Some("b.example"))
    };
    for (location, stops) in [("/login?next=x", true), ("http://b.example/", true), ("/other", false)] {
        let script = Script::new([(302, "/first"), (302, location)]);
        let request = at(Method::GET, "http://a.example/").body(Body::default()).unwrap();
        let response = send(&script, layer(), request).await;
        assert_eq!(response.status(), if stops { 302 } else { 200 }, "{location}");
        assert_eq!(script.lines().len(), if stops { 2 } else { 3 }, "{location}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_page_that_is_not_fetched_still_means_expired() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let inner = site.clone();
    // Rejected pages redirect to the login page.
    let redirecting = service_fn(move |request: Request<Body>| {
        let site = inner.clone();
        async move {
            let mut response = site.oneshot(request).await?;
            if response.status() == 403 {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert("location", HeaderValue::from_static("/login"));
            }
            Ok::<_, BoxError>(response)
        }
    });
    let client = ServiceBuilder::new()
        .layer(ruleless(&sessions).expired_when(Expired::redirect_to("/login")).renew_with(log_in))
        .layer(RedirectLayer::new(10).stop_at(|uri| uri.path() == "/login"))
        .layer(SessionLayer::new(&sessions))
        .service(redirecting);
    assert_eq!(good(spawn_pages(&client, "a", 10)).await, 10);
    assert_eq!(site.logins(), 1, "only the rule has fetched the login page");
}

/// A service that redirects from `/` to `/next`, and holds each response until it is released.
#[derive(Clone)]
struct Held {
    permits: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Held {
    fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), seen: Arc::default() }
    }

    fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + use<> {
        let held = self.clone();
        service_fn(move |request: Request<Body>| {
            let held = held.clone();
            async move {
                let path = request.uri().path().to_owned();
                let generation =
                    Identity::of(request.extensions()).map_or(0, |identity| identity.generation());
                held.seen.lock().unwrap().push((path.clone(), generation));
                held.permits.acquire().await?.forget();
                let response = match path.as_str() {
                    "/" => Response::builder().status(302).header("location", "/next"),
                    _ => Response::builder().header("set-cookie", "sid=1"),
                };
                Ok(response.body(Body::default())?)
            }
        })
    }

    fn seen(&self) -> Vec<(String, u64)> {
        self.seen.lock().unwrap().clone()
    }
}

fn seen(paths: &[(&str, u64)]) -> Vec<(String, u64)> {
    paths.iter().map(|(path, generation)| (String::from(*path), *generation)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hop_after_the_identity_ended_is_not_sent_and_the_request_starts_again() {
    for (method, replayed) in [(Method::GET, true), (Method::POST, false)] {
        let (held, sessions) = (Held::new(), Sessions::new());
        let client = ServiceBuilder::new()
            .layer(ruleless(&sessions).renew_with(|_| async { Ok(()) }))
            .layer(RedirectLayer::new(10))
            .layer(SessionLayer::new(&sessions))
            .service(held.service());
        let request = at(method.clone(), "http://a/").extension(SessionId::from("a"));
        let request = request.body(Body::default()).unwrap();
        let mut task = tokio_test::task::spawn(client.oneshot(request));
        assert_pending!(task.poll());
        sessions.session("a").clear();
        held.permits.add_permits(1);
        let response = async {
            held.permits.add_permits(2);
            task.await
        };
        assert_eq!(response.await.unwrap().status(), 200, "{method}");
        if replayed {
            assert_eq!(held.seen(), seen(&[("/", 1), ("/", 2), ("/next", 2)]));
        } else {
            assert_eq!(held.seen(), seen(&[("/", 1), ("/next", 1)]));
        }
        assert_eq!(sessions.stats().replayed_ended_mid_redirect, u64::from(replayed));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cookies_of_all_hops_and_the_last_uri_are_in_the_info() {
    let sessions = Sessions::new();
    let client = ServiceBuilder::new()
        .layer(ruleless(&sessions))
        .layer(RedirectLayer::new(10))
        .layer(SessionLayer::new(&sessions))
        .service(service_fn(|request: Request<Body>| async move {
            let response = match request.uri().path() {
                "/" => {
                    Response::builder().status(303).header("location", "/next").header("set-cookie", "a=1")
                }
                _ => Response::builder().header("set-cookie", "b=2"),
            };
            Ok::<_, BoxError>(response.body(Body::default())?)
        }));
    let response = client.oneshot(page("a", "/")).await.unwrap();
    let info = response.extensions().get::<SessionInfo>().unwrap();
    let names: Vec<_> = info.cookies().iter().filter_map(|cookie| cookie.name()).collect();
    assert_eq!((names, info.final_uri().unwrap().path()), (vec!["a", "b"], "/next"));
}

#[tokio::test(start_paused = true)]
async fn a_hop_needs_no_second_permit_and_a_dropped_request_sends_no_hop() {
    let held = Held::new();
    let client = ServiceBuilder::new()
        .layer(RedirectLayer::new(10))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(held.service());
    let request = || at(Method::GET, "http://a/").body(Body::default()).unwrap();
    held.permits.add_permits(2);
    assert_eq!(client.clone().oneshot(request()).await.unwrap().status(), 200);

    // Dropped in flight.
    let mut dropped = tokio_test::task::spawn(client.clone().oneshot(request()));
    assert_pending!(dropped.poll());
    drop(dropped);
    // Dropped while the service is not ready for the hop: another request has taken the permit.
    let mut dropped = tokio_test::task::spawn(client.clone().oneshot(request()));
    assert_pending!(dropped.poll());
    let mut other = tokio_test::task::spawn(client.clone().oneshot(request()));
    assert_pending!(other.poll());
    held.permits.add_permits(1);
    assert_pending!(dropped.poll(), "the permit goes to the request that waited for it");
    assert_pending!(other.poll());
    drop(dropped);
    held.permits.add_permits(2);
    assert_eq!(other.await.unwrap().status(), 200);
    let paths: Vec<_> = held.seen().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/", "/next", "/", "/", "/", "/next"]);
}

#[tokio::test]
async fn a_response_body_is_dropped_before_the_hop_asks_for_readiness() {
    /// A body that holds the only permit.
    struct Holding(#[expect(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit);
    #[derive(Clone)]
    struct OneBody(OnePermit);
    impl Service<Request<Body>> for OneBody {
        type Response = Response<Holding>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Response<Holding>, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0.poll()
        }
        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let mut response = Response::new(Holding(self.0.take()));
            if request.uri().path() == "/" {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert("location", HeaderValue::from_static("/next"));
            }
            std::future::ready(Ok(response))
        }
    }
    let service = RedirectLayer::new(10).layer(OneBody(OnePermit::new()));
    let request = at(Method::GET, "http://a/").body(Body::default()).unwrap();
    let mut task = tokio_test::task::spawn(service.oneshot(request));
    assert_eq!(assert_ready!(task.poll()).unwrap().status(), 200);
}

/// Readiness that is one permit.
struct OnePermit(Arc<Semaphore>, Option<OwnedSemaphorePermit>);

impl OnePermit {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)), None)
    }

    fn poll(&mut self) -> Poll<Result<(), BoxError>> {
        if self.1.is_none() {
            self.1 = self.0.clone().try_acquire_owned().ok();
        }
        if self.1.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn take(&mut self) -> OwnedSemaphorePermit {
        self.1.take().expect("the service was ready")
    }
}

impl Clone for OnePermit {
    fn clone(&self) -> Self {
        Self(self.0.clone(), None)
    }
}

#[tokio::test]
async fn an_error_of_a_hop_goes_to_the_caller() {
    let client = RedirectLayer::new(10).layer(service_fn(|request: Request<Body>| async move {
        match request.uri().path() {
            "/" => {
                let response = Response::builder().status(302).header("location", "/next");
                Ok::<_, BoxError>(response.body(Full::<Bytes>::default())?)
            }
            _ => Err("the connection was reset".into()),
        }
    }));
    let request = at(Method::GET, "http://a/").body(Body::default()).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap_err().to_string(), "the connection was reset");
}
