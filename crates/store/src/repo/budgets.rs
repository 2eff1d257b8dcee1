//! Budgets and their reservations.
//!
//! What is spent of a budget in a period stands in a row of `budget_periods`. Reserving locks that row of every budget
//! that applies, in the order of their ids, so that of two reservations the second sees what the first one holds.
//! What is reserved is the sum of `budget_holds` that have not expired: nobody has to release what expires.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use agentkeep_core::{
    AgentId, Budget, BudgetExceeded, BudgetId, BudgetPatch, BudgetPeriod, BudgetScope, BudgetUsage, Direction, Error,
    LedgerDimension, LedgerEntry, LedgerStatisticsRequest, ListRequest, Money, MoneyTotal, NewBudget, NewReservation,
    Page, Reservation, ReservationId, ReservationStatus, Reserved, Result, TenantId, Timestamp, UserId,
};

use super::{
    ledger::by_reservation,
    ledger_rollups, ledger_statistics,
    list::list,
    table::{Changes, Field, FieldKind, Reference, Table, delete, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The budgets of a tenant, and their reservations.
pub struct Budgets<'a>(pub(super) &'a TenantStore);

/// How long a reservation is held when nothing is said.
const HELD_FOR: std::time::Duration = std::time::Duration::from_secs(3600);

macro_rules! columns {
    () => {
        "id, name, scope, user_id, agent_id, model, period, amount, hard, counts_from, metadata, created_at, updated_at"
    };
}

record!(Budget, &TABLE, {
    id, name, scope, user_id, agent_id, model, period, limit, hard, counts_from, metadata, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "budget",
    name: "budgets",
    from: "budgets",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text),
        Field::new("scope", FieldKind::Text).sortable(),
        Field::new("user_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("model", FieldKind::Text),
        Field::new("period", FieldKind::Text).sortable(),
        Field::new("limit", FieldKind::Money).column("amount"),
        Field::new("hard", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[Reference::new("user_id", "user", "users"), Reference::new("agent_id", "agent", "agents")],
};

macro_rules! reservation_columns {
    () => {
        "id, key, user_id, agent_id, model, amount, status, cost, expires_at, job_id, job_attempt, created_at, \
         updated_at"
    };
}

record!(Reservation, &RESERVATIONS, {
    id, key, user_id, agent_id, model, amount, status, cost, expires_at, job_id, job_attempt, created_at, updated_at,
});

static RESERVATIONS: Table = Table {
    entity: "reservation",
    name: "budget_reservations",
    from: "budget_reservations",
    tenant: "tenant_id = $1",
    columns: reservation_columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("key", FieldKind::Text),
        Field::new("user_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("model", FieldKind::Text),
        Field::new("amount", FieldKind::Money),
        Field::new("status", FieldKind::Text),
        Field::new("cost", FieldKind::Money),
        Field::new("expires_at", FieldKind::Time),
        Field::new("job_id", FieldKind::Uuid),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
    ],
    unique: &[&["key"]],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO budgets (tenant_id, id, name, scope, user_id, agent_id, model, period, amount, hard, counts_from,
         metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM budgets WHERE tenant_id = $1 AND id = $2")).short();
static ALL: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM budgets WHERE tenant_id = $1 ORDER BY id"));
static APPLYING: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM budgets WHERE tenant_id = $1 AND (scope = 'tenant' OR user_id = $2 OR agent_id = $3 OR model = $4) ORDER BY id"
));
static DELETE: Sql = Sql::both("DELETE FROM budgets WHERE tenant_id = $1 AND id = $2");
// Locks the period's row, and makes it if there is none.
static LOCK_PERIOD: Sql = Sql::both(
    "INSERT INTO budget_periods (tenant_id, budget_id, starts_at, spent) VALUES ($1, $2, $3, 0)
     ON CONFLICT (tenant_id, budget_id, starts_at) DO UPDATE SET spent = budget_periods.spent
     RETURNING spent",
);
// The counter stops at the largest amount there is: a budget of that size is passed then, whatever follows.
static SPEND: Sql = Sql::both(
    "INSERT INTO budget_periods (tenant_id, budget_id, starts_at, spent) VALUES ($1, $2, $3, $4)
     ON CONFLICT (tenant_id, budget_id, starts_at) DO UPDATE SET
         spent = CASE WHEN budget_periods.spent > 9223372036854775807 - excluded.spent THEN 9223372036854775807
                 ELSE budget_periods.spent + excluded.spent END",
);
static SPENT: Sql =
    Sql::both("SELECT spent FROM budget_periods WHERE tenant_id = $1 AND budget_id = $2 AND starts_at = $3").short();
static FORGET_EXPIRED: Sql = Sql::both(
    "DELETE FROM budget_holds WHERE tenant_id = $1 AND budget_id = $2 AND starts_at = $3 AND expires_at <= $4",
);
static RESERVED: Sql = Sql::both(
    "SELECT CAST(COALESCE(SUM(amount >> 32), 0) AS int8), CAST(COALESCE(SUM(amount & 4294967295), 0) AS int8)
     FROM budget_holds
     WHERE tenant_id = $1 AND budget_id = $2 AND starts_at = $3 AND (expires_at IS NULL OR expires_at > $4)",
);
static RESERVE: Sql = Sql::both(concat!(
    "INSERT INTO budget_reservations (tenant_id, id, key, user_id, agent_id, model, amount, status, cost, expires_at,
         job_id, job_attempt, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 'held', 0, $8, $10, $11, $9, $9)
     RETURNING ",
    reservation_columns!(),
));
static HOLD: Sql = Sql::both(
    "INSERT INTO budget_holds (tenant_id, budget_id, starts_at, reservation_id, amount, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6)",
);
static GET_RESERVATION: Sql =
    Sql::both(concat!("SELECT ", reservation_columns!(), " FROM budget_reservations WHERE tenant_id = $1 AND id = $2"))
        .short();
static GET_BY_KEY: Sql = Sql::both(concat!(
    "SELECT ",
    reservation_columns!(),
    " FROM budget_reservations WHERE tenant_id = $1 AND key = $2"
))
.short();
static END: Sql = Sql::both(concat!(
    "UPDATE budget_reservations SET status = $3, cost = $4, updated_at = $5
     WHERE tenant_id = $1 AND id = $2 AND status = 'held' RETURNING ",
    reservation_columns!(),
));
// Of several entries that name one reservation the first settles it; the cost of the others is added.
static SETTLE_BY_ENTRY: Sql = Sql::both(
    "UPDATE budget_reservations SET status = 'settled', cost = cost + $3, updated_at = $4
     WHERE tenant_id = $1 AND id = $2",
);
static LET_GO: Sql =
    Sql::both("DELETE FROM budget_holds WHERE tenant_id = $1 AND reservation_id = $2 RETURNING budget_id, starts_at");

/// Every fixed statement about budgets.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &GET, &ALL, &APPLYING, &DELETE, &LOCK_PERIOD, &SPEND, &SPENT, &FORGET_EXPIRED, &RESERVED]);

/// Every fixed statement about reservations.
#[cfg(any(test, feature = "conformance"))]
pub(super) static RESERVATION_STATEMENTS: super::Statements =
    (&RESERVATIONS, &[&RESERVE, &HOLD, &GET_RESERVATION, &GET_BY_KEY, &END, &SETTLE_BY_ENTRY, &LET_GO]);

impl Budgets<'_> {
    /// Creates a budget. What was spent in its present period before, by the ledger, is counted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, a limit of 0 or less among them,
    /// [`Error::AlreadyExists`] when the id is taken, [`Error::MissingReference`] when user or agent do not exist in
    /// this tenant.
    pub async fn create(&self, new: NewBudget) -> Result<Budget> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let new = &new;
        let create = |store: TenantStore| async move {
            let (executor, tenant) = (&store.executor, store.tenant);
            // Nobody logs until the budget is there: an entry is counted below, or by who logs it.
            ledger_rollups::lock_out_writers(executor, tenant).await?;
            let held = [
                ("id", Value::from(id)),
                ("user_id", Value::from(new.user_id)),
                ("agent_id", Value::from(new.agent_id)),
            ];
            let params = params![
                tenant,
                id,
                new.name.clone(),
                new.scope,
                new.user_id,
                new.agent_id,
                new.model.clone(),
                new.period,
                new.limit,
                new.hard,
                new.period.start(now),
                new.metadata.clone(),
                now,
            ];
            let budget: Budget = write_one(executor, &TABLE, &CREATE, &params, &held).await?;
            for (start, cost) in spent_before(&store, &budget).await? {
                let spent = Money::from_units(i64::try_from(cost.units()).unwrap_or(i64::MAX));
                executor.execute(&SPEND, &params![tenant, id, start, spent]).await?;
            }
            Ok(budget)
        };
        match self.0.transaction(create).await {
            Err(error @ Error::Database { .. }) => {
                Err(super::table::explain(&self.0.executor, &TABLE, &params![self.0.tenant], &[], error).await)
            }
            outcome => outcome,
        }
    }

    /// The budget with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: BudgetId) -> Result<Option<Budget>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the budgets. Filters: id, name, scope, user_id, agent_id, model, period, limit, hard, created_at,
    /// updated_at, metadata.PATH. Orders: id, scope, period, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Budget>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a budget; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] for a limit of 0 or less or an empty name.
    pub async fn update(&self, id: BudgetId, patch: BudgetPatch) -> Result<Budget> {
        patch.check()?;
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("name", patch.name);
        changes.set("amount", patch.limit);
        changes.set("hard", patch.hard);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &[]).await
    }

    /// Deletes a budget. Reservations stay, and hold nothing of it any more.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: BudgetId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// What is spent and reserved of a budget in its present period.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn usage(&self, id: BudgetId) -> Result<BudgetUsage> {
        self.usage_at(id, self.0.now()).await
    }

    /// What is spent and reserved of a budget in the period that holds that time.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn usage_at(&self, id: BudgetId, time: Timestamp) -> Result<BudgetUsage> {
        let budget = self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))?;
        let starts_at = budget.period.start(time);
        let params = params![self.0.tenant, id, starts_at];
        let spent: Option<(Money,)> = self.0.executor.fetch_optional(&SPENT, &params).await?;
        let reserved = reserved(&self.0.executor, self.0.tenant, id, starts_at, self.0.now()).await?;
        Ok(usage(&budget, time, spent.map_or(Money::ZERO, |(spent,)| spent), reserved))
    }

    /// Reserves an amount in every budget that applies to that user, agent and model: all of them or none. Whatever
    /// races, what is spent and reserved of a hard budget does not pass its limit by this. Soft budgets that are passed
    /// are told in the answer. A key that is taken gives its reservation back, as it is now.
    ///
    /// Inside a transaction ([`TenantStore::transaction`], [`crate::Store::tenant_in`]) it is done with it or not at
    /// all; after [`Error::BudgetExceeded`] nothing is reserved and the transaction goes on. The budgets' periods stay
    /// locked until its end, so it should end soon.
    ///
    /// # Errors
    /// [`Error::BudgetExceeded`] with the first hard budget that does not allow it, [`Error::Invalid`] for a value
    /// that breaks a rule, for an expiry in the past, and for tokens without a price.
    pub async fn reserve(&self, new: NewReservation) -> Result<Reserved> {
        new.check()?;
        let now = self.0.now();
        let amount = self.amount(&new, now).await?;
        let expires_at = new.expires_at.unwrap_or_else(|| now.plus(HELD_FOR));
        if expires_at <= now {
            return Err(Error::invalid("expires_at", format!("{expires_at} is past")));
        }
        let (tenant, new) = (self.0.tenant, &new);
        let reservation = Reservation {
            id: self.0.new_id(now),
            key: new.key.clone(),
            user_id: new.user_id,
            agent_id: new.agent_id,
            model: new.model.clone(),
            amount,
            status: ReservationStatus::Held,
            cost: Money::ZERO,
            expires_at: Some(expires_at),
            job_id: None,
            job_attempt: None,
            created_at: now,
            updated_at: now,
        };
        let reservation = &reservation;
        let reserve = |executor: Executor| async move {
            if let Some(first) = by_key(&executor, tenant, new.key.as_deref()).await? {
                return Ok(Reserved { reservation: first, over: Vec::new() });
            }
            reserve_in(&executor, tenant, reservation, now).await
        };
        match self.0.executor.transaction(reserve).await {
            Err(error @ (Error::AlreadyExists { .. } | Error::Database { .. })) => {
                // Somebody else was first with the key.
                match by_key(&self.0.executor, tenant, new.key.as_deref()).await? {
                    Some(first) => Ok(Reserved { reservation: first, over: Vec::new() }),
                    None => Err(error),
                }
            }
            outcome => outcome,
        }
    }

    async fn amount(&self, new: &NewReservation, now: Timestamp) -> Result<Money> {
        match (new.amount, &new.tokens, &new.model) {
            (Some(amount), ..) => Ok(amount),
            (None, Some(tokens), Some(model)) => {
                let provider = new.provider.as_deref().unwrap_or_default();
                let cost = self.0.prices().cost(provider, model, tokens, now).await?;
                cost.ok_or_else(|| {
                    Error::invalid("tokens", format!("{model} has no price now for every kind of them; give an amount"))
                })
            }
            _ => Err(Error::invalid("amount", "is missing; give an amount, or tokens and their model")),
        }
    }

    /// The reservation with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_reservation(&self, id: ReservationId) -> Result<Option<Reservation>> {
        self.0.executor.fetch_optional(&GET_RESERVATION, &params![self.0.tenant, id]).await
    }

    /// One page of the reservations. Filters: id, key, user_id, agent_id, model, amount, status, cost, expires_at,
    /// job_id, created_at, updated_at. Orders: id, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list_reservations(&self, request: &ListRequest) -> Result<Page<Reservation>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Settles a reservation with what the work cost: that is spent, the rest given back. It is for cost that is not
    /// logged; an entry of the ledger that names its reservation settles it by itself. Settling again with the same
    /// cost changes nothing. One that has expired can be settled: the money is gone.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a cost below 0, [`Error::IllegalTransition`] when it was released,
    /// or settled with another cost.
    pub async fn settle(&self, id: ReservationId, cost: Money) -> Result<Reservation> {
        if cost.is_negative() {
            return Err(Error::invalid("cost", format!("is {cost} USD; it must not be negative")));
        }
        self.end(id, ReservationStatus::Settled, cost).await
    }

    /// Gives everything back that a reservation holds. Releasing again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::IllegalTransition`] when it was settled.
    pub async fn release(&self, id: ReservationId) -> Result<Reservation> {
        self.end(id, ReservationStatus::Released, Money::ZERO).await
    }

    async fn end(&self, id: ReservationId, status: ReservationStatus, cost: Money) -> Result<Reservation> {
        let (tenant, now) = (self.0.tenant, self.0.now());
        let end = |executor: Executor| async move {
            let end = EndOfReservation { id, status, cost, counts: cost };
            if let Some(ended) = end_in(&executor, tenant, &[end], now).await?.pop() {
                return Ok(ended);
            }
            let found: Option<Reservation> = executor.fetch_optional(&GET_RESERVATION, &params![tenant, id]).await?;
            let found = found.ok_or_else(|| Error::not_found(RESERVATIONS.entity, id))?;
            if (found.status, found.cost) == (status, cost) {
                return Ok(found);
            }
            Err(Error::IllegalTransition {
                entity: RESERVATIONS.entity,
                key: id.to_string(),
                from: found.status.to_string(),
                to: status.to_string(),
            })
        };
        self.0.executor.transaction(end).await
    }
}

