//! The server below the pools under test.

use super::*;

/// The innermost service of each stack. It records the session of each request, and blocks where a
/// test requires it.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// The sessions of the pages in order of arrival, with their times.
    pub(super) pages: Vec<(String, Instant)>,
    /// The requests of each session in flight, from their arrival to the end of their body, and the
    /// highest number so far.
    pub(super) in_flight: BTreeMap<String, u32>,
    pub(super) max_in_flight_seen: u32,
    pub(super) logins: Vec<String>,
    /// The next responses; after them, all have status 200.
    pub(super) responses: VecDeque<Reply>,
    /// If set, the head of a page waits for a permit.
    pub(super) heads: Option<Arc<Semaphore>>,
    /// If set, bodies end when the test ends them.
    pub(super) blocks_bodies: bool,
    pub(super) bodies: Vec<(String, mpsc::UnboundedSender<Result<Bytes, BoxError>>)>,
    /// If set, a login waits for a permit.
    pub(super) login_gate: Option<Arc<Semaphore>>,
    /// Whether the next logins succeed; after them, all do.
    pub(super) login_results: VecDeque<bool>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Status(u16),
    RetryAfter(u64),
    Error,
    Panic,
}

impl Server {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the sessions of all pages, in order of arrival.
    pub(super) fn pages(&self) -> Vec<String> {
        self.state().pages.iter().map(|(session, _)| session.clone()).collect()
    }

    pub(super) fn max_in_flight_seen(&self) -> u32 {
        self.state().max_in_flight_seen
    }

    pub(super) fn block_bodies(self) -> Self {
        self.state().blocks_bodies = true;
        self
    }

    pub(super) fn block_heads(self) -> Self {
        self.state().heads = Some(Arc::new(Semaphore::new(0)));
        self
    }

    pub(super) fn release_heads(&self, heads: usize) {
        self.state().heads.as_ref().unwrap().add_permits(heads);
    }

    pub(super) fn block_logins(self) -> Self {
        self.state().login_gate = Some(Arc::new(Semaphore::new(0)));
        self
    }

    pub(super) fn end_logins(&self, logins: usize) {
        self.state().login_gate.as_ref().unwrap().add_permits(logins);
    }

    pub(super) fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state().responses.extend(replies);
    }

    /// Ends the oldest open body.
    pub(super) fn end_body(&self) -> String {
        self.state().bodies.remove(0).0
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

/// Counts a request until the server has completed it.
pub(super) struct Running(Server, String);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.state().in_flight.get_mut(&self.1).unwrap() -= 1;
    }
}

/// A body that a test can keep open. Its request is complete when the body ends or is dropped.
pub(super) struct Page {
    pub(super) frames: mpsc::UnboundedReceiver<Result<Bytes, BoxError>>,
    pub(super) running: Option<Running>,
}

impl http_body::Body for Page {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.frames.poll_recv(context).map(|frame| {
            if !matches!(frame, Some(Ok(_))) {
                self.running = None;
            }
            Some(frame?.map(Frame::data))
        })
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Page>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Page>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let identity = Identity::of(request.extensions()).unwrap();
        let session = identity.session_id().to_string();
        let server = self.clone();
        if request.uri().path() == "/login" {
            return Box::pin(async move {
                server.state().logins.push(session.clone());
                let gate = server.state().login_gate.clone();
                if let Some(gate) = gate {
                    gate.acquire().await?.forget();
                }
                let good = server.state().login_results.pop_front().unwrap_or(true);
                let response = Response::builder().status(if good { 200 } else { 500 });
                let cookie = format!("sid={session}-{}; Path=/", identity_number());
                let response = if good { response.header(header::SET_COOKIE, cookie) } else { response };
                Ok(response.body(Page { frames: mpsc::unbounded_channel().1, running: None })?)
            });
        }
        let (running, reply, heads) = {
            let mut state = self.state();
            state.pages.push((session.clone(), Instant::now()));
            let in_flight = state.in_flight.entry(session.clone()).or_default();
            *in_flight += 1;
            let in_flight = *in_flight;
            state.max_in_flight_seen = state.max_in_flight_seen.max(in_flight);
            (Running(server.clone(), session.clone()), state.responses.pop_front(), state.heads.clone())
        };
        Box::pin(async move {
            if let Some(heads) = heads {
                heads.acquire().await?.forget();
            }
            let (sender, frames) = mpsc::unbounded_channel();
            sender.send(Ok(Bytes::from_static(b"page"))).unwrap();
            let response = match reply.unwrap_or(Reply::Status(200)) {
                Reply::Status(status) => Response::builder().status(status),
                Reply::RetryAfter(seconds) => Response::builder().status(429).header("retry-after", seconds),
                Reply::Error => return Err("the connection was reset".into()),
                Reply::Panic => std::panic::resume_unwind(Box::new("wanted by the test")),
            };
            let mut state = server.state();
            if state.blocks_bodies {
                state.bodies.push((session, sender));
            }
            drop(state);
            Ok(response.body(Page { frames, running: Some(running) })?)
        })
    }
}

fn identity_number() -> u64 {
    static NUMBERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NUMBERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
