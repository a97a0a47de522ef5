//! Logins that fail: which are tried again, and what their errors say.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{Request, Response, header};
use tower::{ServiceBuilder, service_fn};
use tower_client_sessions::{
    RedirectLayer, Renewal, RenewalLayer, SessionLayer, Sessions,
    gate::{BoxError, PermanentError, RenewalError, RenewalErrorKind},
    renewal::{Expired, LoginError},
};

use crate::support::*;

/// How a site responds to a login, with the cookie that each of its responses sets.
#[derive(Clone, Copy)]
struct LoginPage {
    status: u16,
    location: Option<&'static str>,
    cookie: Option<&'static str>,
}

/// A site whose pages redirect to the login, and whose login responds as `page` says.
fn site(page: LoginPage, logins: &Arc<AtomicU32>) -> impl FnMut(Request<Body>) -> SiteFuture + Clone + use<> {
    let logins = logins.clone();
    move |request| {
        let mut response = Response::builder();
        if let Some(cookie) = page.cookie {
            response = response.header(header::SET_COOKIE, cookie);
        }
        let response = match (request.method().as_str(), request.uri().path()) {
            ("POST", "/login") => {
                logins.fetch_add(1, Ordering::Relaxed);
                let response = response.status(page.status);
                match page.location {
                    Some(location) => response.header(header::LOCATION, location),
                    None => response,
                }
            }
            ("GET", "/login") => response,
            _ => response.status(302).header(header::LOCATION, "/login"),
        };
        std::future::ready(Ok(response.body(Body::default()).unwrap()))
    }
}

type SiteFuture = std::future::Ready<Result<Response<Body>, BoxError>>;

/// Returns the number of logins, and the error of the renewal.
async fn fails_to_log_in<F>(
    page: LoginPage,
    layer: impl Fn(RenewalLayer<Body>) -> RenewalLayer<Body>,
    check: F,
) -> (u32, RenewalError)
where
    F: Fn(Renewal<Body>) -> Result<(), BoxError> + Clone + Send + Sync + 'static,
{
    let sessions = Sessions::new();
    let logins = Arc::default();
    let rule = RenewalLayer::new(&sessions)
        .expired_when(Expired::status([401]).or(Expired::redirect_to("/login")))
        .renew_with(move |renewal: Renewal<Body>| {
            let check = check.clone();
            async move {
                let login = Request::post("http://a/login?password=secret").body(Body::default())?;
                renewal.send(login).await?;
                check(renewal)
            }
        });
    let client = ServiceBuilder::new()
        .layer(layer(rule))
        .layer(RedirectLayer::new(5))
        .layer(SessionLayer::new(&sessions))
        .service(service_fn(site(page, &logins)));
    let request = self::page("a", "/");
    let error = tower::ServiceExt::oneshot(client, request).await.unwrap_err();
    (logins.load(Ordering::Relaxed), error.downcast_ref::<RenewalError>().unwrap().clone())
}

/// The login error among the sources of an error.
fn login_error(error: &RenewalError) -> &LoginError {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return error;
        }
        source = error.source();
    }
    panic!("no login error in {error:?}")
}

/// Django shows the form again.
const DJANGO: LoginPage = LoginPage { status: 200, location: None, cookie: Some("csrftoken=secret; Path=/") };
/// Flask and Express redirect to the form, and their session's cookie is there before the login.
const FLASK: LoginPage =
    LoginPage { status: 302, location: Some("/login"), cookie: Some("sid=secret; Path=/") };