/// What becomes of a reservation.
pub(super) struct EndOfReservation {
    pub id: ReservationId,
    pub status: ReservationStatus,
    /// What the work cost.
    pub cost: Money,
    /// What of it is not counted as spent yet.
    pub counts: Money,
}

/// Ends reservations in a transaction that is already open; those that were held until now.
pub(super) async fn end_in(
    executor: &Executor,
    tenant: TenantId,
    ends: &[EndOfReservation],
    now: Timestamp,
) -> Result<Vec<Reservation>> {
    let mut ended = Vec::with_capacity(ends.len());
    let mut sums = Spending::default();
    // Reservations before budgets, as in logging.
    for end in ends {
        let params = params![tenant, end.id, end.status, end.cost, now];
        let Some(reservation) = executor.fetch_optional::<Reservation>(&END, &params).await? else { continue };
        let held = let_go(executor, tenant, end.id).await?;
        if end.counts > Money::ZERO {
            for budget in applying(executor, tenant, &Payer::of(&reservation)).await? {
                sums.add(&budget, held.get(&budget.id).copied(), now, end.counts);
            }
        }
        ended.push(reservation);
    }
    sums.write(executor, tenant).await?;
    Ok(ended)
}

/// For whom something is spent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Payer {
    pub user_id: Option<UserId>,
    pub agent_id: Option<AgentId>,
    pub model: Option<String>,
}

