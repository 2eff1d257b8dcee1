//! What a bench measures and how it is told.

use std::time::Duration;

use serde_json::json;

/// One round of one system: how many operations in how much time, and how long each took.
pub struct Round {
    pub operations: u64,
    pub took: Duration,
    /// Not every one has to be here: a sample is enough. None where only the whole is timed.
    pub latencies: Vec<Duration>,
}

impl Round {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }
}

/// What a case compares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Operations a second: more is better.
    Rate,
    /// The time that one operation takes: less is better.
    Latency,
}

/// One system in a case.
pub struct System {
    pub name: &'static str,
    /// How it was set up, where that is not the same for all.
    pub settings: Option<String>,
    /// Its rounds, or why there are none.
    pub outcome: Result<Vec<Round>, String>,
}

/// A case on an engine, with the systems that were measured in turn.
pub struct Case {
    pub bench: &'static str,
    pub name: String,
    pub engine: &'static str,
    pub measure: Measure,
    /// Callers or connections at once.
    pub clients: usize,
    pub systems: Vec<System>,
}

impl Case {
    /// Prints the case: for people with the ratio to each peer, or as one JSON object a system.
    pub fn print(&self, json: bool) {
        let ours = self.systems.iter().find(|system| system.name == "agentkeep");
        let ours = ours.and_then(|system| system.outcome.as_ref().ok()).map(|rounds| self.median(rounds));
        for system in &self.systems {
            match &system.outcome {
                Ok(rounds) if json => println!("{}", self.line(system, rounds)),
                Ok(rounds) => println!("{}", self.told(system, rounds, ours)),
                Err(reason) if json => println!(
                    "{}",
                    json!({
                        "bench": self.bench, "case": self.name, "engine": self.engine, "system": system.name,
                        "error": reason,
                    })
                ),
                Err(reason) => println!("{:<9} {:<15} {:<18} FAILED: {reason}", self.engine, self.name, system.name),
            }
        }
    }

    /// The figure that the case compares.
    fn median(&self, rounds: &[Round]) -> f64 {
        match self.measure {
            Measure::Rate => median(rounds.iter().map(Round::rate).collect()),
            Measure::Latency => percentile(rounds, 0.5),
        }
    }

    fn line(&self, system: &System, rounds: &[Round]) -> serde_json::Value {
        let (unit, digits) = match self.measure {
            Measure::Rate => ("operations/s", 10.0),
            Measure::Latency => ("ms", 1e4),
        };
        let mut line = json!({
            "bench": self.bench, "case": self.name, "engine": self.engine, "system": system.name,
            "clients": self.clients, "median": rounded(self.median(rounds), digits),
            "p99": rounded(percentile(rounds, 0.99), 1e4), "p50": rounded(percentile(rounds, 0.5), 1e4),
            "unit": unit, "p99_unit": "ms", "runs": rounds.len(),
        });
        if let Some(settings) = &system.settings {
            line["settings"] = json!(settings);
        }
        line
    }

    fn told(&self, system: &System, rounds: &[Round], ours: Option<f64>) -> String {
        let theirs = self.median(rounds);
        let mut line = format!("{:<9} {:<15} {:>3} clients  {:<18}", self.engine, self.name, self.clients, system.name);
        if self.measure == Measure::Rate {
            line += &format!(" {theirs:>10.0}/s");
        }
        if rounds.iter().any(|round| !round.latencies.is_empty()) {
            line += &format!("  p50 {:>8.3} ms  p99 {:>8.3} ms", percentile(rounds, 0.5), percentile(rounds, 0.99));
        }
        if let Some(ours) = ours.filter(|_| system.name != "agentkeep") {
            let ratio = match self.measure {
                Measure::Rate => ours / theirs,
                Measure::Latency => theirs / ours,
            };
            line += &format!("  agentkeep is {ratio:.2}x");
        }
        if let Some(settings) = &system.settings {
            line += &format!("  ({settings})");
        }
        line
    }
}

/// One number that is compared with a bar and with nobody.
pub struct Figure {
    pub bench: &'static str,
    pub case: &'static str,
    pub engine: &'static str,
    pub unit: &'static str,
    pub value: f64,
    pub runs: usize,
}

impl Figure {
    /// Prints it, for people or as a JSON object.
    pub fn print(&self, json: bool) {
        let Self { bench, case, engine, unit, value, runs } = self;
        if json {
            let median = rounded(*value, 10.0);
            println!(
                "{}",
                json!({
                    "bench": bench, "case": case, "engine": engine, "system": "agentkeep", "median": median, "unit": unit,
                    "runs": runs,
                })
            );
        } else {
            println!("{engine:<9} {case:<15} {:<11} {:<18} {value:>10.1} {unit}", "", "agentkeep");
        }
    }
}

/// A figure with as many digits as it deserves; null when there is none.
fn rounded(value: f64, digits: f64) -> Option<f64> {
    value.is_finite().then(|| (value * digits).round() / digits)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median over the rounds of each round's percentile in milliseconds, so that one disturbed round does not decide.
fn percentile(rounds: &[Round], part: f64) -> f64 {
    let of_round = |round: &Round| {
        let mut sorted = round.latencies.clone();
        sorted.sort();
        let place = ((sorted.len() as f64) * part) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    };
    median(rounds.iter().map(of_round).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(measure: Measure, systems: Vec<System>) -> Case {
        Case { bench: "jobs", name: "burn-down".to_owned(), engine: "postgres", measure, clients: 1, systems }
    }

    fn round(operations: u64, milliseconds: &[u64]) -> Round {
        let latencies = milliseconds.iter().copied().map(Duration::from_millis).collect();
        Round { operations, took: Duration::from_secs(1), latencies }
    }

    #[test]
    fn a_case_without_latencies_has_none_in_its_line() {
        let rounds = vec![round(10, &[]), round(30, &[]), round(20, &[])];
        let system = System { name: "agentkeep", settings: None, outcome: Ok(Vec::new()) };
        let line = case(Measure::Rate, Vec::new()).line(&system, &rounds);
        assert_eq!(line["median"], json!(20.0));
        assert_eq!(line["runs"], json!(3));
        assert!(line["p99"].is_null() && line.get("settings").is_none(), "{line}");
    }

    #[test]
    fn latencies_are_compared_the_other_way_round() {
        let rounds = vec![round(3, &[8, 10, 12])];
        let system = System { name: "peer", settings: Some("one process".to_owned()), outcome: Ok(Vec::new()) };
        let told = case(Measure::Latency, Vec::new()).told(&system, &rounds, Some(5.0));
        assert!(told.contains("agentkeep is 2.00x  (one process)"), "{told}");
    }
}
