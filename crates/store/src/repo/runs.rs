//! Runs: answers of agents in sessions, each written by the process that holds its lease.

use std::time::Duration;

use agentkeep_core::{
    Direction, Error, JsonObject, ListRequest, NewRun, Page, Result, Run, RunId, RunOutcome, RunStatus, SessionEvent,
    SessionEventKind, Timestamp, limits,
};

use super::{
    list::list,
    session_events::{Place, data_of},
    table::{Changes, Field, FieldKind, Table, check_reference, digits_of, id_list, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The runs of a tenant.
pub struct Runs<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, session_id, agent_id, status, owner, lease_until, first_seq, first_event, error, metadata, created_at, \
         updated_at, finished_at"
    };
}

record!(Run, &TABLE, {
    id, session_id, agent_id, status, owner, lease_until, first_seq, first_event, error, metadata, created_at,
    updated_at, finished_at,
});

static TABLE: Table = Table {
    entity: "run",
    name: "runs",
    from: "runs",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("status", FieldKind::Text),
        Field::new("owner", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO runs (tenant_id, id, session_id, agent_id, status, owner, lease_until, first_seq, first_event,
         metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, 'running', $5, $6, $7, $8, $9, $10, $10)
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM runs WHERE tenant_id = $1 AND id = $2")).short();
// A list of ids is one text on both engines: PostgreSQL splits it, SQLite has no arrays and reads it as JSON.
static HEARTBEAT: Sql = Sql::per_engine(
    "UPDATE runs SET lease_until = $3, updated_at = $4
     WHERE tenant_id = $1 AND owner = $2 AND status = 'running' AND id = ANY(CAST(string_to_array($5, ',') AS uuid[]))
     RETURNING id",
    "UPDATE runs SET lease_until = $3, updated_at = $4
     WHERE tenant_id = $1 AND owner = $2 AND status = 'running'
         AND id IN (SELECT unhex(value) FROM json_each('[\"' || replace($5, ',', '\",\"') || '\"]'))
     RETURNING id",
);
// What the sub-select found may have been taken by somebody else meanwhile: the row itself is asked again.
static TAKE_EXPIRED: Sql = Sql::both(concat!(
    "UPDATE runs SET owner = $2, lease_until = $3, updated_at = $4
     WHERE tenant_id = $1 AND status = 'running' AND lease_until <= $4 AND id IN (
         SELECT id FROM runs WHERE tenant_id = $1 AND status = 'running' AND lease_until <= $4
         ORDER BY lease_until, id LIMIT $5
     )
     RETURNING ",
    columns!(),
));

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &GET, &HEARTBEAT, &TAKE_EXPIRED]);

