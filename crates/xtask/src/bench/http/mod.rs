//! The service: agentkeep over HTTP beside the library, beside Agno's AgentOS, and by itself.

mod client;
mod server;

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use agentkeep::{
    Config, Store,
    core::{JsonObject, NewApiKey, NewSession, NewTenant, Scope, TenantId},
};
use anyhow::Result;
use serde_json::json;
use tokio::runtime::Runtime;

use self::{
    client::{Asking, Connection, Request, Target},
    server::Served,
};
use super::{
    Selection,
    figures::{Case, Figure, Measure, Round, System},
    load::{self, Chooser, Operation},
};
use crate::{
    install,
    postgres::{Options, PrivatePostgres},
};

/// What agentkeep is measured beside.
pub const PEERS: [&str; 2] = ["library", "agno"];

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const CLIENTS: usize = 64;
/// Clients that only wait.
const IDLE_STREAMS: usize = 1_000;
/// Starts whose time is taken.
const STARTS: usize = 11;
/// What Agno has: sessions, and the messages of each.
const AGNO_SESSIONS: u64 = 1_000;
const AGNO_MESSAGES: u64 = 20;

/// Runs every case.
pub fn run(cases: &Selection, json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let run = Run { cases, json, runtime, program: server::program()? };
    if cases.wants_engine("sqlite") {
        run.sqlite()?;
    }
    if cases.wants_engine("postgres") {
        run.postgres()?;
    }
    Ok(())
}

struct Run<'a> {
    cases: &'a Selection,
    json: bool,
    runtime: Runtime,
    program: std::path::PathBuf,
}

type Measured<'a> = (&'static str, &'a mut dyn FnMut() -> Result<Round>);

