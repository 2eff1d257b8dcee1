//! Schedules: jobs that are enqueued again and again. Whoever moves the time of the next run on enqueues the job, in
//! the same transaction: any number of processes may try, one does.

use std::time::Duration;

use agentkeep_core::{
    Direction, Error, JobSchedule, JobScheduleId, JobSchedulePatch, Json, ListRequest, NewJob, NewJobSchedule, Page,
    Result, Times, Timestamp,
};

use super::{
    Jobs,
    jobs::Origin,
    list::list,
    table::{Changes, Field, FieldKind, Table, delete, params, record, write, write_one},
};
use crate::{
    engine::{ColumnRef, Executor, FromColumn, Sql, Value},
    store::TenantStore,
};

/// The schedules of a tenant.
pub struct JobSchedules<'a>(pub(super) &'a TenantStore);

impl FromColumn for NewJob {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        Json::from_column(column)?.decode("job").map_err(|_| "a job")
    }
}

macro_rules! columns {
    () => {
        "id, name, cron, time_zone, catch_up_seconds, active, job, next_run_at, last_run_at, created_at, updated_at"
    };
}

record!(JobSchedule, &TABLE, {
    id, name, cron, time_zone, catch_up_seconds, active, job, next_run_at, last_run_at, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "schedule",
    name: "job_schedules",
    from: "job_schedules",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("name", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("active", FieldKind::Bool),
        Field::new("next_run_at", FieldKind::Time).sortable(),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
    ],
    unique: &[&["name"]],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO job_schedules (tenant_id, id, name, cron, time_zone, catch_up_seconds, active, job, next_run_at,
         created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
     RETURNING ",
    columns!(),
));
static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM job_schedules WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_NAME: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM job_schedules WHERE tenant_id = $1 AND name = $2")).short();
static DUE: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM job_schedules WHERE tenant_id = $1 AND next_run_at <= $2 AND active ORDER BY next_run_at, id LIMIT $3"
));
static NEXT: Sql =
    Sql::both("SELECT next_run_at FROM job_schedules WHERE tenant_id = $1 AND active ORDER BY next_run_at LIMIT 1")
        .short();
