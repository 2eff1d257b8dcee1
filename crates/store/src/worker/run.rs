//! The tasks of a worker: one that claims, some that run handlers, one that writes what is done, one heartbeat, one
//! for the housekeeping.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::{ClaimedJob, Completion, Error, JOBS_AT_ONCE, Result};
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{HandlerError, JobContext, Outcome, WorkerOptions, held::Held};
use crate::{
    repo::{Failure, Retry},
    store::TenantStore,
};

/// Completions that are written together at most.
const WRITTEN_TOGETHER: usize = 2000;
/// Jobs that are claimed together at most.
const CLAIMED_TOGETHER: usize = 2000;
/// Heartbeats in one lease.
const HEARTBEATS: u32 = 3;
/// Between two rounds of the housekeeping.
const TEND_EVERY: Duration = Duration::from_secs(1);
const TEND_AGAIN: Duration = Duration::from_millis(2);
/// After a fault of the database.
const FAULT_PAUSE: Duration = Duration::from_millis(200);
/// What a handler that was told to stop has left to do so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Something that can be told to stop.
pub(super) trait Stop: Send + Sync {
    fn stop(&self);
}

/// What the tasks of a worker share.
pub(super) struct Shared<H> {
    store: TenantStore,
    name: String,
    options: WorkerOptions,
    handler: H,
    held: Held,
    /// There may be jobs.
    wake: Arc<Notify>,
    /// A handler may be free soon.
    room: Notify,
    /// One permit for each job that waits to be run; closed when no more are.
    work: Semaphore,
    /// There is something to write.
    ended: Notify,
    /// All handlers have ended.
    finished: AtomicBool,
    stopping: AtomicBool,
    stopped: Notify,
}

impl<H: Send + Sync> Stop for Shared<H> {
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stopped.notify_one();
        self.room.notify_one();
        self.wake.notify_one();
    }
}