impl Payer {
    fn of(reservation: &Reservation) -> Self {
        Self { user_id: reservation.user_id, agent_id: reservation.agent_id, model: reservation.model.clone() }
    }
}

/// Locks the present periods of all budgets that apply to any of the payers, in the order in which reserving does.
/// Whether there are any.
pub(super) async fn lock_for(
    executor: &Executor,
    tenant: TenantId,
    payers: impl Iterator<Item = &Payer>,
    now: Timestamp,
) -> Result<bool> {
    let mut budgets = BTreeMap::new();
    for payer in payers.collect::<HashSet<_>>() {
        for budget in applying(executor, tenant, payer).await? {
            budgets.insert(budget.id, budget.period.start(now));
        }
    }
    for (budget, starts_at) in &budgets {
        executor.fetch_one::<(Money,)>(&LOCK_PERIOD, &params![tenant, *budget, *starts_at]).await?;
    }
    Ok(!budgets.is_empty())
}

/// What is left of hard budgets, as somebody sees it who looks at many reservations without making them.
#[derive(Default)]
pub(super) struct Rooms {
    budgets: HashMap<Payer, Vec<BudgetId>>,
    left: HashMap<BudgetId, MoneyTotal>,
}

impl Rooms {
    /// Whether an amount fits all budgets that apply. One that does takes its room from those that are asked about
    /// after it.
    pub(super) async fn take(
        &mut self,
        executor: &Executor,
        tenant: TenantId,
        payer: Payer,
        amount: Money,
        now: Timestamp,
    ) -> Result<bool> {
        if !self.budgets.contains_key(&payer) {
            let mut budgets = Vec::new();
            for budget in applying(executor, tenant, &payer).await?.into_iter().filter(|budget| budget.hard) {
                budgets.push(budget.id);
                if let Entry::Vacant(entry) = self.left.entry(budget.id) {
                    let starts_at = budget.period.start(now);
                    let spent: Option<(Money,)> =
                        executor.fetch_optional(&SPENT, &params![tenant, budget.id, starts_at]).await?;
                    let reserved = reserved(executor, tenant, budget.id, starts_at, now).await?;
                    let spent = MoneyTotal::from(spent.map_or(Money::ZERO, |(spent,)| spent));
                    entry.insert(MoneyTotal::from(budget.limit) - (spent + reserved));
                }
            }
            self.budgets.insert(payer.clone(), budgets);
        }
        let (amount, budgets) = (MoneyTotal::from(amount), &self.budgets[&payer]);
        if budgets.iter().any(|budget| self.left[budget] < amount) {
            return Ok(false);
        }
        for budget in budgets {
            if let Some(left) = self.left.get_mut(budget) {
                *left = *left - amount;
            }
        }
        Ok(true)
    }
}

