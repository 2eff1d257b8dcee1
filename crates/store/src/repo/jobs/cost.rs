//! What jobs may cost: reserved when they are claimed, settled when their attempt ends.
//!
//! A claim takes jobs without looking at their cost; those that have one get their reservation, or their place at the
//! gate, before the claim's caller hears of them. Rows of jobs are locked first, then the periods of all budgets that
//! apply, in one order.

use std::collections::{HashMap, HashSet};

use agentkeep_core::{
    AgentId, ClaimedJob, Error, JobId, JobStatus, Money, MoneyTotal, Reservation, ReservationId, ReservationStatus,
    Result, Timestamp, UserId,
};
use uuid::Uuid;

use super::{
    super::{
        budgets::{Payer, Rooms, lock_for},
        reservations::{EndOfReservation, end_in, reserve_in},
        table::params,
    },
    Claimed, Jobs, Scope,
    finish::queue_again,
    lines::{Gate, Locked, Opens},
};
use crate::engine::{BatchSql, Executor, Sql};

// The lock on SQLite is the transaction's.
static LOCK_CLAIMED: BatchSql = BatchSql::new(
    "SELECT j.id, s.user_id FROM unnest($2::uuid[], $3::int4[]) AS i (id, attempt)
     JOIN jobs j ON j.tenant_id = $1 AND j.id = i.id AND j.attempt = i.attempt AND j.status = 'running'
     LEFT JOIN sessions s ON s.tenant_id = $1 AND s.id = j.session_id
     WHERE j.tenant_id = $1 ORDER BY j.id FOR UPDATE OF j",
    "SELECT j.id, s.user_id FROM jobs j LEFT JOIN sessions s ON s.tenant_id = $1 AND s.id = j.session_id
     WHERE j.tenant_id = $1 AND j.id = $2 AND j.attempt = $3 AND j.status = 'running'",
);
static COST: Sql = Sql::both(
    "SELECT s.user_id, j.agent_id, j.model, j.estimated_cost FROM jobs j
     LEFT JOIN sessions s ON s.tenant_id = $1 AND s.id = j.session_id
     WHERE j.tenant_id = $1 AND j.id = $2 AND j.estimated_cost IS NOT NULL",
);
static HELD: BatchSql = BatchSql::new(
    "SELECT id, job_id, amount, created_at FROM budget_reservations
     WHERE tenant_id = $1 AND job_id = ANY($2::uuid[]) AND status = 'held' ORDER BY id",
    "SELECT id, job_id, amount, created_at FROM budget_reservations
     WHERE tenant_id = $1 AND job_id = $2 AND status = 'held'",
);
static LOGGED: Sql = Sql::both(
    "SELECT count(*), CAST(COALESCE(SUM(cost >> 32), 0) AS int8), CAST(COALESCE(SUM(cost & 4294967295), 0) AS int8)
     FROM ledger WHERE tenant_id = $1 AND job_id = $2 AND created_at >= $3",
);
static GATED: Sql = Sql::both(
    "SELECT g.job_id, s.user_id, j.agent_id, j.model, j.estimated_cost FROM job_gates g
     JOIN jobs j ON j.tenant_id = $1 AND j.id = g.job_id
     LEFT JOIN sessions s ON s.tenant_id = $1 AND s.id = j.session_id
     WHERE g.tenant_id = $1 AND g.budget IS NOT NULL AND g.job_id > $2 ORDER BY g.job_id LIMIT $3",
);
// Only direct SQL leaves such reservations behind.
static LEFT_BEHIND: Sql = Sql::both(
    "SELECT r.id FROM budget_reservations r
     LEFT JOIN jobs j ON j.tenant_id = $1 AND j.id = r.job_id AND j.status = 'running' AND j.attempt = r.job_attempt
     WHERE r.tenant_id = $1 AND r.job_id IS NOT NULL AND r.status = 'held' AND j.id IS NULL LIMIT $2",
);

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[&COST, &LOGGED, &GATED, &LEFT_BEHIND];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&BatchSql] = &[&LOCK_CLAIMED, &HELD];

/// Jobs at the gate that one round of the housekeeping looks at.
const LOOKED_AT: usize = 200;
const MOST_LEFT_BEHIND: i64 = 100;

