//! Writing and reading messages: agentkeep beside pgbench with the same statement, and beside a bare loop on
//! SQLite.

use agentkeep::{Config, Store};
use anyhow::Result;
use tokio::runtime::Runtime;

use super::{
    figures::{Case, Round},
    load::{self, Operation},
    sqlite_peer::{self, Loop},
};

const ROUNDS: usize = 5;
const WRITERS: [usize; 4] = [1, 8, 64, 512];

/// Runs every case on both engines.
pub fn run(json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    sqlite(&runtime, json)
}

/// Measures systems in turn, round after round, so that what disturbs the machine disturbs all of them.
fn measure(
    name: &str,
    engine: &'static str,
    clients: usize,
    systems: &mut [(&'static str, &mut dyn FnMut() -> Result<Round>)],
) -> Result<Case> {
    let mut rounds: Vec<(&'static str, Vec<Round>)> = systems.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (place, (_, run)) in systems.iter_mut().enumerate() {
            rounds[place].1.push(run()?);
        }
    }
    Ok(Case { bench: "append", name: name.to_owned(), engine, clients, systems: rounds })
}

fn sqlite(runtime: &Runtime, json: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (folder.path().join("agentkeep.db"), folder.path().join("loop.db"));
    let open = |path: &std::path::Path| {
        runtime.block_on(async {
            let store = Store::open_with(Config::new(format!("sqlite://{}", path.display()))).await?;
            load::fill(&store).await?;
            anyhow::Ok(store)
        })
    };
    runtime.block_on(open(&theirs)?.close());
    let store = open(&ours)?;
    let mut peer = Loop::open(&theirs)?;
    let ours_run = |operation, clients| runtime.block_on(load::run(&store, operation, clients));
    for (name, operation) in [("get", Operation::Get), ("recent-30", Operation::Recent)] {
        for clients in [1, 8] {
            let recent = matches!(operation, Operation::Recent);
            let mut read = || sqlite_peer::read(&theirs, recent, clients);
            let mut ours = || ours_run(operation, clients);
            measure(name, "sqlite", clients, &mut [("agentkeep", &mut ours), ("loop", &mut read)])?.print(json);
        }
    }
    for clients in WRITERS {
        let mut ours = || ours_run(Operation::Append, clients);
        let mut theirs = || peer.commit_each();
        let systems: &mut [(_, &mut dyn FnMut() -> _)] = &mut [("agentkeep", &mut ours), ("loop-commit", &mut theirs)];
        measure(&format!("append-{clients}"), "sqlite", clients, systems)?.print(json);
    }
    let mut ours = || ours_run(Operation::AppendBatch, 1);
    let mut theirs = || peer.commit_once();
    measure("batch-1000", "sqlite", 1, &mut [("agentkeep", &mut ours), ("loop-once", &mut theirs)])?.print(json);
    runtime.block_on(store.close());
    Ok(())
}