/// Reserves in a transaction that is already open. After [`Error::BudgetExceeded`] it can go on: nothing was written.
pub(super) async fn reserve_in(
    executor: &Executor,
    tenant: TenantId,
    reservation: &Reservation,
    now: Timestamp,
) -> Result<Reserved> {
    let mut over = Vec::new();
    let mut holds = Vec::new();
    for budget in applying(executor, tenant, &Payer::of(reservation)).await? {
        let starts_at = budget.period.start(now);
        let period = params![tenant, budget.id, starts_at];
        // From here on nobody else reserves or spends of it, and what they did before is seen.
        let (spent,): (Money,) = executor.fetch_one(&LOCK_PERIOD, &period).await?;
        executor.execute(&FORGET_EXPIRED, &params![tenant, budget.id, starts_at, now]).await?;
        let reserved = reserved(executor, tenant, budget.id, starts_at, now).await?;
        let with = reserved + reservation.amount.into();
        if MoneyTotal::from(spent) + with > budget.limit.into() {
            if budget.hard {
                return Err(Error::BudgetExceeded(Box::new(BudgetExceeded {
                    budget: budget.id,
                    limit: budget.limit,
                    spent,
                    reserved,
                    asked: reservation.amount,
                    renews_at: budget.period.end(now),
                })));
            }
            over.push(usage(&budget, now, spent, with));
        }
        holds.push((budget.id, starts_at));
    }
    let held = [("key", Value::from(reservation.key.clone()))];
    let params = params![
        tenant,
        reservation.id,
        reservation.key.clone(),
        reservation.user_id,
        reservation.agent_id,
        reservation.model.clone(),
        reservation.amount,
        reservation.expires_at,
        now,
        reservation.job_id,
        reservation.job_attempt,
    ];
    let made: Reservation = write_one(executor, &RESERVATIONS, &RESERVE, &params, &held).await?;
    for (budget, starts_at) in holds {
        let params = params![tenant, budget, starts_at, made.id, made.amount, made.expires_at];
        executor.execute(&HOLD, &params).await?;
    }
    Ok(Reserved { reservation: made, over })
}

