//! Jobs: enqueued, burnt down, picked up on an idle queue, and worked off while an old snapshot keeps dead rows
//! alive: agentkeep beside graphile-worker, procrastinate and awa-pg on one PostgreSQL, and alone on SQLite.
//!
//! Each round has a database of its own, copied from one that has the schema and nothing else. Before the clock
//! starts, the rows are there and analyzed, programs are started and connected. It
//! stops when every process has ended its work: every job handled and its completion durable, which the tables are
//! asked for afterwards. Peers run with the settings that were the fastest of a few in a short round.

mod agentkeep;
mod database;
mod peer;
mod process;

use std::time::Duration;

use anyhow::{Result, bail};

use self::{agentkeep::Agentkeep, database::Databases, peer::Peer};
use super::{
    Selection,
    figures::{Case, Measure, Round, System},
};
use crate::postgres::{Options, PrivatePostgres};

pub use agentkeep::produce;

/// The systems, by the words that choose them.
pub const SYSTEMS: &[&str] = &["agentkeep", "graphile-worker", "procrastinate", "awa-pg"];

const ROUNDS: usize = 3;
/// Dead rows in the way of `pinned-snapshot`.
const DEAD: u64 = 200_000;
/// Callers that enqueue one job at a time.
const CALLERS: u64 = 16;
/// Jobs in one call.
const BATCH: u64 = 1_000;
/// How long a round of enqueuing takes.
const ENQUEUING: Duration = Duration::from_secs(2);
/// Jobs on an idle queue in one round, and the pause between two of them.
const SAMPLES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(20);

/// What to enqueue: so many jobs, or for so long.
pub struct Load {
    pub jobs: Option<u64>,
    pub time: Duration,
    pub batch: u64,
    pub callers: u64,
}

impl Load {
    fn of(jobs: u64) -> Self {
        Self { jobs: Some(jobs), time: Duration::ZERO, batch: BATCH, callers: 1 }
    }

    fn during(time: Duration, batch: u64, callers: u64) -> Self {
        Self { jobs: None, time, batch, callers }
    }
}

/// A queue of jobs on PostgreSQL.
pub trait Queue {
    fn name(&self) -> &'static str;
    /// How it was set up.
    fn settings(&self) -> Option<String>;
    /// Jobs in a round of burn-down.
    fn jobs(&self) -> u64;
    /// How many ways of running it are tried.
    fn choices(&self) -> usize;
    fn choose(&mut self, choice: usize);
    /// Makes its schema in an empty database.
    fn prepare(&mut self, url: &str) -> Result<()>;
    fn enqueue(&mut self, url: &str, load: &Load) -> Result<Round>;
    /// Works off the jobs that are queued, and makes sure that each was completed.
    fn work(&mut self, url: &str, jobs: u64) -> Result<Round>;
    /// Brings the jobs that are queued to their end in the quickest way it has.
    fn finish(&mut self, url: &str, jobs: u64) -> Result<()>;
    /// From before a job is enqueued until its handler begins, on a queue that is otherwise empty.
    fn latency(&mut self, url: &str, samples: u32, pause: Duration) -> Result<Round>;
}

/// Runs every case that is wanted.
pub fn run(cases: &Selection, json: bool) -> Result<()> {
    let mut failed = Vec::new();
    if cases.wants_engine("sqlite") && cases.wants_system("agentkeep") {
        agentkeep::sqlite(cases, json)?;
    }
    if cases.wants_engine("postgres") {
        postgres(cases, json, &mut failed)?;
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!("not measured: {}", failed.join("; ")),
    }
}

/// A system and where its databases come from, or why it cannot be measured.
struct Entry {
    name: &'static str,
    queue: Result<Box<dyn Queue>>,
    /// Whether its best settings are known.
    tuned: bool,
}

fn postgres(cases: &Selection, json: bool, failed: &mut Vec<String>) -> Result<()> {
    const CASES: [&str; 5] = ["enqueue", "enqueue-1000", "burn-down", "pinned-snapshot", "idle-latency"];
    if !CASES.iter().any(|case| cases.wants("postgres", case)) {
        return Ok(());
    }
    let server = PrivatePostgres::start_seasoned(&Options::default())?;
    let databases = Databases::new(&server);
    let mut entries = Vec::new();
    for name in SYSTEMS.iter().copied().filter(|name| cases.wants_system(name)) {
        let made: Result<Box<dyn Queue>> = match name {
            "agentkeep" => Agentkeep::new().map(|queue| Box::new(queue) as _),
            "graphile-worker" => Peer::graphile_worker().map(|queue| Box::new(queue) as _),
            "procrastinate" => Peer::procrastinate().map(|queue| Box::new(queue) as _),
            _ => Peer::awa().map(|queue| Box::new(queue) as _),
        };
        let queue = made.and_then(|mut queue| {
            databases.template(name, |url| queue.prepare(url))?;
            Ok(queue)
        });
        entries.push(Entry { name, queue, tuned: false });
    }
    let mut bench = Bench { cases, json, databases, entries, failed };
    bench.enqueuing("enqueue", 1, CALLERS);
    bench.enqueuing("enqueue-1000", BATCH, 1);
    bench.burning("burn-down", false);
    bench.burning("pinned-snapshot", true);
    bench.idling();
    Ok(())
}

