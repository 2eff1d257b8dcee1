//! `cargo xtask test` and `cargo xtask soak`: cargo's test run with a PostgreSQL at hand.
//!
//! The test programs find the server in DATABASE_URL and make databases of their own on it. With the
//! private server they also get AGENTKEEP_PG_BIN, the folder of its programs, so that a test may start and
//! kill a server itself; with `--data` the recorded data's folder is in AGENTKEEP_DATA.

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};

use crate::postgres::{Options, PrivatePostgres};
use crate::{process, workspace};

const DATA_VARIABLE: &str = "AGENTKEEP_DATA";
const MINUTES_VARIABLE: &str = "AGENTKEEP_SOAK_MINUTES";

/// Runs every test but the long ones; the last two lines are the totals and what was left out.
pub fn test(data: Option<&Path>, options: &Options, arguments: &[OsString]) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--all-features", "--no-fail-fast", "--"]);
    command.args(arguments);
    command.env_remove(DATA_VARIABLE);
    if let Some(folder) = data {
        let absolute = folder.canonicalize().ok().filter(|path| path.is_dir());
        let absolute = absolute.with_context(|| format!("--data {}: there is no such folder", folder.display()))?;
        command.env(DATA_VARIABLE, absolute);
    }
    let (totals, code) = run_tests(command, options)?;
    println!("{totals}");
    println!("{}", left_out(data.is_some(), totals.ignored));
    Ok(code)
}

/// Runs the long tests, built for release: all of them, or those whose name begins with `soak_NAME`.
pub fn soak(name: Option<&str>, minutes: Option<u32>, options: &Options) -> Result<ExitCode> {
    let filter = format!("soak_{}", name.unwrap_or_default());
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--workspace", "--all-features"]);
    command.args(["--no-fail-fast", "--", "--ignored", "--nocapture"]);
    // They measure and they load the machine: side by side they would spoil each other.
    command.args(["--test-threads=1", &filter]);
    if let Some(minutes) = minutes {
        command.env(MINUTES_VARIABLE, minutes.to_string());
    }
    let (totals, code) = run_tests(command, options)?;
    println!("{totals}");
    ensure!(code != ExitCode::SUCCESS || totals.passed > 0, "no long test has a name with {filter:?}");
    Ok(code)
}

/// Runs cargo's tests with a PostgreSQL: the one that DATABASE_URL names, else a private one.
fn run_tests(mut command: Command, options: &Options) -> Result<(Totals, ExitCode)> {
    let given = std::env::var_os("DATABASE_URL").filter(|url| !url.is_empty());
    let _server = if given.is_some() {
        eprintln!("using the PostgreSQL that DATABASE_URL names");
        None
    } else {
        let server = PrivatePostgres::start(options)?;
        server.describe_to(&mut command);
        Some(server)
    };
    let totals = Rc::new(Cell::new(Totals::default()));
    let counter = Rc::clone(&totals);
    let status = process::run_watching_lines(command, move |line| {
        counter.set(counter.get().with(line));
    });
    let status = status.context("cannot run cargo test")?;
    let mut totals = totals.get();
    totals.broken = !status.success() && totals.failed == 0;
    let code = if status.success() && totals.failed > 0 { ExitCode::FAILURE } else { process::exit_code(status) };
    Ok((totals, code))
}

/// What cargo's test programs reported, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The run failed though no test did: something did not compile, or a program broke off.
    broken: bool,
}

impl Totals {
    /// These totals and those of `line`, if it is the line that ends a test program's report:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn with(mut self, line: &str) -> Totals {
        let counts = line.strip_prefix("test result: ").and_then(|result| result.split_once(". "));
        let Some((_, counts)) = counts else {
            return self;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
        self
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.broken {
            write!(f, ", but the run did not end well: see above")?;
        }
        Ok(())
    }
}

/// The line that says what a test run did not cover.
fn left_out(has_data: bool, ignored: u64) -> String {
    let mut parts = Vec::new();
    if !has_data {
        parts.push("the tests on recorded data (give --data DIR)".to_owned());
    }
    if ignored > 0 {
        parts.push(format!("{ignored} long tests (cargo xtask soak)"));
    }
    match parts.as_slice() {
        [] => "left out: nothing".to_owned(),
        parts => format!("left out: {}", parts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals_of(lines: &[&str]) -> Totals {
        lines.iter().fold(Totals::default(), |totals, line| totals.with(line))
    }

    #[test]
    fn the_reports_of_all_test_programs_are_added_up() {
        let totals = totals_of(&[
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.01s\n",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
        ]);
        assert_eq!(totals.to_string(), "13 passed, 2 failed");
        assert_eq!(totals.ignored, 1);
    }

    #[test]
    fn coloured_reports_count_too() {
        let line = "test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 4 passed; 0 failed; 0 ignored\n";
        assert_eq!(totals_of(&[line]).passed, 4);
    }

    #[test]
    fn other_lines_do_not_count() {
        let lines = ["running 3 tests\n", "test a ... ok\n", "5 passed; 1 failed\n"];
        assert_eq!(totals_of(&lines), Totals::default());
    }

    #[test]
    fn the_last_line_names_what_was_left_out() {
        assert_eq!(left_out(true, 0), "left out: nothing");
        assert_eq!(
            left_out(false, 2),
            "left out: the tests on recorded data (give --data DIR); 2 long tests (cargo xtask soak)"
        );
    }
}