impl Jobs<'_> {
    /// Those of the claimed jobs that may cost what they are expected to cost. The others are queued again, and wait.
    pub(super) async fn afford(&self, claimed: Vec<Claimed>) -> Result<Vec<Claimed>> {
        #[cfg(any(test, feature = "conformance"))]
        if self.0.controls().budget_gate_is_off() {
            return Ok(claimed);
        }
        let costly: Vec<&ClaimedJob> =
            claimed.iter().map(|claimed| &claimed.job).filter(|job| job.estimated_cost.is_some()).collect();
        if costly.is_empty() {
            return Ok(claimed);
        }
        let reserve = |executor: Executor| {
            let costly = &costly;
            async move { self.reserve(&executor, costly).await }
        };
        let refused = match self.0.executor.transaction(reserve).await {
            Ok(refused) => refused,
            Err(error) => {
                // Nobody hears of these jobs. What cannot be given back now is so when the claim's lease is over.
                for Claimed { job, .. } in &claimed {
                    let _ = self.give_back(job.id, job.attempt).await;
                }
                return Err(error);
            }
        };
        Ok(claimed.into_iter().filter(|claimed| !refused.contains(&claimed.job.id)).collect())
    }

    /// The jobs that are not to run: they do not fit, or are the claim's no longer.
    async fn reserve(&self, executor: &Executor, jobs: &[&ClaimedJob]) -> Result<HashSet<JobId>> {
        let scope = self.scope(executor);
        let mut rows: Vec<_> = jobs.iter().map(|job| (job.id, job.attempt)).collect();
        rows.sort_unstable();
        let rows = rows.into_iter().map(|(id, attempt)| params![id, attempt].to_vec()).collect();
        let users: Vec<(JobId, Option<UserId>)> = executor.batch(&LOCK_CLAIMED, &params![scope.tenant], rows).await?;
        let users: HashMap<JobId, Option<UserId>> = users.into_iter().collect();
        let payer = |job: &ClaimedJob| {
            let user_id = *users.get(&job.id)?;
            Some(Payer { user_id, agent_id: job.agent_id, model: job.model.clone() })
        };
        let payers: Vec<_> = jobs.iter().map(|job| payer(job)).collect();
        let limited = lock_for(executor, scope.tenant, payers.iter().flatten(), scope.now).await?;
        let mut refused = HashSet::new();
        for (job, payer) in jobs.iter().zip(payers) {
            let Some(payer) = payer else {
                refused.insert(job.id);
                continue;
            };
            let Some(amount) = job.estimated_cost.filter(|_| limited) else { continue };
            match scope.reserve_for(job.id, job.attempt, payer, amount).await {
                Ok(()) => {}
                Err(Error::BudgetExceeded(why)) => {
                    let locked = scope.lock(job.id).await?;
                    let gate = Gate { budget: Some(why.to_string()), ..Gate::default() };
                    queue_again(&scope, &locked, gate, true, None).await?;
                    refused.insert(job.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Lets those go that wait for money and could be paid now; how many. Each round looks at some, the next at those
    /// behind them.
    pub(super) async fn look_at_budgets(&self) -> Result<u64> {
        type Row = (JobId, Option<UserId>, Option<AgentId>, Option<String>, Option<Money>);
        let (tenant, now, executor) = (self.0.tenant, self.0.now(), &self.0.executor);
        let mut from = self.0.marks().last_at_the_gate(tenant);
        let mut waiting: Vec<Row>;
        loop {
            waiting = executor.fetch_all(&GATED, &params![tenant, from, LOOKED_AT as i64]).await?;
            if !waiting.is_empty() || from.0.is_nil() {
                break;
            }
            from = JobId(Uuid::nil());
        }
        let last = waiting.last().filter(|_| waiting.len() == LOOKED_AT).map_or(JobId(Uuid::nil()), |row| row.0);
        self.0.marks().set_last_at_the_gate(tenant, last);
        let mut rooms = Rooms::default();
        let mut fit = Vec::new();
        for (job, user_id, agent_id, model, cost) in waiting {
            let payer = Payer { user_id, agent_id, model };
            if rooms.take(executor, tenant, payer, cost.unwrap_or_default(), now).await? {
                fit.push(job);
            }
        }
        let mut opened = 0;
        for jobs in fit.chunks(super::tend::JOBS_A_TRANSACTION) {
            let open = |executor: Executor| async move {
                let scope = self.scope(&executor);
                let mut opened = 0;
                for job in jobs {
                    let job = scope.lock_if_there(*job).await?;
                    if let Some(job) = job.filter(|job| job.status == JobStatus::Queued) {
                        scope.open(&job, Opens::Budget).await?;
                        opened += 1;
                    }
                }
                Ok(opened)
            };
            opened += executor.transaction(open).await?;
        }
        Ok(opened)
    }

    /// Ends the reservations of jobs that do not run; how many.
    pub(super) async fn end_left_behind(&self) -> Result<u64> {
        let params = params![self.0.tenant, MOST_LEFT_BEHIND];
        let left: Vec<(ReservationId,)> = self.0.executor.fetch_all(&LEFT_BEHIND, &params).await?;
        if left.is_empty() {
            return Ok(0);
        }
        let left = &left;
        let release = |executor: Executor| async move {
            let released = |(id,): &(ReservationId,)| EndOfReservation {
                id: *id,
                status: ReservationStatus::Released,
                cost: Money::ZERO,
                counts: Money::ZERO,
            };
            let ends: Vec<_> = left.iter().map(released).collect();
            Ok(end_in(&executor, self.0.tenant, &ends, self.0.now()).await?.len() as u64)
        };
        self.0.executor.transaction(release).await
    }
}

impl Scope<'_> {
    /// Reserves what an attempt may cost.
    ///
    /// # Errors
    /// [`Error::BudgetExceeded`]; nothing was written then.
    async fn reserve_for(&self, job: JobId, attempt: i32, payer: Payer, amount: Money) -> Result<()> {
        let reservation = Reservation {
            id: self.store.new_id(self.now),
            key: None,
            user_id: payer.user_id,
            agent_id: payer.agent_id,
            model: payer.model,
            amount,
            status: ReservationStatus::Held,
            cost: Money::ZERO,
            expires_at: None,
            job_id: Some(job),
            job_attempt: Some(attempt),
            created_at: self.now,
            updated_at: self.now,
        };
        reserve_in(self.executor, self.tenant, &reservation, self.now).await.map(|_| ())
    }

    /// As [`Jobs::afford`], for a job whose row is locked and that is set to running by hand.
    ///
    /// # Errors
    /// [`Error::BudgetExceeded`].
    pub(super) async fn reserve_by_hand(&self, job: &Locked) -> Result<()> {
        type Row = (Option<UserId>, Option<AgentId>, Option<String>, Money);
        let Some((user_id, agent_id, model, amount)): Option<Row> =
            self.executor.fetch_optional(&COST, &params![self.tenant, job.id]).await?
        else {
            return Ok(());
        };
        let payer = Payer { user_id, agent_id, model };
        if !lock_for(self.executor, self.tenant, std::iter::once(&payer), self.now).await? {
            return Ok(());
        }
        // It is the attempt that begins.
        self.reserve_for(job.id, job.attempt + 1, payer, amount).await
    }

    /// Ends the reservations of attempts that ended, each with whether its job is done, and at what cost beside what
    /// was logged for it. Their rows are locked.
    pub(super) async fn settle(&self, ended: &[(JobId, bool, Option<Money>)]) -> Result<()> {
        type Held = (ReservationId, JobId, Money, Timestamp);
        if ended.is_empty() {
            return Ok(());
        }
        let rows = ended.iter().map(|(job, ..)| params![*job].to_vec()).collect();
        let held: Vec<Held> = self.executor.batch(&HELD, &params![self.tenant], rows).await?;
        let ended: HashMap<JobId, (bool, Option<Money>)> =
            ended.iter().map(|(job, done, cost)| (*job, (*done, *cost))).collect();
        let mut ends = Vec::with_capacity(held.len());
        for (id, job, amount, since) in held {
            let Some((done, cost)) = ended.get(&job) else { continue };
            let (entries, high, low): (i64, i64, i64) =
                self.executor.fetch_one(&LOGGED, &params![self.tenant, job, since]).await?;
            let logged = MoneyTotal::from_halves(high, low);
            // What was logged is counted already.
            let counts = match cost {
                Some(cost) => *cost,
                None if *done && entries == 0 => amount,
                None => Money::ZERO,
            };
            let cost = (logged + counts.into()).to_money("cost").unwrap_or(Money::MAX);
            let status =
                if *done || cost > Money::ZERO { ReservationStatus::Settled } else { ReservationStatus::Released };
            ends.push(EndOfReservation { id, status, cost, counts });
        }
        end_in(self.executor, self.tenant, &ends, self.now).await.map(|_| ())
    }
}
