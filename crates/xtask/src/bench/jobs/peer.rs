//! Other queues: the script that drives each, and what is tried to find its best settings.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    super::figures::Round,
    Load, Queue,
    process::{Process, race},
};
use crate::install;

/// A way to run a peer.
struct Choice {
    processes: usize,
    settings: Value,
}

/// A peer on PostgreSQL.
pub struct Peer {
    name: &'static str,
    program: PathBuf,
    script: PathBuf,
    choices: Vec<Choice>,
    chosen: usize,
    /// Jobs of a round of burn-down: what takes it seconds, not minutes.
    jobs: u64,
    /// Whether it has a function that finishes many jobs at once, so that dead rows need not be worked for.
    discards: bool,
}

impl Peer {
    /// graphile-worker, with one to four processes (its performance test runs four) and 10 or 24 jobs at once in each.
    pub fn graphile_worker() -> Result<Self> {
        let folder = install::node()?;
        // A module finds its packages from where it lies.
        let script = folder.join("graphile.mjs");
        fs::copy(install::scripts().join("graphile.mjs"), &script).context("cannot copy graphile.mjs")?;
        let choice =
            |processes, concurrency: u64| Choice { processes, settings: json!({ "concurrency": concurrency }) };
        Ok(Self {
            name: "graphile-worker",
            program: install::node_program(&folder)?,
            script,
            choices: vec![choice(1, 10), choice(1, 24), choice(2, 24), choice(4, 24)],
            chosen: 0,
            jobs: 200_000,
            discards: true,
        })
    }

    /// procrastinate; it claims jobs one at a time, so 5,000 of them tell its rate.
    pub fn procrastinate() -> Result<Self> {
        let choice =
            |processes, concurrency: u64| Choice { processes, settings: json!({ "concurrency": concurrency }) };
        Ok(Self {
            name: "procrastinate",
            program: install::python()?,
            script: install::scripts().join("procrastinate_peer.py"),
            choices: vec![choice(1, 10), choice(2, 10), choice(2, 30), choice(4, 10)],
            chosen: 0,
            jobs: 5_000,
            discards: true,
        })
    }

    /// awa-pg; a queue four times as long takes it four times as long, so 50,000 jobs tell its rate.
    pub fn awa() -> Result<Self> {
        let choice = |processes, workers: u64, partitions: u64| Choice {
            processes,
            settings: json!({ "workers": workers, "partitions": partitions }),
        };
        Ok(Self {
            name: "awa-pg",
            program: install::python()?,
            script: install::scripts().join("awa_peer.py"),
            choices: vec![choice(1, 256, 1), choice(1, 1024, 1), choice(1, 1024, 4), choice(2, 512, 1)],
            chosen: 0,
            jobs: 50_000,
            discards: false,
        })
    }

    fn start(&self, url: &str, case: &str, more: &Value) -> Result<Process> {
        let mut settings = self.choices[self.chosen].settings.clone();
        if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
            settings.extend(more.clone());
        }
        Process::start(self.name, &self.program, &self.script, url, case, &settings)
    }

    fn ask(&self, url: &str, case: &str, more: &Value) -> Result<Value> {
        self.start(url, case, more)?.line()
    }
}

impl Queue for Peer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn settings(&self) -> Option<String> {
        let Choice { processes, settings } = &self.choices[self.chosen];
        let settings: Vec<_> =
            settings.as_object().into_iter().flatten().map(|(name, value)| format!("{name} {value}")).collect();
        Some(format!("processes {processes}, {}", settings.join(", ")))
    }

    fn jobs(&self) -> u64 {
        self.jobs
    }

    fn choices(&self) -> usize {
        self.choices.len()
    }

    fn choose(&mut self, choice: usize) {
        self.chosen = choice;
    }

    fn prepare(&mut self, url: &str) -> Result<()> {
        self.ask(url, "prepare", &json!({})).map(|_| ())
    }

    fn enqueue(&mut self, url: &str, load: &Load) -> Result<Round> {
        let more = match load.jobs {
            Some(jobs) => json!({ "jobs": jobs, "batch": load.batch, "callers": load.callers }),
            None => {
                let seconds = load.time.as_secs_f64();
                json!({ "seconds": seconds, "batch": load.batch, "callers": load.callers })
            }
        };
        let (ends, _) = race(vec![self.start(url, "enqueue", &more)?], 0)?;
        let end = ends.first().context("one process has one end")?;
        let operations = end["jobs"].as_u64().context("the number of jobs")?;
        let took = Duration::from_secs_f64(end["seconds"].as_f64().context("the seconds it took")?);
        Ok(Round { operations, took, latencies: latencies(end)? })
    }

    fn work(&mut self, url: &str, jobs: u64) -> Result<Round> {
        let before = self.ask(url, "count", &json!({}))?;
        let processes = (0..self.choices[self.chosen].processes).map(|_| self.start(url, "work", &json!({})));
        let (ends, took) = race(processes.collect::<Result<_>>()?, jobs)?;
        let handled: u64 = ends.iter().filter_map(|end| end["handled"].as_u64()).sum();
        let after = self.ask(url, "count", &json!({}))?;
        // graphile-worker deletes what is done and awa-pg drops it with its segment; procrastinate keeps it.
        let completed = |count: &Value| count["completed"].as_u64().unwrap_or(0);
        let done = match after["left"].as_u64() {
            Some(left) => jobs.saturating_sub(left),
            None => completed(&after).saturating_sub(completed(&before)),
        };
        let name = self.name;
        ensure!(handled >= jobs && done == jobs, "{name} handled {handled} of {jobs} jobs, and completed {done}");
        Ok(Round { operations: jobs, took, latencies: Vec::new() })
    }

    fn finish(&mut self, url: &str, jobs: u64) -> Result<()> {
        if !self.discards {
            return self.work(url, jobs).map(|_| ());
        }
        let end = self.ask(url, "discard", &json!({}))?;
        ensure!(end["discarded"].as_u64() == Some(jobs), "{} finished {end} of {jobs} jobs", self.name);
        Ok(())
    }

    fn latency(&mut self, url: &str, samples: u32, pause: Duration) -> Result<Round> {
        let pause = u64::try_from(pause.as_millis())?;
        // Hundreds of workers are for throughput; a queue that is idle needs a few.
        let few = json!({ "samples": samples, "pause": pause, "concurrency": 4, "workers": 4, "partitions": 1 });
        let end = self.ask(url, "latency", &few)?;
        let latencies = latencies(&end)?;
        Ok(Round { operations: latencies.len() as u64, took: latencies.iter().sum(), latencies })
    }
}

/// The latencies that a peer said, in milliseconds.
fn latencies(end: &Value) -> Result<Vec<Duration>> {
    let latencies = end["latencies"].as_array().with_context(|| format!("no latencies in {end}"))?;
    let milliseconds = latencies.iter().filter_map(Value::as_f64);
    Ok(milliseconds.map(|latency| Duration::from_secs_f64(latency / 1e3)).collect())
}
