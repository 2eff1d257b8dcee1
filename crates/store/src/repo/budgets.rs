//! Budgets: what may be spent in a period, and what is. Their reservations: reservations.rs.
//!
//! What is spent of a budget in a period stands in a row of `budget_periods`. Reserving locks that row of every budget
//! that applies, in the order of their ids, so that of two reservations the second sees what the first one holds.
//! What is reserved is the sum of `budget_holds` that have not expired: nobody has to release what expires.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use agentkeep_core::{
    AgentId, Budget, BudgetId, BudgetPatch, BudgetPeriod, BudgetScope, BudgetUsage, Direction, Error, LedgerDimension,
    LedgerEntry, LedgerStatisticsRequest, ListRequest, Money, MoneyTotal, NewBudget, Page, Reservation, Result,
    TenantId, Timestamp, UserId,
};

use super::{
    ledger_rollups, ledger_statistics,
    list::list,
    reservations,
    table::{Changes, Field, FieldKind, Reference, Table, delete, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The budgets of a tenant, and their reservations.
pub struct Budgets<'a>(pub(super) &'a TenantStore);

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
pub(super) static LOCK_PERIOD: Sql = Sql::both(
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
static RESERVED: Sql = Sql::both(
    "SELECT CAST(COALESCE(SUM(amount >> 32), 0) AS int8), CAST(COALESCE(SUM(amount & 4294967295), 0) AS int8)
     FROM budget_holds
     WHERE tenant_id = $1 AND budget_id = $2 AND starts_at = $3 AND (expires_at IS NULL OR expires_at > $4)",
);

/// Every fixed statement about budgets.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &GET, &ALL, &APPLYING, &DELETE, &LOCK_PERIOD, &SPEND, &SPENT, &RESERVED]);

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
}

/// For whom something is spent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Payer {
    pub user_id: Option<UserId>,
    pub agent_id: Option<AgentId>,
    pub model: Option<String>,
}

impl Payer {
    pub(super) fn of(reservation: &Reservation) -> Self {
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

/// The budgets that apply, in the order in which they are locked.
pub(super) async fn applying(executor: &Executor, tenant: TenantId, payer: &Payer) -> Result<Vec<Budget>> {
    let params = params![tenant, payer.user_id, payer.agent_id, payer.model.clone()];
    executor.fetch_all(&APPLYING, &params).await
}

pub(super) async fn reserved(
    executor: &Executor,
    tenant: TenantId,
    budget: BudgetId,
    starts_at: Timestamp,
    now: Timestamp,
) -> Result<MoneyTotal> {
    let (high, low): (i64, i64) = executor.fetch_one(&RESERVED, &params![tenant, budget, starts_at, now]).await?;
    Ok(MoneyTotal::from_halves(high, low))
}

pub(super) fn usage(budget: &Budget, time: Timestamp, spent: Money, reserved: MoneyTotal) -> BudgetUsage {
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
pub(super) struct Spending(BTreeMap<(BudgetId, Timestamp), MoneyTotal>);

impl Spending {
    /// Counts a cost: in the period in which it was reserved, else in that of its time. Periods before the budget's
    /// first one are not counted.
    pub(super) fn add(&mut self, budget: &Budget, reserved_in: Option<Timestamp>, time: Timestamp, cost: Money) {
        let starts_at = reserved_in.unwrap_or_else(|| budget.period.start(time));
        if starts_at >= budget.counts_from && cost > Money::ZERO {
            *self.0.entry((budget.id, starts_at)).or_default() += cost.into();
        }
    }

    pub(super) async fn write(self, executor: &Executor, tenant: TenantId) -> Result<()> {
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
    let held = reservations::settle_logged(executor, tenant, entries, now).await?;
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
