//! hyper's client and server over loopback, with the server on its own thread.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use reqwest::cookie::CookieStore;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{Layer, Service, ServiceExt};
use tower_client_sessions::{ProfileLayer, RedirectLayer, RenewalLayer, Session, SessionLayer, Sessions};

use super::{Body, ReqwestLayer, Sets, time::thread_time};

const IN_FLIGHT: usize = 64;

/// A client on this thread and its server.
pub(crate) struct Loopback {
    runtime: Runtime,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Body>,
    pub(crate) page: Uri,
}

impl Loopback {
    pub(crate) fn new(sets: Sets) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("the listener is bound");
        thread::spawn(move || serve(listener, sets));
        Self {
            runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
            client: Client::builder(TokioExecutor::new()).build_http(),
            page: page(address),
        }
    }

    /// Returns the CPU time of this thread for requests through a stack above the client.
    pub(crate) fn drive<S, R>(
        &self,
        requests: usize,
        stack: impl FnOnce(Client<hyper_util::client::legacy::connect::HttpConnector, Body>) -> S,
        request: impl Fn() -> Request<Body> + Clone + 'static,
    ) -> Duration
    where
        S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + Clone + 'static,
        R: http_body::Body<Error: std::fmt::Debug> + 'static,
    {
        let service = stack(self.client.clone());
        let local = tokio::task::LocalSet::new();
        let start = thread_time();
        local.block_on(&self.runtime, async {
            let mut tasks = JoinSet::new();
            for worker in 0..IN_FLIGHT {
                let (service, request) = (service.clone(), request.clone());
                let share = requests / IN_FLIGHT + usize::from(worker < requests % IN_FLIGHT);
                tasks.spawn_local(async move {
                    for _ in 0..share {
                        let response = service.clone().oneshot(request()).await.expect("the server responds");
                        response.into_body().collect().await.map(drop).expect("the body is complete");
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("no task panics");
            }
        });
        thread_time().saturating_sub(start)
    }

    /// Drives the client alone.
    pub(crate) fn bare(&self, requests: usize) -> Duration {
        let page = self.page.clone();
        self.drive(requests, |client| client, move || super::request(&page))
    }

    /// Drives the session layer alone.
    pub(crate) fn session(&self, requests: usize, sessions: &Sessions, session: &Session) -> Duration {
        let request = self.request_of(session);
        self.drive(requests, |client| SessionLayer::new(sessions).layer(client), request)
    }

    /// Drives all layers.
    pub(crate) fn whole(&self, requests: usize, sessions: &Sessions, session: &Session) -> Duration {
        let request = self.request_of(session);
        let stack = |client| {
            let below = SessionLayer::new(sessions).layer(ProfileLayer::new().layer(client));
            RenewalLayer::new(sessions).layer(RedirectLayer::new(10).layer(below))
        };
        self.drive(requests, stack, request)
    }

    pub(crate) fn reqwest(&self, requests: usize, store: Arc<dyn CookieStore>) -> Duration {
        let page = self.page.clone();
        self.drive(requests, |client| ReqwestLayer::new(client, store), move || super::request(&page))
    }

    fn request_of(&self, session: &Session) -> impl Fn() -> Request<Body> + Clone + 'static {
        let (page, name) = (self.page.clone(), session.id().clone());
        move || {
            let mut request = super::request(&page);
            request.extensions_mut().insert(name.clone());
            request
        }
    }
}

fn page(address: SocketAddr) -> Uri {
    format!("http://{address}/account/orders?page=2").parse().expect("the uri is well formed")
}

fn serve(listener: std::net::TcpListener, sets: Sets) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let listener = TcpListener::from_std(listener).expect("this thread has a runtime");
        while let Ok((stream, _)) = listener.accept().await {
            let respond = service_fn(move |_: Request<Incoming>| async move {
                let mut response = Response::new(Full::new(Bytes::from_static(&[b'a'; 1024])));
                if sets != Sets::Nothing {
                    let set_cookie =
                        HeaderValue::from_static("name0=value-of-some-length-0; Path=/; Max-Age=31536000");
                    response.headers_mut().insert(header::SET_COOKIE, set_cookie);
                }
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
        }
    });
}
