//! `PeekLayer`: reads the beginning of response bodies, for sites that report an expired session
//! with status 200.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Expired,
    peeked_body::{NotPeeked, PeekedBody},
};

/// [`Layer`] that applies [`PeekService`]: reads the beginning of some bodies before it returns the
/// response.
///
/// Put it below [`RedirectLayer`](crate::RedirectLayer), and above a layer that decompresses, so
/// that it reads text. The caller still gets the whole body. A body with a `Content-Encoding` is
/// not read.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_client_sessions::renewal::{PeekLayer, PeekedBody};
///
/// let site = service_fn(|_: http::Request<()>| async {
///     let response = http::Response::builder().header("content-type", "text/html");
///     response.body(Full::from("Please log in"))
/// });
/// let client = ServiceBuilder::new().layer(PeekLayer::new(6)).service(site);
/// let response = client.oneshot(http::Request::new(())).await?;
/// assert_eq!(response.extensions().get::<PeekedBody>().unwrap().as_bytes(), b"Please");
/// # Ok::<_, http::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is applied to a service"]
pub struct PeekLayer {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
struct Config {
    limit: usize,
    timeout: Duration,
    content_types: Vec<String>,
}

impl PeekLayer {
    /// Creates a layer that reads the first `limit` bytes of HTML pages, for at most one second.
    pub fn new(limit: usize) -> Self {
        let content_types = vec![String::from("text/html")];
        Self { config: Arc::new(Config { limit, timeout: Duration::from_secs(1), content_types }) }
    }

    /// Creates a layer that reads the first 64 KiB of the content types that a rule asks for, for
    /// at most one second.
    ///
    /// [`Expired::body_contains`] and `Expired::body_json` work only with this layer.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::renewal::{Expired, PeekLayer};
    ///
    /// let expired = Expired::status([401]).or(Expired::body_contains("Your session has ended"));
    /// let below_the_renewal_layer = PeekLayer::for_rule(&expired);
    /// # drop((expired, below_the_renewal_layer));
    /// ```
    pub fn for_rule(rule: &Expired) -> Self {
        Self::new(64 * 1024).content_types(rule.attach_layer())
    }

    /// Sets how many bytes of a body the layer reads.
    pub fn limit(mut self, limit: usize) -> Self {
        Arc::make_mut(&mut self.config).limit = limit;
        self
    }

    /// Sets the prefixes of the content types that are read. One that starts with `+` is a suffix,
    /// such as `+json`. Default: `text/html`.
    pub fn content_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        Arc::make_mut(&mut self.config).content_types =
            types.into_iter().map(|content_type| content_type.into().to_ascii_lowercase()).collect();
        self
    }

    /// Sets how long the layer reads one body. After that, it uses the bytes that have arrived.
    /// Default: one second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.config).timeout = timeout;
        self
    }
}

impl Config {
    fn check<R>(&self, response: &Response<R>) -> Result<(), NotPeeked> {
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_wanted = content_type.is_some_and(|content_type| {
            let content_type = content_type.to_ascii_lowercase();
            let essence = content_type.split(';').next().unwrap_or("").trim_end();
            self.content_types.iter().any(|wanted| match wanted.starts_with('+') {
                true => essence.ends_with(wanted),
                false => content_type.starts_with(wanted),
            })
        });
        if !is_wanted {
            return Err(NotPeeked::ContentType);
        }
        let mut encodings = response.headers().get_all(header::CONTENT_ENCODING).iter();
        let is_text = encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if is_text { Ok(()) } else { Err(NotPeeked::Encoded) }
    }
}

impl<S> Layer<S> for PeekLayer {
    type Service = PeekService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PeekService { inner, config: self.config.clone() }
    }
}

/// Middleware that adds the beginning of a response body to the extensions of the response, as
/// [`PeekedBody`].
#[derive(Clone, Debug)]
pub struct PeekService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> PeekService<S> {
    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for PeekService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<PeekBody<R>>;
    type Error = S::Error;
    type Future = PeekFuture<S::Future, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        PeekFuture { state: State::Head { inner: self.inner.call(request) }, config: self.config.clone() }
    }
}