async fn by_key(executor: &Executor, tenant: TenantId, key: Option<&str>) -> Result<Option<Reservation>> {
    match key {
        Some(key) => executor.fetch_optional(&GET_BY_KEY, &params![tenant, key]).await,
        None => Ok(None),
    }
}

/// The budgets that apply, in the order in which they are locked.
async fn applying(executor: &Executor, tenant: TenantId, payer: &Payer) -> Result<Vec<Budget>> {
    let params = params![tenant, payer.user_id, payer.agent_id, payer.model.clone()];
    executor.fetch_all(&APPLYING, &params).await
}

async fn reserved(
    executor: &Executor,
    tenant: TenantId,
    budget: BudgetId,
    starts_at: Timestamp,
    now: Timestamp,
) -> Result<MoneyTotal> {
    let (high, low): (i64, i64) = executor.fetch_one(&RESERVED, &params![tenant, budget, starts_at, now]).await?;
    Ok(MoneyTotal::from_halves(high, low))
}

/// Takes away what a reservation holds: of which period of each budget it was.
async fn let_go(executor: &Executor, tenant: TenantId, id: ReservationId) -> Result<BTreeMap<BudgetId, Timestamp>> {
    let held: Vec<(BudgetId, Timestamp)> = executor.fetch_all(&LET_GO, &params![tenant, id]).await?;
    Ok(held.into_iter().collect())
}

