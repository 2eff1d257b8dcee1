//! A database for each round, on one server.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::postgres::PrivatePostgres;

/// The databases of the systems: of each a template, and one that is in use.
pub struct Databases<'a>(&'a PrivatePostgres);

impl<'a> Databases<'a> {
    pub fn new(server: &'a PrivatePostgres) -> Self {
        Self(server)
    }

    /// Makes the template of a system: `prepare` gets the address of an empty database.
    pub fn template(&self, system: &str, prepare: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let name = format!("{system}_template");
        self.0.ask("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        prepare(&self.0.url_of(&name))?;
        // What its programs leave open would be in the way of the copies.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = ";
        self.0.ask("postgres", &format!("{end}'{name}'")).map(|_| ())
    }

    /// Gives `work` the address of a fresh database of a system.
    pub fn with<T>(&self, system: &str, work: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let drop = format!("DROP DATABASE IF EXISTS \"{system}\" WITH (FORCE)");
        self.0.ask("postgres", &drop)?;
        self.0.ask("postgres", &format!("CREATE DATABASE \"{system}\" TEMPLATE \"{system}_template\""))?;
        let outcome = work(&self.0.url_of(system));
        self.0.ask("postgres", &drop)?;
        outcome
    }

    /// Does what the server would do by itself a little after many rows came in: without statistics of its tables a
    /// peer may be unlucky with its plans.
    pub fn settle(&self, system: &str) -> Result<()> {
        self.0.ask(system, "ANALYZE").map(|_| ())
    }

    /// A transaction that sees the database as it is now, until it is dropped.
    pub fn snapshot(&self, system: &str) -> Result<Snapshot> {
        let mut child = self.0.psql(system).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("a pipe was asked for")?;
        let mut output = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        writeln!(input, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) > 0 FROM pg_class;")?;
        input.flush()?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let snapshot = Snapshot { child, _input: input };
        ensure!(line.trim() == "t", "psql holds no snapshot, it said {line:?}");
        Ok(snapshot)
    }
}

/// An open transaction.
pub struct Snapshot {
    child: Child,
    // It ends with its input.
    _input: ChildStdin,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // The transaction ends with its connection, however that ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