pin_project! {
    /// Response future of [`PeekService`].
    pub struct PeekFuture<F, R> where R: Body {
        #[pin]
        state: State<F, R>,
        config: Arc<Config>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> where R: Body {
        // Waiting for the head of the response.
        Head { #[pin] inner: F },
        // Reading the beginning of the body.
        Body { response: Option<Response<Peeking<R>>>, seen: BytesMut, #[pin] sleep: Sleep },
    }
}

/// The frames that were read from a body, and the body. Only responses that are read pay for the
/// box.
type Peeking<R> = (VecDeque<Frame<Bytes>>, Pin<Box<R>>);

impl<F, R, E> Future for PeekFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<PeekBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Head { inner } => {
                    let mut response = ready!(inner.poll(context))?;
                    if let Err(reason) = this.config.check(&response) {
                        response.extensions_mut().insert(reason);
                        return Poll::Ready(Ok(response.map(PeekBody::untouched)));
                    }
                    let response = response.map(|body| (VecDeque::new(), Box::pin(body)));
                    let sleep = tokio::time::sleep(this.config.timeout);
                    this.state.set(State::Body { response: Some(response), seen: BytesMut::new(), sleep });
                }
                StateProjection::Body { response, seen, sleep } => {
                    let (read, body) = response.as_mut().expect("polled after completion").body_mut();
                    let (mut failed, mut is_complete) = (None, false);
                    let enough = loop {
                        if body.is_end_stream() {
                            is_complete = true;
                            break true;
                        }
                        if seen.len() >= this.config.limit {
                            break true;
                        }
                        match body.as_mut().poll_frame(context) {
                            Poll::Pending => break false,
                            Poll::Ready(None) => {
                                is_complete = true;
                                break true;
                            }
                            Poll::Ready(Some(Err(error))) => {
                                failed = Some(error);
                                break true;
                            }
                            Poll::Ready(Some(Ok(frame))) => {
                                if let Some(data) = frame.data_ref() {
                                    let room = this.config.limit - seen.len();
                                    seen.extend_from_slice(&data[..data.len().min(room)]);
                                }
                                read.push_back(frame);
                            }
                        }
                    };
                    if !enough {
                        ready!(sleep.poll(context));
                    }
                    // The last frame may have been longer than the limit.
                    let read_len: usize = read.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
                    is_complete &= read_len == seen.len();
                    let mut response = response.take().expect("polled after completion");
                    response.extensions_mut().insert(PeekedBody::new(mem::take(seen).freeze(), is_complete));
                    return Poll::Ready(Ok(
                        response.map(|(read, body)| PeekBody { inner: Inner::Peeked { read, failed, body } })
                    ));
                }
            }
        }
    }
}

impl<F, R: Body> fmt::Debug for PeekFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// Response body of [`PeekService`]: the whole body, including the beginning.
    pub struct PeekBody<R> where R: Body {
        #[pin]
        inner: Inner<R>,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<R> where R: Body {
        // The layer has not read the body.
        Untouched { #[pin] body: R },
        // The frames that were read come first, then the error that ended reading, then the rest.
        Peeked { read: VecDeque<Frame<Bytes>>, failed: Option<R::Error>, body: Pin<Box<R>> },
    }
}

impl<R: Body> PeekBody<R> {
    fn untouched(body: R) -> Self {
        Self { inner: Inner::Untouched { body } }
    }
}

impl<R: Body<Data = Bytes>> Body for PeekBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project().inner.project() {
            InnerProjection::Untouched { body } => body.poll_frame(context),
            InnerProjection::Peeked { read, failed, body } => {
                if let Some(frame) = read.pop_front() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                match failed.take() {
                    Some(error) => Poll::Ready(Some(Err(error))),
                    None => body.as_mut().poll_frame(context),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Untouched { body } => body.is_end_stream(),
            Inner::Peeked { read, failed, body } => {
                read.is_empty() && failed.is_none() && body.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Untouched { body } => body.size_hint(),
            Inner::Peeked { read, body, .. } => {
                let buffered: u64 =
                    read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
                let rest = body.size_hint();
                let mut whole = SizeHint::new();
                whole.set_lower(rest.lower() + buffered);
                if let Some(upper) = rest.upper() {
                    whole.set_upper(upper + buffered);
                }
                whole
            }
        }
    }
}

impl<R: Body> fmt::Debug for PeekBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekBody").finish_non_exhaustive()
    }
}
