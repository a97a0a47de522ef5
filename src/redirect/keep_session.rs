//! A policy for tower-http's redirect layer that keeps the session.
//!
//! On a redirect to another origin, tower-http's `FollowRedirect` removes all extensions of a
//! request, also from http to https on one host. The session would be lost.

use http::Request;
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{Action, Attempt, FilterCredentials, Policy},
};

use crate::{
    profile::Proxy,
    renewal::ReplayBudget,
    session::{CookieMode, Identity, RequestCookies, Session, SessionId, request::SendContext},
};

/// [`Layer`](tower_layer::Layer) of tower-http that follows at most `max` redirects and keeps the
/// session.
///
/// [`RedirectLayer`](super::RedirectLayer) costs less. Use this function to combine [`KeepSession`]
/// with other policies of tower-http.
///
/// The response of a further redirect is returned unchanged. After a 307 or 308, a request is sent
/// again only if its body is empty. To change that, combine [`KeepSession`] with tower-http's other
/// policies.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use http_body_util::Empty;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_client_sessions::{SessionId, SessionLayer, Sessions, redirect::follow_redirects};
///
/// let sessions = Sessions::new();
/// let client = ServiceBuilder::new()
///     .layer(follow_redirects(10))
///     .layer(SessionLayer::new(&sessions))
///     .service(service_fn(|request: http::Request<Empty<bytes::Bytes>>| async move {
///         let response = http::Response::builder();
///         match request.uri().host() {
///             Some("a.example") => {
///                 let response = response.status(302).header("location", "https://b.example/");
///                 response.body(String::new())
///             }
///             _ => response.header("set-cookie", "b=2").body(String::from("from b")),
///         }
///     }));
///
/// let id = SessionId::from("alice");
/// let request = http::Request::get("https://a.example/").extension(id).body(Empty::new())?;
/// let response = client.oneshot(request).await?;
/// assert_eq!(response.body(), "from b");
/// assert_eq!(sessions.session("alice").cookies()[0].domain(), "b.example");
/// # Ok::<_, tower::BoxError>(())
/// # }).unwrap();
/// ```
pub fn follow_redirects(max: usize) -> FollowRedirectLayer<KeepSession> {
    FollowRedirectLayer::with_policy(KeepSession::new(max))
}

/// A redirection [`Policy`] that keeps the session of a request across origins.
///
/// On a redirect to another origin, it removes credentials in headers and the extensions of other
/// crates, like [`FilterCredentials`]. [`RequestCookies`] apply to the first URL only.
#[derive(Clone, Debug)]
pub struct KeepSession {
    filter: FilterCredentials,
    left: usize,
    is_hop: bool,
}

impl KeepSession {
    /// Creates a policy that follows at most `max` redirects.
    pub fn new(max: usize) -> Self {
        let filter = FilterCredentials::new()
            .allow_extension::<Identity>()
            .allow_extension::<Session>()
            .allow_extension::<SessionId>()
            .allow_extension::<CookieMode>()
            .allow_extension::<ReplayBudget>()
            .allow_extension::<SendContext>()
            .allow_extension::<Proxy>();
        Self { filter, left: max, is_hop: false }
    }
}

impl<B, E> Policy<B, E> for KeepSession {
    fn redirect(&mut self, attempt: &Attempt<'_>) -> Result<Action, E> {
        if self.left == 0 {
            return Ok(Action::Stop);
        }
        self.left -= 1;
        self.is_hop = true;
        Policy::<B, E>::redirect(&mut self.filter, attempt)
    }

    fn on_request(&mut self, request: &mut Request<B>) {
        if self.is_hop {
            request.extensions_mut().remove::<RequestCookies>();
        }
        Policy::<B, E>::on_request(&mut self.filter, request);
    }
}
