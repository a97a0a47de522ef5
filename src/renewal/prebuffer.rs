//! Request bodies that are streams, read ahead so that they can be sent again.

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

/// [`Layer`] that reads request bodies of up to a limit into memory, so that a renewal layer below can send them again.
///
/// It belongs right above a [`RenewalLayer`](super::RenewalLayer) whose bodies are cloned by [`ReplayBody::try_clone`]. A body
/// that is longer than the limit goes on as a stream, and its request is sent once.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{Empty, Full};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_client_sessions::{RenewalLayer, SessionLayer, Sessions, renewal::{PrebufferLayer, ReplayBody}};
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
pub struct PrebufferLayer {
    most: usize,
}

impl PrebufferLayer {
    /// Creates a layer that reads at most `most` bytes ahead.
    pub fn new(most: usize) -> Self {
        Self { most }
    }
}

impl<S> Layer<S> for PrebufferLayer {
    type Service = PrebufferService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PrebufferService { inner, most: self.most }
    }
}

/// Middleware that reads request bodies of up to a limit into memory.
///
/// It makes a clone of the service below ready once the body is there, so that a slow body holds no place in it.
#[derive(Clone, Copy, Debug)]
pub struct PrebufferService<S> {
    inner: S,
    most: usize,
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
                left: self.most,
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
        // Reading the body ahead.
        Read {
            head: Option<http::request::Parts>,
            body: Option<Pin<Box<T>>>,
            read: VecDeque<Bytes>,
            left: usize,
        },
        // The body is ready; the service below is not yet.
        Ready { request: Option<Request<ReplayBody<T>>> },
        // On its way.
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
                    let whole = ready!(read_ahead(
                        body.as_mut().expect("it is taken at the end"),
                        read,
                        left,
                        context
                    ))?;
                    let rest = body.take().filter(|_| !whole);
                    let body = ReplayBody { read: std::mem::take(read), rest };
                    let head = head.take().expect("it is taken at the end");
                    let request = Some(Request::from_parts(head, body));
                    this.state.set(State::Ready { request });
                }
                StateProjection::Ready { request } => {
                    ready!(this.service.poll_ready(context)).map_err(Into::into)?;
                    let request = request.take().expect("it is taken at the end");
                    let future = this.service.call(request);
                    this.state.set(State::Sent { future });
                }
                StateProjection::Sent { future } => return future.poll(context).map_err(Into::into),
            }
        }
    }
}

/// Reads until the body ends or there is no room left; `true` if it has ended.
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

/// A request body that was read ahead: whole, and then it can be cloned, or the beginning with the rest still to come.
///
/// Trailers are dropped from a body that is held whole.
pub struct ReplayBody<T> {
    read: VecDeque<Bytes>,
    rest: Option<Pin<Box<T>>>,
}

impl<T> ReplayBody<T> {
    /// The body again, if it is held whole.
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
        let ahead: u64 = self.read.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| rest.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper + ahead);
        }
        whole
    }
}

impl<T> fmt::Debug for ReplayBody<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("is_whole", &self.rest.is_none()).finish_non_exhaustive()
    }
}