impl Runs<'_> {
    /// Starts a run, and tells that to its session in the same transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::NotFound`] when there is no such session,
    /// [`Error::MissingReference`] when the agent does not exist in this tenant, [`Error::AlreadyExists`] when the id
    /// is taken.
    pub async fn create(&self, new: NewRun) -> Result<Run> {
        new.check()?;
        let (tenant, session) = (self.0.tenant, new.session_id);
        // A soft reference: the agent must exist when it is set, and may go afterwards.
        check_reference(&self.0.executor, tenant, "agent_id", "agent", "agents", new.agent_id).await?;
        let now = self.0.now();
        let id: RunId = new.id.unwrap_or_else(|| self.0.new_id(now));
        let new = &new;
        let create = |executor: Executor| async move {
            let place = Place::take(&executor, tenant, session, 0).await?;
            let place = place.ok_or_else(|| Error::not_found("session", session))?;
            let params = params![
                tenant,
                id,
                session,
                new.agent_id,
                new.owner.as_str(),
                new.lease_until,
                place.last_seq + 1,
                place.number,
                new.metadata.clone(),
                now,
            ];
            let run: Run = write_one(&executor, &TABLE, &CREATE, &params, &[("id", Value::from(id))]).await?;
            tell(&executor, place, &run, SessionEventKind::RunStarted, None).await?;
            Ok(run)
        };
        self.told(create).await
    }

    /// The run with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: RunId) -> Result<Option<Run>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the runs. Filters: id, session_id, agent_id, status, owner, created_at, updated_at, metadata.PATH.
    /// Orders: id, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Run>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Extends the leases of an owner; which of the runs still are its own. The others ended or were taken over.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than 1,000 ids.
    pub async fn heartbeat(&self, owner: &str, ids: &[RunId], lease_until: Timestamp) -> Result<Vec<RunId>> {
        let list = id_list("ids", ids.iter().map(|id| digits_of(*id)))?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let params = params![self.0.tenant, owner, lease_until, self.0.now(), list];
        let kept: Vec<(RunId,)> = self.0.executor.fetch_all(&HEARTBEAT, &params).await?;
        Ok(kept.into_iter().map(|(id,)| id).collect())
    }

    /// Lets go of a running run, and tells that to its session in the same transaction: with `data`, or with the run as
    /// it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for values over the limit, [`Error::RunFenced`] when it is not running
    /// or no longer the owner's. Nothing was changed then.
    pub async fn finish(&self, id: RunId, owner: &str, outcome: RunOutcome, data: Option<JsonObject>) -> Result<Run> {
        limits::check_content("data", data.as_ref().map_or("", JsonObject::as_str))?;
        let error = match &outcome {
            RunOutcome::Failed(error) => {
                error.check()?;
                Some(JsonObject::from_serialize("error", error)?)
            }
            _ => None,
        };
        let (error, data, outcome) = (&error, &data, &outcome);
        let end = |executor: Executor| async move {
            let now = self.0.now();
            let mut changes = Changes::new(executor.dialect(), self.0.tenant, id);
            changes.set("status", Some(outcome.status()));
            changes.set("error", Some(error.clone()));
            changes.set("finished_at", Some((outcome.status() != RunStatus::Waiting).then_some(now)));
            changes.only_if("status", RunStatus::Running);
            changes.only_if("owner", owner);
            let Some(run) = self.changed(&executor, id, changes, now, outcome.event(), data.clone()).await? else {
                let found = self.existing(&executor, id).await?;
                let (run, given, status) = (id.to_string(), owner.to_owned(), found.status.to_string());
                return Err(Error::RunFenced { run, given, current: found.owner, status });
            };
            Ok(run)
        };
        self.told(end).await
    }

    /// Goes on with a run that waits, as its new owner, and tells that to its session in the same transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for an empty owner, [`Error::IllegalTransition`] when it does not wait.
    pub async fn resume(&self, id: RunId, owner: &str, lease_until: Timestamp) -> Result<Run> {
        limits::check_name("owner", owner)?;
        let resume = |executor: Executor| async move {
            let now = self.0.now();
            let mut changes = Changes::new(executor.dialect(), self.0.tenant, id);
            changes.set("status", Some(RunStatus::Running));
            changes.set("owner", Some(owner));
            changes.set("lease_until", Some(lease_until));
            changes.only_if("status", RunStatus::Waiting);
            let resumed = self.changed(&executor, id, changes, now, SessionEventKind::RunResumed, None).await?;
            let Some(run) = resumed else {
                let from = self.existing(&executor, id).await?.status.to_string();
                let (entity, key, to) = (TABLE.entity, id.to_string(), RunStatus::Running.to_string());
                return Err(Error::IllegalTransition { entity, key, from, to });
            };
            Ok(run)
        };
        self.told(resume).await
    }

    /// Takes over running runs whose lease is over, at most `limit`, those that ended first: the old owners have no say
    /// any more. Empty when there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty owner, or when `limit` is not 1 to 1,000.
    pub async fn take_expired(&self, owner: &str, lease: Duration, limit: u32) -> Result<Vec<Run>> {
        limits::check_name("owner", owner)?;
        ListRequest::new().limit(limit).check()?;
        let now = self.0.now();
        self.0.executor.fetch_all(&TAKE_EXPIRED, &params![self.0.tenant, owner, now.plus(lease), now, limit]).await
    }

    /// Runs work on a run in a transaction, and wakes those who watch its session once it is done.
    async fn told<F, Work>(&self, work: F) -> Result<Run>
    where
        F: Fn(Executor) -> Work,
        Work: Future<Output = Result<Run>>,
    {
        let run = self.0.executor.transaction(work).await?;
        self.0.session_changed(run.session_id);
        Ok(run)
    }

    /// Changes a run and tells that; `None` when a condition did not hold, in which case the transaction has to be
    /// undone.
    async fn changed(
        &self,
        executor: &Executor,
        id: RunId,
        changes: Changes,
        now: Timestamp,
        kind: SessionEventKind,
        data: Option<JsonObject>,
    ) -> Result<Option<Run>> {
        // The head is locked before the run, as the start and the deletion of its session do: no deadlock.
        let session = self.existing(executor, id).await?.session_id;
        let place = Place::take(executor, self.0.tenant, session, 0).await?;
        let place = place.ok_or_else(|| Error::not_found(TABLE.entity, id))?;
        let (sql, params) = changes.statement(&TABLE, now);
        let Some(run) = executor.fetch_optional::<Run>(&sql, &params).await? else { return Ok(None) };
        tell(executor, place, &run, kind, data).await?;
        Ok(Some(run))
    }

    async fn existing(&self, executor: &Executor, id: RunId) -> Result<Run> {
        let found: Option<Run> = executor.fetch_optional(&GET, &params![self.0.tenant, id]).await?;
        found.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }
}

/// Writes the event of a run: with data of its own, or with the run.
async fn tell(
    executor: &Executor,
    place: Place,
    run: &Run,
    kind: SessionEventKind,
    data: Option<JsonObject>,
) -> Result<()> {
    let data = match data {
        Some(data) => data.into(),
        None => data_of(run)?,
    };
    let event = SessionEvent {
        number: place.number,
        seq: place.last_seq,
        kind,
        message_id: None,
        run_id: Some(run.id),
        data,
        created_at: run.updated_at,
    };
    place.write(executor, event).await
}
