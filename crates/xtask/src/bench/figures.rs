//! What a bench measures and how it is told.

use std::time::Duration;

use serde_json::json;

/// One round of one system: how many operations in how much time, and how long each took.
pub struct Round {
    pub operations: u64,
    pub took: Duration,
    /// Not every one has to be here: a sample is enough.
    pub latencies: Vec<Duration>,
}

impl Round {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }
}

/// A case on an engine, with the rounds of each system that was measured in turn.
pub struct Case {
    pub bench: &'static str,
    pub name: String,
    pub engine: &'static str,
    /// Callers or connections at once.
    pub clients: usize,
    pub systems: Vec<(&'static str, Vec<Round>)>,
}

impl Case {
    /// Prints the case: for people with the ratio to each peer, or as one JSON object a system.
    pub fn print(&self, json: bool) {
        let ours = self.systems.iter().find(|(name, _)| *name == "agentkeep").map(|(_, rounds)| median_rate(rounds));
        for (system, rounds) in &self.systems {
            let (median, p99) = (median_rate(rounds), p99_milliseconds(rounds));
            if json {
                let line = json!({
                    "bench": self.bench, "case": self.name, "engine": self.engine, "system": system,
                    "clients": self.clients, "median": (median * 10.0).round() / 10.0,
                    "p99": (p99 * 1e4).round() / 1e4, "p50": (p50_milliseconds(rounds) * 1e4).round() / 1e4,
                    "unit": "operations/s", "p99_unit": "ms", "runs": rounds.len(),
                });
                println!("{line}");
                continue;
            }
            let ratio = match ours {
                Some(ours) if *system != "agentkeep" => format!("  agentkeep is {:.2}x", ours / median),
                _ => String::new(),
            };
            println!(
                "{:<9} {:<12} {:>3} clients  {:<12} {:>10.0}/s  p50 {:>8.3} ms  p99 {:>8.3} ms{ratio}",
                self.engine,
                self.name,
                self.clients,
                system,
                median,
                p50_milliseconds(rounds),
                p99
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn median_rate(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(Round::rate).collect())
}

/// The median over the rounds of each round's percentile, so that one disturbed round does not decide.
fn percentile(rounds: &[Round], part: f64) -> f64 {
    let of_round = |round: &Round| {
        let mut sorted = round.latencies.clone();
        sorted.sort();
        let place = ((sorted.len() as f64) * part) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    };
    median(rounds.iter().map(of_round).collect())
}

fn p99_milliseconds(rounds: &[Round]) -> f64 {
    percentile(rounds, 0.99)
}

fn p50_milliseconds(rounds: &[Round]) -> f64 {
    percentile(rounds, 0.5)
}
