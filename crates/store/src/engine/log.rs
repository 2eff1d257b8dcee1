//! The statement log: what ran, how long it took, how many rows; never a parameter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::Result;

use super::Config;

/// Which statements are logged. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct StatementLog {
    all: bool,
    slow: Duration,
    slow_statements: Arc<AtomicU64>,
}

impl StatementLog {
    pub(crate) fn new(config: &Config) -> Self {
        Self { all: config.log_sql, slow: config.slow_statement, slow_statements: Arc::default() }
    }

    /// How many slow statements there were.
    pub(crate) fn slow_statements(&self) -> u64 {
        self.slow_statements.load(Ordering::Relaxed)
    }

    /// Logs a statement that started at `started` and gave `result` rows.
    pub(crate) fn record(&self, started: Instant, text: &str, result: Result<u64, &agentkeep_core::Error>) {
        let took = started.elapsed();
        let slow = took >= self.slow;
        if !self.all && !slow {
            return;
        }
        if slow {
            self.slow_statements.fetch_add(1, Ordering::Relaxed);
        }
        let milliseconds = took.as_secs_f64() * 1e3;
        let statement = one_line(text);
        match result {
            Ok(rows) if slow => {
                tracing::warn!(target: "agentkeep::sql", milliseconds, rows, %statement, "slow statement")
            }
            Ok(rows) => tracing::info!(target: "agentkeep::sql", milliseconds, rows, %statement, "statement"),
            Err(error) => {
                tracing::warn!(target: "agentkeep::sql", milliseconds, code = error.code(), %statement, "statement failed");
            }
        }
    }
}

/// The statement without its line breaks, literals masked: raw access may carry a secret in its text.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut in_literal = false;
    for character in text.chars() {
        match character {
            '\'' => {
                in_literal = !in_literal;
                if in_literal {
                    line.push_str("'…");
                } else {
                    line.push('\'');
                }
            }
            _ if in_literal => {}
            space if space.is_whitespace() => {
                if !line.ends_with(' ') {
                    line.push(' ');
                }
            }
            other => line.push(other),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_statements_are_counted_by_all_clones() {
        let mut config = Config::new("sqlite::memory:");
        config.slow_statement = Duration::from_millis(50);
        let (log, started) = (StatementLog::new(&config), Instant::now());
        log.record(started, "SELECT 1", Ok(1));
        assert_eq!(log.slow_statements(), 0);
        let long_ago = started - Duration::from_millis(50);
        log.clone().record(long_ago, "SELECT 1", Ok(1));
        log.record(long_ago, "SELECT 1", Err(&agentkeep_core::Error::database("none")));
        assert_eq!(log.slow_statements(), 2);
    }

    #[test]
    fn literals_do_not_reach_the_log() {
        assert_eq!(
            one_line("UPDATE t\n  SET key = 'sk-''secret'  WHERE id = $1"),
            "UPDATE t SET key = '…''…' WHERE id = $1"
        );
    }
}
