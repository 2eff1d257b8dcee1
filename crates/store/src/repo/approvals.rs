//! Approvals: what holds a job back until somebody agrees.
//!
//! The row of the job is locked first, everything else changes behind that lock: approving, rejecting, superseding
//! and canceling at once come one after another, and one of them decides.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use agentkeep_core::{
    Approval, ApprovalId, ApprovalStatus, Decision, Direction, Error, JobId, JobStatus, ListRequest, NewApproval, Page,
    Resolution, Result, SessionId, Timestamp,
};
use sha2::{Digest, Sha256};

use super::{
    jobs::{self, Locked, Opens, Scope},
    list::list,
    table::{Field, FieldKind, Reference, Table, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value, from_column_words},
    store::TenantStore,
};

/// The approvals of a tenant.
pub struct Approvals<'a>(pub(super) &'a TenantStore);

from_column_words!(ApprovalStatus);

macro_rules! columns {
    () => {
        "id, job_id, session_id, proposal, proposal_hash, status, requested_by, resolved_by, resolved_at, reason, \
         expires_at, metadata, created_at, updated_at"
    };
}

record!(Approval, &TABLE, {
    id, job_id, session_id, proposal, proposal_hash, status, requested_by, resolved_by, resolved_at, reason,
    expires_at, metadata, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "approval",
    name: "approvals",
    from: "approvals",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("id", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("job_id", FieldKind::Uuid),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("status", FieldKind::Text),
        Field::new("proposal_hash", FieldKind::Text),
        Field::new("requested_by", FieldKind::Text),
        Field::new("resolved_by", FieldKind::Text),
        Field::new("expires_at", FieldKind::Time),
        Field::new("resolved_at", FieldKind::Time),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[Reference::new("session_id", "session", "sessions")],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO approvals (tenant_id, id, job_id, session_id, proposal, proposal_hash, status, requested_by,
         expires_at, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10, $10)
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM approvals WHERE tenant_id = $1 AND id = $2")).short();
static PENDING: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM approvals WHERE tenant_id = $1 AND job_id = $2 AND status = 'pending'"
));
// Behind the lock of the job's row, or, without a job, the one statement that decides.
static RESOLVE: Sql = Sql::both(concat!(
    "UPDATE approvals SET status = $3, resolved_by = $4, resolved_at = $5, reason = $6, updated_at = $5
     WHERE tenant_id = $1 AND id = $2 AND status = 'pending'
     RETURNING ",
    columns!(),
));
static EXPIRED: Sql = Sql::both(
    "SELECT id FROM approvals WHERE tenant_id = $1 AND status = 'pending' AND expires_at <= $2
     ORDER BY expires_at, id LIMIT $3",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &GET, &PENDING, &RESOLVE, &EXPIRED]);

/// Who rejects what nobody decided in time, and why.
const SYSTEM: &str = "system";
const EXPIRED_REASON: &str = "expired";
/// Between two looks of somebody who waits.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Approvals<'_> {
    /// Requests an approval. Its job, which has to be queued, cannot be claimed until it is approved, and is canceled
    /// if it is rejected. A job has one pending approval: the same proposal again gives that one back, another one
    /// supersedes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, an expiry in the past, a job that is not queued;
    /// [`Error::NotFound`] when there is no such job; [`Error::MissingReference`] when there is no such session;
    /// [`Error::AlreadyExists`] when the id is taken.
    pub async fn request(&self, new: NewApproval) -> Result<Approval> {
        self.request_in(new, None).await
    }

    /// Requests an approval from inside an attempt of the job: the job is queued again, without using the attempt up,
    /// and cannot be claimed until it is approved.
    ///
    /// # Errors
    /// As [`Approvals::request`]; [`Error::Fenced`] when the attempt has no say any more.
    pub async fn request_for_attempt(&self, job: JobId, attempt: i32, new: NewApproval) -> Result<Approval> {
        self.request_in(NewApproval { job_id: Some(job), ..new }, Some(attempt)).await
    }

    async fn request_in(&self, new: NewApproval, attempt: Option<i32>) -> Result<Approval> {
        new.check()?;
        if let Some(at) = new.expires_at.filter(|at| *at <= self.0.now()) {
            return Err(Error::invalid("expires_at", format!("{at} is over already")));
        }
        let new = &new;
        let request = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let Some(job) = new.job_id else { return self.create(&scope, new, new.session_id).await };
            let mut job = scope.lock(job).await?;
            if let Some(attempt) = attempt {
                job.check_fence(attempt)?;
                jobs::give_back(&scope, &job).await?;
                job = scope.lock(job.id).await?;
            }
            if job.status != JobStatus::Queued {
                let reason = format!("job {} is {}; only a queued one can wait for an approval", job.id, job.status);
                return Err(Error::invalid("job_id", reason));
            }
            let pending: Option<Approval> = executor.fetch_optional(&PENDING, &params![scope.tenant, job.id]).await?;
            if let Some(pending) = pending {
                if pending.proposal_hash == hash(&new.proposal) {
                    return Ok(pending);
                }
                scope.supersede(job.id, "another proposal took its place").await?;
            }
            let approval = self.create(&scope, new, new.session_id.or(job.session_id)).await?;
            scope.gate_for_approval(&job).await?;
            Ok(approval)
        };
        self.0.executor.transaction(request).await
    }

    async fn create(&self, scope: &Scope<'_>, new: &NewApproval, session: Option<SessionId>) -> Result<Approval> {
        let id = new.id.unwrap_or_else(|| self.0.new_id(scope.now));
        let held = [("id", Value::from(id)), ("session_id", Value::from(session))];
        let params = params![
            scope.tenant,
            id,
            new.job_id,
            session,
            new.proposal.as_str(),
            hash(&new.proposal),
            new.requested_by.clone(),
            new.expires_at,
            new.metadata.clone(),
            scope.now,
        ];
        write_one(scope.executor, &TABLE, &CREATE, &params, &held).await
    }

    fn scope<'a>(&'a self, executor: &'a Executor) -> Scope<'a> {
        Scope { store: self.0, executor, tenant: self.0.tenant, now: self.0.now() }
    }

    /// Decides: an approved job can be claimed (unless something else holds it back), a rejected one is canceled, in
    /// the same transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::IllegalTransition`] when it was decided already; [`Error::NotPermitted`] when
    /// who asked approves; [`Error::Invalid`] for a `proposal_hash` of another text, and for approving what expired.
    /// Nothing is changed then.
    pub async fn resolve(&self, id: ApprovalId, resolution: Resolution) -> Result<Approval> {
        resolution.check()?;
        let resolution = &resolution;
        let resolve = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = self.lock_job_of(&scope, id).await?;
            let approval = self.existing(&executor, id).await?;
            check(&approval, resolution, scope.now)?;
            let status = match resolution.decision {
                Decision::Approve => ApprovalStatus::Approved,
                Decision::Reject => ApprovalStatus::Rejected,
            };
            self.decide(&scope, id, job.as_ref(), status, &resolution.by, resolution.reason.as_deref()).await
        };
        self.0.executor.transaction(resolve).await
    }

    /// Locks the job of an approval, before anything of the approval is believed.
    async fn lock_job_of(&self, scope: &Scope<'_>, id: ApprovalId) -> Result<Option<Locked>> {
        // Which job an approval belongs to never changes.
        match self.existing(scope.executor, id).await?.job_id {
            Some(job) => scope.lock_if_there(job).await,
            None => Ok(None),
        }
    }

    async fn decide(
        &self,
        scope: &Scope<'_>,
        id: ApprovalId,
        job: Option<&Locked>,
        status: ApprovalStatus,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Approval> {
        let params = params![scope.tenant, id, status, by, scope.now, reason];
        let decided: Option<Approval> = scope.executor.fetch_optional(&RESOLVE, &params).await?;
        let Some(decided) = decided else {
            let approval = self.existing(scope.executor, id).await?;
            return Err(illegal(&approval, status));
        };
        match job {
            Some(job) if status == ApprovalStatus::Approved && job.status == JobStatus::Queued => {
                scope.open(job, Opens::Approval).await?;
            }
            Some(job) if status == ApprovalStatus::Rejected && !job.status.is_final() => {
                let why =
                    reason.map_or_else(|| format!("rejected by {by}"), |reason| format!("rejected by {by}: {reason}"));
                jobs::cancel_locked(scope, job, Some(&why)).await?;
            }
            _ => {}
        }
        Ok(decided)
    }

    /// Rejects, in the name of `system` and with the reason `expired`, what nobody decided in time; how many it were.
    /// Workers do it by themselves.
    ///
    /// # Errors
    /// What the database reports; what was rejected before it stays so.
    pub async fn expire(&self) -> Result<u64> {
        const AT_ONCE: i64 = 100;
        let mut expired = 0;
        loop {
            let due: Vec<(ApprovalId,)> =
                self.0.executor.fetch_all(&EXPIRED, &params![self.0.tenant, self.0.now(), AT_ONCE]).await?;
            for (id,) in &due {
                let expire = |executor: Executor| async move {
                    let scope = self.scope(&executor);
                    let job = self.lock_job_of(&scope, *id).await?;
                    let (status, reason) = (ApprovalStatus::Rejected, Some(EXPIRED_REASON));
                    self.decide(&scope, *id, job.as_ref(), status, SYSTEM, reason).await
                };
                match self.0.executor.transaction(expire).await {
                    Ok(_) => expired += 1,
                    // Somebody decided at the last moment, or deleted it.
                    Err(Error::IllegalTransition { .. } | Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if (due.len() as i64) < AT_ONCE {
                return Ok(expired);
            }
        }
    }

    /// The approval with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: ApprovalId) -> Result<Option<Approval>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    async fn existing(&self, executor: &Executor, id: ApprovalId) -> Result<Approval> {
        let approval = executor.fetch_optional(&GET, &params![self.0.tenant, id]).await?;
        approval.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// One page of the approvals. Filters: id, job_id, session_id, status, proposal_hash, requested_by, resolved_by,
    /// expires_at, resolved_at, created_at, updated_at, metadata.PATH. Orders: id (the default: by age), created_at,
    /// updated_at. Those that wait for somebody have the status `pending`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Approval>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Waits until an approval is decided, and gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Timeout`] when it is pending still after `limit`.
    pub async fn wait(&self, id: ApprovalId, limit: Duration) -> Result<Approval> {
        let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let approval = self.existing(&self.0.executor, id).await?;
            if approval.status != ApprovalStatus::Pending {
                return Ok(approval);
            }
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(Error::Timeout { what: format!("waiting for approval {id}"), after: limit });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn illegal(approval: &Approval, to: ApprovalStatus) -> Error {
    Error::IllegalTransition {
        entity: TABLE.entity,
        key: approval.id.to_string(),
        from: approval.status.to_string(),
        to: to.to_string(),
    }
}

/// Refuses what may not be decided this way, by this person, any more.
fn check(approval: &Approval, resolution: &Resolution, now: Timestamp) -> Result<()> {
    let approve = resolution.decision == Decision::Approve;
    let to = if approve { ApprovalStatus::Approved } else { ApprovalStatus::Rejected };
    if !approval.status.can_become(to) {
        return Err(illegal(approval, to));
    }
    if let Some(given) = resolution.proposal_hash.as_ref().filter(|given| **given != approval.proposal_hash) {
        let reason = format!("{given} is not that of the proposal, {}: read it again", approval.proposal_hash);
        return Err(Error::invalid("proposal_hash", reason));
    }
    if approve && approval.requested_by.as_deref() == Some(resolution.by.as_str()) {
        return Err(Error::NotPermitted(format!("{} requested this approval and cannot approve it", resolution.by)));
    }
    match approval.expires_at {
        Some(at) if approve && at <= now => {
            Err(Error::invalid("approval", format!("expired at {at} and can only be rejected")))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of a proposal, in hexadecimal digits.
fn hash(proposal: &str) -> String {
    Sha256::digest(proposal.as_bytes()).iter().fold(String::with_capacity(64), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
