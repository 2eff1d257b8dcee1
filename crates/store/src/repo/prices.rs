//! Prices of tokens.

use agentkeep_core::{
    Direction, Error, ListRequest, Money, NewPrice, Page, Price, PriceId, PricePatch, Result, TenantId, Timestamp,
    TokenCounts, cost_of,
};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Table, delete, explain, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The prices of a tenant.
pub struct Prices<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, provider, model, kind, per_token, valid_from, valid_to, metadata, created_at, updated_at"
    };
}

record!(Price, &TABLE, {
    id, provider, model, kind, per_token, valid_from, valid_to, metadata, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "price",
    name: "prices",
    from: "prices",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("provider", FieldKind::Text),
        Field::new("model", FieldKind::Text).sortable(),
        Field::new("kind", FieldKind::Text).sortable(),
        Field::new("per_token", FieldKind::Money),
        Field::new("valid_from", FieldKind::Time).sortable(),
        Field::new("valid_to", FieldKind::Time),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[],
};

// Locks the row of the model: of two who change its prices at once, the second sees what the first has done.
static LOCK_MODEL: Sql = Sql::both(
    "INSERT INTO price_models (tenant_id, model, changes) VALUES ($1, $2, 1)
     ON CONFLICT (tenant_id, model) DO UPDATE SET changes = price_models.changes + 1",
);
static OVERLAPPING: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM prices
      WHERE tenant_id = $1 AND model = $2 AND kind = $3 AND (provider = $4 OR (provider IS NULL AND $4 IS NULL))
          AND valid_from < $6 AND (valid_to IS NULL OR valid_to > $5) AND id <> $7
      ORDER BY valid_from LIMIT 1"
));
static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO prices (tenant_id, id, provider, model, kind, per_token, valid_from, valid_to, metadata, created_at,
         updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM prices WHERE tenant_id = $1 AND id = $2")).short();
static OF_MODEL: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM prices WHERE tenant_id = $1 AND model = $2")).short();
static DELETE: Sql = Sql::both("DELETE FROM prices WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&LOCK_MODEL, &OVERLAPPING, &CREATE, &GET, &OF_MODEL, &DELETE]);

impl Prices<'_> {
    /// Creates a price. Costs that were computed before stay as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::PriceOverlap`] when another price of the same
    /// provider, model and kind is valid at a time of this one, [`Error::AlreadyExists`] when the id is taken.
    pub async fn create(&self, new: NewPrice) -> Result<Price> {
        new.check()?;
        let (tenant, now) = (self.0.tenant, self.0.now());
        let price = Price {
            id: new.id.unwrap_or_else(|| self.0.new_id(now)),
            per_token: new.amount()?,
            provider: new.provider,
            model: new.model,
            kind: new.kind,
            valid_from: new.valid_from.unwrap_or(now),
            valid_to: new.valid_to,
            metadata: new.metadata,
            created_at: now,
            updated_at: now,
        };
        check_range(&price)?;
        let price = &price;
        let create = |executor: Executor| async move {
            lock_and_check(&executor, tenant, price).await?;
            let held = [("id", Value::from(price.id))];
            let params = params![
                tenant,
                price.id,
                price.provider.clone(),
                price.model.as_str(),
                price.kind,
                price.per_token,
                price.valid_from,
                price.valid_to,
                price.metadata.clone(),
                now,
            ];
            write_one(&executor, &TABLE, &CREATE, &params, &held).await
        };
        match self.0.executor.transaction(create).await {
            Ok(price) => Ok(price),
            Err(error) => Err(explain(&self.0.executor, &TABLE, &params![tenant], &[], error).await),
        }
    }

    /// The price with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: PriceId) -> Result<Option<Price>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the prices. Filters: id, provider, model, kind, per_token, valid_from, valid_to, created_at,
    /// updated_at, metadata.PATH. Orders: id, model, kind, valid_from, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Price>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// What tokens cost at a time; `None` when a kind that is used has no price then.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is more than about 9.2 million dollars.
    pub async fn cost(
        &self,
        provider: &str,
        model: &str,
        tokens: &TokenCounts,
        time: Timestamp,
    ) -> Result<Option<Money>> {
        cost_of(&self.of_model(model).await?, provider, tokens, time)
    }

    /// Every price of a model, of all times and providers.
    pub(super) async fn of_model(&self, model: &str) -> Result<Vec<Price>> {
        self.0.executor.fetch_all(&OF_MODEL, &params![self.0.tenant, model]).await
    }

    /// Changes a price; what the patch leaves out stays. Costs that were computed before stay as they are.
    ///
    /// # Errors
    /// [`Error::NotFound`], or as [`Prices::create`].
    pub async fn update(&self, id: PriceId, patch: PricePatch) -> Result<Price> {
        let amount = patch.amount()?;
        let (tenant, now, patch) = (self.0.tenant, self.0.now(), &patch);
        let update = |executor: Executor| async move {
            let find = async || -> Result<Price> {
                let found = executor.fetch_optional(&GET, &params![tenant, id]).await?;
                found.ok_or_else(|| Error::not_found(TABLE.entity, id))
            };
            executor.execute(&LOCK_MODEL, &params![tenant, find().await?.model]).await?;
            // Read again: under the lock it does not change any more.
            let mut price = find().await?;
            price.valid_from = patch.valid_from.unwrap_or(price.valid_from);
            price.valid_to = patch.valid_to.unwrap_or(price.valid_to);
            check_range(&price)?;
            lock_and_check(&executor, tenant, &price).await?;
            let mut changes = Changes::new(executor.dialect(), tenant, id);
            changes.set("per_token", amount);
            changes.set("valid_from", patch.valid_from);
            changes.set("valid_to", patch.valid_to);
            changes.merge("metadata", patch.metadata.clone());
            if changes.is_empty() {
                return Ok(price);
            }
            let (sql, params) = changes.statement(&TABLE, now);
            executor.fetch_optional(&sql, &params).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))
        };
        self.0.executor.transaction(update).await
    }

    /// Deletes a price. Costs that were computed before stay as they are.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: PriceId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}

fn check_range(price: &Price) -> Result<()> {
    match price.valid_to {
        Some(end) if end <= price.valid_from => {
            Err(Error::invalid("valid_to", format!("{end} does not lie after valid_from, {}", price.valid_from)))
        }
        _ => Ok(()),
    }
}

/// Lets nobody else change prices of the model, and refuses one that would be valid together with another.
async fn lock_and_check(executor: &Executor, tenant: TenantId, price: &Price) -> Result<()> {
    executor.execute(&LOCK_MODEL, &params![tenant, price.model.as_str()]).await?;
    let params = params![
        tenant,
        price.model.as_str(),
        price.kind,
        price.provider.clone(),
        price.valid_from,
        price.valid_to.unwrap_or(Timestamp::MAX),
        price.id,
    ];
    match executor.fetch_optional::<Price>(&OVERLAPPING, &params).await? {
        None => Ok(()),
        Some(other) => Err(Error::PriceOverlap {
            model: other.model,
            kind: other.kind,
            other: other.id,
            valid_from: other.valid_from,
            valid_to: other.valid_to,
        }),
    }
}
