//! Developer commands: `cargo xtask postgres`, `test`, `lint`, `fuzz`, `ci`, `soak` and `bench`.
//!
//! They need Rust, a C compiler and Python 3, nothing else; a PostgreSQL comes along by itself
//! (see [`binaries`]). What a command says goes to standard error; standard output carries data only:
//! the server's URL, the tests' output and totals, a bench's results.

#[cfg(feature = "bench")]
mod bench;
mod binaries;
mod ci;
mod fuzz;
mod install;
mod postgres;
mod process;
mod test;
mod workspace;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::postgres::PrivatePostgres;

/// The library is measured with the allocator that the command `agentkeep` has.
#[cfg(feature = "bench")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Developer commands of agentkeep
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a private PostgreSQL with pgvector, print its URL and keep it until Ctrl-C
    ///
    /// With a command after `--`, run it with DATABASE_URL (and AGENTKEEP_PG_BIN, the folder of
    /// pgbench and psql) set, stop the server, and end with the command's exit code.
    ///
    /// The server listens on 127.0.0.1 at a free port, as user `postgres` without a password, with a
    /// database `agentkeep`. Its data lies in a folder of its own under TMPDIR and goes when it stops.
    #[command(after_help = "Examples:\n  \
        cargo xtask postgres\n  \
        cargo xtask postgres -- cargo test -p agentkeep\n  \
        cargo xtask postgres --version 18 -- sh -c '$AGENTKEEP_PG_BIN/psql $DATABASE_URL'")]
    Postgres {
        #[command(flatten)]
        options: postgres::Options,
        /// Command to run with DATABASE_URL set
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Run every test, on SQLite and on PostgreSQL
    ///
    /// Uses the PostgreSQL that DATABASE_URL names, else starts a private one; without a PostgreSQL it
    /// fails. The last two lines give the totals and what was left out.
    Test {
        /// Folder of recorded data (it holds airline-sessions.json): run the tests on it too
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        options: postgres::Options,
        /// Arguments for the test programs, such as a part of a test's name
        #[arg(last = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Check format, lints and documentation
    Lint,
    /// Call every route of the service with good and bad input (schemathesis)
    Fuzz {
        /// Only on this engine; on both when it is not given
        engine: Option<fuzz::Engine>,
        /// Random examples for each operation, beside the fixed ones
        #[arg(long, default_value_t = 15)]
        examples: u32,
    },
    /// Everything that a change must pass: lint, then test with ../shared/data if it is there
    Ci,
    /// Run the long tests (`soak_…`), built for release, one after another
    Soak {
        /// Run only the tests whose name begins with soak_NAME
        name: Option<String>,
        /// Minutes that each test takes (AGENTKEEP_SOAK_MINUTES)
        #[arg(long)]
        minutes: Option<u32>,
        #[command(flatten)]
        options: postgres::Options,
    },
    /// Measure agentkeep beside its peers, built for release
    Bench {
        /// Name of the bench; an unknown one lists them all
        name: String,
        /// Only the cases of these engines, names or systems (`sqlite`, `append-64`, `awa-pg`); all of them when none
        /// is given
        cases: Vec<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Enqueue jobs from a process of its own, for the bench of jobs
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchProducer {
        /// The database
        url: String,
        /// How many jobs
        samples: u32,
        /// Milliseconds between two of them, on average
        pause: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Postgres { options, command } => run_postgres(&options, command),
        Task::Test { data, options, arguments } => test::test(data.as_deref(), &options, &arguments),
        Task::Lint => ci::lint(),
        Task::Fuzz { engine, examples } => fuzz::fuzz(engine, examples),
        Task::Ci => ci::ci(),
        Task::Soak { name, minutes, options } => test::soak(name.as_deref(), minutes, &options),
        Task::Bench { name, cases, json } => run_bench(&name, &cases, json),
        #[cfg(feature = "bench")]
        Task::BenchProducer { url, samples, pause } => {
            bench::produce_jobs(&url, samples, pause).map(|()| ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        for cause in error.chain().skip(1) {
            eprintln!("  cause: {cause}");
        }
        ExitCode::FAILURE
    })
}

fn run_postgres(options: &postgres::Options, command: Vec<OsString>) -> Result<ExitCode> {
    let mut server = PrivatePostgres::start(options)?;
    let mut words = command.into_iter();
    let Some(program) = words.next() else {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", server.url())?;
        stdout.flush()?;
        eprintln!("PostgreSQL is running; Ctrl-C stops it and removes its data");
        process::wait_for_stop(|| server.check_running())?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut command = Command::new(&program);
    command.args(words);
    server.describe_to(&mut command);
    let status = process::run(command).with_context(|| format!("cannot run {program:?}"))?;
    Ok(process::exit_code(status))
}

/// Runs a bench in this program if it was built for that, else builds it so and runs that.
fn run_bench(name: &str, cases: &[String], json: bool) -> Result<ExitCode> {
    #[cfg(feature = "bench")]
    if !cfg!(debug_assertions) {
        bench::run(name, &bench::Selection::new(cases), json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--release", "--package", "xtask"]);
    command.args(["--features", "bench", "--", "bench", name]).args(cases);
    if json {
        command.arg("--json");
    }
    let status = process::run(command).context("cannot run the release build of xtask")?;
    Ok(process::exit_code(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_after_two_dashes_are_the_command() {
        let line = ["xtask", "postgres", "--version", "18", "--", "psql", "-c", "x"];
        let parsed = Arguments::try_parse_from(line).unwrap();
        let Task::Postgres { options, command } = parsed.task else {
            panic!("not the postgres task");
        };
        assert_eq!(options.version, binaries::Version::V18);
        assert_eq!(command, ["psql", "-c", "x"]);
    }
}
