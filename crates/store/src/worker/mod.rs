//! A worker: runs a function for each job of a queue.
//!
//! ```no_run
//! # use agentkeep::{Store, Worker, WorkerOptions, JobContext, Outcome};
//! # async fn run(store: Store) -> agentkeep::core::Result<()> {
//! let worker = Worker::start(store.default_tenant(), WorkerOptions::new("mails"), |job: JobContext| async move {
//!     println!("{} is at attempt {}", job.payload(), job.attempt());
//!     Ok(Outcome::done())
//! })?;
//! // …
//! worker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! It claims in batches what it can run soon, runs up to `concurrency` handlers at once, and completes together what
//! ended together. Its heartbeat keeps its jobs; what is canceled it learns from there. It also does the housekeeping
//! of the queue's tenant ([`Jobs::tend`](crate::Jobs::tend)). Any number of workers, in any number of processes, may
//! share a queue.

mod held;
mod run;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(doc)]
use agentkeep_core::Completion;
use agentkeep_core::{ClaimedJob, Error, Json, Money, NewApproval, Result, check_lease, limits};
use tokio::task::JoinHandle;

use crate::{repo::Retry, store::TenantStore};

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The queue.
    pub queue: String,
    /// The name it is known by; no two workers may share one. Made up when not given.
    pub name: Option<String>,
    /// Handlers that run at once.
    pub concurrency: usize,
    /// Jobs it may have claimed beyond those that run. It takes no more than it has lately done in a fifth of a
    /// second, so that slow jobs are left to others.
    pub prefetch: usize,
    /// How long its jobs stay its own after it was last heard of.
    pub lease: Duration,
    /// How often it looks for jobs without having been told of any.
    pub poll: Duration,
    /// When a failed attempt is followed by another.
    pub retry: Retry,
    /// How long a shutdown waits for running handlers before it stops them and gives their jobs back.
    pub grace: Duration,
}

impl WorkerOptions {
    /// Ten handlers at once, a lease of 30 s, a look every second.
    #[must_use]
    pub fn new(queue: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            name: None,
            concurrency: 10,
            prefetch: 2000,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            retry: Retry::default(),
            grace: Duration::from_secs(30),
        }
    }

    fn check(&self) -> Result<()> {
        limits::check_name("queue", &self.queue)?;
        limits::check_optional_name("name", self.name.as_deref())?;
        check_lease(self.lease)?;
        if self.concurrency == 0 || self.concurrency > 10_000 {
            return Err(Error::invalid("concurrency", format!("is {}; 1 to 10,000 are allowed", self.concurrency)));
        }
        if self.poll.is_zero() {
            return Err(Error::invalid("poll", "is 0; a pause between two looks is needed"));
        }
        Ok(())
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The job is done.
    Done(Option<Json>),
    /// The job is done, and cost something that is not in the ledger: see [`Completion::cost`].
    DoneAtCost {
        /// What came of it.
        result: Option<Json>,
        /// What it cost.
        cost: Money,
    },
    /// It is put off; the attempt does not count.
    Snooze(Duration),
    /// It failed; another attempt follows as the options say, or as is said here.
    Failed {
        /// Why.
        error: String,
        /// When another attempt follows.
        retry: Option<Retry>,
    },
    /// It stopped because it was canceled.
    Canceled,
    /// Somebody has to agree first; the job is claimed again when it is approved.
    NeedsApproval(Box<NewApproval>),
}

impl Outcome {
    /// Done, without a result.
    #[must_use]
    pub const fn done() -> Self {
        Self::Done(None)
    }

    /// Failed for good.
    pub fn failed_for_good(error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), retry: Some(Retry::Never) }
    }
}

/// An error of a handler: the attempt failed, its text is the reason.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// An attempt, as its handler sees it.
#[derive(Clone)]
pub struct JobContext {
    job: Arc<ClaimedJob>,
    store: TenantStore,
    stop: held::StopSignal,
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext").field("job", &self.job.id).field("attempt", &self.job.attempt).finish()
    }
}

impl JobContext {
    /// The job as it was claimed.
    #[must_use]
    pub fn job(&self) -> &ClaimedJob {
        &self.job
    }

    /// What it works on.
    #[must_use]
    pub fn payload(&self) -> &Json {
        &self.job.payload
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> i32 {
        self.job.attempt
    }

    /// The store, as the tenant of the job sees it.
    #[must_use]
    pub fn store(&self) -> &TenantStore {
        &self.store
    }

    /// Keeps what was reached, for the next attempt to go on from.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another attempt has begun: stop then. [`Error::Invalid`] over 1 MiB.
    pub async fn checkpoint(&self, checkpoint: Json) -> Result<()> {
        self.store.jobs().checkpoint(self.job.id, self.job.attempt, checkpoint).await
    }

    /// Whether the handler should stop: the job is to be canceled, it is somebody else's now, or the worker shuts
    /// down and its grace is over, or is gone. True as well once the attempt has ended, for what the handler left
    /// running.
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.stop.is_told()
    }

    /// Returns when the handler should stop.
    pub async fn stopped(&self) {
        self.stop.told().await;
    }
}

/// A running worker. Dropped, it stops at once, and its jobs go to others when its lease is over;
/// [`Worker::shutdown`] is kinder.
pub struct Worker {
    name: String,
    shared: Arc<dyn run::Stop>,
    main: Option<JoinHandle<()>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a worker that runs `handler` for each job. A handler that returns an error, or panics, has failed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that make no sense.
    pub fn start<H, Running>(store: &TenantStore, options: WorkerOptions, handler: H) -> Result<Self>
    where
        H: Fn(JobContext) -> Running + Send + Sync + 'static,
        Running: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
    {
        options.check()?;
        let name = options.name.clone().unwrap_or_else(|| {
            let id: uuid::Uuid = store.new_id(store.now());
            format!("worker-{id}")
        });
        let shared = Arc::new(run::Shared::new(store.clone(), name.clone(), options, handler));
        let main = tokio::spawn(Arc::clone(&shared).run());
        Ok(Self { name, shared, main: Some(main) })
    }

    /// The name it is known by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Claims nothing more, gives back what was not begun, waits for what runs (at most its grace, after which it is
    /// told to stop and its jobs are given back), and says goodbye.
    pub async fn shutdown(mut self) {
        self.shared.stop();
        if let Some(main) = self.main.take() {
            // It ends by itself; a panic of it is in the log.
            let _ = main.await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(main) = self.main.take() {
            main.abort();
        }
    }
}
