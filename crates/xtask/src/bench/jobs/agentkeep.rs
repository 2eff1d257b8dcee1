//! agentkeep in the bench of jobs: its own `Worker`, and on SQLite bare claims and completions in batches too.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep::{
    Config, JobContext, Outcome, Store, Synchronous, Worker, WorkerOptions,
    core::{Json, NewJob},
};
use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::Runtime,
    sync::{Notify, mpsc::unbounded_channel},
    task::JoinSet,
};

use super::{
    super::{
        Selection,
        figures::{Case, Measure, Round, System},
    },
    Load, PAUSE, Queue, ROUNDS, SAMPLES,
};

const QUEUE: &str = "bench";
const LEASE: Duration = Duration::from_secs(60);
/// Jobs of a round of burn-down.
const JOBS: u64 = 200_000;
/// Jobs in one claim and one completion of the bare loops.
const AT_ONCE: usize = 1_000;
/// Jobs that warm up before latencies count.
const WARM_UP: u32 = 20;
/// Longer than any job waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// Workers and the handlers that each runs at once.
const CHOICES: [(usize, usize); 3] = [(1, 10), (1, 64), (2, 10)];

/// agentkeep, in this process.
pub struct Agentkeep {
    runtime: Runtime,
    chosen: usize,
}

impl Agentkeep {
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { runtime, chosen: 0 })
    }

    /// Does something with a store that is closed afterwards.
    fn with<T>(&self, config: Config, work: impl AsyncFnOnce(&Store) -> Result<T>) -> Result<T> {
        self.runtime.block_on(async {
            let store = Store::open_with(config).await?;
            let outcome = work(&store).await;
            store.close().await;
            outcome
        })
    }
}

impl Queue for Agentkeep {
    fn name(&self) -> &'static str {
        "agentkeep"
    }

    fn settings(&self) -> Option<String> {
        let (workers, concurrency) = CHOICES[self.chosen];
        Some(format!("workers {workers}, concurrency {concurrency}"))
    }

    fn jobs(&self) -> u64 {
        JOBS
    }

    fn choices(&self) -> usize {
        CHOICES.len()
    }

    fn choose(&mut self, choice: usize) {
        self.chosen = choice;
    }

    fn prepare(&mut self, url: &str) -> Result<()> {
        self.with(Config::new(url), async |_| Ok(()))
    }

    fn enqueue(&mut self, url: &str, load: &Load) -> Result<Round> {
        self.with(Config::new(url), async |store| enqueue(store, load).await)
    }

    fn work(&mut self, url: &str, jobs: u64) -> Result<Round> {
        let (workers, concurrency) = CHOICES[self.chosen];
        self.with(Config::new(url), async |store| work(store, jobs, workers, concurrency).await)
    }

    fn finish(&mut self, url: &str, jobs: u64) -> Result<()> {
        self.work(url, jobs).map(|_| ())
    }

    fn latency(&mut self, url: &str, samples: u32, pause: Duration) -> Result<Round> {
        self.with(Config::new(url), async |store| latency(store, url, samples, pause).await)
    }
}

fn job(number: u64) -> Result<NewJob> {
    Ok(NewJob::new(QUEUE, Json::parse("payload", format!("{{\"number\":{number}}}"))?))
}

async fn enqueue(store: &Store, load: &Load) -> Result<Round> {
    let (most, batch) = (load.jobs.unwrap_or(u64::MAX), load.batch);
    let time = if load.jobs.is_some() { Duration::MAX } else { load.time };
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..load.callers {
        let (store, next) = (store.clone(), Arc::clone(&next));
        callers.spawn(async move {
            let (mut enqueued, mut latencies) = (0, Vec::new());
            while begun.elapsed() < time {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= most {
                    break;
                }
                let call = Instant::now();
                if batch == 1 {
                    store.jobs().enqueue(job(first)?).await?;
                    enqueued += 1;
                } else {
                    let jobs = (first..(first + batch).min(most)).map(job).collect::<Result<Vec<_>>>()?;
                    enqueued += store.jobs().enqueue_many(jobs).await?.len() as u64;
                }
                latencies.push(call.elapsed());
            }
            anyhow::Ok((enqueued, latencies))
        });
    }
    let mut round = Round { operations: 0, took: Duration::ZERO, latencies: Vec::new() };
    while let Some(caller) = callers.join_next().await {
        let (enqueued, latencies) = caller??;
        round.operations += enqueued;
        round.latencies.extend(latencies);
    }
    round.took = begun.elapsed();
    Ok(round)
}