fn usage(budget: &Budget, time: Timestamp, spent: Money, reserved: MoneyTotal) -> BudgetUsage {
    BudgetUsage {
        budget_id: budget.id,
        starts_at: budget.period.start(time),
        ends_at: budget.period.end(time),
        limit: budget.limit,
        spent,
        reserved,
    }
}

/// What is spent of which period of which budget, in the order in which their rows are locked.
#[derive(Default)]
struct Spending(BTreeMap<(BudgetId, Timestamp), MoneyTotal>);

impl Spending {
    /// Counts a cost: in the period in which it was reserved, else in that of its time. Periods before the budget's
    /// first one are not counted.
    fn add(&mut self, budget: &Budget, reserved_in: Option<Timestamp>, time: Timestamp, cost: Money) {
        let starts_at = reserved_in.unwrap_or_else(|| budget.period.start(time));
        if starts_at >= budget.counts_from && cost > Money::ZERO {
            *self.0.entry((budget.id, starts_at)).or_default() += cost.into();
        }
    }

    async fn write(self, executor: &Executor, tenant: TenantId) -> Result<()> {
        for ((budget, starts_at), cost) in self.0 {
            let cost = Money::from_units(i64::try_from(cost.units()).unwrap_or(i64::MAX));
            executor.execute(&SPEND, &params![tenant, budget, starts_at, cost]).await?;
        }
        Ok(())
    }
}

