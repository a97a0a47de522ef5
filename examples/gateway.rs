//! A proxy on this machine that gives sessions to clients in any language: cookies, profiles and renewal, by one header.
//!
//! ```text
//! cargo run --features client --example gateway -- --expired 403 --login-url 'http://shop.example/login?user={session}'
//! curl -H 'x-session: alice' --proxy http://127.0.0.1:8080 http://shop.example/cart
//! curl -H 'x-session: alice' http://127.0.0.1:8080/https://shop.example/cart
//! ```
//!
//! An `http` URL is asked for by way of the proxy, any URL by being written behind the gateway's own: there is no `CONNECT`, since
//! what goes through a tunnel cannot be given a session. `--help` has the options.
//!
//! Cookies belong to the session: `Set-Cookie` stays here, and comes to no client. A client's own `Cookie` header goes with its
//! one request, wins over the session's cookies by name, and is not kept. `x-session` is never sent on. An answer says by
//! `x-session-generation` and `x-session-replays` what was done for it. An answer with `x-session-error` is the gateway's own.

mod args;
#[path = "gateway/forward.rs"]
mod forward;
#[path = "gateway/options.rs"]
mod options;

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use forward::{Body, Form, Refusal, Target};
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
        let place = connections.clone().acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others must close first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let gateway = gateway.clone();
        let service = service_fn(move |request| {
            let gateway = gateway.clone();
            async move { Ok::<_, Infallible>(gateway.answer(request).await) }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(90));
            // A client that goes away is its own affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
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

/// One request, by the template that the options give.
async fn log_in(login: Login, renewal: Renewal<Full<Bytes>>) -> Result<(), BoxError> {
    let answer = renewal.send(login.request(&renewal.session_id().to_string())?).await?;
    let status = answer.status();
    let has_cookie = match &login.cookie {
        Some(name) => renewal.has_cookie(name),
        None => !renewal.cookies().is_empty(),
    };
    // A redirect leads away from a login that worked.
    let good = (status.is_success() || status.is_redirection()) && has_cookie;
    renewal
        .ensure(good, "the login was not accepted")
        .map_err(|error| format!("{error}: the login was answered with {status}").into())
}

struct Gateway {
    stack: Stack,
    own: SocketAddr,
    options: Options,
}

impl Gateway {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let name = request.headers().get(forward::SESSION).cloned();
        match self.forward(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.response(name),
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "there is no CONNECT: what goes through a tunnel cannot be given a session; ask this gateway for \
                 /https://host/path instead",
            ));
        }
        let target = Target::of(&request)?;
        if self.is_own(&target).await {
            return Err(Refusal::new(
                StatusCode::LOOP_DETECTED,
                "the request is for the gateway itself: it would go round for ever",
            ));
        }
        let session = forward::session(request.headers())?;
        if session.is_none() && self.options.default_session.is_none() {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "no session: send an x-session header, or start the gateway with --default-session",
            ));
        }
        let (mut head, body) = request.into_parts();
        let body =
            Limited::new(body, self.options.max_body).collect().await.map_err(|error| match error
                .is::<LengthLimitError>(
            ) {
                true => Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is longer than --max-body, and could not be sent again after a renewal",
                ),
                false => Refusal::new(StatusCode::BAD_REQUEST, "the body broke off"),
            })?;
        forward::strip(&mut head.headers);
        for name in [header::HOST, header::EXPECT, header::CONTENT_LENGTH] {
            // The client below writes its own.
            head.headers.remove(name);
        }
        let mut request = Request::from_parts(head, Full::new(body.to_bytes()));
        *request.uri_mut() = target.uri.clone();
        // What is left over from the client's connection is none of the stack's business.
        let extensions = request.extensions_mut();
        extensions.clear();
        if let Some(session) = session {
            extensions.insert(session);
        }
        let answer = self.stack.clone().ready().await?.call(request).await?;
        Ok(self.give_back(answer, &target))
    }

    /// Turns an origin's answer into the gateway's.
    fn give_back(&self, answer: Response<Incoming>, target: &Target) -> Response<Body> {
        let mut answer = answer.map(|body| body.map_err(BoxError::from).boxed_unsync());
        let info = answer.extensions_mut().remove::<SessionInfo>();
        let headers = answer.headers_mut();
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
        answer
    }

    /// Whether the request would come back to this gateway.
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
