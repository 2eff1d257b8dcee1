//! `serve`: the store as a service.

use std::{net::SocketAddr, time::Duration};

use agentkeep::{Config, core::TenantId};
use agentkeep_server::{Options, Server};
use clap::Args;
use serde_json::json;

use crate::{
    failure::{Failure, Outcome},
    output::Output,
    settings::Settings,
    telemetry,
};

/// Serve the database over HTTP
///
/// The first line on standard output is written when requests are answered. Without a key only this machine is served;
/// `agentkeep keys create` makes one. Ctrl-C finishes what is under way and ends; a second one ends at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  agentkeep serve\n  agentkeep keys create --name web --scopes read,write && agentkeep serve --listen 0.0.0.0:8787\n  agentkeep serve --ephemeral"
)]
pub struct Serve {
    /// The address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8787", env = "AGENTKEEP_LISTEN")]
    listen: SocketAddr,
    /// Keep everything in memory: nothing outlives the process
    #[arg(long, conflicts_with = "database")]
    ephemeral: bool,
    /// The origin of pages in browsers that may call, or * for any; may be repeated
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// Requests a second that each key may make
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,
    /// Seconds that a request may take; streams may take longer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// Seconds that a connection stays open on which nothing is sent and no answer is worked at; at least 30
    #[arg(long, value_name = "SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(30..))]
    idle_timeout: u64,
    /// Connections that are open at once at most [default: 10000, or as many as the process may have files but 128]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_connections: Option<usize>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// Files that are left for the database and everything else when all connections are open.
const OTHER_FILES: u64 = 128;

impl Serve {
    /// Serves until it is told to stop.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        let tenant = match settings.tenant() {
            None => TenantId::DEFAULT,
            Some(tenant) => tenant.parse().map_err(|_| {
                Failure::usage(format!("serve takes a tenant by its number, not by its name ({tenant:?})"))
            })?,
        };
        let defaults = Options::default();
        let room = allow_files().map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES).max(1));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let max_connections = self.max_connections.unwrap_or(defaults.max_connections.min(room));
        let options = Options {
            listen: self.listen,
            tenant,
            cors_origins: self.cors_origins,
            rate_limit: self.rate_limit,
            request_timeout: Duration::from_secs(self.request_timeout),
            idle_timeout: Duration::from_secs(self.idle_timeout),
            max_connections,
            ephemeral: self.ephemeral,
            on_span: telemetry::on_span(),
            ..defaults
        };
        let config = if self.ephemeral { Config::new("sqlite::memory:") } else { settings.into_config() };
        let place = match (self.ephemeral, config.sqlite_path()) {
            (true, _) => "in memory: NOTHING OUTLIVES THIS PROCESS".to_owned(),
            (false, Some(path)) => std::path::absolute(&path).unwrap_or(path).display().to_string(),
            (false, None) => config.engine_name().to_owned(),
        };
        let server = Server::bind(config, options).await?;
        let base = format!("http://{}", server.address());
        if output.json {
            output.json(&json!({
                "api": format!("{base}/api/v1"), "docs": format!("{base}/docs"), "database": place,
                "ephemeral": self.ephemeral,
            }))?;
        } else {
            output.line(&format!("API       {base}/api/v1\ndocs      {base}/docs\ndatabase  {place}"))?;
        }
        server.run(told_to_stop()).await?;
        output.say("stopped");
        Ok(())
    }
}

/// Lets the process have as many files as it may: every connection is one, and shells begin with few. How many it may
/// have; `None` where nobody says.
fn allow_files() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // Where that is not allowed either it stays as it is.
        // Where it is allowed any number, macOS means 10,240.
        for wanted in [limit.maximum, Some(10_240)] {
            if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: limit.maximum }).is_ok() {
                break;
            }
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// Waits for Ctrl-C, or for what a service manager sends. A second one ends the process.
async fn told_to_stop() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        std::process::exit(130);
    });
}

async fn signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    // Without handlers the process ends by the signal itself.
    if interrupted.await.is_err() {
        std::future::pending::<()>().await;
    }
}
