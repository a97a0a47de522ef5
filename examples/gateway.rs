//! A local proxy that adds sessions (cookies, profiles, renewal) to clients in any language.
//!
//! ```text
//! cargo run --features client --example gateway -- \
//!     --expired 403 --login-url 'http://shop.example/login?user={session}'
//! curl -H 'x-session: alice' --proxy http://127.0.0.1:8080 http://shop.example/cart
//! curl -H 'x-session: alice' http://127.0.0.1:8080/https://shop.example/cart
//! ```
//!
//! A client requests an `http` URL through the proxy, or any URL by appending it to the gateway's
//! own. `CONNECT` is not supported, because the gateway cannot add a session to an encrypted
//! tunnel. `--help` lists the options.
//!
//! Cookies belong to the session: the gateway stores `Set-Cookie` and does not send it to the
//! client. A `Cookie` header of the client is sent with that request only; its cookies replace
//! session cookies of the same name and are not stored. `x-session` is never sent to the origin. A
//! response has `x-session-generation` and `x-session-replays`; one with `x-session-error` is from
//! the gateway itself.

mod args;
#[path = "gateway/forward.rs"]
mod forward;
#[path = "gateway/options.rs"]
mod options;

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use forward::{Body, Form, Rejection, Target};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use options::{Login, Options};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_client_sessions::{
    Expired, IdentityClient, ProfileLayer, Profiles, Renewal, RenewalLayer, SessionInfo, SessionLayer,
    Sessions,
};

/// The stack that all requests go through.
type Stack = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::from_env() {
        Ok(Some(options)) => run(options).await,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => Err(error),
    };
    match done {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("{}", forward::chain(&*error));
            ExitCode::from(2)
        }
    }
}

