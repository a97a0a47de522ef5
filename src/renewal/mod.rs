//! Renewal: keeps a session logged in while many requests use it.
//!
//! [`RenewalLayer`] puts a [gate](crate::gate) around each session. A response that [means that the
//! session has expired](Expired) starts one renewal. Requests of the session wait until the renewal
//! ends, and the expired ones are replayed.
//!
//! # Rules
//!
//! The rule of a layer says how a session is renewed.
//!
//! | rule | how it renews |
//! |---|---|
//! | [`renew_with`](RenewalLayer::renew_with) | runs a closure, which sends requests under the candidate identity with [`Renewal::send`] |
//! | [`renew_with_request`](RenewalLayer::renew_with_request) | sends one request; [`renewal_succeeds_when`](RenewalLayer::renewal_succeeds_when) tests its response |
//! | [`renew_from`](RenewalLayer::renew_from), [`renew_from_fn`](RenewalLayer::renew_from_fn) | takes cookies from a [`SessionSource`] or a closure, and sends nothing |
//! | no rule | sends the next request alone, while the others wait; its identity becomes current unless the response means expired |
//!
//! A response alone does not make a renewal succeed. A closure has to return `Ok`, the response to
//! a single request has to pass its test, and the last response must not mean that the session has
//! expired.
//!
//! # Failed logins
//!
//! A login that the server rejects is not repeated, because repetition locks accounts. These
//! failures are permanent: a condition of [`Renewal::ensure`] or of the `require` methods that does
//! not hold, a single request whose response does not pass its test, and a last response that means
//! that the session has expired. The same failures are transient, and are retried, if the last
//! response has status 408, 429 or 5xx. So are all other errors, such as those of the connection,
//! unless they are a [`PermanentError`](crate::gate::PermanentError).
//! [`LoginError`] says which request failed, and what was missing.
//!
//! [`Session::clear`](crate::Session::clear), [`renew`](crate::Session::renew),
//! [`renew_with`](crate::Session::renew_with) and [`replace`](crate::Session::replace) start or
//! replace a renewal explicitly. They need only a session, not the service.
//!
//! # Replays
//!
//! A request whose session had expired is sent again, at most
//! [`replay_limit`](RenewalLayer::replay_limit) times. Each replay is a copy of the caller's
//! request. It keeps the caller's headers and has none of the old identity's.
//!
//! Only a request whose body can be cloned is replayed. By default, these are requests with an
//! empty body; [`clone_bodies`](RenewalLayer::clone_bodies),
//! [`clone_bodies_with`](RenewalLayer::clone_bodies_with) or a [`PrebufferLayer`] allow others.
//! Otherwise the caller gets the response as it is.
//!
//! Some servers replace the id of a session while it is used, and reject the old one. A request
//! that was rejected after another response had changed its cookies is therefore replayed once
//! under the same identity, before its session counts as expired. A cookie of a rejected response
//! never replaces a newer one.
//!
//! A successful response that arrives after its session was renewed is delivered. [`StaleResponse`]
//! changes that for requests with safe methods.
//!
//! # Limits
//!
//! [`max_uses`](RenewalLayer::max_uses) and [`max_age`](RenewalLayer::max_age) are exact; they are
//! checked when a request is sent. A layer with a rule renews a session early, within the last
//! tenth of its limit, while requests continue under the old identity. The exact point is random,
//! in the first half of that tenth, so that sessions which started together are not renewed
//! together.
//!
//! # Pages that report an expired session with status 200
//!
//! A [`PeekLayer`] below copies the beginning of a page into the extensions of the response, where
//! [`Expired::body`] reads it. [`PeekLayer::for_rule`] reads the content types that a rule asks
//! for, such as JSON. Put it above a layer that decompresses. A rule that needs a body and does not
//! get it reports that once, as [`EventKind::BodyMissing`](crate::session::EventKind::BodyMissing)
//! and as a warning of `tracing`. [`Expired::redirect_to`] also matches a redirect to the login
//! page that a layer below has followed.
//!
//! # Compiler limit
//!
//! If the error of the inner service is a boxed error, as with a `service_fn` that returns a
//! `BoxError`, then `tokio::spawn` of an async block that calls the client may fail to compile with
//! "implementation of `From` is not general enough". The layers of tower that return boxed errors
//! have the same limit. To avoid it, box the whole client as a `BoxCloneService`, or spawn the
//! future of `oneshot` directly.

mod body;
mod body_need;
mod config;
mod expired;
mod future;
mod layer;
mod login_error;
mod observer;
mod peek;
mod peeked_body;
mod prebuffer;
mod rejected;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
mod renewal;
mod replay;
mod rule;
mod service;
mod source;
mod stack;

pub(crate) use self::replay::CloneBody;
#[cfg(feature = "formats")]
pub use self::source::{SessionCommand, SessionDirectory};
pub use self::{
    body::RenewalBody,
    expired::{Expired, ResponseView},
    future::ResponseFuture,
    layer::RenewalLayer,
    login_error::LoginError,
    peek::{PeekBody, PeekFuture, PeekLayer, PeekService},
    peeked_body::PeekedBody,
    prebuffer::{PrebufferFuture, PrebufferLayer, PrebufferService, ReplayBody},
    rejected::RejectedResponse,
    renewal::Renewal,
    replay::{ReplayBudget, ReplayBudgetLayer, ReplayBudgetService, ReplayMethods, StaleResponse},
    service::RenewalService,
    source::{OnEmpty, SessionQueue, SessionSource, SessionSourceError, SessionSourceErrorKind},
};
