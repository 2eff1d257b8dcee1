//! The ledger: entries in by batch, and statistics of 30 days by model and agent beside a GROUP BY over the entries.
//!
//! `AGENTKEEP_BENCH_ENTRIES` says how many entries there are, 10,000,000 when it is not set. They lie on 90 days in
//! the order of their times, each with one of 20 models, 200 agents and 5,000 users, every combination as likely as any
//! other, the worst there is for roll-ups, and with one of the 500 sessions that go on at its time. The 30 days begin
//! and end within an hour.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep::{
    Config, Row, Store, Value,
    core::{
        AgentId, LedgerDimension, LedgerStatisticsRequest, Money, NewLedgerEntry, SessionId, Timestamp, TokenScope,
        UserId,
    },
};
use anyhow::{Context, Result, bail, ensure};
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    Selection,
    figures::{Case, Measure, Round, System},
    load::Chooser,
};
use crate::postgres::{Options, PrivatePostgres};

const ENTRIES: u64 = 10_000_000;
const VARIABLE: &str = "AGENTKEEP_BENCH_ENTRIES";
const BATCH: u64 = 1_000;
/// Callers that log the second half of the entries at once; the first half is logged by one.
const LOGGERS: u64 = 4;
/// Between two words on how far it is.
const TELL: Duration = Duration::from_secs(20);
const DAYS: u64 = 90;
const MODELS: u64 = 20;
const AGENTS: u64 = 200;
const USERS: u64 = 5_000;
/// Sessions that go on at once, and entries of each.
const SESSIONS: u64 = 500;
const ENTRIES_A_SESSION: u64 = 200;
/// Statistics in a round, and rounds of each system.
const READS: usize = 10;
const ROUNDS: usize = 5;
/// A GROUP BY over millions of rows takes seconds: one is a round.
const RAW_ROUNDS: usize = 3;

/// Fills a ledger on each engine and reads statistics of it.
pub fn run(cases: &Selection, json: bool) -> Result<()> {
    let entries = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{VARIABLE}={text} is no number"))?,
        Err(_) => ENTRIES,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if cases.wants_engine("sqlite") {
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        measure(&runtime, "sqlite", &url, entries, cases, json)?;
    }
    if cases.wants_engine("postgres") {
        let server = PrivatePostgres::start_seasoned(&Options::default())?;
        measure(&runtime, "postgres", &server.url(), entries, cases, json)?;
    }
    Ok(())
}

fn measure(
    runtime: &Runtime,
    engine: &'static str,
    url: &str,
    entries: u64,
    cases: &Selection,
    json: bool,
) -> Result<()> {
    runtime.block_on(async {
        let store = Store::open_with(Config::new(url)).await?;
        let print = |name: &str, clients: usize, rounds: Vec<(&'static str, Vec<Round>)>| {
            if cases.wants(engine, name) {
                let system = |(name, rounds)| System { name, settings: None, outcome: Ok(rounds) };
                let systems = rounds.into_iter().map(system).collect();
                let name = name.to_owned();
                Case { bench: "ledger", name, engine, measure: Measure::Rate, clients, systems }.print(json);
            }
        };
        // The entries are needed whatever is measured.
        let step = Duration::from_micros(DAYS * 86_400_000_000 / entries.max(1));
        let half = entries / 2;
        for (callers, places) in [(1, 0..half), (LOGGERS, half..entries)] {
            let filled = fill(&store, places, step, callers).await?;
            print("log-batch", callers as usize, vec![("agentkeep", vec![filled])]);
        }
        let begun = Instant::now();
        let moved = store.ledger().roll_up().await?;
        eprintln!("{engine}: {moved} entries waited for the roll-ups, moved in {:?}", begun.elapsed());
        if cases.wants(engine, "stats-30d") {
            // What a server does by itself after a while.
            store.execute("ANALYZE", &[]).await?;
            let (mut ours, mut raw) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                ours.push(read(&store).await?);
                if round < RAW_ROUNDS {
                    raw.push(read_raw(&store).await?);
                }
            }
            check(&store).await?;
            print("stats-30d", 1, vec![("agentkeep", ours), ("group-by", raw)]);
        }
        store.close().await;
        Ok(())
    })
}

fn start() -> Result<Timestamp> {
    Ok("2025-01-01T00:00:00Z".parse::<Timestamp>()?)
}

/// 30 days that begin and end within an hour, in the middle of the 90.
fn range() -> Result<(Timestamp, Timestamp)> {
    let from = start()?.plus(Duration::from_secs(31 * 86_400 + 7 * 3_600 + 13 * 60));
    Ok((from, from.plus(Duration::from_secs(30 * 86_400))))
}

fn uuid(kind: u128, number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u128(kind << 64 | u128::from(number))
}

