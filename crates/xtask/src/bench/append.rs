//! Writing and reading messages: agentkeep beside pgbench with the same statement, and beside a bare loop on
//! SQLite.

use agentkeep::{Config, Store};
use anyhow::Result;
use tokio::runtime::Runtime;

use super::{
    Selection,
    figures::{Case, Measure, Round, System},
    load::{self, Operation},
    pgbench::{Pgbench, Script},
    sqlite_peer::{self, Loop},
};
use crate::postgres::{Options, PrivatePostgres};

/// What agentkeep is measured beside.
pub const PEERS: [&str; 4] = ["pgbench", "loop", "loop-commit", "loop-once"];

const ROUNDS: usize = 9;
const WRITERS: [usize; 4] = [1, 8, 64, 512];

/// Runs every case on both engines.
pub fn run(cases: &Selection, json: bool) -> Result<()> {
    let run = Run { cases, json };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if cases.wants_engine("sqlite") {
        sqlite(&runtime, &run)?;
    }
    if cases.wants_engine("postgres") {
        postgres(&runtime, &run)?;
    }
    Ok(())
}

fn postgres(runtime: &Runtime, run: &Run<'_>) -> Result<()> {
    let server = PrivatePostgres::start_seasoned(&Options::default())?;
    let store = runtime.block_on(async {
        let store = Store::open_with(Config::new(server.url())).await?;
        load::fill(&store).await?;
        store.execute("VACUUM ANALYZE", &[]).await?;
        anyhow::Ok(store)
    })?;
    let mut peer = Pgbench::new(server.bin(), &server.url())?;
    let ours_run = |operation, clients| runtime.block_on(load::run(&store, operation, clients));
    for (name, operation, script) in
        [("get", Operation::Get, Script::Get), ("recent-30", Operation::Recent, Script::Recent)]
    {
        for clients in [1, 8, 64] {
            let mut ours = || ours_run(operation, clients);
            let mut theirs = || peer.run(script, clients);
            run.measure(name, "postgres", clients, &mut [("agentkeep", &mut ours), ("pgbench", &mut theirs)])?;
        }
    }
    let writes = WRITERS.iter().any(|clients| run.cases.wants("postgres", &format!("append-{clients}")));
    let best = if writes || run.cases.wants("postgres", "batch-1000") { peer.best_clients(Script::Append)? } else { 1 };
    for clients in WRITERS {
        // A lone writer is compared with a lone connection; a crowd with whatever serves pgbench best.
        let connections = if clients <= 8 { clients } else { best };
        let mut ours = || ours_run(Operation::Append, clients);
        let mut theirs = || peer.run(Script::Append, connections);
        let systems: &mut [(_, &mut dyn FnMut() -> _)] = &mut [("agentkeep", &mut ours), ("pgbench", &mut theirs)];
        run.measure(&format!("append-{clients}"), "postgres", clients, systems)?;
    }
    let mut ours = || ours_run(Operation::AppendBatch, 1);
    let mut theirs = || peer.run(Script::Append, best);
    run.measure("batch-1000", "postgres", 1, &mut [("agentkeep", &mut ours), ("pgbench", &mut theirs)])?;
    runtime.block_on(store.close());
    Ok(())
}

/// One bench run: which cases, and how they are told.
struct Run<'a> {
    cases: &'a Selection,
    json: bool,
}

impl Run<'_> {
    /// Measures systems in turn, round after round, so that what disturbs the machine disturbs all of them.
    fn measure(
        &self,
        name: &str,
        engine: &'static str,
        clients: usize,
        systems: &mut [(&'static str, &mut dyn FnMut() -> Result<Round>)],
    ) -> Result<()> {
        if !self.cases.wants(engine, name) {
            return Ok(());
        }
        let mut wanted: Vec<_> = systems.iter_mut().filter(|(system, _)| self.cases.wants_system(system)).collect();
        let mut rounds: Vec<(&'static str, Vec<Round>)> = wanted.iter().map(|(name, _)| (*name, Vec::new())).collect();
        for round in 0..ROUNDS {
            // Whoever comes second finds the disk as the first has left it: they take turns at that.
            let mut places: Vec<_> = (0..wanted.len()).collect();
            places.rotate_left(round % wanted.len().max(1));
            for place in places {
                rounds[place].1.push((wanted[place].1)()?);
            }
        }
        let systems = rounds.into_iter().map(|(name, rounds)| System { name, settings: None, outcome: Ok(rounds) });
        let systems = systems.collect();
        let name = name.to_owned();
        Case { bench: "append", name, engine, measure: Measure::Rate, clients, systems }.print(self.json);
        Ok(())
    }
}

fn sqlite(runtime: &Runtime, run: &Run<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (folder.path().join("agentkeep.db"), folder.path().join("loop.db"));
    let open = |path: &std::path::Path| {
        runtime.block_on(async {
            let store = Store::open_with(Config::new(format!("sqlite://{}", path.display()))).await?;
            anyhow::Ok(store)
        })
    };
    for path in [&ours, &theirs] {
        let store = open(path)?;
        runtime.block_on(load::fill(&store))?;
        runtime.block_on(store.close());
    }
    let store = open(&ours)?;
    let mut peer = Loop::open(&theirs)?;
    let ours_run = |operation, clients| runtime.block_on(load::run(&store, operation, clients));
    for (name, operation) in [("get", Operation::Get), ("recent-30", Operation::Recent)] {
        for clients in [1, 8] {
            let recent = matches!(operation, Operation::Recent);
            let mut read = || sqlite_peer::read(&theirs, recent, clients);
            let mut ours = || ours_run(operation, clients);
            run.measure(name, "sqlite", clients, &mut [("agentkeep", &mut ours), ("loop", &mut read)])?;
        }
    }
    for clients in WRITERS {
        let mut ours = || ours_run(Operation::Append, clients);
        let mut theirs = || peer.commit_each();
        let systems: &mut [(_, &mut dyn FnMut() -> _)] = &mut [("agentkeep", &mut ours), ("loop-commit", &mut theirs)];
        run.measure(&format!("append-{clients}"), "sqlite", clients, systems)?;
    }
    let mut ours = || ours_run(Operation::AppendBatch, 1);
    let mut theirs = || peer.commit_once();
    run.measure("batch-1000", "sqlite", 1, &mut [("agentkeep", &mut ours), ("loop-once", &mut theirs)])?;
    runtime.block_on(store.close());
    Ok(())
}
