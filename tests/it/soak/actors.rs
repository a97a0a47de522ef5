//! The actors of a world: requests that are dropped or left unpolled, and users with handles.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime},
};

use http::{Method, Request};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tower::ServiceExt;
use tower_client_sessions::{
    Session, SessionId, SessionInfo, Sessions,
    cookies::{CookieUrl, Jar},
    gate::BoxError,
};

use super::{
    Boxed, LIMIT,
    flaws::Flaw,
    moods::Rng,
    site::{Site, Tag},
};
use crate::support::Body;

/// Returns the account of a session; forks share it.
pub(super) fn account(session: &str) -> &str {
    session.split('.').next().unwrap_or(session)
}

fn url(session: &Session) -> String {
    format!("http://{}/", account(&session.id().to_string()))
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Response(u16, #[expect(dead_code, reason = "it is in the log")] u64),
    Failed(BoxError),
    Dropped,
}

/// Counts the wakers of the actors: none may be kept after their end.
#[derive(Clone, Default)]
pub(super) struct Wakers(Arc<()>);

impl Wakers {
    /// Returns how many wakers exist.
    pub(super) fn kept(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Polls `inner` with counted wakers.
    pub(super) async fn watch<F: Future>(self, inner: F) -> F::Output {
        struct Counted {
            inner: Waker,
            _wakers: Wakers,
        }
        impl Wake for Counted {
            fn wake(self: Arc<Self>) {
                self.inner.wake_by_ref();
            }
        }
        let mut inner = std::pin::pin!(inner);
        std::future::poll_fn(|context| {
            let waker = Counted { inner: context.waker().clone(), _wakers: self.clone() };
            inner.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(waker))))
        })
        .await
    }
}

/// Polls `inner` a number of times, and then not again until `thaw` is ready.
pub(crate) struct Freeze<F> {
    pub(crate) inner: Pin<Box<F>>,
    pub(crate) polls: u64,
    pub(crate) thaw: Pin<Box<tokio::time::Sleep>>,
}

impl<F: Future> Future for Freeze<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.polls > 0 {
            self.polls -= 1;
            if let Poll::Ready(output) = self.inner.as_mut().poll(context) {
                return Poll::Ready(output);
            }
        }
        if self.polls == 0 {
            std::task::ready!(self.thaw.as_mut().poll(context));
            return self.inner.as_mut().poll(context);
        }
        Poll::Pending
    }
}

/// Sends requests.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: Boxed,
    pub(super) site: Site,
    pub(super) wakers: Wakers,
}

/// How a request selects its session.
pub(super) enum By {
    Name(String),
    Handle(Session),
}

impl Sender {
    pub(super) async fn request(self, by: By, number: u64, rng: Rng) -> Outcome {
        let Self { client, site, wakers } = self;
        wakers.watch(request(client, site, by, number, rng)).await
    }
}

async fn request(client: Boxed, site: Site, by: By, number: u64, mut rng: Rng) -> Outcome {
    let moods = site.moods();
    sleep(rng.millis(moods.rush)).await;
    let path = if moods.has_rule { "/page" } else { "/enter" };
    let is_post = rng.chance(moods.posts);
    let session = match &by {
        By::Name(name) => name.clone(),
        By::Handle(session) => session.id().to_string(),
    };
    let tag = Tag { number, floor: site.floor(&session) };
    let mut request = Request::builder()
        .method(if is_post { Method::POST } else { Method::GET })
        .uri(format!("http://{}{path}", account(&session)))
        .extension(tag.clone())
        .body(if is_post { Body::from("some text") } else { Body::default() })
        .unwrap();
    match by {
        By::Name(name) => drop(request.extensions_mut().insert(SessionId::from(name))),
        By::Handle(session) => drop(request.extensions_mut().insert(session)),
    }
    let call = client.oneshot(request);
    let max_time = if rng.chance(moods.drops) {
        rng.millis(3000)
    } else if moods.page_hangs > 0 || (!moods.has_rule && moods.login_hangs > 0) {
        Duration::from_secs(60)
    } else {
        LIMIT * 2
    };
    let response = if rng.chance(moods.freezes) {
        let thaw = Box::pin(sleep(rng.millis(60_000)));
        timeout(max_time, Freeze { inner: Box::pin(call), polls: rng.between(1, 4), thaw }).await
    } else if moods.flaw == Some(Flaw::ForgetsWaiters) {
        let mut call = Box::pin(call);
        let response = timeout(max_time, &mut call).await;
        if response.is_err() {
            std::mem::forget(call);
        }
        response
    } else {
        timeout(max_time, call).await
    };
    match response {
        Err(_) => Outcome::Dropped,
        Ok(Err(error)) => Outcome::Failed(error),
        Ok(Ok(response)) => {
            let mut info = response.extensions().get::<SessionInfo>().expect("every response has it").clone();
            if moods.flaw == Some(Flaw::SwapsResponses) {
                let before = site.state().last_info.replace(info.clone());
                info = before.unwrap_or(info);
            }
            if info.generation() <= tag.floor || info.session() != &SessionId::from(session.as_str()) {
                site.breaks(format!("request {number} of {session} got a response of {info:?}"));
            }
            Outcome::Response(response.status().as_u16(), info.generation())
        }
    }
}