/// What the cases on PostgreSQL have in common.
struct Bench<'a> {
    cases: &'a Selection,
    json: bool,
    databases: Databases<'a>,
    entries: Vec<Entry>,
    failed: &'a mut Vec<String>,
}

impl Bench<'_> {
    fn enqueuing(&mut self, case: &str, batch: u64, callers: u64) {
        self.measure(case, Measure::Rate, callers, |databases, queue| {
            databases.with(queue.name(), |url| queue.enqueue(url, &Load::during(ENQUEUING, batch, callers)))
        });
    }

    fn burning(&mut self, case: &str, pinned: bool) {
        if self.cases.wants("postgres", case) {
            self.tune();
        }
        self.measure(case, Measure::Rate, 1, |databases, queue| {
            let jobs = queue.jobs();
            burn_down(databases, queue, jobs, pinned)
        });
    }

    fn idling(&mut self) {
        self.measure("idle-latency", Measure::Latency, 1, |databases, queue| {
            databases.with(queue.name(), |url| queue.latency(url, SAMPLES, PAUSE))
        });
    }

    /// Finds the best settings of each system by a short round with each of a few.
    fn tune(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.tuned) {
            entry.tuned = true;
            let Ok(queue) = &mut entry.queue else { continue };
            let mut best: Option<(Duration, usize)> = None;
            for choice in 0..queue.choices() {
                queue.choose(choice);
                if queue.choices() == 1 {
                    continue;
                }
                let jobs = queue.jobs() / 5;
                let round = burn_down(&self.databases, queue.as_mut(), jobs, false);
                match round {
                    Ok(round) if best.is_none_or(|(took, _)| round.took < took) => best = Some((round.took, choice)),
                    Ok(_) => {}
                    Err(error) => eprintln!("{} with {:?}: {error:#}", entry.name, queue.settings()),
                }
            }
            queue.choose(best.map_or(0, |(_, choice)| choice));
        }
    }

    /// Measures the systems in turn, round after round, so that what disturbs the machine disturbs all of them. One
    /// that fails is told as failed, and the others go on.
    fn measure(
        &mut self,
        case: &str,
        measure: Measure,
        clients: u64,
        run: impl Fn(&Databases<'_>, &mut dyn Queue) -> Result<Round>,
    ) {
        if !self.cases.wants("postgres", case) {
            return;
        }
        let mut systems: Vec<System> = Vec::new();
        for entry in &self.entries {
            let (settings, outcome) = match &entry.queue {
                Ok(_) => (None, Ok(Vec::new())),
                Err(error) => (None, Err(format!("{error:#}"))),
            };
            systems.push(System { name: entry.name, settings, outcome });
        }
        for _ in 0..ROUNDS {
            for (entry, system) in self.entries.iter_mut().zip(&mut systems) {
                let (Ok(queue), Ok(rounds)) = (&mut entry.queue, &mut system.outcome) else { continue };
                match run(&self.databases, queue.as_mut()) {
                    Ok(round) => rounds.push(round),
                    Err(error) => system.outcome = Err(format!("{error:#}")),
                }
            }
        }
        for (entry, system) in self.entries.iter().zip(&mut systems) {
            if let Ok(queue) = &entry.queue {
                system.settings = queue.settings().filter(|_| entry.tuned && measure == Measure::Rate);
            }
            if let Err(reason) = &system.outcome {
                self.failed.push(format!("{case} of {}: {reason}", system.name));
            }
        }
        let clients = usize::try_from(clients).unwrap_or(1);
        Case { bench: "jobs", name: case.to_owned(), engine: "postgres", measure, clients, systems }.print(self.json);
    }
}

/// One round: jobs are enqueued, then worked off. With `pinned`, a transaction holds a snapshot from before another
/// [`DEAD`] jobs came and went, so that none of their rows can be removed.
fn burn_down(databases: &Databases<'_>, queue: &mut dyn Queue, jobs: u64, pinned: bool) -> Result<Round> {
    let name = queue.name();
    databases.with(name, |url| {
        let _snapshot = if pinned {
            let snapshot = databases.snapshot(name)?;
            queue.enqueue(url, &Load::of(DEAD))?;
            databases.settle(name)?;
            queue.finish(url, DEAD)?;
            Some(snapshot)
        } else {
            None
        };
        queue.enqueue(url, &Load::of(jobs))?;
        databases.settle(name)?;
        queue.work(url, jobs)
    })
}
