//! `PrebufferLayer`: reads request bodies into memory, so that streams can be replayed.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::gate::BoxError;

/// [`Layer`] that reads request bodies up to a limit into memory, so that a renewal layer below can
/// replay them.
///
/// Put it directly above a [`RenewalLayer`](super::RenewalLayer) that clones bodies with
/// [`ReplayBody::try_clone`]. A longer body stays a stream, and its request is not replayed.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{Empty, Full};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_client_sessions::{
///     RenewalLayer, SessionLayer, Sessions,
///     renewal::{PrebufferLayer, ReplayBody},
/// };
///
/// let sessions = Sessions::new();
/// let client = ServiceBuilder::new()
///     .layer(PrebufferLayer::new(64 * 1024))
///     .layer(RenewalLayer::with_body_clone(&sessions, ReplayBody::try_clone))
///     .layer(SessionLayer::new(&sessions))
///     .service(service_fn(|_: http::Request<ReplayBody<Full<Bytes>>>| async {
///         Ok::<_, tower::BoxError>(http::Response::new(Empty::<Bytes>::new()))
///     }));
/// # let _ = client;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a layer does nothing until it is applied to a service"]
pub struct PrebufferLayer {
    limit: usize,
}

impl PrebufferLayer {
    /// Creates a layer that reads bodies of up to about `limit` bytes into memory.
    ///
    /// Reading stops after the frame that reaches the limit.
    pub const fn new(limit: usize) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for PrebufferLayer {
    type Service = PrebufferService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PrebufferService { inner, limit: self.limit }
    }
}

/// Middleware that reads request bodies up to a limit into memory.
///
/// It polls a clone of the inner service for readiness after the body was read, so that a slow body
/// holds no place in the inner service.
#[derive(Clone, Copy, Debug)]
pub struct PrebufferService<S> {
    inner: S,
    limit: usize,
}

impl<S> PrebufferService<S> {
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

impl<S, T> Service<Request<T>> for PrebufferService<S>
where
    S: Service<Request<ReplayBody<T>>> + Clone,
    S::Error: Into<BoxError>,
    T: Body<Data = Bytes>,
    T::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = PrebufferFuture<S, T>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        let (head, body) = request.into_parts();
        PrebufferFuture {
            state: State::Read {
                head: Some(head),
                body: Some(Box::pin(body)),
                read: VecDeque::new(),
                left: self.limit,
            },
            service: self.inner.clone(),
        }
    }
}

pin_project! {
    /// Response future of [`PrebufferService`].
    pub struct PrebufferFuture<S, T>
    where
        S: Service<Request<ReplayBody<T>>>,
    {
        #[pin]
        state: State<S::Future, T>,
        service: S,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, T> {
        // Reading the body.
        Read {
            head: Option<http::request::Parts>,
            body: Option<Pin<Box<T>>>,
            read: VecDeque<Bytes>,
            left: usize,
        },
        // The body was read. A clone of the inner service becomes ready.
        Ready { request: Option<Request<ReplayBody<T>>> },
        // The request is in flight.
        Sent { #[pin] future: F },
    }
}

impl<S, T> Future for PrebufferFuture<S, T>
where
    S: Service<Request<ReplayBody<T>>>,
    S::Error: Into<BoxError>,
    T: Body<Data = Bytes>,
    T::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Read { head, body, read, left } => {
                    let is_whole = ready!(read_ahead(
                        body.as_mut().expect("taken when the state ends"),
                        read,
                        left,
                        context
                    ))?;
                    let rest = body.take().filter(|_| !is_whole);
                    let body = ReplayBody { read: std::mem::take(read), rest };
                    let head = head.take().expect("taken when the state ends");
                    let request = Some(Request::from_parts(head, body));
                    this.state.set(State::Ready { request });
                }
                StateProjection::Ready { request } => {
                    ready!(this.service.poll_ready(context)).map_err(Into::into)?;
                    let request = request.take().expect("taken when the state ends");
                    let future = this.service.call(request);
                    this.state.set(State::Sent { future });
                }
                StateProjection::Sent { future } => return future.poll(context).map_err(Into::into),
            }
        }
    }
}

/// Reads until the body ends or `left` is 0. Returns whether the body has ended.
fn read_ahead<T>(
    body: &mut Pin<Box<T>>,
    read: &mut VecDeque<Bytes>,
    left: &mut usize,
    context: &mut Context<'_>,
) -> Poll<Result<bool, BoxError>>
where
    T: Body<Data = Bytes>,
    T::Error: Into<BoxError>,
{
    loop {
        if body.is_end_stream() {
            return Poll::Ready(Ok(true));
        }
        if *left == 0 {
            return Poll::Ready(Ok(false));
        }
        match ready!(body.as_mut().poll_frame(context)) {
            None => return Poll::Ready(Ok(true)),
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    *left = left.saturating_sub(data.len());
                    read.push_back(data);
                }
            }
        }
    }
}

impl<S, T> fmt::Debug for PrebufferFuture<S, T>
where
    S: Service<Request<ReplayBody<T>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrebufferFuture").finish_non_exhaustive()
    }
}

/// Request body whose beginning, or whole content, is in memory.
///
/// A body that was read whole can be cloned, and has no trailers.
pub struct ReplayBody<T> {
    read: VecDeque<Bytes>,
    rest: Option<Pin<Box<T>>>,
}

impl<T> ReplayBody<T> {
    /// Clones the body. Returns `None` if it was not read whole.
    pub fn try_clone(&self) -> Option<Self> {
        self.rest.is_none().then(|| Self { read: self.read.clone(), rest: None })
    }
}

/// The empty body.
impl<T> Default for ReplayBody<T> {
    fn default() -> Self {
        Self { read: VecDeque::new(), rest: None }
    }
}

impl<T: Body<Data = Bytes>> Body for ReplayBody<T> {
    type Data = Bytes;
    type Error = T::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, T::Error>>> {
        if let Some(data) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let buffered: u64 = self.read.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| rest.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower() + buffered);
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper + buffered);
        }
        whole
    }
}

impl<T> fmt::Debug for ReplayBody<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("is_whole", &self.rest.is_none()).finish_non_exhaustive()
    }
}