/// How the requests of a user ended.
pub(super) type Outcomes = Vec<Result<Outcome, JoinError>>;

/// A user with handles. Returns how many requests it sent to its forks, and how they ended.
pub(super) async fn user(sessions: Sessions, sender: Sender, name: u64, mut rng: Rng) -> (u64, Outcomes) {
    let site = &sender.site;
    let mut requests = JoinSet::new();
    let mut started = 0;
    for turn in 0..rng.between(1, 12) {
        sleep(rng.millis(site.moods().rush / 4 + 20)).await;
        let session = sessions.session(format!("s{}", rng.below(site.moods().sessions)));
        let before = session.generation();
        let what = rng.below(14);
        site.note(format_args!("user {name} does {what} to {}", session.id()));
        match what {
            0 | 1 => {
                session.clear();
                site.ended(&session, before);
            }
            2 | 3 => {
                let renewal = session.renew();
                let max_time = rng.millis(20_000);
                if rng.chance(70) {
                    let _ = timeout(max_time, sender.wakers.clone().watch(renewal)).await;
                }
            }
            4 => {
                let login = format!("{}login", url(&session));
                let renewal = session.renew_with(Request::get(login).body(Body::default()).unwrap());
                site.ended(&session, before);
                let max_time = rng.millis(20_000);
                if rng.chance(70) {
                    let _ = timeout(max_time, sender.wakers.clone().watch(renewal)).await;
                }
            }
            5 => {
                let number = site.number();
                let mut jar = Jar::default();
                let url = url(&session);
                let target = CookieUrl::parse(&url).unwrap();
                jar.set(&format!("given={number}; Path=/"), &target, SystemTime::UNIX_EPOCH.into()).unwrap();
                session.replace(jar);
                site.ended(&session, before);
                site.replaced(&session, number);
            }
            6 | 7 => {
                let fork = session.fork(format!("{}.{name}-{turn}", session.id())).expect("the name is new");
                site.forked(&session, &fork);
                for _ in 0..rng.below(4) {
                    started += 1;
                    let (number, rng) = (1_000_000 + site.number(), rng.child());
                    requests.spawn(sender.clone().request(By::Handle(fork.clone()), number, rng));
                }
                if rng.chance(30) {
                    // Its requests continue with the removed session.
                    drop(sessions.remove(fork.id().clone()));
                }
            }
            8 | 9 => {
                let cookie = format!("edit{}", site.number());
                session.add_cookies([(cookie.as_str(), "1")], &url(&session)).unwrap();
                site.state().edits.add(&session, cookie);
            }
            10 => remove(site, &session, &mut rng),
            11 => {
                let _ = (session.to_string(), session.profile(), session.stats(), sessions.stats());
                // A session that is used once.
                drop(sessions.session(format!("single use {}", site.number())));
            }
            12 => look(site, &session),
            _ => site.expire(),
        }
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = requests.join_next().await {
        outcomes.push(outcome);
    }
    (started, outcomes)
}

/// Removes a cookie that was added before. It is found if its identity is the current or pending
/// one.
fn remove(site: &Site, session: &Session, rng: &mut Rng) {
    let ever = site.state().edits.ever(session);
    let Some(cookie) = ever.get(rng.below(ever.len() as u64) as usize) else {
        return;
    };
    let expected = site.state().edits.remove(session, cookie);
    let id = session.id().to_string();
    let found = session.remove_cookie(account(&id), "/", cookie).is_some();
    if found != expected {
        site.breaks(format!("edits: {cookie} of {} was found: {found}", session.id()));
    }
}

/// Reads a jar and checks that it has exactly the cookies added to the current or pending identity.
fn look(site: &Site, session: &Session) {
    let cookies = session.cookies_for(&url(session)).unwrap();
    let names = cookies.iter().filter_map(|cookie| cookie.name());
    let edits = names.filter(|name| name.starts_with("edit"));
    let found: BTreeSet<String> = edits.map(str::to_owned).collect();
    let expected = site.state().edits.addressed(session);
    if found != expected {
        site.breaks(format!("edits: {} has {found:?} and not {expected:?}", session.id()));
    }
    let _ = (session.waiting(), session.identity());
}
