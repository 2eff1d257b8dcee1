//! Where time and ids come from. No statement asks the database for either.

use std::{
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::{ContextV7, Timestamp as UuidTimestamp, Uuid};

use crate::Timestamp;

/// The source of the current time; tests plug in their own.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // clippy.toml bans SystemTime::now elsewhere: this is the one place that reads the clock.
        #[allow(clippy::disallowed_methods)]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(micros).unwrap_or_else(|_| unreachable_time())
    }
}

/// A machine whose clock is past the year 9999 gets the epoch rather than a panic.
fn unreachable_time() -> Timestamp {
    Timestamp::from_micros(0).unwrap_or_else(|_| unreachable!("the epoch is in range"))
}

/// Makes UUIDs of version 7 (RFC 9562) that ascend within a process, also within one millisecond.
#[derive(Debug)]
pub struct IdGenerator {
    context: Mutex<ContextV7>,
}

impl Default for IdGenerator {
    fn default() -> Self {
        Self { context: Mutex::new(ContextV7::new()) }
    }
}

impl IdGenerator {
    /// A new id whose time part is `now`.
    pub fn generate(&self, now: Timestamp) -> Uuid {
        let micros = now.as_micros().max(0).unsigned_abs();
        let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
        let context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        Uuid::new_v7(UuidTimestamp::from_unix(&*context, micros / 1_000_000, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_within_one_instant() {
        let ids = IdGenerator::default();
        let now = SystemClock.now();
        let made: Vec<Uuid> = (0..10_000).map(|_| ids.generate(now)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
