//! What a rule reads of response bodies, and what it has missed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
};

use http::Extensions;

use super::peeked_body::{NotPeeked, PeekedBody};
use crate::session::MissingBody;

/// What one rule needs, shared by the clones of the rule and by its combinations.
#[derive(Debug)]
pub(super) struct BodyNeed {
    /// The content types that a [`PeekLayer`](super::PeekLayer) for this rule reads.
    pub(super) content_types: &'static [&'static str],
    /// Whether the rule works only with a `PeekLayer` that was made for it.
    needs_own_layer: bool,
    has_own_layer: AtomicBool,
    /// What was missing: `NOTHING`, the number of a [`MissingBody`], or `REPORTED`.
    missing: AtomicU8,
}

impl BodyNeed {
    const NOTHING: u8 = 0;
    const REPORTED: u8 = u8::MAX;

    /// The need of a rule that reads HTML pages, from any layer.
    pub(super) fn of_pages() -> Arc<Self> {
        Self::new(&["text/html"], false)
    }

    /// The need of a rule that works only with a layer for these content types.
    pub(super) fn of_types(content_types: &'static [&'static str]) -> Arc<Self> {
        Self::new(content_types, true)
    }

    fn new(content_types: &'static [&'static str], needs_own_layer: bool) -> Arc<Self> {
        let (has_own_layer, missing) = (AtomicBool::new(false), AtomicU8::new(Self::NOTHING));
        Arc::new(Self { content_types, needs_own_layer, has_own_layer, missing })
    }

    /// Records that a layer for this rule exists.
    pub(super) fn attach(&self) {
        self.has_own_layer.store(true, Relaxed);
    }

    pub(super) fn lacks_layer(&self) -> bool {
        self.needs_own_layer && !self.has_own_layer.load(Relaxed)
    }

    /// Returns the beginning of the body. If there is none although there should be, records why.
    pub(super) fn body<'a>(&self, extensions: &'a Extensions) -> Option<&'a PeekedBody> {
        let body = extensions.get::<PeekedBody>();
        if body.is_none() {
            match extensions.get::<NotPeeked>() {
                Some(NotPeeked::ContentType) => {}
                Some(NotPeeked::Encoded) => self.miss(MissingBody::Encoded),
                None => self.miss(MissingBody::NoPeekLayer),
            }
        }
        body
    }

    /// Records what was missing. The first record stays.
    pub(super) fn miss(&self, missing: MissingBody) {
        let number = match missing {
            MissingBody::NoPeekLayer => 1,
            MissingBody::Encoded => 2,
            MissingBody::Truncated => 3,
        };
        let _ = self.missing.compare_exchange(Self::NOTHING, number, Relaxed, Relaxed);
    }

    /// Returns what was missing, once.
    pub(super) fn take_missing(&self) -> Option<MissingBody> {
        let number = self.missing.load(Relaxed);
        let missing = match number {
            1 => MissingBody::NoPeekLayer,
            2 => MissingBody::Encoded,
            3 => MissingBody::Truncated,
            _ => return None,
        };
        let taken = self.missing.compare_exchange(number, Self::REPORTED, Relaxed, Relaxed);
        taken.is_ok().then_some(missing)
    }
}
