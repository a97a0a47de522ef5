//! Pools over the real layers: selection, waiting, leases, and the health of members.

mod health;
mod leases;
mod members;
mod renewal;
mod server;
mod sticky;
mod strategy;
mod waiting;
mod warm_up;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy};
use tower_client_sessions::{
    PoolLayer, Profile, Profiles, Renewal, RenewalLayer, Session, SessionId, SessionInfo, SessionLayer,
    SessionPool, Sessions,
    gate::{BoxError, GateConfig, RenewalErrorKind},
    pool::{
        LeasedBody, Member, MemberState, MemberView, Outcome, Picker, PoolConfigErrorKind, PoolError,
        PoolErrorKind, PoolService, RequestView, SessionPoolBuilder, Strategy, TriedSessionsLayer,
        UnusedSession, Verdict,
    },
    renewal::RenewalService,
    session::{Identity, SessionService},
};

use self::server::{Page, Reply, Server};
use crate::support::settle;

type Body = Empty<Bytes>;
type Plain = PoolService<SessionService<Server>>;
type Renewing = PoolService<RenewalService<SessionService<Server>, Body>>;
type PoolResult = Result<Response<LeasedBody<Page>>, BoxError>;

fn plain(pool: &SessionPool, sessions: &Sessions, server: &Server) -> Plain {
    ServiceBuilder::new()
        .layer(PoolLayer::new(pool))
        .layer(SessionLayer::new(sessions))
        .service(server.clone())
}

/// With a rule that logs in once per warm-up and does not retry.
fn renewing(pool: &SessionPool, sessions: &Sessions, server: &Server) -> Renewing {
    let rule = RenewalLayer::new(sessions)
        .renew_with(|renewal: Renewal<Body>| async move {
            let response = renewal.send(Request::get("http://site/login").body(Body::new())?).await?;
            renewal.ensure_transient(response.status().is_success(), "the login was not accepted")
        })
        .gate_config(GateConfig::new().max_attempts(1));
    ServiceBuilder::new()
        .layer(PoolLayer::new(pool))
        .layer(rule)
        .layer(SessionLayer::new(sessions))
        .service(server.clone())
}

fn page() -> Request<Body> {
    Request::get("http://site/page").body(Body::new()).unwrap()
}

async fn get<S>(client: &S) -> PoolResult
where
    S: Service<Request<Body>, Response = Response<LeasedBody<Page>>, Error = BoxError> + Clone,
{
    client.clone().oneshot(page()).await
}

/// Fetches and reads a page, and returns the session that served it.
async fn fetch<S>(client: &S) -> String
where
    S: Service<Request<Body>, Response = Response<LeasedBody<Page>>, Error = BoxError> + Clone,
{
    read(get(client).await.unwrap()).await
}

async fn read(response: Response<LeasedBody<Page>>) -> String {
    let session = response.extensions().get::<SessionInfo>().unwrap().session().to_string();
    response.into_body().collect().await.unwrap();
    session
}

fn member(response: &PoolResult) -> Member {
    response.as_ref().unwrap().extensions().get::<Member>().unwrap().clone()
}

#[track_caller]
fn kind(response: PoolResult) -> PoolErrorKind {
    let error = response.expect_err("expected an error");
    error.downcast_ref::<PoolError>().unwrap_or_else(|| panic!("not a `PoolError`: {error}")).kind()
}

fn world(set: impl FnOnce(SessionPoolBuilder) -> SessionPoolBuilder) -> (Sessions, SessionPool, Server) {
    let sessions = Sessions::builder().jitter_seed(7).build().unwrap();
    let pool = set(SessionPool::builder(&sessions)).build().unwrap();
    (sessions, pool, Server::default())
}

/// Returns the number of leases according to the pool.
fn leased(pool: &SessionPool) -> usize {
    pool.snapshot().members.iter().map(|member| member.in_use).sum()
}