// The one that finds the time unchanged has the run.
static MOVE_ON: Sql = Sql::both(
    "UPDATE job_schedules SET next_run_at = $4, last_run_at = $3, updated_at = $5
     WHERE tenant_id = $1 AND id = $2 AND next_run_at = $3 AND active
     RETURNING id",
);
static DELETE: Sql = Sql::both("DELETE FROM job_schedules WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &GET, &GET_BY_NAME, &DUE, &NEXT, &MOVE_ON, &DELETE]);

const DUE_AT_ONCE: i64 = 100;

impl JobSchedules<'_> {
    /// Creates a schedule; its first run is the first time after now.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cron text or a time zone that cannot be read, or a job that breaks a rule;
    /// [`Error::AlreadyExists`] when the name is taken.
    pub async fn create(&self, new: NewJobSchedule) -> Result<JobSchedule> {
        new.check()?;
        let now = self.0.now();
        let next = Times::parse(&new.cron, &new.time_zone)?.after(now)?;
        let id: JobScheduleId = self.0.new_id(now);
        let job = Json::from_serialize("job", &new.job)?;
        let held = [("id", Value::from(id)), ("name", Value::from(new.name.clone()))];
        let params =
            params![self.0.tenant, id, new.name, new.cron, new.time_zone, new.catch_up_seconds, true, job, next, now,];
        write_one(&self.0.executor, &TABLE, &CREATE, &params, &held).await
    }

    /// The schedule with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: JobScheduleId) -> Result<Option<JobSchedule>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The schedule with that name; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(&self, name: &str) -> Result<Option<JobSchedule>> {
        self.0.executor.fetch_optional(&GET_BY_NAME, &params![self.0.tenant, name]).await
    }

    /// One page of the schedules. Filters: id, name, active, next_run_at, created_at, updated_at. Orders: name (the
    /// default), id, next_run_at, created_at, updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<JobSchedule>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a schedule; what the patch leaves out stays.
    ///
    /// # Errors
    /// As [`JobSchedules::create`], and [`Error::NotFound`].
    pub async fn update(&self, id: JobScheduleId, patch: JobSchedulePatch) -> Result<JobSchedule> {
        patch.check()?;
        let old = self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))?;
        let now = self.0.now();
        let anew = patch.cron.is_some() || patch.time_zone.is_some() || patch.active == Some(true) && !old.active;
        let cron = patch.cron.clone().unwrap_or(old.cron);
        let zone = patch.time_zone.clone().unwrap_or(old.time_zone);
        let next = Times::parse(&cron, &zone)?.after(now)?;
        let held = [("name", Value::from(patch.name.clone()))];
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("name", patch.name);
        changes.set("cron", patch.cron);
        changes.set("time_zone", patch.time_zone);
        changes.set("catch_up_seconds", patch.catch_up_seconds);
        changes.set("active", patch.active);
        changes.set("job", patch.job.map(|job| Json::from_serialize("job", &job)).transpose()?);
        changes.set("next_run_at", anew.then_some(next));
        let (sql, params) = changes.statement(&TABLE, now);
        let changed: Vec<JobSchedule> = write(&self.0.executor, &TABLE, &sql, &params, &held).await?;
        changed.into_iter().next().ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// Deletes a schedule; jobs that it enqueued stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: JobScheduleId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// Enqueues every run that is due; how many it were. Each run is enqueued once, whoever else tries.
    pub(super) async fn enqueue_due(&self) -> Result<u64> {
        let mut enqueued = 0;
        loop {
            let params = params![self.0.tenant, self.0.now(), DUE_AT_ONCE];
            let due: Vec<JobSchedule> = self.0.executor.fetch_all(&DUE, &params).await?;
            let mut moved = false;
            for schedule in &due {
                let run = |executor: Executor| async move { self.run(&executor, schedule).await };
                match self.0.executor.transaction(run).await {
                    Ok(run) => {
                        moved |= run.is_some();
                        enqueued += u64::from(run == Some(true));
                    }
                    // A session or an agent of the job is gone. The others go on, and so does the next round.
                    Err(error @ (Error::MissingReference { .. } | Error::Invalid { .. })) => {
                        tracing::warn!(target: "agentkeep::jobs", schedule = %schedule.name, "not enqueued: {error}");
                    }
                    Err(error) => return Err(error),
                }
            }
            if !moved {
                return Ok(enqueued);
            }
        }
    }

    /// One run; `None` when somebody else had it, false when it was missed by too much.
    async fn run(&self, executor: &Executor, schedule: &JobSchedule) -> Result<Option<bool>> {
        let (now, due) = (self.0.now(), schedule.next_run_at);
        let times = Times::parse(&schedule.cron, &schedule.time_zone)?;
        let seconds = u64::try_from(schedule.catch_up_seconds).unwrap_or(0);
        let oldest = now.minus(Duration::from_secs(seconds));
        let missed = due < oldest && times.after(due)? <= now;
        // Those that were missed by too much are passed over at once.
        let next = if missed { times.after(due.max(oldest))? } else { times.after(due)? };
        let params = params![self.0.tenant, schedule.id, due, next, now];
        if executor.fetch_optional::<(JobScheduleId,)>(&MOVE_ON, &params).await?.is_none() {
            return Ok(None);
        }
        if missed {
            return Ok(Some(false));
        }
        let inside = self.0.with_executor(executor.clone());
        let origin = Origin { schedule_id: Some(schedule.id), ..Origin::default() };
        Jobs(&inside).enqueue_from(schedule.job.clone(), origin).await?;
        Ok(Some(true))
    }

    /// When the next run is due.
    pub(super) async fn next_due(&self) -> Result<Option<Timestamp>> {
        let next: Option<(Timestamp,)> = self.0.executor.fetch_optional(&NEXT, &params![self.0.tenant]).await?;
        Ok(next.map(|(at,)| at))
    }
}
