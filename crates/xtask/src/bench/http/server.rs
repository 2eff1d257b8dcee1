//! Servers in processes of their own: agentkeep's, and Agno's.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agentkeep::core::TenantId;
use anyhow::{Context, Result, ensure};

use super::client::{Connection, Request, Target};
use crate::workspace;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; dropping it ends it.
pub struct Served {
    child: Child,
    pub target: Target,
}

/// The release program `agentkeep`; `AGENTKEEP_BIN` names another one.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("AGENTKEEP_BIN") {
        return Ok(path.into());
    }
    let status = workspace::cargo().args(["build", "--quiet", "--release", "--package", "agentkeep-cli"]).status()?;
    ensure!(status.success(), "agentkeep cannot be built");
    Ok(workspace::target().join("release/agentkeep"))
}

impl Served {
    /// Starts `agentkeep serve` on a database and waits until it is ready.
    pub fn agentkeep(program: &Path, database: &str) -> Result<Self> {
        Self::agentkeep_of_tenant(program, database, TenantId::DEFAULT)
    }

    /// As [`Served::agentkeep`], of another tenant than the default one.
    pub fn agentkeep_of_tenant(program: &Path, database: &str, tenant: TenantId) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--json", "--quiet", "--listen", "127.0.0.1:0", "--database", database]);
        command.args(["--tenant", &tenant.to_string()]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("agentkeep cannot be run")?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
        let api = told["api"].as_str().context("an address")?;
        let address = api.trim_start_matches("http://").split('/').next().unwrap_or_default().parse()?;
        let served = Self { child, target: Target { address, key: None } };
        served.wait_for("/readyz")?;
        Ok(served)
    }

    /// Calls it with a key from here on.
    pub fn with_key(mut self, key: String) -> Self {
        self.target.key = Some(key);
        self
    }

    /// Starts a program that listens at that address, and waits until it answers there.
    pub fn other(command: &mut Command, address: SocketAddr, path: &str) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let served = Self { child, target: Target { address, key: None } };
        served.wait_for(path)?;
        Ok(served)
    }

    fn wait_for(&self, path: &str) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let started = Instant::now();
        loop {
            let asked =
                runtime.block_on(async { Connection::open(&self.target).await?.ask(&Request::get(path)).await });
            match asked {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error.context("the server does not get ready"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Memory that it has in use, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // With what it started itself: uvicorn has workers.
        let _ = Command::new("pkill").args(["-KILL", "-P", &self.child.id().to_string()]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
