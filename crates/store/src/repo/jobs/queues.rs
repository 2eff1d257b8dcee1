//! What is set for queues: how many of their jobs may run at once, and whether they are paused.

use agentkeep_core::{JobQueue, JobQueuePatch, Result, limits};

use super::{
    super::table::{explain, params},
    Jobs, TABLE,
};
use crate::engine::{FromRow, RowRef, Sql};

macro_rules! columns {
    () => {
        "name, concurrency, paused, created_at, updated_at"
    };
}

static SET: Sql = Sql::both(concat!(
    "INSERT INTO job_queues (tenant_id, name, concurrency, paused, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $5)
     ON CONFLICT (tenant_id, name) DO UPDATE SET
         concurrency = CASE WHEN $6 THEN excluded.concurrency ELSE job_queues.concurrency END,
         paused = CASE WHEN $7 THEN excluded.paused ELSE job_queues.paused END,
         updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static LIST: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM job_queues WHERE tenant_id = $1 ORDER BY name"));

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[&SET, &LIST];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&crate::engine::BatchSql] = &[];

impl FromRow for JobQueue {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            concurrency: row.get(1)?,
            paused: row.get(2)?,
            created_at: row.get(3)?,
            updated_at: row.get(4)?,
        })
    }
}

impl Jobs<'_> {
    /// Sets how many jobs of a queue may run at once, over all workers, and whether it is paused; what the patch
    /// leaves out stays. Jobs that are running are left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`](agentkeep_core::Error::Invalid) for an empty name or a limit below 1.
    pub async fn set_queue(&self, name: &str, patch: JobQueuePatch) -> Result<JobQueue> {
        limits::check_name("queue", name)?;
        patch.check()?;
        let (tenant, now) = (self.0.tenant, self.0.now());
        let (limited, pauses) = (patch.concurrency.is_some(), patch.paused.is_some());
        let params =
            params![tenant, name, patch.concurrency.flatten(), patch.paused.unwrap_or(false), now, limited, pauses];
        let set = match self.0.executor.fetch_one(&SET, &params).await {
            Ok(set) => set,
            Err(error) => return Err(explain(&self.0.executor, &TABLE, &params, &[], error).await),
        };
        self.0.wake_within(&self.0.executor, now, std::iter::once(name));
        Ok(set)
    }

    /// The queues for which something was ever set, by name. The others have no limit and are not paused.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn queues(&self) -> Result<Vec<JobQueue>> {
        self.0.executor.fetch_all(&LIST, &params![self.0.tenant]).await
    }
}
