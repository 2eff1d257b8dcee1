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
}

impl Serve {
    /// Serves until it is told to stop.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        let tenant = match settings.tenant() {
            None => TenantId::DEFAULT,
            Some(tenant) => tenant.parse().map_err(|_| {
                Failure::usage(format!("serve takes a tenant by its number, not by its name ({tenant:?})"))
            })?,
        };
        let options = Options {
            listen: self.listen,
            tenant,
            cors_origins: self.cors_origins,
            rate_limit: self.rate_limit,
            request_timeout: Duration::from_secs(self.request_timeout),
            ephemeral: self.ephemeral,
            ..Options::default()
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
