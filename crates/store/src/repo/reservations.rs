//! Reservations of budgets: what is held of them for work that is about to cost.

use std::collections::BTreeMap;

use agentkeep_core::{
    BudgetExceeded, BudgetId, Direction, Error, LedgerEntry, ListRequest, Money, MoneyTotal, NewReservation, Page,
    Reservation, ReservationId, ReservationStatus, Reserved, Result, TenantId, Timestamp,
};

use super::{
    budgets::{Budgets, LOCK_PERIOD, Payer, Spending, applying, reserved, usage},
    ledger::by_reservation,
    list::list,
    table::{Field, FieldKind, Table, params, record, write_one},
};
use crate::engine::{Executor, Sql, Value};

/// How long a reservation is held when nothing is said.
const HELD_FOR: std::time::Duration = std::time::Duration::from_secs(3600);

macro_rules! columns {
    () => {
        "id, key, user_id, agent_id, model, amount, status, cost, expires_at, job_id, job_attempt, created_at, \
         updated_at"
    };
}

record!(Reservation, &TABLE, {
    id, key, user_id, agent_id, model, amount, status, cost, expires_at, job_id, job_attempt, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "reservation",
    name: "budget_reservations",
    from: "budget_reservations",
    tenant: "tenant_id = $1",
    columns: columns!(),
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

static FORGET_EXPIRED: Sql = Sql::both(
    "DELETE FROM budget_holds WHERE tenant_id = $1 AND budget_id = $2 AND starts_at = $3 AND expires_at <= $4",
);
static RESERVE: Sql = Sql::both(concat!(
    "INSERT INTO budget_reservations (tenant_id, id, key, user_id, agent_id, model, amount, status, cost, expires_at,
         job_id, job_attempt, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 'held', 0, $8, $10, $11, $9, $9)
     RETURNING ",
    columns!(),
));
static HOLD: Sql = Sql::both(
    "INSERT INTO budget_holds (tenant_id, budget_id, starts_at, reservation_id, amount, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6)",
);
static GET_RESERVATION: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM budget_reservations WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_KEY: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM budget_reservations WHERE tenant_id = $1 AND key = $2")).short();
static END: Sql = Sql::both(concat!(
    "UPDATE budget_reservations SET status = $3, cost = $4, updated_at = $5
     WHERE tenant_id = $1 AND id = $2 AND status = 'held' RETURNING ",
    columns!(),
));
// Of several entries that name one reservation the first settles it; the cost of the others is added.
static SETTLE_BY_ENTRY: Sql = Sql::both(
    "UPDATE budget_reservations SET status = 'settled', cost = cost + $3, updated_at = $4
     WHERE tenant_id = $1 AND id = $2",
);
static LET_GO: Sql =
    Sql::both("DELETE FROM budget_holds WHERE tenant_id = $1 AND reservation_id = $2 RETURNING budget_id, starts_at");

/// Every fixed statement about reservations.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&FORGET_EXPIRED, &RESERVE, &HOLD, &GET_RESERVATION, &GET_BY_KEY, &END, &SETTLE_BY_ENTRY, &LET_GO]);

impl Budgets<'_> {
    /// Reserves an amount in every budget that applies to that user, agent and model: all of them or none. Whatever
    /// races, what is spent and reserved of a hard budget does not pass its limit by this. Soft budgets that are passed
    /// are told in the answer. A key that is taken gives its reservation back, as it is now.
    ///
    /// Inside a transaction ([`crate::TenantStore::transaction`], [`crate::Store::tenant_in`]) it is done with it or not at
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
            let found = found.ok_or_else(|| Error::not_found(TABLE.entity, id))?;
            if (found.status, found.cost) == (status, cost) {
                return Ok(found);
            }
            Err(Error::IllegalTransition {
                entity: TABLE.entity,
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
    let made: Reservation = write_one(executor, &TABLE, &RESERVE, &params, &held).await?;
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

/// Takes away what a reservation holds: of which period of each budget it was.
async fn let_go(executor: &Executor, tenant: TenantId, id: ReservationId) -> Result<BTreeMap<BudgetId, Timestamp>> {
    let held: Vec<(BudgetId, Timestamp)> = executor.fetch_all(&LET_GO, &params![tenant, id]).await?;
    Ok(held.into_iter().collect())
}

/// Settles the reservations that entries name, in the transaction that logs them: what each held of which period of
/// each budget.
pub(super) async fn settle_logged(
    executor: &Executor,
    tenant: TenantId,
    entries: &[&LedgerEntry],
    now: Timestamp,
) -> Result<BTreeMap<ReservationId, BTreeMap<BudgetId, Timestamp>>> {
    let mut held = BTreeMap::new();
    for (id, entries) in by_reservation(entries) {
        let cost: MoneyTotal = entries.iter().filter_map(|entry| entry.cost).sum();
        let params = params![tenant, id, cost.to_money("cost")?, now];
        if executor.execute(&SETTLE_BY_ENTRY, &params).await? == 0 {
            return Err(Error::MissingReference {
                field: "reservation_id".into(),
                entity: TABLE.entity,
                value: id.to_string(),
            });
        }
        held.insert(id, let_go(executor, tenant, id).await?);
    }
    Ok(held)
}