async fn run(options: Options) -> Result<Infallible, BoxError> {
    let listener = TcpListener::bind(options.listen).await?;
    let own = listener.local_addr()?;
    println!("listening on http://{own}");
    let connections = Arc::new(Semaphore::new(options.connections));
    let gateway = Arc::new(Gateway { stack: stack(&options)?, own, options });
    loop {
        let permit = connections.clone().acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is left. Wait until another connection closes.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let gateway = gateway.clone();
        let service = service_fn(move |request| {
            let gateway = gateway.clone();
            async move { Ok::<_, Infallible>(gateway.handle(request).await) }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(90));
            // The client has disconnected; an error has no recipient.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn stack(options: &Options) -> Result<Stack, BoxError> {
    let mut sessions = Sessions::builder().max_sessions(options.max_sessions);
    if let Some(name) = &options.default_session {
        sessions = sessions.default_session(name);
    }
    if let Some(file) = &options.profiles {
        sessions = sessions.profiles(Profiles::from_path(file)?);
    }
    let mut client = IdentityClient::builder().max_connections(options.connections);
    if options.profiles.is_none() {
        client = client.allow_direct();
    }
    let client = client
        .max_idle_per_host(options.connections)
        .add_root_certificates(options.add_root_certificates.clone())
        .build::<Full<Bytes>>()?;
    let mut expired = Expired::status(options.expired.iter().copied());
    if let Some(path) = &options.expired_redirect {
        expired = expired.or(Expired::redirect_to(path));
    }
    if options.login.is_some() {
        sessions = sessions.login_first();
    }
    let sessions = sessions.build()?;
    let mut renewal =
        RenewalLayer::new(&sessions).expired_when(expired).replay_limit(options.replays).clone_bodies();
    if let Some(uses) = options.max_uses {
        renewal = renewal.max_uses(uses);
    }
    if let Some(login) = options.login.clone() {
        renewal = renewal.renew_with(move |renewal| log_in(login.clone(), renewal));
    }
    renewal.validate()?;
    let stack = ServiceBuilder::new()
        .layer(renewal)
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(options.connections)
        .timeout(options.timeout)
        .service(client);
    Ok(BoxCloneSyncService::new(stack))
}

/// Sends the one request that the options describe.
async fn log_in(login: Login, renewal: Renewal<Full<Bytes>>) -> Result<(), BoxError> {
    let response = renewal.send(login.request(&renewal.session_id().to_string())?).await?;
    let status = response.status();
    let has_cookie = match &login.cookie {
        Some(name) => renewal.has_cookie(name),
        None => !renewal.cookies().is_empty(),
    };
    // A successful login often ends in a redirect.
    let succeeded = (status.is_success() || status.is_redirection()) && has_cookie;
    renewal.ensure(succeeded, "the login was not accepted")
}

struct Gateway {
    stack: Stack,
    own: SocketAddr,
    options: Options,
}

impl Gateway {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let name = request.headers().get(forward::SESSION).cloned();
        match self.forward(request).await {
            Ok(response) => response,
            Err(rejection) => rejection.response(name),
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Rejection> {
        if request.method() == Method::CONNECT {
            return Err(Rejection::new(
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT is not supported: the gateway cannot add a session to a tunnel; request \
                 /https://host/path from the gateway instead",
            ));
        }
        let target = Target::of(&request)?;
        if self.is_own(&target).await {
            return Err(Rejection::new(
                StatusCode::LOOP_DETECTED,
                "the target is the gateway itself: the request would loop forever",
            ));
        }
        let session = forward::session(request.headers())?;
        if session.is_none() && self.options.default_session.is_none() {
            return Err(Rejection::new(
                StatusCode::BAD_REQUEST,
                "no session: send an x-session header, or start the gateway with --default-session",
            ));
        }
        let (mut head, body) = request.into_parts();
        let body =
            Limited::new(body, self.options.max_body).collect().await.map_err(|error| match error
                .is::<LengthLimitError>(
            ) {
                true => Rejection::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is longer than --max-body and could not be replayed after a renewal",
                ),
                false => Rejection::new(StatusCode::BAD_REQUEST, "the body ended early"),
            })?;
        forward::strip(&mut head.headers);
        for name in [header::HOST, header::EXPECT, header::CONTENT_LENGTH] {
            // The client below sets its own.
            head.headers.remove(name);
        }
        let mut request = Request::from_parts(head, Full::new(body.to_bytes()));
        *request.uri_mut() = target.uri.clone();
        // The extensions of the incoming connection mean nothing to the stack.
        let extensions = request.extensions_mut();
        extensions.clear();
        if let Some(session) = session {
            extensions.insert(session);
        }
        let response = self.stack.clone().ready().await?.call(request).await?;
        Ok(self.finish(response, &target))
    }

    /// Turns the response of an origin into that of the gateway.
    fn finish(&self, response: Response<Incoming>, target: &Target) -> Response<Body> {
        let mut response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
        let info = response.extensions_mut().remove::<SessionInfo>();
        let headers = response.headers_mut();
        forward::strip(headers);
        headers.remove(header::SET_COOKIE);
        if target.form == Form::Reverse {
            target.rewrite_location(headers);
        }
        if let Some(info) = info {
            if let Ok(name) = HeaderValue::from_str(&info.session().to_string()) {
                headers.insert(forward::SESSION, name);
            }
            headers.insert("x-session-generation", info.generation().into());
            headers.insert("x-session-replays", info.replays().into());
        }
        response
    }

    /// Whether the request would be sent to this gateway again.
    async fn is_own(&self, target: &Target) -> bool {
        if target.port() != self.own.port() {
            return false;
        }
        let host = target.host();
        let Ok(addresses) = tokio::net::lookup_host((host.trim_matches(['[', ']']), target.port())).await
        else {
            return false;
        };
        let own = self.own.ip();
        let is_own = |address: SocketAddr| {
            let ip = address.ip().to_canonical();
            ip == own
                || ip.is_unspecified()
                || (ip.is_loopback() && (own.is_loopback() || own.is_unspecified()))
        };
        addresses.into_iter().any(is_own)
    }
}