#[tokio::test(start_paused = true)]
async fn hazard_71_a_wrong_password_is_tried_once() {
    let leaves_login = |renewal: Renewal<Body>| renewal.require_not_at("/login");
    let unauthorized = LoginPage { status: 401, location: None, cookie: None };
    let forbidden = LoginPage { status: 403, ..unauthorized };
    for (page, status) in [(DJANGO, 200), (FLASK, 200), (unauthorized, 401), (forbidden, 403)] {
        let (logins, error) = fails_to_log_in(page, |layer| layer, leaves_login).await;
        assert_eq!((logins, error.kind()), (1, RenewalErrorKind::Permanent), "{status}");
        assert!(error.source().unwrap().is::<PermanentError>());
        let login = login_error(&error);
        assert_eq!(login.status().unwrap(), status);
        assert_eq!((login.session(), login.step()), (&"a".into(), Some(1)));
        assert_eq!(
            login.to_string(),
            format!(
                "session a: request 1 of the renewal, POST /login, ended with status {status}: \
                 the login did not leave /login"
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_71_every_condition_of_a_rule_is_permanent_unless_it_says_otherwise() {
    let page = LoginPage { status: 200, location: None, cookie: None };
    let cookie = |renewal: Renewal<Body>| renewal.require_cookie("sid");
    let (logins, error) = fails_to_log_in(page, |layer| layer, cookie).await;
    assert_eq!((logins, error.kind()), (1, RenewalErrorKind::Permanent));
    assert!(login_error(&error).to_string().ends_with("no cookie named sid is set"));

    let condition = |renewal: Renewal<Body>| renewal.ensure(false, "no greeting on the page");
    let (logins, error) = fails_to_log_in(page, |layer| layer, condition).await;
    assert_eq!((logins, error.kind()), (1, RenewalErrorKind::Permanent));
    assert!(login_error(&error).to_string().ends_with("no greeting on the page"));

    let success = |renewal: Renewal<Body>| renewal.require_success();
    let (logins, error) = fails_to_log_in(LoginPage { status: 404, ..page }, |layer| layer, success).await;
    assert_eq!((logins, error.kind()), (1, RenewalErrorKind::Permanent));

    // A rule that checks nothing, where the login itself looks like an expired session.
    let (logins, error) = fails_to_log_in(LoginPage { status: 401, ..page }, |layer| layer, |_| Ok(())).await;
    assert_eq!((logins, error.kind()), (1, RenewalErrorKind::Permanent));

    let transient = |renewal: Renewal<Body>| renewal.ensure_transient(false, "not yet");
    let (logins, error) = fails_to_log_in(page, |layer| layer, transient).await;
    assert_eq!((logins, error.kind()), (5, RenewalErrorKind::Failed));
}

#[tokio::test(start_paused = true)]
async fn hazard_71_a_fault_of_the_server_is_tried_again() {
    for status in [408, 429, 500, 503] {
        let page = LoginPage { status, location: None, cookie: None };
        let success = |renewal: Renewal<Body>| renewal.require_success();
        let (logins, error) = fails_to_log_in(page, |layer| layer, success).await;
        assert_eq!((logins, error.kind()), (5, RenewalErrorKind::Failed), "{status}");
        assert!(login_error(&error).is_transient());
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_71_a_login_with_one_request_is_judged_by_its_status() {
    let one_request = |layer: RenewalLayer<Body>| {
        layer.renew_with_request(Request::post("http://a/login").body(Body::default()).unwrap())
    };
    let page = LoginPage { status: 200, location: None, cookie: None };
    for (page, logins, kind) in [
        (LoginPage { status: 401, ..page }, 1, RenewalErrorKind::Permanent),
        (LoginPage { status: 403, ..page }, 1, RenewalErrorKind::Permanent),
        (page, 1, RenewalErrorKind::Permanent),
        (LoginPage { status: 502, ..page }, 5, RenewalErrorKind::Failed),
    ] {
        let (found, error) = fails_to_log_in(page, one_request, |_| Ok(())).await;
        assert_eq!((found, error.kind()), (logins, kind), "{}", page.status);
        assert!(login_error(&error).to_string().ends_with("renewal_succeeds_when rejects the response"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_redirects_elsewhere_has_worked_whether_or_not_the_redirect_is_followed() {
    for follows in [true, false] {
        let (sessions, logins) = (Sessions::builder().login_first().build().unwrap(), Arc::default());
        let layer = RenewalLayer::new(&sessions).renew_with(|renewal: Renewal<Body>| async move {
            renewal.send(Request::post("http://a/login").body(Body::default())?).await?;
            renewal.require_not_at("/login")
        });
        let page = LoginPage { status: 303, location: Some("/home"), cookie: Some("sid=1; Path=/") };
        let (mut login, cookie) = (site(page, &logins), header::COOKIE);
        let server = service_fn(move |request: Request<Body>| match request.headers().get(&cookie) {
            Some(_) => std::future::ready(Ok(Response::new(Body::default()))),
            None => login(request),
        });
        let below = SessionLayer::new(&sessions);
        let builder = ServiceBuilder::new().layer(layer);
        let request = self::page("a", "/");
        let response = if follows {
            let client = builder.layer(RedirectLayer::new(5)).layer(below).service(server);
            tower::ServiceExt::oneshot(client, request).await
        } else {
            tower::ServiceExt::oneshot(builder.layer(below).service(server), request).await
        };
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(logins.load(Ordering::Relaxed), 1);
    }
}