/// Counts entries in the budgets they belong to, and settles the reservations they name: in the transaction that logs
/// them. Without budgets and reservations it costs one short read.
pub(super) async fn spend(
    executor: &Executor,
    tenant: TenantId,
    entries: &[&LedgerEntry],
    now: Timestamp,
) -> Result<()> {
    // Reservations before budgets, as in settling.
    let mut held: BTreeMap<ReservationId, BTreeMap<BudgetId, Timestamp>> = BTreeMap::new();
    for (id, entries) in by_reservation(entries) {
        let cost: MoneyTotal = entries.iter().filter_map(|entry| entry.cost).sum();
        let params = params![tenant, id, cost.to_money("cost")?, now];
        if executor.execute(&SETTLE_BY_ENTRY, &params).await? == 0 {
            return Err(Error::MissingReference {
                field: "reservation_id".into(),
                entity: RESERVATIONS.entity,
                value: id.to_string(),
            });
        }
        held.insert(id, let_go(executor, tenant, id).await?);
    }
    let budgets: Vec<Budget> = match entries {
        [entry] => {
            let params = params![tenant, entry.user_id, entry.agent_id, entry.model.clone()];
            executor.fetch_all(&APPLYING, &params).await?
        }
        _ => executor.fetch_all(&ALL, &params![tenant]).await?,
    };
    let mut sums = Spending::default();
    for entry in entries {
        let reserved = entry.reservation_id.and_then(|id| held.get(&id));
        for budget in &budgets {
            if budget.applies_to(entry.user_id, entry.agent_id, entry.model.as_deref()) {
                let reserved_in = reserved.and_then(|held| held.get(&budget.id)).copied();
                sums.add(budget, reserved_in, entry.created_at, entry.cost.unwrap_or_default());
            }
        }
    }
    sums.write(executor, tenant).await
}

/// What the ledger says was spent of a budget since the start of its first period, by period.
async fn spent_before(store: &TenantStore, budget: &Budget) -> Result<BTreeMap<Timestamp, MoneyTotal>> {
    let by = match budget.period {
        BudgetPeriod::Hour => vec![LedgerDimension::Hour],
        BudgetPeriod::Day | BudgetPeriod::Week | BudgetPeriod::Month => vec![LedgerDimension::Day],
        BudgetPeriod::Total => Vec::new(),
    };
    let mut request = LedgerStatisticsRequest { by, ..LedgerStatisticsRequest::default() }.from(budget.counts_from);
    match budget.scope {
        BudgetScope::Tenant => {}
        BudgetScope::User => request.user_id = budget.user_id,
        BudgetScope::Agent => request.agent_id = budget.agent_id,
        BudgetScope::Model => request.model.clone_from(&budget.model),
    }
    let mut periods = BTreeMap::new();
    for group in ledger_statistics::statistics(store, &request).await? {
        let start = budget.period.start(group.start.unwrap_or(budget.counts_from));
        *periods.entry(start).or_default() += group.cost;
    }
    periods.retain(|_, cost| *cost > MoneyTotal::ZERO);
    Ok(periods)
}
