//! Redirects that keep the session.
//!
//! tower-http's `FollowRedirect` drops all extensions of a request on a hop to another origin, http to https on one host included.
//! The session would be lost in the middle of a chain. [`follow_redirects`] makes a layer of it whose policy carries what this
//! crate puts there, and filters credentials as tower-http does.
//!
//! It belongs above [`SessionLayer`](crate::SessionLayer), so that each hop sends and stores its own cookies, and below
//! [`RenewalLayer`](crate::RenewalLayer), so that a replay starts from the caller's request.

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

/// [`Layer`](tower_layer::Layer) that follows at most `most` redirects and keeps the session on the way.
///
/// A redirect beyond that is returned as it came. The body of a request is sent again after a 307 or 308 only if it is empty;
/// [`KeepSession`] combines with tower-http's other policies for more.
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
///         let answer = http::Response::builder();
///         match request.uri().host() {
///             Some("a.example") => answer.status(302).header("location", "https://b.example/").body(String::new()),
///             _ => answer.header("set-cookie", "b=2").body(String::from("from b")),
///         }
///     }));
///
/// let request = http::Request::get("https://a.example/").extension(SessionId::from("alice")).body(Empty::new())?;
/// let response = client.oneshot(request).await?;
/// assert_eq!(response.body(), "from b");
/// assert_eq!(sessions.session("alice").cookies()[0].domain(), "b.example");
/// # Ok::<_, tower::BoxError>(())
/// # }).unwrap();
/// ```
pub fn follow_redirects(most: usize) -> FollowRedirectLayer<KeepSession> {
    FollowRedirectLayer::with_policy(KeepSession::new(most))
}

/// A redirection [`Policy`] that keeps the session of a request across origins.
///
/// On a hop to another origin, credentials in headers and the extensions of others are removed, as by [`FilterCredentials`].
/// [`RequestCookies`] are stored for the first URL alone.
#[derive(Clone, Debug)]
pub struct KeepSession {
    filter: FilterCredentials,
    left: usize,
    is_hop: bool,
}

impl KeepSession {
    /// Creates a policy that follows at most `most` redirects.
    pub fn new(most: usize) -> Self {
        let filter = FilterCredentials::new()
            .allow_extension::<Identity>()
            .allow_extension::<Session>()
            .allow_extension::<SessionId>()
            .allow_extension::<CookieMode>()
            .allow_extension::<ReplayBudget>()
            .allow_extension::<SendContext>()
            .allow_extension::<Proxy>();
        Self { filter, left: most, is_hop: false }
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
