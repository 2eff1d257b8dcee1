//! Measures agentkeep beside its peers, side by side in one run.

mod append;
mod figures;
mod http;
mod jobs;
mod ledger;
mod load;
mod pgbench;
mod sqlite_peer;

use anyhow::{Context, Result};

struct Bench {
    name: &'static str,
    run: fn(cases: &Selection, json: bool) -> Result<()>,
}

/// The engines, systems and cases that were asked for.
pub struct Selection(Vec<String>);

impl Selection {
    pub fn new(words: &[String]) -> Self {
        Self(words.to_vec())
    }

    /// Whether a case is wanted: of each kind of word that was given (an engine, a name), one fits.
    pub fn wants(&self, engine: &str, case: &str) -> bool {
        self.wants_engine(engine) && self.fits(|word| !is_engine(word) && !is_system(word), case)
    }

    /// Whether a system is to be measured.
    pub fn wants_system(&self, system: &str) -> bool {
        self.fits(is_system, system)
    }

    /// Whether anything of an engine is wanted.
    pub fn wants_engine(&self, engine: &str) -> bool {
        self.fits(is_engine, engine)
    }

    fn fits(&self, kind: impl Fn(&str) -> bool, name: &str) -> bool {
        let mut words = self.0.iter().filter(|word| kind(word)).peekable();
        words.peek().is_none() || words.any(|word| word == name)
    }
}

fn is_engine(word: &str) -> bool {
    matches!(word, "sqlite" | "postgres")
}

fn is_system(word: &str) -> bool {
    jobs::SYSTEMS.contains(&word) || append::PEERS.contains(&word) || http::PEERS.contains(&word)
}

const BENCHES: &[Bench] = &[
    Bench { name: "append", run: append::run },
    Bench { name: "http", run: http::run },
    Bench { name: "jobs", run: jobs::run },
    Bench { name: "ledger", run: ledger::run },
];

/// Runs one bench; with `json` it prints one object a line. An unknown name is an error that lists them all.
pub fn run(name: &str, cases: &Selection, json: bool) -> Result<()> {
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        let names = match names.as_slice() {
            [] => "none yet".to_owned(),
            names => names.join(", "),
        };
        format!("there is no bench {name:?}; benches: {names}")
    })?;
    (bench.run)(cases, json)
}

/// What the hidden command of the bench of jobs does in a process of its own.
pub fn produce_jobs(url: &str, samples: u32, pause: u64) -> Result<()> {
    jobs::produce(url, samples, pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_engines_systems_and_cases() {
        let words = ["postgres", "agentkeep", "awa-pg", "burn-down"].map(str::to_owned);
        let some = Selection::new(&words);
        assert!(some.wants("postgres", "burn-down") && !some.wants("postgres", "enqueue"));
        assert!(!some.wants("sqlite", "burn-down"));
        assert!(some.wants_system("awa-pg") && !some.wants_system("procrastinate"));
        let all = Selection::new(&[]);
        assert!(all.wants("sqlite", "enqueue") && all.wants_system("procrastinate"));
    }

    #[test]
    fn an_unknown_bench_is_named_in_the_error() {
        let error = run("nonsense", &Selection::new(&[]), false).unwrap_err().to_string();
        assert!(error.contains("\"nonsense\"; benches:"), "{error}");
    }
}
