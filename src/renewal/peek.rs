//! A bounded look into response bodies, for sites that say "session expired" with status 200.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    mem,
    pin::Pin,
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

/// The beginning of a response's body, in the extensions of the response.
///
/// [`ResponseView::peeked`](super::ResponseView::peeked) and [`Expired::body`](super::Expired::body) read it.
#[derive(Clone, Debug)]
pub struct PeekedBody(pub Bytes);

/// [`Layer`] that applies [`PeekService`]: looks at the beginning of some bodies before the response goes up.
///
/// It belongs below `follow_redirects` and above whatever decompresses, so that it sees text. The body goes up whole.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_client_sessions::renewal::{PeekLayer, PeekedBody};
///
/// let client = ServiceBuilder::new().layer(PeekLayer::new(6)).service(service_fn(|_: http::Request<()>| async {
///     http::Response::builder().header("content-type", "text/html").body(Full::from("Please log in"))
/// }));
/// let response = client.oneshot(http::Request::new(())).await?;
/// assert_eq!(&response.extensions().get::<PeekedBody>().unwrap().0[..], b"Please");
/// # Ok::<_, http::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct PeekLayer {
    config: Config,
}

#[derive(Clone, Debug)]
struct Config {
    most: usize,
    patience: Duration,
    content_types: Vec<String>,
}

impl PeekLayer {
    /// Creates a layer that looks at the first `most` bytes of HTML pages, for at most a second.
    pub fn new(most: usize) -> Self {
        let content_types = vec![String::from("text/html")];
        Self { config: Config { most, patience: Duration::from_secs(1), content_types } }
    }

    /// Sets the content types that are looked at, by how they begin. Default: `text/html`.
    #[must_use]
    pub fn content_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.config.content_types =
            types.into_iter().map(|content_type| content_type.into().to_ascii_lowercase()).collect();
        self
    }

    /// Bounds the time that is spent on one body; what has come until then is what is seen. Default: one second.
    #[must_use]
    pub fn timeout(mut self, patience: Duration) -> Self {
        self.config.patience = patience;
        self
    }
}

impl Config {
    fn looks_at<R>(&self, response: &Response<R>) -> bool {
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|content_type| {
            let content_type = content_type.to_ascii_lowercase();
            self.content_types.iter().any(|wanted| content_type.starts_with(wanted))
        })
    }
}

impl<S> Layer<S> for PeekLayer {
    type Service = PeekService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PeekService { inner, config: self.config.clone() }
    }
}

/// Middleware that puts the beginning of a response's body into its extensions, as [`PeekedBody`].
#[derive(Clone, Debug)]
pub struct PeekService<S> {
    inner: S,
    config: Config,
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
        config: Config,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> where R: Body {
        // Waiting for the head of the response.
        Head { #[pin] inner: F },
        // Reading the beginning of its body.
        Body { response: Option<Response<Peeking<R>>>, seen: BytesMut, #[pin] sleep: Sleep },
    }
}

/// A body with what was read of it ahead of time. It is boxed once, since only some responses are looked at.
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
                    let response = ready!(inner.poll(context))?;
                    if !this.config.looks_at(&response) {
                        return Poll::Ready(Ok(response.map(PeekBody::untouched)));
                    }
                    let response = response.map(|body| (VecDeque::new(), Box::pin(body)));
                    let sleep = tokio::time::sleep(this.config.patience);
                    this.state.set(State::Body { response: Some(response), seen: BytesMut::new(), sleep });
                }
                StateProjection::Body { response, seen, sleep } => {
                    let (read, body) = response.as_mut().expect("polled after completion").body_mut();
                    let mut failed = None;
                    let enough = loop {
                        if seen.len() >= this.config.most || body.is_end_stream() {
                            break true;
                        }
                        match body.as_mut().poll_frame(context) {
                            Poll::Pending => break false,
                            Poll::Ready(None) => break true,
                            Poll::Ready(Some(Err(error))) => {
                                failed = Some(error);
                                break true;
                            }
                            Poll::Ready(Some(Ok(frame))) => {
                                if let Some(data) = frame.data_ref() {
                                    let room = this.config.most - seen.len();
                                    seen.extend_from_slice(&data[..data.len().min(room)]);
                                }
                                read.push_back(frame);
                            }
                        }
                    };
                    if !enough {
                        ready!(sleep.poll(context));
                    }
                    let mut response = response.take().expect("polled after completion");
                    response.extensions_mut().insert(PeekedBody(mem::take(seen).freeze()));
                    return Poll::Ready(Ok(response
                        .map(|(read, body)| PeekBody { inner: Inner::PeekedBody { read, failed, body } })));
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
    /// Response body of [`PeekService`]: the whole body, whatever was seen of it before.
    pub struct PeekBody<R> where R: Body {
        #[pin]
        inner: Inner<R>,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<R> where R: Body {
        // Nobody has looked.
        Untouched { #[pin] body: R },
        // What was read ahead comes first, then an error that reading met, then the rest.
        PeekedBody { read: VecDeque<Frame<Bytes>>, failed: Option<R::Error>, body: Pin<Box<R>> },
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
            InnerProjection::PeekedBody { read, failed, body } => {
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
            Inner::PeekedBody { read, failed, body } => {
                read.is_empty() && failed.is_none() && body.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Untouched { body } => body.size_hint(),
            Inner::PeekedBody { read, body, .. } => {
                let ahead: u64 = read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
                let rest = body.size_hint();
                let mut whole = SizeHint::new();
                whole.set_lower(rest.lower() + ahead);
                if let Some(upper) = rest.upper() {
                    whole.set_upper(upper + ahead);
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
