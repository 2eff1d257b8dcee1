//! How often a key may call: a bucket for each key that fills steadily, and the headers that tell its state
//! (draft-ietf-httpapi-ratelimit-headers).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use agentkeep_core::{ApiKey, ApiKeyId};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use parking_lot::Mutex;

use crate::error::{ApiError, Result};

/// Buckets are looked through for full ones once there are this many.
const MANY: usize = 1024;

static LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The buckets of the keys.
pub(crate) struct Limits {
    /// Calls a second in the long run, and at once after a pause.
    rate: Option<u32>,
    buckets: Mutex<HashMap<ApiKeyId, Bucket>>,
}

/// What is left of a key's calls.
struct Bucket {
    left: f64,
    at: Instant,
}

/// What a caller is told of its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    rate: u32,
    left: u32,
    /// Until the bucket is full again.
    full_in: Duration,
}

impl Limits {
    pub(crate) fn new(rate: Option<u32>) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Counts a call; how the key stands then. `None` without a limit.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub(crate) fn count(&self, key: &ApiKey) -> Result<Option<Standing>> {
        let Some(rate) = self.rate else { return Ok(None) };
        self.count_at(key.id, rate, Instant::now()).map(Some)
    }

    fn count_at(&self, key: ApiKeyId, rate: u32, now: Instant) -> Result<Standing> {
        let full = f64::from(rate);
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| bucket.left_at(now, full) < full);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at: now });
        let left = bucket.left_at(now, full);
        let enough = left >= 1.0;
        *bucket = Bucket { left: if enough { left - 1.0 } else { left }, at: now };
        let standing = Standing {
            rate,
            // Whole calls, of at most `rate`.
            left: bucket.left as u32,
            full_in: Duration::from_secs_f64((full - bucket.left) / full),
        };
        if enough {
            return Ok(standing);
        }
        let detail = format!("this key may call {rate} times a second");
        let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        let refusal = refusal.retry_after(Duration::from_secs_f64((1.0 - left) / full));
        Err(standing.headers().into_iter().fold(refusal, |refusal, (name, value)| refusal.header(name, value)))
    }
}

impl Bucket {
    fn left_at(&self, now: Instant, full: f64) -> f64 {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * full;
        (self.left + filled).min(full)
    }
}

impl Standing {
    fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let Self { rate, left, full_in } = self;
        let limit = format!("\"key\";r={left};t={}", full_in.as_secs_f64().ceil());
        let policy = format!("\"key\";q={rate};w=1");
        let value = |text: String| HeaderValue::from_str(&text).ok();
        [(LIMIT.clone(), value(limit)), (POLICY.clone(), value(policy))]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Tells it with an answer.
    pub(crate) fn tell(self, response: &mut Response) {
        response.headers_mut().extend(self.headers());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_steadily_and_no_further_than_full() {
        let limits = Limits::new(Some(10));
        let key = ApiKeyId(uuid::Uuid::nil());
        let start = Instant::now();
        let called = |at: Duration| limits.count_at(key, 10, start + at).is_ok();
        assert_eq!((0..12).filter(|_| called(Duration::ZERO)).count(), 10);
        assert!(!called(Duration::from_millis(50)));
        assert!(called(Duration::from_millis(150)));
        assert!(!called(Duration::from_millis(160)));
        assert_eq!((0..30).filter(|_| called(Duration::from_secs(60))).count(), 10);
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_back() {
        let limits = Limits::new(Some(1));
        let (key, now) = (ApiKeyId(uuid::Uuid::nil()), Instant::now());
        limits.count_at(key, 1, now).expect("the first");
        let response =
            axum::response::IntoResponse::into_response(limits.count_at(key, 1, now).expect_err("the second"));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["ratelimit-policy"], "\"key\";q=1;w=1");
    }
}