impl<H, Running> Shared<H>
where
    H: Fn(JobContext) -> Running + Send + Sync + 'static,
    Running: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    pub(super) fn new(store: TenantStore, name: String, options: WorkerOptions, handler: H) -> Self {
        let wake = store.waiter(&options.queue);
        Self {
            store,
            name,
            options,
            handler,
            held: Held::default(),
            wake,
            room: Notify::new(),
            work: Semaphore::new(0),
            ended: Notify::new(),
            finished: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Works until it is told to stop, and then to the end of what it has begun. When this is dropped all tasks end.
    pub(super) async fn run(self: Arc<Self>) {
        let mut others = JoinSet::new();
        others.spawn(Arc::clone(&self).heartbeats());
        others.spawn(Arc::clone(&self).tend());
        let mut writer = JoinSet::new();
        writer.spawn(Arc::clone(&self).write());
        let mut runners = JoinSet::new();
        for _ in 0..self.options.concurrency {
            runners.spawn(Arc::clone(&self).run_jobs());
        }
        self.claim().await;
        self.give_back(self.held.take_waiting()).await;
        // Those that wait for work go; those that work end first.
        self.work.close();
        let stopping = async { while runners.join_next().await.is_some() {} };
        if timeout(self.options.grace, stopping).await.is_err() {
            self.held.stop_all();
            let last = async { while runners.join_next().await.is_some() {} };
            let _ = timeout(LAST_WORDS, last).await;
            runners.abort_all();
            while runners.join_next().await.is_some() {}
        }
        // It may be in the middle of a write: what it took is written by nobody else.
        self.finished.store(true, Ordering::Release);
        self.ended.notify_one();
        while writer.join_next().await.is_some() {}
        others.abort_all();
        while others.join_next().await.is_some() {}
        // What is left was stopped in the middle.
        for (job, attempt) in self.held.attempts() {
            let given = self.store.jobs().give_back(job, attempt).await;
            self.note("a job was not given back", given.map(|_| ()));
            self.held.end([(job, attempt)]);
        }
        self.note("the worker did not say goodbye", self.store.jobs().leave(&self.name).await);
    }

    /// Claims what can be run soon.
    async fn claim(&self) {
        let jobs = self.store.jobs();
        let mut registered = false;
        let mut looked = Instant::now();
        while !self.is_stopping() {
            if looked.elapsed() >= self.options.lease {
                self.look_for_unknown().await;
                looked = Instant::now();
            }
            let wanted = self.held.wanted(self.options.concurrency, self.options.prefetch).min(CLAIMED_TOGETHER);
            if wanted == 0 {
                let _ = timeout(self.options.lease, self.room.notified()).await;
                continue;
            }
            if !registered {
                registered = self.heartbeat().await;
                if !registered {
                    self.pause(FAULT_PAUSE).await;
                    continue;
                }
            }
            match jobs.claim_registered(&self.options.queue, &self.name, wanted).await {
                Ok(claimed) if claimed.is_empty() => self.pause(self.options.poll).await,
                Ok(claimed) => {
                    let count = claimed.len();
                    self.held.add(claimed);
                    self.work.add_permits(count);
                }
                Err(error) => {
                    self.note("no jobs were claimed", Err(error));
                    self.pause(FAULT_PAUSE).await;
                }
            }
        }
    }

    /// Gives back what the database says this worker has and it does not know: the answer of a claim got lost, or the
    /// end of an attempt could not be written. Its heartbeats would keep such jobs for ever. Only between two claims
    /// is it certain what it has.
    async fn look_for_unknown(&self) {
        let given = self.store.jobs().give_back_unknown(&self.name, || self.held.attempts()).await;
        match given {
            Ok(0) => {}
            Ok(count) => {
                let worker = &self.name;
                tracing::warn!(target: "agentkeep::jobs", %worker, "{count} jobs that were lost on the way are queued again");
            }
            Err(error) => self.note("nobody looked for jobs that were lost on the way", Err(error)),
        }
    }

    /// Waits for a word of new jobs, or for that long.
    async fn pause(&self, most: Duration) {
        if !self.is_stopping() {
            let _ = timeout(most, self.wake.notified()).await;
        }
    }

    /// One of the handlers.
    async fn run_jobs(self: Arc<Self>) {
        loop {
            match self.work.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return,
            }
            // One that was canceled in between leaves its permit behind.
            let Some((job, stop)) = self.held.begin() else { continue };
            let job = Arc::new(job);
            let context = JobContext { job: Arc::clone(&job), store: self.store.clone(), stop };
            let outcome = AssertUnwindSafe(async { (self.handler)(context).await }).catch_unwind().await;
            let outcome = match outcome {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => Outcome::Failed { error: error.to_string(), retry: None },
                Err(panic) => Outcome::Failed { error: format!("panicked: {}", text_of(&*panic)), retry: None },
            };
            self.end(&job, outcome).await;
            self.room.notify_one();
        }
    }

    async fn end(&self, job: &ClaimedJob, outcome: Outcome) {
        let jobs = self.store.jobs();
        let (id, attempt) = (job.id, job.attempt);
        let written = match outcome {
            Outcome::Done(result) => self.hand_over(job.done(result)).await,
            Outcome::DoneAtCost { result, cost } => {
                self.hand_over(Completion { cost: Some(cost), ..job.done(result) }).await
            }
            Outcome::Snooze(pause) => Some(jobs.snooze(id, attempt, pause).await.map(|_| ())),
            Outcome::Canceled => Some(jobs.confirm_cancel(id, attempt).await.map(|_| ())),
            Outcome::Failed { error, retry } => {
                let retry = retry.unwrap_or(self.options.retry);
                Some(jobs.fail(Failure { job: id, attempt, error, retry }).await.map(|_| ()))
            }
            Outcome::NeedsApproval(new) => {
                Some(self.store.approvals().request_for_attempt(id, attempt, *new).await.map(|_| ()))
            }
        };
        let Some(written) = written else { return };
        // What could not be written is given back after a while: see `look_for_unknown`.
        self.note("the end of an attempt was not written", written);
        self.held.end([(id, attempt)]);
    }

    /// Leaves a completion to the task that writes them: `None`. One that cannot be written has failed, which is
    /// written here.
    async fn hand_over(&self, completion: Completion) -> Option<Result<()>> {
        if let Err(error) = completion.check() {
            let Completion { job, attempt, .. } = completion;
            let failure = Failure { job, attempt, error: error.to_string(), retry: Retry::Never };
            return Some(self.store.jobs().fail(failure).await.map(|_| ()));
        }
        if self.held.done(completion) == 1 {
            self.ended.notify_one();
        }
        None
    }

    /// Writes what is done, everything that waits together, until the last handler has ended.
    async fn write(self: Arc<Self>) {
        loop {
            self.ended.notified().await;
            let last = self.finished.load(Ordering::Acquire);
            self.write_all().await;
            if last {
                return;
            }
        }
    }

    async fn write_all(&self) {
        let started = Instant::now();
        loop {
            let done = self.held.take_done(WRITTEN_TOGETHER.min(JOBS_AT_ONCE));
            if done.is_empty() {
                return;
            }
            let attempts: Vec<_> = done.iter().map(|done| (done.job, done.attempt)).collect();
            loop {
                match self.store.jobs().complete_many(done.clone()).await {
                    Ok(outcomes) => {
                        for outcome in outcomes {
                            self.note("a job was done by an attempt that had lost it", outcome);
                        }
                        break;
                    }
                    // After the lease others have the jobs.
                    Err(error) if started.elapsed() < self.options.lease => {
                        self.note("what is done was not written yet", Err(error));
                        sleep(FAULT_PAUSE).await;
                    }
                    Err(error) => {
                        self.note("what is done was not written", Err(error));
                        break;
                    }
                }
            }
            self.held.written(attempts);
            self.room.notify_one();
        }
    }

    async fn heartbeats(self: Arc<Self>) {
        loop {
            sleep(self.options.lease / HEARTBEATS).await;
            self.heartbeat().await;
        }
    }

    /// Says that this worker is alive, and stops what is to be stopped.
    async fn heartbeat(&self) -> bool {
        let jobs = self.store.jobs();
        let attempts = self.held.attempts();
        let pulse = match jobs.heartbeat(&self.name, self.options.lease, &attempts).await {
            Ok(pulse) => pulse,
            Err(error) => {
                self.note("the heartbeat failed", Err(error));
                return false;
            }
        };
        for job in pulse.cancel {
            if let Some(waiting) = self.held.stop(job) {
                let canceled = jobs.confirm_cancel(waiting.id, waiting.attempt).await;
                self.note("a job was not canceled", canceled.map(|_| ()));
            }
        }
        for job in pulse.lost {
            // Somebody else has it, or it ended while this was asked.
            self.held.stop(job);
        }
        true
    }

    /// The housekeeping.
    async fn tend(self: Arc<Self>) {
        loop {
            let pause = match self.store.jobs().tend().await {
                Ok(tended) => {
                    let due = tended.next_at.map(|at| at.as_micros() - self.store.now().as_micros());
                    let due = due.map(|micros| Duration::from_micros(micros.max(0).unsigned_abs()));
                    due.unwrap_or(TEND_EVERY).clamp(TEND_AGAIN, TEND_EVERY)
                }
                Err(error) => {
                    self.note("the housekeeping failed", Err(error));
                    TEND_EVERY
                }
            };
            sleep(pause).await;
        }
    }

    async fn give_back(&self, jobs: Vec<ClaimedJob>) {
        for job in jobs {
            let given = self.store.jobs().give_back(job.id, job.attempt).await;
            self.note("a job was not given back", given.map(|_| ()));
        }
    }

    /// Logs what nobody else will hear of.
    fn note(&self, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(error @ (Error::Fenced { .. } | Error::NotFound { .. })) => {
                tracing::info!(target: "agentkeep::jobs", worker = %self.name, "{what}: {error}");
            }
            Err(error) => tracing::warn!(target: "agentkeep::jobs", worker = %self.name, "{what}: {error}"),
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
