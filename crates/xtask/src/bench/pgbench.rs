//! pgbench, the peer on PostgreSQL: the same statements in their form for one row, `-M prepared`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{
    figures::Round,
    load::{self, MESSAGES, ROUND, SESSIONS},
};

/// One append as the store's own statement does it, for a single row. Ids ascend, as those of the store do.
const APPEND: &str = r"
\set session random(1, :sessions)
\set place :place + 1
WITH head AS (
    UPDATE session_heads h
    SET last_seq = h.last_seq + 1, message_count = h.message_count + 1,
        last_message_at = GREATEST(h.last_message_at, '2025-01-01T00:00:00Z'::timestamptz)
    WHERE h.tenant_id = 1
        AND h.session_id = ('5e550000-0000-0000-0000-' || lpad(to_hex(:session::int8), 12, '0'))::uuid
    RETURNING h.session_id, h.last_seq
), written AS (
    INSERT INTO messages (tenant_id, session_id, seq, created_at, updated_at, id, role, type, is_streaming, is_complete,
        metadata, content)
    SELECT 1, head.session_id, head.last_seq, '2025-01-01T00:00:00Z', '2025-01-01T00:00:00Z',
        (lpad(to_hex(:run::int8), 12, '0') || lpad(to_hex(:client_id::int8), 8, '0') || lpad(to_hex(:place::int8), 12, '0'))::uuid,
        'user', 'text', false, true, :metadata::jsonb, :text::text
    FROM head
)
SELECT session_id, last_seq FROM head;
";

const COLUMNS: &str = "id, session_id, seq, role, type, content, parts, tool_calls, tool_name, tool_args, \
    tool_call_id, channel_payload, author_user_id, agent_id, platform_message_id, is_streaming, is_complete, usage, \
    extra, metadata, created_at, updated_at";

/// What pgbench does again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Append,
    Get,
    Recent,
}

/// pgbench on one database.
pub struct Pgbench {
    program: PathBuf,
    url: String,
    scripts: TempDir,
    runs: u32,
}

impl Pgbench {
    pub fn new(bin: &Path, url: &str) -> Result<Self> {
        let scripts = tempfile::tempdir()?;
        let id = |kind: &str, number: &str| {
            format!("('{kind}-0000-0000-0000-' || lpad(to_hex(:{number}::int8), 12, '0'))::uuid")
        };
        let get = format!(
            "\\set message random(1, {})\nSELECT {COLUMNS} FROM messages WHERE tenant_id = 1 AND id = {};\n",
            SESSIONS * MESSAGES,
            id("3e550000", "message")
        );
        let recent = format!(
            "\\set session random(1, {SESSIONS})\nSELECT {COLUMNS} FROM messages WHERE tenant_id = 1 AND session_id = {} \
             ORDER BY seq DESC LIMIT 30;\n",
            id("5e550000", "session")
        );
        for (name, text) in [("append", APPEND.to_owned()), ("get", get), ("recent", recent)] {
            fs::write(scripts.path().join(name), text.trim_start())?;
        }
        Ok(Self { program: bin.join("pgbench"), url: url.to_owned(), scripts, runs: 0 })
    }

    /// One round with that many connections.
    pub fn run(&mut self, script: Script, clients: usize) -> Result<Round> {
        self.run_for(script, clients, ROUND)
    }

    /// The number of connections with which one round does the most, out of a few.
    pub fn best_clients(&mut self, script: Script) -> Result<usize> {
        let mut best = (0, 0);
        for clients in [4, 8, 16, 32, 64] {
            let round = self.run_for(script, clients, Duration::from_secs(1))?;
            best = best.max((round.operations, clients));
        }
        Ok(best.1)
    }

    fn run_for(&mut self, script: Script, clients: usize, time: Duration) -> Result<Round> {
        self.runs += 1;
        let seconds = time.as_secs_f64().ceil();
        let name = match script {
            Script::Append => "append",
            Script::Get => "get",
            Script::Recent => "recent",
        };
        let logs = tempfile::tempdir()?;
        // Every latency of the slow script, a part of the fast ones: writing the log costs time too.
        let sample = if script == Script::Append { "0.2" } else { "0.05" };
        let output = Command::new(&self.program)
            .current_dir(logs.path())
            // As the store's own connections for appends: no row looks for its parent.
            .env("PGOPTIONS", "-c agentkeep.appends=on")
            .args(["-n", "-M", "prepared", "-j", "2", "-l", "--sampling-rate", sample])
            .args(["-c", &clients.to_string(), "-T", &seconds.to_string()])
            .args(["-D", &format!("sessions={SESSIONS}"), "-D", "place=0"])
            .args(["-D", &format!("run={}", u64::from(self.runs) + 1_000_000)])
            // Sent with each append, as the store does; in the text of the statement they would be read but once.
            .args(["-D", &format!("metadata={}", load::metadata()), "-D", &format!("text={}", load::text())])
            .arg("-f")
            .arg(self.scripts.path().join(name))
            .arg(&self.url)
            .output()
            .with_context(|| format!("{} does not start", self.program.display()))?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
        let number = |label: &str| -> Result<f64> {
            let line =
                told.lines().find(|line| line.starts_with(label)).with_context(|| format!("{label} in {told}"))?;
            let word = line[label.len()..].split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
            word.parse().with_context(|| format!("a number in {line:?}"))
        };
        let operations = number("number of transactions actually processed:")?;
        let rate = number("tps =")?;
        let took = Duration::from_secs_f64(operations / rate);
        Ok(Round { operations: operations as u64, took, latencies: read_logs(logs.path())? })
    }
}

/// The latencies of the sampled transactions: the third column of pgbench's log, in microseconds.
fn read_logs(folder: &Path) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            if let Some(micros) = line.split(' ').nth(2).and_then(|word| word.parse().ok()) {
                latencies.push(Duration::from_micros(micros));
            }
        }
    }
    Ok(latencies)
}
