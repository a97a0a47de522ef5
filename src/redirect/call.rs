//! `Call`: decides about the responses of one request, and makes its hops.

use std::{fmt, mem, sync::Arc};

use http::{HeaderMap, Method, Request, StatusCode, Uri, header, request::Parts};

use super::{
    kept::KeptHead,
    location::{is_same_origin, resolve},
    rules::{self, Change},
};
use crate::renewal::CloneBody;

/// The settings of a redirect layer.
pub(super) struct Config<B> {
    pub(super) limit: usize,
    pub(super) clone_body: CloneBody<B>,
    pub(super) empty_body: fn() -> B,
    pub(super) stop_at: Option<Arc<StopAt>>,
}

pub(super) type StopAt = dyn Fn(&Uri) -> bool + Send + Sync;

impl<B> Clone for Config<B> {
    fn clone(&self) -> Self {
        Self {
            limit: self.limit,
            clone_body: self.clone_body.clone(),
            empty_body: self.empty_body,
            stop_at: self.stop_at.clone(),
        }
    }
}

impl<B> fmt::Debug for Config<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("limit", &self.limit)
            .field("stops", &self.stop_at.is_some())
            .finish_non_exhaustive()
    }
}

/// What is kept of a request that was sent, to make the next hop.
pub(super) struct Call<B> {
    head: Head,
    /// `None` if the body could not be cloned.
    body: Option<B>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request has the first, which a box would allocate for"
)]
enum Head {
    /// The request was sent as the caller made it.
    First(KeptHead),
    /// A hop was sent. Boxed, because few requests are redirected.
    Hop(Box<HopHead>),
    /// No further redirect is followed.
    Last,
}

struct HopHead {
    parts: Parts,
    hops: usize,
}

impl<B> Call<B> {
    pub(super) fn new(request: &Request<B>, config: &Config<B>) -> Self {
        if config.limit == 0 {
            return Self { head: Head::Last, body: None };
        }
        let body = config.clone_body.clone_body(request.body());
        Self { head: Head::First(KeptHead::of(request)), body }
    }

    /// Makes the request that follows a response. `None` if the response goes to the caller.
    pub(super) fn follow(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        config: &Config<B>,
    ) -> Option<Request<B>> {
        let location = headers.get(header::LOCATION)?;
        // A response that is not followed is the last one, so nothing is kept after it.
        let mut hop = match mem::replace(&mut self.head, Head::Last) {
            Head::First(head) => Box::new(HopHead { parts: head.into_parts(), hops: 0 }),
            Head::Hop(hop) => hop,
            Head::Last => return None,
        };
        if hop.hops == config.limit {
            return None;
        }
        let parts = &mut hop.parts;
        let change = rules::change(status, &parts.method)?;
        let from = full_uri(parts)?;
        let to = resolve(&from, location.as_bytes())?;
        if config.stop_at.as_ref().is_some_and(|stops| stops(&to)) {
            return None;
        }
        let body = match change {
            Change::Keep => self.body.take()?,
            Change::DropBody => {
                if parts.method != Method::HEAD {
                    parts.method = Method::GET;
                }
                rules::remove_body_headers(&mut parts.headers);
                (config.empty_body)()
            }
        };
        rules::remove_first_only(&mut parts.extensions);
        if is_same_origin(&from, &to) {
            // A request with a path only stays one.
            let is_path = parts.uri.authority().is_none();
            parts.uri = if is_path { to.path_and_query()?.clone().into() } else { to };
        } else {
            rules::cross_origin(&mut parts.headers, &from, &to);
            parts.extensions = rules::own_extensions(&parts.extensions);
            parts.uri = to;
        }
        hop.hops += 1;
        self.body = config.clone_body.clone_body(&body);
        let request = Request::from_parts(hop.parts.clone(), body);
        self.head = Head::Hop(hop);
        Some(request)
    }
}

/// The URI of a request, with the host of its `Host` header if it has only a path.
fn full_uri(parts: &Parts) -> Option<Uri> {
    if parts.uri.authority().is_some() {
        return Some(parts.uri.clone());
    }
    let host = parts.headers.get(header::HOST)?.to_str().ok()?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()
}