fn entry(chooser: &mut Chooser, place: u64, created_at: Timestamp) -> NewLedgerEntry {
    let scope = if chooser.next(4) == 1 { TokenScope::Proactive } else { TokenScope::Reactive };
    let model = chooser.next(MODELS);
    let provider = ["anthropic", "openai", "google", "mistral"][(model % 4) as usize];
    let (input, output) = (chooser.next(8_000) as i64, chooser.next(2_000) as i64);
    NewLedgerEntry {
        model: Some(format!("model-{model}")),
        cache_read: chooser.next(4_000) as i64,
        cost: Some(Money::from_units(input * 3_000_000 + output * 15_000_000)),
        agent_id: Some(AgentId(chooser.next(AGENTS) as i64)),
        user_id: Some(UserId(uuid(1, chooser.next(USERS)))),
        session_id: Some(SessionId(uuid(2, place / ENTRIES_A_SESSION + chooser.next(SESSIONS)))),
        created_at: Some(created_at),
        ..NewLedgerEntry::new(scope, provider, input, output)
    }
}

/// Logs entries, those of each caller batch after batch.
async fn fill(store: &Store, places: Range<u64>, step: Duration, callers: u64) -> Result<Round> {
    let next = Arc::new(AtomicU64::new(places.start));
    let started = Instant::now();
    let mut logging = JoinSet::new();
    for caller in 0..callers {
        let (store, next, last) = (store.clone(), Arc::clone(&next), places.end);
        logging.spawn(async move {
            let (start, mut chooser) = (start()?, Chooser::new(7 + places.start + caller));
            let mut latencies = Vec::new();
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= last {
                    return anyhow::Ok(latencies);
                }
                let at = |place: u64| start.plus(Duration::from_micros(place * step.as_micros() as u64));
                let places = first..last.min(first + BATCH);
                let batch = places.map(|place| entry(&mut chooser, place, at(place))).collect();
                let begun = Instant::now();
                store.ledger().log_many(batch).await?;
                latencies.push(begun.elapsed());
            }
        });
    }
    let (mut latencies, mut told) = (Vec::new(), tokio::time::interval(TELL));
    loop {
        tokio::select! {
            caller = logging.join_next() => match caller {
                Some(caller) => latencies.extend(caller??),
                None => break,
            },
            _ = told.tick() => eprintln!("{} entries", next.load(Ordering::Relaxed).min(places.end)),
        }
    }
    Ok(Round { operations: places.end - places.start, took: started.elapsed(), latencies })
}

fn request() -> Result<LedgerStatisticsRequest> {
    let (from, to) = range()?;
    Ok(LedgerStatisticsRequest::by(&[LedgerDimension::Model, LedgerDimension::Agent]).from(from).to(to))
}

async fn read(store: &Store) -> Result<Round> {
    let (request, mut latencies) = (request()?, Vec::new());
    let started = Instant::now();
    for _ in 0..READS {
        let begun = Instant::now();
        ensure!(!store.ledger().statistics(&request).await?.is_empty(), "there are statistics");
        latencies.push(begun.elapsed());
    }
    Ok(Round { operations: READS as u64, took: started.elapsed(), latencies })
}

async fn raw(store: &Store) -> Result<Vec<Row>> {
    let (from, to) = range()?;
    let sql = "SELECT model, agent_id, COUNT(*), CAST(SUM(input) AS bigint), CAST(SUM(output) AS bigint),
                   CAST(SUM(cache_read) AS bigint), CAST(SUM(total) AS bigint), CAST(SUM(cost) AS bigint)
               FROM ledger WHERE tenant_id = $1 AND created_at >= $2 AND created_at < $3 GROUP BY model, agent_id";
    let tenant = Value::from(store.default_tenant().id());
    Ok(store.fetch_all(sql, &[tenant, from.into(), to.into()]).await?)
}

async fn read_raw(store: &Store) -> Result<Round> {
    let started = Instant::now();
    raw(store).await?;
    Ok(Round { operations: 1, took: started.elapsed(), latencies: vec![started.elapsed()] })
}

/// Both give the same, to the last digit.
async fn check(store: &Store) -> Result<()> {
    let mut expected: BTreeMap<(String, i64), [i128; 6]> = BTreeMap::new();
    for row in raw(store).await? {
        let values = row.into_values();
        let (Some(Value::Text(model)), Some(Value::I64(agent))) = (values.first(), values.get(1)) else {
            bail!("a model and an agent come first: {values:?}");
        };
        let mut sums = [0; 6];
        for (sum, value) in sums.iter_mut().zip(&values[2..]) {
            let Value::I64(number) = value else { bail!("{value:?} is no sum") };
            *sum = i128::from(*number);
        }
        expected.insert((model.clone(), *agent), sums);
    }
    let told = store.ledger().statistics(&request()?).await?;
    ensure!(told.len() == expected.len(), "{} groups, not {}", told.len(), expected.len());
    for group in told {
        let key = (group.model.clone().unwrap_or_default(), group.agent_id.map_or(0, |agent| agent.0));
        let whole = [group.entries, group.tokens.input, group.tokens.output, group.tokens.cache_read, group.total];
        let mut sums = [0; 6];
        sums.iter_mut().zip(whole).for_each(|(sum, number)| *sum = i128::from(number));
        sums[5] = group.cost.units();
        ensure!(expected.get(&key) == Some(&sums), "{key:?}: {sums:?} is not {:?}", expected.get(&key));
    }
    Ok(())
}
