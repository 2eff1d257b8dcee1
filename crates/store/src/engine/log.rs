//! The statement log: what ran, how long it took, how many rows; never a parameter.

use std::time::{Duration, Instant};

use agentkeep_core::Result;

use super::Config;

/// Which statements are logged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatementLog {
    all: bool,
    slow: Duration,
}

impl StatementLog {
    pub(crate) fn new(config: &Config) -> Self {
        Self { all: config.log_sql, slow: config.slow_statement }
    }

    /// Logs a statement that started at `started` and gave `result` rows.
    pub(crate) fn record(&self, started: Instant, text: &str, result: Result<u64, &agentkeep_core::Error>) {
        let took = started.elapsed();
        let slow = took >= self.slow;
        if !self.all && !slow {
            return;
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
    fn literals_do_not_reach_the_log() {
        assert_eq!(
            one_line("UPDATE t\n  SET key = 'sk-''secret'  WHERE id = $1"),
            "UPDATE t SET key = '…''…' WHERE id = $1"
        );
    }
}
