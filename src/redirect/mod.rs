//! Redirects within a session: each hop sends and stores its own cookies.
//!
//! Put [`RedirectLayer`] above [`SessionLayer`](crate::SessionLayer), so that the session layer
//! handles the cookies of each hop, and below [`RenewalLayer`](crate::RenewalLayer), so that a
//! replay starts with the original request. A hop whose identity has ended is not sent under the
//! next one: the renewal layer replays the whole request.
//!
//! # What is followed
//!
//! | status | method of the hop | body |
//! |---|---|---|
//! | 301, 302 | GET for a POST, else unchanged | none for a POST, else the same |
//! | 303 | HEAD for a HEAD, else GET | none |
//! | 307, 308 | unchanged | the same |
//!
//! These are the rules of RFC 9110, section 15.4, and of the Fetch standard. A response is returned
//! as it is, not followed:
//!
//! - if its status is none of these, for example 300 or 304;
//! - if its `Location` is missing, invalid, or leads to a scheme other than `http` and `https`;
//! - if the hop needs the body again, and the body cannot be cloned:
//!   [`clone_bodies`](RedirectLayer::clone_bodies);
//! - if the limit is reached, or a closure of [`stop_at`](RedirectLayer::stop_at) holds.
//!
//! A loop ends at the limit. It is not an error before: a site may redirect to the same URL once it
//! has set a cookie.
//!
//! # What a hop sends
//!
//! - The headers of the request, without those of the body if the hop has none.
//! - To another origin (scheme, host or port), no `Host`, `Authorization`, `Proxy-Authorization`,
//!   `WWW-Authenticate` and `Cookie` of the request, and no value that
//!   [is marked as sensitive](http::HeaderValue::is_sensitive). They do not come back on a later
//!   hop. The session's own cookies are sent as the jar allows.
//! - The `Referer` of the request, if it has one: to another origin only its origin, and nothing
//!   from `https` to `http`. The layer never adds a `Referer`.
//! - The extensions of the request. To another origin, only those of this crate.
//!   [`RequestCookies`](crate::RequestCookies) apply to the first URL only.
//! - The URL of the `Location`, resolved as browsers do: without its fragment, which is never sent,
//!   and without credentials in it.
//!
//! # Cost
//!
//! Until a redirect arrives, the layer keeps what a hop would need. It does not allocate for a
//! request with at most eight headers whose extensions only select its session.
#![cfg_attr(
    feature = "redirect",
    doc = "\n# tower-http\n\n[`follow_redirects`] is the redirect layer of tower-http with a policy that keeps the session. \
           Use it to combine that policy with others of tower-http."
)]

mod call;
mod future;
#[cfg(feature = "redirect")]
mod keep_session;
mod kept;
mod layer;
mod location;
mod rules;
mod service;

#[cfg(feature = "redirect")]
pub use self::keep_session::{KeepSession, follow_redirects};
pub use self::{future::ResponseFuture, layer::RedirectLayer, service::RedirectService};