impl Run<'_> {
    fn sqlite(&self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite://{}", folder.path().join("bench.db").display());
        let store = self.runtime.block_on(Store::open_with(Config::new(&url)))?;
        self.runtime.block_on(load::fill(&store))?;
        self.runtime.block_on(store.close());
        self.reads("sqlite", &url)?;
        self.memory("sqlite", &url)?;
        self.starts(&url)?;
        self.with_key("sqlite", &url)
    }

    fn postgres(&self) -> Result<()> {
        let postgres = PrivatePostgres::start_seasoned(&Options::default())?;
        let url = postgres.url();
        let store = self.runtime.block_on(Store::open_with(Config::new(&url)))?;
        self.runtime.block_on(load::fill(&store))?;
        self.reads("postgres", &url)?;
        if self.cases.wants("postgres", "append-64") {
            let served = Served::agentkeep(&self.program, &url)?;
            let mut ours = || self.ask(&served.target, append, None);
            let mut library = || self.runtime.block_on(load::run(&store, Operation::Append, CLIENTS));
            self.measure(
                "append-64",
                "postgres",
                Measure::Rate,
                &mut [("agentkeep", &mut ours), ("library", &mut library)],
            );
        }
        self.runtime.block_on(store.close());
        self.memory("postgres", &url)?;
        self.beside_agno(&url)?;
        self.with_key("postgres", &url)
    }

    /// Sessions that are read again and again, as fast as can be and at half of that.
    fn reads(&self, engine: &'static str, url: &str) -> Result<()> {
        if !self.cases.wants(engine, "get-cached") && !self.cases.wants(engine, "get-half-load") {
            return Ok(());
        }
        let served = Served::agentkeep(&self.program, url)?;
        let mut fastest: f64 = 0.0;
        let mut ours = || {
            let round = self.ask(&served.target, get, None)?;
            fastest = fastest.max(round.operations as f64 / round.took.as_secs_f64());
            Ok(round)
        };
        self.measure("get-cached", engine, Measure::Rate, &mut [("agentkeep", &mut ours)]);
        let half = if fastest > 0.0 { fastest / 2.0 } else { 5_000.0 };
        let mut ours = || self.ask(&served.target, get, Some(half));
        self.measure("get-half-load", engine, Measure::Latency, &mut [("agentkeep", &mut ours)]);
        Ok(())
    }

    /// The same by callers with a key, whose row is read for each of them. The last that is measured: where there is a
    /// key, nobody is served without one.
    fn with_key(&self, engine: &'static str, url: &str) -> Result<()> {
        let cases = [("get-with-key", get as Asking), ("append-with-key", append)];
        if !cases.iter().any(|(case, _)| self.cases.wants(engine, case)) {
            return Ok(());
        }
        let issued = self.runtime.block_on(async {
            let store = Store::open_with(Config::new(url)).await?;
            let issued = store.default_tenant().api_keys().create(NewApiKey::new("bench", [Scope::Admin])).await;
            store.close().await;
            issued
        })?;
        let served = Served::agentkeep(&self.program, url)?.with_key(issued.key);
        for (case, asking) in cases {
            let mut ours = || self.ask(&served.target, asking, None);
            self.measure(case, engine, Measure::Rate, &mut [("agentkeep", &mut ours)]);
        }
        Ok(())
    }

    /// What the server takes while nothing happens: by itself, and for each client that waits for events.
    fn memory(&self, engine: &'static str, url: &str) -> Result<()> {
        if !self.cases.wants(engine, "memory") {
            return Ok(());
        }
        let served = Served::agentkeep(&self.program, url)?;
        std::thread::sleep(Duration::from_secs(2));
        let idle = served.memory()?;
        Figure {
            bench: "http",
            case: "memory-idle",
            engine,
            unit: "MiB",
            value: idle as f64 / f64::from(1 << 20),
            runs: 1,
        }
        .print(self.json);
        let streams = self.runtime.block_on(async {
            let mut streams = Vec::new();
            for number in 0..IDLE_STREAMS {
                let session = load::session_id(number as u64 % load::SESSIONS + 1);
                let connection = Connection::open(&served.target).await?;
                streams.push(connection.listen(&format!("/api/v1/sessions/{session}/events")).await?);
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            anyhow::Ok(streams)
        })?;
        let each = served.memory()?.saturating_sub(idle) as f64 / streams.len() as f64 / 1024.0;
        Figure { bench: "http", case: "memory-stream", engine, unit: "KiB", value: each, runs: streams.len() }
            .print(self.json);
        // Given back inside of the runtime that they belong to.
        self.runtime.block_on(async { drop(streams) });
        Ok(())
    }

    /// From the start of the process until it is ready.
    fn starts(&self, url: &str) -> Result<()> {
        let start = || {
            let begun = Instant::now();
            let served = Served::agentkeep(&self.program, url)?;
            let took = begun.elapsed();
            drop(served);
            Ok(Round { operations: 1, took, latencies: vec![took] })
        };
        if self.cases.wants("sqlite", "start") {
            let rounds = (0..STARTS).map(|_| start()).collect::<Result<Vec<_>>>()?;
            let latencies = rounds.into_iter().flat_map(|round| round.latencies).collect();
            let rounds = vec![Round { operations: STARTS as u64, took: Duration::ZERO, latencies }];
            self.print(
                "start",
                "sqlite",
                Measure::Latency,
                1,
                vec![System { name: "agentkeep", settings: None, outcome: Ok(rounds) }],
            );
        }
        Ok(())
    }

    /// A session with its messages, and a page of sessions, beside the nearest rival on the same server.
    fn beside_agno(&self, url: &str) -> Result<()> {
        if !self.cases.wants("postgres", "get-session") && !self.cases.wants("postgres", "list-sessions") {
            return Ok(());
        }
        let tenant: TenantId = self.runtime.block_on(async {
            let store = Store::open_with(Config::new(url)).await?;
            let tenant = store.tenants().create(NewTenant::new("beside Agno")).await?.id;
            let view = store.tenant(tenant);
            let (text, metadata) = (load::text(), JsonObject::parse("metadata", r#"{"tags":["airline","change"]}"#)?);
            for number in 1..=AGNO_SESSIONS {
                let new = NewSession {
                    id: Some(load::session_id(number)),
                    name: Some(format!("session {number}")),
                    metadata: metadata.clone(),
                    ..NewSession::default()
                };
                let session = view.sessions().create(new).await?;
                let messages = (0..AGNO_MESSAGES).map(|_| load::message(&text, &metadata)).collect();
                view.messages().append_many(session.id, messages).await?;
            }
            store.execute("ANALYZE", &[]).await?;
            store.close().await;
            anyhow::Ok(tenant)
        })?;
        let agno = self.agno(url).map_err(|error| format!("{error:#}"));
        let ours = Served::agentkeep_of_tenant(&self.program, url, tenant)?;
        for (case, our_asking, their_asking) in
            [("get-session", conversation as Asking, agno_session as Asking), ("list-sessions", list, agno_list)]
        {
            let mut our_round = || self.ask(&ours.target, our_asking, None);
            let mut their_round = || match &agno {
                Ok(served) => self.ask(&served.target, their_asking, None),
                Err(reason) => anyhow::bail!("{reason}"),
            };
            self.measure(
                case,
                "postgres",
                Measure::Rate,
                &mut [("agentkeep", &mut our_round), ("agno", &mut their_round)],
            );
        }
        Ok(())
    }

    fn agno(&self, url: &str) -> Result<Served> {
        let python = install::agno()?;
        let script = install::scripts().join("agno_peer.py");
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings =
            json!({ "sessions": AGNO_SESSIONS, "messages": AGNO_MESSAGES, "port": address.port(), "workers": 2 });
        let command = |case: &str| {
            let mut command = Command::new(&python);
            // It makes a client of a model that is never called.
            command.arg(&script).args([url, case, &settings.to_string()]).env("OPENAI_API_KEY", "none");
            command
        };
        let filled = command("fill").output()?;
        anyhow::ensure!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
        Served::other(&mut command("serve"), address, "/sessions?type=agent&limit=1")
    }

    fn ask(&self, target: &Target, asking: Asking, pace: Option<f64>) -> Result<Round> {
        self.runtime.block_on(client::run(target, CLIENTS, asking, ROUND, pace))
    }

    /// Measures systems in turn; who begins alternates.
    fn measure(&self, case: &str, engine: &'static str, measure: Measure, systems: &mut [Measured<'_>]) {
        if !self.cases.wants(engine, case) {
            return;
        }
        let mut outcomes: Vec<Result<Vec<Round>, String>> = systems.iter().map(|_| Ok(Vec::new())).collect();
        for round in 0..=ROUNDS {
            let mut order: Vec<usize> = (0..systems.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for place in order {
                if !self.cases.wants_system(systems[place].0) {
                    continue;
                }
                let measured = (systems[place].1)();
                match (&mut outcomes[place], measured) {
                    // The first round is for warming up.
                    (Ok(rounds), Ok(measured)) if round > 0 => rounds.push(measured),
                    (outcome @ Ok(_), Err(error)) => *outcome = Err(format!("{error:#}")),
                    _ => {}
                }
            }
        }
        let systems = systems.iter().zip(outcomes).filter(|((name, _), _)| self.cases.wants_system(name));
        let systems = systems.map(|((name, _), outcome)| System { name, settings: None, outcome }).collect();
        self.print(case, engine, measure, CLIENTS, systems);
    }

    fn print(&self, case: &str, engine: &'static str, measure: Measure, clients: usize, systems: Vec<System>) {
        Case { bench: "http", name: case.to_owned(), engine, measure, clients, systems }.print(self.json);
    }
}

fn get(chooser: &mut Chooser) -> Request {
    Request::get(format!("/api/v1/sessions/{}", load::session_id(chooser.next(load::SESSIONS))))
}

fn append(chooser: &mut Chooser) -> Request {
    static BODY: LazyLock<String> =
        LazyLock::new(|| format!(r#"{{"role":"user","content":"{}","metadata":{}}}"#, load::text(), load::metadata()));
    let session = load::session_id(chooser.next(load::SESSIONS));
    Request { path: format!("/api/v1/sessions/{session}/messages"), body: Some(BODY.clone()) }
}

fn conversation(chooser: &mut Chooser) -> Request {
    Request::get(format!("/api/v1/conversations/{}", load::session_id(chooser.next(AGNO_SESSIONS))))
}

fn agno_session(chooser: &mut Chooser) -> Request {
    Request::get(format!("/sessions/session-{}?type=agent", chooser.next(AGNO_SESSIONS)))
}

fn list(_: &mut Chooser) -> Request {
    // Agno counts them too.
    Request::get("/api/v1/sessions?limit=20&order=created_at:desc&total=true")
}

fn agno_list(_: &mut Chooser) -> Request {
    Request::get("/sessions?type=agent&limit=20")
}
