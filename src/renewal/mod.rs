//! Renewal: what keeps a session alive while many requests use it.
//!
//! [`RenewalLayer`] puts a [gate](crate::gate) around each session. A request waits while its session is renewed; an answer that
//! says that the session [has expired](Expired) starts the renewal, once, and the request is sent again when it is done.
//!
//! # Rules
//!
//! | rule | what it does |
//! |---|---|
//! | [`renew_with`](RenewalLayer::renew_with) | your own steps, sent under the candidate identity by [`Renewal::send`] |
//! | [`renew_with_request`](RenewalLayer::renew_with_request) | one request, whose answer has to pass [`renewal_succeeds_when`](RenewalLayer::renewal_succeeds_when) |
//! | [`supply`](RenewalLayer::supply), [`renew_from_fn`](RenewalLayer::renew_from_fn) | cookies collected elsewhere; nothing is sent |
//! | none | the next request goes ahead alone, and the others wait for its answer; if it is not an expired one, its identity is the session's |
//!
//! That an answer arrived is no success: steps have to end in `Ok`, an answer has to pass its test, and a renewal whose last answer
//! says that the session has expired has failed.
//!
//! From anywhere, without the service at hand, [`Session::clear`](crate::Session::clear), [`renew`](crate::Session::renew),
//! [`renew_with`](crate::Session::renew_with) and [`replace`](crate::Session::replace) do the same by hand.
//!
//! # What is sent again
//!
//! A request that met an expired session, at most as often as [`replay_limit`](RenewalLayer::replay_limit) says, made from a copy of
//! the caller's request: its own headers survive, and nothing of the old identity does. Its body has to be one that can be had
//! again: an empty one, unless [`clone_bodies`](RenewalLayer::clone_bodies), [`clone_bodies_with`](RenewalLayer::clone_bodies_with) or a
//! [`PrebufferLayer`] say how. Otherwise the answer is delivered as it came.
//!
//! A good answer that comes late, after its session was renewed, is delivered. [`StaleResponse`] can change that, for safe methods.
//!
//! # Budgets
//!
//! [`max_uses`](RenewalLayer::max_uses) and [`max_age`](RenewalLayer::max_age) are exact, counted when a request is sent. The last
//! tenth of a budget is there for renewing early, while the old identity serves on. When within it that happens is drawn anew for
//! each identity, in its first half, so that many sessions that began together are not renewed together.
//!
//! # Pages that say "expired" with status 200
//!
//! A [`PeekLayer`] below puts the beginning of a page into the response's extensions, for [`Expired::body`]. A redirect to the
//! login page that was followed below is seen as well: [`Expired::redirect_to`].
//!
//! # A note on types
//!
//! Over a service whose error is a boxed one, such as a `service_fn` that ends in a `BoxError`, a `tokio::spawn` of an async block
//! that calls the client may fail to compile with "implementation of `From` is not general enough". It is a limit of the compiler
//! that tower's own layers with boxed errors meet as well. Box the whole client, as a `BoxCloneService`, or spawn the future of
//! `oneshot` itself.

mod config;
mod expired;
mod future;
mod layer;
mod observer;
mod peek;
mod prebuffer;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
mod renewal;
mod replay;
mod rule;
mod service;
mod source;
mod stack;

#[cfg(feature = "formats")]
pub use self::source::{SessionCommand, SessionDirectory};
pub use self::{
    expired::{Expired, ResponseView},
    future::ResponseFuture,
    layer::RenewalLayer,
    peek::{PeekBody, PeekFuture, PeekLayer, PeekService, PeekedBody},
    prebuffer::{PrebufferFuture, PrebufferLayer, PrebufferService, ReplayBody},
    renewal::{Renewal, RenewalBody},
    replay::{ReplayBudget, ReplayBudgetLayer, ReplayBudgetService, ReplayMethods, StaleResponse},
    service::RenewalService,
    source::{OnEmpty, SessionQueue, SessionSource, SessionSourceError, SessionSourceErrorKind},
};
