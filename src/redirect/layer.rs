//! The layer that applies [`RedirectService`].

use std::{fmt, sync::Arc};

use http::Uri;
use http_body::Body;
use tower_layer::Layer;

use super::{RedirectService, call::Config};
use crate::renewal::CloneBody;

/// [`Layer`] that applies [`RedirectService`]: follows redirects within the session of a request.
///
/// The [module](super) explains which responses are followed, and what a hop sends. `B` is the type
/// of request bodies; it is usually inferred.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use http_body_util::Empty;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_client_sessions::{RedirectLayer, SessionId, SessionLayer, Sessions};
///
/// let sessions = Sessions::new();
/// let client = ServiceBuilder::new()
///     .layer(RedirectLayer::new(10))
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
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RedirectLayer<B> {
    config: Config<B>,
}

impl<B> RedirectLayer<B> {
    /// Creates a layer that follows at most `limit` redirects of one request.
    ///
    /// The response of a further redirect is returned as it is, and is no error. By default, a 307
    /// or 308 is followed only if the body is empty.
    pub fn new(limit: usize) -> Self
    where
        B: Body + Default,
    {
        let clone_body = CloneBody::empty_only();
        Self { config: Config { limit, clone_body, empty_body: B::default, stop_at: None } }
    }

    /// Sends any body again, by cloning it. Default: only an empty body is sent again.
    pub fn clone_bodies(self) -> Self
    where
        B: Clone,
    {
        self.clone_bodies_with(|body| Some(body.clone()))
    }

    /// Sets how bodies are cloned. Default: only empty bodies are cloned.
    ///
    /// `clone` is called for each request before it is sent. If it returns `None`, a redirect that
    /// needs the body is returned as it is.
    pub fn clone_bodies_with(mut self, clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static) -> Self {
        self.config.clone_body = CloneBody::from_fn(clone);
        self
    }

    /// Does not follow a redirect to a URI for which `stops` returns `true`, and returns its
    /// response. Several closures stop at what any of them names.
    ///
    /// Use it for redirects to a login page: the response already means that the session has
    /// expired ([`Expired::redirect_to`](crate::Expired::redirect_to)), and the page need not be
    /// fetched.
    ///
    /// # Examples
    ///
    /// ```
    /// use http_body_util::Empty;
    /// use tower_client_sessions::RedirectLayer;
    ///
    /// let layer: RedirectLayer<Empty<bytes::Bytes>> =
    ///     RedirectLayer::new(10).stop_at(|uri| uri.path() == "/login");
    /// # drop(layer);
    /// ```
    pub fn stop_at(mut self, stops: impl Fn(&Uri) -> bool + Send + Sync + 'static) -> Self {
        self.config.stop_at = Some(match self.config.stop_at.take() {
            None => Arc::new(stops),
            Some(earlier) => Arc::new(move |uri| earlier(uri) || stops(uri)),
        });
        self
    }
}

impl<S, B> Layer<S> for RedirectLayer<B> {
    type Service = RedirectService<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        RedirectService::new(inner, self.config.clone())
    }
}

impl<B> Clone for RedirectLayer<B> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone() }
    }
}

impl<B> fmt::Debug for RedirectLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectLayer").field("config", &self.config).finish()
    }
}
