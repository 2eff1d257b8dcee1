//! Measures agentkeep beside its peers, side by side in one run.

mod append;
mod figures;
mod load;
mod sqlite_peer;

use anyhow::{Context, Result};

struct Bench {
    name: &'static str,
    run: fn(json: bool) -> Result<()>,
}

const BENCHES: &[Bench] = &[Bench { name: "append", run: append::run }];

/// Runs one bench; with `json` it prints one object a line. An unknown name is an error that lists them all.
pub fn run(name: &str, json: bool) -> Result<()> {
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        let names = match names.as_slice() {
            [] => "none yet".to_owned(),
            names => names.join(", "),
        };
        format!("there is no bench {name:?}; benches: {names}")
    })?;
    (bench.run)(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_named_in_the_error() {
        let error = run("nonsense", false).unwrap_err().to_string();
        assert!(error.contains("\"nonsense\"; benches:"), "{error}");
    }
}
