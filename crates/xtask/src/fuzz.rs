//! `cargo xtask fuzz`: schemathesis calls every operation of the OpenAPI document with good and bad input, on a server in
//! memory. No answer may be a fault of the server, and each must be as the document says.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{install, process, workspace};

/// What is not looked for: good input may fail for what the document cannot say (an id that is not there), a server on
/// loopback without keys needs none, and 405 tells of other methods in its own words.
const LEFT_OUT: &str = "ignored_auth,positive_data_acceptance,unsupported_method";

/// A server, ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself, or nobody is interested in how it ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs schemathesis with so many examples an operation beside its fixed ones.
pub fn fuzz(examples: u32) -> Result<ExitCode> {
    let python = install::schemathesis()?;
    let built = workspace::cargo().args(["build", "--package", "agentkeep-cli"]).status()?;
    ensure!(built.success(), "agentkeep cannot be built");
    let mut command = Command::new(workspace::target().join("debug/agentkeep"));
    command.args(["serve", "--quiet", "--listen", "127.0.0.1:0", "--ephemeral"]).stdin(Stdio::null());
    let mut server = Server(command.stdout(Stdio::piped()).spawn().context("agentkeep cannot be run")?);
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
    command.args(["--exclude-checks", LEFT_OUT, "--continue-on-failure"]);
    // It writes beside where it is.
    let status = process::run({
        command.current_dir(folder.path());
        command
    })?;
    Ok(process::exit_code(status))
}
