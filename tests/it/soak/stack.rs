//! The layers of a world: the tested ones, and the stack below them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use tokio::sync::Semaphore;
use tower::{ServiceBuilder, buffer::Buffer, limit::GlobalConcurrencyLimitLayer, util::BoxCloneService};
use tower_client_sessions::{
    Expired, RenewalLayer, Sessions,
    gate::{GateConfig, PermanentError, Release},
    renewal::{ReplayMethods, StaleResponse},
};

use super::{
    Boxed, LIMIT,
    actors::account,
    moods::{Moods, Rng, draw, panic_wanted},
    site::Site,
};
use crate::support::Body;

/// The stack below the session layer.
pub(super) fn below(moods: &Moods, site: Site, permits: &Arc<Semaphore>) -> Boxed {
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
    let builder = ServiceBuilder::new();
    match moods.stack {
        0 => BoxCloneService::new(site),
        1 => BoxCloneService::new(builder.layer(limit).service(site)),
        2 => BoxCloneService::new(Buffer::new(site, moods.permits)),
        3 => {
            let limited = builder.rate_limit(10, Duration::from_secs(1)).service(site);
            BoxCloneService::new(Buffer::new(limited, moods.permits))
        }
        4 => BoxCloneService::new(Buffer::new(builder.layer(limit).service(site), moods.permits)),
        5 => BoxCloneService::new(builder.load_shed().layer(limit).service(site)),
        _ => BoxCloneService::new(builder.timeout(Duration::from_secs(5)).service(Buffer::new(
            ServiceBuilder::new().rate_limit(50, Duration::from_secs(1)).layer(limit).service(site),
            1,
        ))),
    }
}

pub(super) fn layer(moods: &Moods, site: &Site, sessions: &Sessions) -> RenewalLayer<Body> {
    let mut rng = site.rng(Rng::child);
    let panics = moods.panics;
    let classifier = Mutex::new(rng.child());
    let expired = Expired::from_fn(move |response| {
        if draw(&classifier).chance(panics / 3) {
            panic_wanted();
        }
        matches!(response.status().as_u16(), 401 | 403)
    });
    let cloner = Mutex::new(rng.child());
    let gate = GateConfig::new()
        .attempt_timeout(Duration::from_millis(rng.between(500, 20_000)))
        .max_wait(LIMIT * 10)
        .max_attempts(rng.between(1, 5) as u32)
        .renewal_rate_limit(rng.between(3, 30) as usize, Duration::from_millis(rng.between(100, 30_000)))
        .cooldown(Duration::from_millis(rng.below(5000)))
        .max_waiting(if rng.chance(10) { 3 } else { 1000 })
        .release(match moods.release {
            0 => Release::All,
            1 => Release::ProbeFirst,
            _ => Release::Staggered { burst: rng.between(1, 3) as usize, every: rng.millis(2000) },
        });
    let mut layer = RenewalLayer::new(sessions)
        .expired_when(expired)
        .replay_limit(moods.replays)
        .clone_bodies_with(move |body: &Body| {
            let mut rng = draw(&cloner);
            if rng.chance(panics / 3) {
                panic_wanted();
            }
            rng.chance(80).then(|| body.clone())
        })
        .replay_methods(if rng.chance(50) { ReplayMethods::All } else { ReplayMethods::Safe })
        .stale_responses(match moods.late {
            0 => StaleResponse::Deliver,
            1 => StaleResponse::ReplayIfExpired,
            _ => StaleResponse::ReplayAll,
        })
        .gate_config(gate);
    if let Some(uses) = moods.max_uses {
        layer = layer.max_uses(uses);
    }
    if let Some(age) = moods.max_age {
        layer = layer.max_age(age);
    }
    if !moods.has_rule {
        return layer;
    }
    let rule_rng = Mutex::new(rng.child());
    layer.renew_with(move |renewal| {
        let mut rng = draw(&rule_rng);
        if rng.chance(panics) {
            panic_wanted();
        }
        let (panics, rejects, steps) = (rng.chance(panics), rng.chance(3), rng.between(1, 2));
        async move {
            for _ in 0..steps {
                let url = format!("http://{}/login", account(&renewal.session_id().to_string()));
                let response = renewal.send(Request::get(url).body(Body::default())?).await?;
                renewal.ensure_transient(response.status().is_success(), "the login was not accepted")?;
            }
            if panics {
                panic_wanted();
            }
            if rejects {
                return Err(PermanentError::new("the account is locked").into());
            }
            renewal.ensure_transient(renewal.has_cookie("sid"), "the login was not accepted")
        }
    })
}
