//! Rules on response bodies: JSON, compressed bodies, and bodies that the rule did not get.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions,
    renewal::PeekLayer,
    session::{EventKind, MissingBody},
};

type Body = Full<Bytes>;

/// Content type, content encoding and body of a page.
type Page = (&'static str, Option<&'static str>, &'static str);

/// A site that returns `expired` to requests without its cookie, and `good` to others.
fn site(
    expired: Page,
    good: Page,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone {
    tower::service_fn(move |request: Request<Body>| async move {
        if request.uri().path() == "/login" {
            let response = Response::builder().header("set-cookie", "sid=1; Path=/");
            return Ok(response.body(Body::default())?);
        }
        let page = if request.headers().contains_key("cookie") { good } else { expired };
        let (content_type, encoding, body) = page;
        let mut response = Response::builder().header("content-type", content_type);
        if let Some(encoding) = encoding {
            response = response.header("content-encoding", encoding);
        }
        Ok(response.body(Body::from(body))?)
    })
}

fn renewing(sessions: &Sessions, rule: &Expired) -> RenewalLayer<Body> {
    RenewalLayer::new(sessions).expired_when(rule.clone()).renew_with(|renewal: Renewal<Body>| async move {
        let login = Request::get("http://shop.example/login").body(Body::default())?;
        renewal.send(login).await?;
        renewal.ensure(renewal.has_cookie("sid"), "the login set no cookie")
    })
}

async fn get<S, R>(client: &S) -> Result<String, BoxError>
where
    S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone,
    R: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let request =
        Request::get("http://shop.example/page").extension(SessionId::from("a")).body(Body::default())?;
    let response = client.clone().oneshot(request).await?;
    Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())?)
}

/// Returns what a rule has reported as missing.
async fn missing(
    rule: &Expired,
    peek: Option<PeekLayer>,
    expired: Page,
    requests: usize,
) -> Vec<MissingBody> {
    let sessions = Sessions::new();
    let mut events = sessions.events();
    let site = site(expired, expired);
    let layer = ServiceBuilder::new().layer(renewing(&sessions, rule));
    for _ in 0..requests {
        let page = match peek.clone() {
            Some(peek) => {
                get(&layer.clone().layer(SessionLayer::new(&sessions)).layer(peek).service(site.clone()))
                    .await
            }
            None => get(&layer.clone().layer(SessionLayer::new(&sessions)).service(site.clone())).await,
        };
        assert_eq!(page.unwrap(), expired.2);
    }
    let kinds = std::iter::from_fn(|| events.try_recv()).map(|event| event.kind);
    kinds
        .filter_map(|kind| match kind {
            EventKind::BodyMissing { missing } => Some(missing),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_rule_on_a_text_renews_for_each_content_type_that_it_asks_for() {
    for content_type in
        ["text/html; charset=utf-8", "Text/Plain", "application/json", "application/problem+json"]
    {
        let (sessions, rule) = (Sessions::new(), Expired::body_contains("has ended"));
        let client = ServiceBuilder::new()
            .layer(renewing(&sessions, &rule))
            .layer(SessionLayer::new(&sessions))
            .layer(PeekLayer::for_rule(&rule))
            .service(site(
                (content_type, None, "\"Your session has ended\""),
                (content_type, None, "\"here\""),
            ));
        assert_eq!(get(&client).await.unwrap(), "\"here\"", "{content_type}");
        assert_eq!(sessions.stats().renewals_committed, 1);
    }
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn a_rule_on_a_json_value_renews() {
    let sessions = Sessions::new();
    let rule = Expired::status([401]).or(Expired::body_json("/error/code", |code| code == "expired"));
    let expired = ("application/json", None, r#"{"error": {"code": "expired"}}"#);
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions, &rule))
        .layer(SessionLayer::new(&sessions))
        .layer(PeekLayer::for_rule(&rule))
        .service(site(expired, ("application/json; charset=utf-8", None, r#"{"error": null}"#)));
    assert_eq!(get(&client).await.unwrap(), r#"{"error": null}"#);
    assert_eq!(sessions.stats().renewals_committed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_rule_sees_the_text_above_a_layer_that_decompresses() {
    let (sessions, rule) = (Sessions::new(), Expired::body_contains("has ended"));
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions, &rule))
        .layer(SessionLayer::new(&sessions))
        .layer(PeekLayer::for_rule(&rule))
        .map_response(|mut response: Response<Body>| {
            // It stands for a decompression: the text is the same, and the header is removed.
            response.headers_mut().remove("content-encoding");
            response
        })
        .service(site(
            ("text/html", Some("gzip"), "Your session has ended"),
            ("text/html", Some("gzip"), "here"),
        ));
    assert_eq!(get(&client).await.unwrap(), "here");
}

#[tokio::test(start_paused = true)]
async fn a_rule_without_its_peek_layer_fails_each_request_and_names_the_layer() {
    let (sessions, rule) = (Sessions::new(), Expired::status([401]).or(Expired::body_contains("has ended")));
    let page = ("text/html", None, "Your session has ended");
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions, &rule))
        .layer(SessionLayer::new(&sessions))
        .layer(PeekLayer::new(64))
        .service(site(page, page));
    let error = get(&client).await.unwrap_err();
    assert!(error.to_string().starts_with("PeekLayer::for_rule is missing below"), "{error}");
    assert_eq!(sessions.stats().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_got_no_body_reports_it_once() {
    let rule = Expired::body(|body| body.starts_with(b"Please log in"));
    let page = ("text/html", None, "Please log in");
    assert_eq!(missing(&rule, None, page, 3).await, [MissingBody::NoPeekLayer]);

    let rule = Expired::body_contains("log in");
    let peek = Some(PeekLayer::for_rule(&rule));
    let page = ("text/html", Some("gzip"), "Please log in");
    assert_eq!(missing(&rule, peek, page, 3).await, [MissingBody::Encoded]);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_content_type_is_not_reported() {
    let rule = Expired::body_contains("log in");
    let peek = Some(PeekLayer::for_rule(&rule));
    assert_eq!(missing(&rule, peek, ("image/png", None, "log in"), 2).await, []);
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_that_is_longer_than_the_limit_is_reported_once() {
    let rule = Expired::body_json("/a", |a| a == 1);
    let peek = Some(PeekLayer::for_rule(&rule).limit(4));
    let page = ("application/json", None, r#"{"a": 1}"#);
    assert_eq!(missing(&rule, peek, page, 2).await, [MissingBody::Truncated]);

    let rule = Expired::body_json("/a", |a| a == 1);
    let peek = Some(PeekLayer::for_rule(&rule));
    assert_eq!(missing(&rule, peek, ("application/json", None, "no JSON"), 2).await, []);
}
