//! What is tried again, when, and for how long.

use std::time::{Duration, Instant};

use super::error::Fault;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What running something twice would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing but give the same answer: it only reads.
    Reads,
    /// It changes something each time.
    Writes,
}

/// The tries of one call: how many there may be and how long to wait between them.
pub(super) struct Tries {
    effect: Effect,
    started: Instant,
    /// The end of the time for a server that is busy or starting.
    busy_for: Duration,
    /// The end of the time for a server that went away under us.
    away_for: Duration,
    pause: Duration,
    had_connection: bool,
    had_stale: bool,
}

impl Tries {
    pub(super) fn new(effect: Effect, busy_for: Duration, away_for: Duration) -> Self {
        Self {
            effect,
            started: Instant::now(),
            busy_for,
            away_for,
            pause: FIRST_PAUSE,
            had_connection: false,
            had_stale: false,
        }
    }

    /// After how long to try again; `None` when the fault is final.
    pub(super) fn again(&mut self, fault: &Fault) -> Option<Duration> {
        match fault {
            Fault::Closed => self.reconnect(),
            Fault::Lost(_) if self.effect == Effect::Reads => self.reconnect(),
            // Away from the start is an error at once; away because the server went down under a
            // connection that worked is given the time in which it may come back.
            Fault::Away(agentkeep_core::Error::Unavailable { .. }) if self.had_connection => self.wait(self.away_for),
            fault if fault.is_conflict() => self.within(self.busy_for, Duration::ZERO),
            fault if fault.is_busy() => {
                self.had_connection = true;
                self.wait(self.busy_for)
            }
            fault if fault.is_stale() && !self.had_stale => {
                self.had_stale = true;
                Some(Duration::ZERO)
            }
            _ => None,
        }
    }

    /// The first reconnect happens at once.
    fn reconnect(&mut self) -> Option<Duration> {
        if std::mem::replace(&mut self.had_connection, true) {
            return self.wait(self.away_for);
        }
        Some(Duration::ZERO)
    }

    fn wait(&mut self, limit: Duration) -> Option<Duration> {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.within(limit, pause)
    }

    fn within(&self, limit: Duration, pause: Duration) -> Option<Duration> {
        (self.started.elapsed() + pause < limit).then_some(pause)
    }
}

/// Whether a statement only reads, as far as its text tells. In doubt it writes.
pub(super) fn effect_of(text: &str) -> Effect {
    let mut words = text
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty());
    let reads = match words.next().map(str::to_ascii_uppercase).as_deref() {
        Some("SELECT" | "VALUES" | "TABLE" | "SHOW" | "EXPLAIN" | "WITH") => !words.any(|word| {
            ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "ANALYZE", "nextval", "pg_notify"]
                .iter()
                .any(|writes| word.eq_ignore_ascii_case(writes))
        }),
        _ => false,
    };
    if reads { Effect::Reads } else { Effect::Writes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_writes_is_never_taken_for_a_read() {
        for text in ["SELECT 1", "  with a AS (SELECT 1) SELECT * FROM a", "SELECT updated_at FROM t"] {
            assert_eq!(effect_of(text), Effect::Reads, "{text}");
        }
        for text in [
            "INSERT INTO t VALUES (1) RETURNING id",
            "WITH a AS (DELETE FROM t RETURNING 1) SELECT 1",
            "SELECT 1 INTO t",
        ] {
            assert_eq!(effect_of(text), Effect::Writes, "{text}");
        }
    }

    #[test]
    fn a_lost_write_is_not_repeated_and_a_lost_read_is() {
        let tries = |effect| Tries::new(effect, Duration::from_secs(1), Duration::from_secs(1));
        let lost = || Fault::Lost("reset".into());
        assert_eq!(tries(Effect::Writes).again(&lost()), None);
        assert_eq!(tries(Effect::Reads).again(&lost()), Some(Duration::ZERO));
        assert_eq!(tries(Effect::Writes).again(&Fault::Closed), Some(Duration::ZERO));
    }
}
