//! `cargo xtask fuzz`: schemathesis calls every operation of the OpenAPI document with good and bad input, on a server
//! with SQLite in memory that asks for no key, and on one with PostgreSQL that does. No answer may be a fault of the
//! server, and each must be as the document says.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    install,
    postgres::{Options, PrivatePostgres},
    process, workspace,
};

/// What is not looked for: good input may fail for what the document cannot say (an id that is not there), and 405 tells
/// of other methods in its own words.
const LEFT_OUT: &str = "positive_data_acceptance,unsupported_method";

/// The engine of the server that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A server, ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself, or nobody is interested in how it ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs schemathesis with so many examples an operation beside its fixed ones, on one engine or on both.
pub fn fuzz(engine: Option<Engine>, examples: u32) -> Result<ExitCode> {
    let python = install::schemathesis()?;
    let built = workspace::cargo().args(["build", "--package", "agentkeep-cli"]).status()?;
    ensure!(built.success(), "agentkeep cannot be built");
    let wanted = |candidate| engine.is_none_or(|engine| engine == candidate);
    if wanted(Engine::Sqlite) {
        eprintln!("== SQLite, without a key");
        // Without keys a server on loopback lets everybody in.
        let code = call(&python, served(&["--ephemeral"]), None, &format!("{LEFT_OUT},ignored_auth"), examples)?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    if wanted(Engine::Postgres) {
        let database = PrivatePostgres::start(&Options::default())?;
        eprintln!("== PostgreSQL, with a key");
        let key = key_on(&database)?;
        let mut server = served(&[]);
        database.describe_to(&mut server);
        return call(&python, server, Some(&key), LEFT_OUT, examples);
    }
    Ok(ExitCode::SUCCESS)
}

fn agentkeep() -> Command {
    let mut command = Command::new(workspace::target().join("debug/agentkeep"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn served(arguments: &[&str]) -> Command {
    let mut command = agentkeep();
    command.args(["serve", "--quiet", "--listen", "127.0.0.1:0"]).args(arguments);
    command
}

/// A key of everything.
fn key_on(database: &PrivatePostgres) -> Result<String> {
    let mut command = agentkeep();
    command.args(["keys", "create", "--name", "fuzz", "--scopes", "admin"]);
    database.describe_to(&mut command);
    let made = command.output().context("agentkeep cannot be run")?;
    ensure!(made.status.success(), "no key can be made: {}", String::from_utf8_lossy(&made.stderr));
    let told = String::from_utf8(made.stdout)?;
    let key = told.lines().find_map(|line| line.strip_prefix("key "));
    key.map(|key| key.trim().to_owned()).context("the key was not told")
}

/// Calls a server, and ends it.
fn call(python: &Path, mut server: Command, key: Option<&str>, left_out: &str, examples: u32) -> Result<ExitCode> {
    let mut server = Server(server.spawn().context("agentkeep cannot be run")?);
    // Kept to the end: the server has more to say, and would end if nobody were there to hear it.
    let mut output = BufReader::new(server.0.stdout.take().context("a pipe was asked for")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let api = line.split_whitespace().last().context("the server said nothing")?;
    let base = api.trim_end_matches("/api/v1");

    let folder = tempfile::tempdir()?;
    let mut command = Command::new(python);
    // Its own script names the folder that it was made in, which is not the one it lies in.
    command.args(["-c", "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"]);
    command.args(["run", &format!("{base}/openapi.json"), "--wait-for-schema", "10", "--request-timeout", "20"]);
    command.args(["--phases", "coverage,fuzzing", "--max-examples", &examples.to_string()]);
    command.args(["--exclude-checks", left_out, "--continue-on-failure"]);
    if let Some(key) = key {
        command.args(["--header", &format!("Authorization: Bearer {key}")]);
        // It tries the ids that it is told: the key would be revoked before long. Who has none calls these.
        command.args(["--exclude-path-regex", "^/api/v1/keys/"]);
    }
    // It writes beside where it is.
    command.current_dir(folder.path());
    Ok(process::exit_code(process::run(command)?))
}