/// Works jobs off with workers. Shutting down a worker waits until its completions are durable.
async fn work(store: &Store, jobs: u64, workers: usize, concurrency: usize) -> Result<Round> {
    let before = store.jobs().counts(Some(QUEUE)).await?.done;
    let (handled, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let begun = Instant::now();
    let mut started = Vec::new();
    for _ in 0..workers {
        let (handled, all) = (Arc::clone(&handled), Arc::clone(&all));
        let mut options = WorkerOptions::new(QUEUE);
        options.concurrency = concurrency;
        let handler = move |_: JobContext| {
            if handled.fetch_add(1, Ordering::Relaxed) + 1 == jobs {
                all.notify_one();
            }
            async { Ok(Outcome::done()) }
        };
        started.push(Worker::start(store.default_tenant(), options, handler)?);
    }
    tokio::time::timeout(PATIENCE * 5, all.notified()).await.context("the workers do not come to an end")?;
    let stopping: JoinSet<()> = started.into_iter().map(Worker::shutdown).collect();
    stopping.join_all().await;
    let took = begun.elapsed();
    let done = store.jobs().counts(Some(QUEUE)).await?.done - before;
    ensure!(done == jobs, "agentkeep completed {done} of {jobs} jobs");
    Ok(Round { operations: jobs, took, latencies: Vec::new() })
}

/// Claims and completes in a bare loop, a batch at a time.
async fn batches(store: &Store, jobs: u64) -> Result<Round> {
    let mut latencies = Vec::new();
    let begun = Instant::now();
    loop {
        let call = Instant::now();
        let claimed = store.jobs().claim(QUEUE, "bench", AT_ONCE, LEASE).await?;
        if claimed.is_empty() {
            break;
        }
        let completions = claimed.iter().map(|job| job.done(None)).collect();
        for outcome in store.jobs().complete_many(completions).await? {
            outcome.context("an attempt that was claimed is completed")?;
        }
        latencies.push(call.elapsed());
    }
    let took = begun.elapsed();
    let done = store.jobs().counts(Some(QUEUE)).await?.done;
    ensure!(done == jobs, "agentkeep completed {done} of {jobs} jobs");
    Ok(Round { operations: jobs, took, latencies })
}

/// From before a job is enqueued until its handler begins. Peers do both in one process; here another process
/// enqueues, so that the worker has to be woken from outside. Both read one clock.
async fn latency(store: &Store, url: &str, samples: u32, pause: Duration) -> Result<Round> {
    let (sender, mut arrivals) = unbounded_channel();
    let mut options = WorkerOptions::new(QUEUE);
    options.concurrency = 4;
    let worker = Worker::start(store.default_tenant(), options, move |job: JobContext| {
        let now = now();
        let sender = sender.clone();
        async move {
            let begun: u64 = serde_json::from_str(job.payload().as_str())?;
            // When nobody listens any more the bench is over.
            let _ = sender.send(Duration::from_nanos(now.saturating_sub(begun)));
            Ok(Outcome::done())
        }
    })?;
    let mut producer = Command::new(std::env::current_exe()?);
    producer.args(["bench-producer", url, &samples.to_string(), &pause.as_millis().to_string()]);
    let status = tokio::task::spawn_blocking(move || producer.status()).await??;
    ensure!(status.success(), "the process that enqueues failed: {status}");
    let mut latencies = Vec::new();
    while latencies.len() < (samples + WARM_UP) as usize {
        let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
        latencies.push(arrival.context("a job was not picked up")?.context("the worker has gone")?);
    }
    worker.shutdown().await;
    let latencies = latencies.split_off(WARM_UP as usize);
    Ok(Round { operations: latencies.len() as u64, took: latencies.iter().sum(), latencies })
}

/// Enqueues jobs one by one that say when it began to do so: the process beside a worker.
pub fn produce(url: &str, samples: u32, pause: u64) -> Result<()> {
    Agentkeep::new()?.with(Config::new(url), async |store| {
        let mut random = super::super::load::Chooser::new(1);
        for _ in 0..samples + WARM_UP {
            // Half the pause to one and a half, so that nothing that ticks is met in step.
            tokio::time::sleep(Duration::from_millis(pause / 2 + random.next(pause))).await;
            store.jobs().enqueue(NewJob::new(QUEUE, Json::parse("payload", now().to_string())?)).await?;
        }
        Ok(())
    })
}

/// Nanoseconds of the clock that all processes of this machine share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The cases on SQLite: agentkeep alone, since the others have no such engine.
pub fn sqlite(cases: &Selection, json: bool) -> Result<()> {
    let agentkeep = Agentkeep::new()?;
    let run = |synchronous, case: &str, measure, work: &dyn Fn(&Config) -> Result<Round>| {
        if !cases.wants("sqlite", case) {
            return Ok(());
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir()?;
            let mut config = Config::new(format!("sqlite://{}", folder.path().join("jobs.db").display()));
            config.synchronous = synchronous;
            rounds.push(work(&config)?);
        }
        let systems = vec![System { name: "agentkeep", settings: None, outcome: Ok(rounds) }];
        Case { bench: "jobs", name: case.to_owned(), engine: "sqlite", measure, clients: 1, systems }.print(json);
        anyhow::Ok(())
    };
    let in_batches = |config: &Config| {
        agentkeep.with(config.clone(), async |store| {
            enqueue(store, &Load::of(JOBS)).await?;
            batches(store, JOBS).await
        })
    };
    run(Synchronous::Normal, "batches-normal", Measure::Rate, &in_batches)?;
    run(Synchronous::Full, "batches-full", Measure::Rate, &in_batches)?;
    run(Synchronous::Full, "burn-down", Measure::Rate, &|config| {
        agentkeep.with(config.clone(), async |store| {
            enqueue(store, &Load::of(JOBS)).await?;
            let (workers, concurrency) = CHOICES[0];
            work(store, JOBS, workers, concurrency).await
        })
    })?;
    run(Synchronous::Full, "idle-latency", Measure::Latency, &|config| {
        agentkeep.with(config.clone(), async |store| latency(store, &config.url, SAMPLES, PAUSE).await)
    })
}
