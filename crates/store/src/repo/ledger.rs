//! The ledger: what every call of a model used and cost.

use std::collections::{BTreeMap, HashMap};

use agentkeep_core::{
    Direction, Error, LedgerDimension, LedgerEntry, LedgerEntryId, LedgerStatistics, LedgerStatisticsRequest,
    ListRequest, NewLedgerEntry, Page, Price, Result, TokenCounts, cost_of,
};

use super::{
    budgets, ledger_rollups as rollups, ledger_statistics,
    list::{ByHour, list_by_hour},
    table::{Field, FieldKind, Record, Table, explain, params},
};
use crate::{
    engine::{BatchSql, Executor, FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// The ledger of a tenant.
pub struct Ledger<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, scope, provider, model, input, output, cache_read, cache_write, reasoning, total, cost, agent_id, user_id, \
         session_id, message_id, job_id, reservation_id, request_id, tags, metadata, created_at"
    };
}

impl FromRow for LedgerEntry {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Record::read(row, 0)
    }
}

impl Record for LedgerEntry {
    const TABLE: &'static Table = &TABLE;
    const WIDTH: usize = 21;

    fn read(row: &RowRef<'_>, first: usize) -> Result<Self> {
        let at = |index: usize| first + index;
        Ok(Self {
            id: row.get(at(0))?,
            scope: row.get(at(1))?,
            provider: row.get(at(2))?,
            model: row.get(at(3))?,
            tokens: TokenCounts {
                input: row.get(at(4))?,
                output: row.get(at(5))?,
                cache_read: row.get(at(6))?,
                cache_write: row.get(at(7))?,
                reasoning: row.get(at(8))?,
            },
            total: row.get(at(9))?,
            cost: row.get(at(10))?,
            agent_id: row.get(at(11))?,
            user_id: row.get(at(12))?,
            session_id: row.get(at(13))?,
            message_id: row.get(at(14))?,
            job_id: row.get(at(15))?,
            reservation_id: row.get(at(16))?,
            request_id: row.get(at(17))?,
            tags: row.get(at(18))?,
            metadata: row.get(at(19))?,
            created_at: row.get(at(20))?,
        })
    }
}

static TABLE: Table = Table {
    entity: "ledger entry",
    name: "ledger",
    from: "ledger",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("scope", FieldKind::Text),
        Field::new("provider", FieldKind::Text),
        Field::new("model", FieldKind::Text),
        Field::new("total", FieldKind::Int).sortable(),
        Field::new("cost", FieldKind::Money),
        Field::new("agent_id", FieldKind::Int),
        Field::new("user_id", FieldKind::Uuid),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("message_id", FieldKind::Uuid),
        Field::new("job_id", FieldKind::Uuid),
        Field::new("reservation_id", FieldKind::Uuid),
        Field::new("request_id", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("tags", FieldKind::Json),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["request_id"]],
    references: &[],
};

// The texts differ by necessity, see BatchSql. An unnest for each column gives its rows one by one; one for all of them,
// behind FROM, would keep the whole batch once more before the first row is written.
static INSERT: BatchSql = BatchSql::new(
    "INSERT INTO ledger (tenant_id, id, scope, provider, model, input, output, cache_read, cache_write, reasoning, total,
         cost, agent_id, user_id, session_id, tags, metadata, created_at, message_id, job_id, reservation_id, request_id)
     SELECT $1, unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::int8[]),
         unnest($7::int8[]), unnest($8::int8[]), unnest($9::int8[]), unnest($10::int8[]), unnest($11::int8[]),
         unnest($12::int8[]), unnest($13::int8[]), unnest($14::uuid[]), unnest($15::uuid[]), unnest($16::jsonb[]),
         unnest($17::jsonb[]), unnest($18::timestamptz[]), unnest($19::uuid[]), unnest($20::uuid[]),
         unnest($21::uuid[]), unnest($22::text[])",
    "INSERT INTO ledger (tenant_id, id, scope, provider, model, input, output, cache_read, cache_write, reasoning, total,
         cost, agent_id, user_id, session_id, tags, metadata, created_at, message_id, job_id, reservation_id, request_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
);
/// The same without the last columns, of which PostgreSQL spends something on every empty one.
static INSERT_PLAIN: BatchSql = BatchSql::new(
    "INSERT INTO ledger (tenant_id, id, scope, provider, model, input, output, cache_read, cache_write, reasoning, total,
         cost, agent_id, user_id, session_id, tags, metadata, created_at)
     SELECT $1, unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::int8[]),
         unnest($7::int8[]), unnest($8::int8[]), unnest($9::int8[]), unnest($10::int8[]), unnest($11::int8[]),
         unnest($12::int8[]), unnest($13::int8[]), unnest($14::uuid[]), unnest($15::uuid[]), unnest($16::jsonb[]),
         unnest($17::jsonb[]), unnest($18::timestamptz[])",
    "INSERT INTO ledger (tenant_id, id, scope, provider, model, input, output, cache_read, cache_write, reasoning, total,
         cost, agent_id, user_id, session_id, tags, metadata, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
);
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM ledger WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_REQUEST: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM ledger WHERE tenant_id = $1 AND request_id = $2")).short();

static ENDS: Sql = Sql::both(
    "SELECT (SELECT MIN(created_at) FROM ledger WHERE tenant_id = $1),
         (SELECT MAX(created_at) FROM ledger WHERE tenant_id = $1)",
)
.short();

/// What is found hour by hour.
pub(crate) static BY_HOUR: ByHour = ByHour { fields: &["user_id", "session_id"], ends: &ENDS };

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&GET, &GET_BY_REQUEST, &ENDS]);

/// Every batch of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static BATCHES: &[&BatchSql] = &[&INSERT, &INSERT_PLAIN];

/// Entries whose sums share a row of the tail.
const ENTRIES_A_BATCH: usize = 1000;
/// How often a batch is tried that meets others.
const TRIES: usize = 5;

impl Ledger<'_> {
    /// Logs what a call of a model used. Without a cost it is computed from the prices that are valid at that time;
    /// without such a price it is not known. A `request_id` that was logged already gives the first entry back. What
    /// the entry names (agent, user, session, message, job) need not exist. Budgets count it; it is logged also when
    /// they are spent. A reservation that it names is settled by it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::MissingReference`] when there is no such
    /// reservation.
    pub async fn log(&self, new: NewLedgerEntry) -> Result<LedgerEntry> {
        new.check()?;
        let logged = self.log_checked(vec![new]).await?.into_iter().next();
        logged.ok_or_else(|| Error::database("the ledger entry that was written did not come back"))
    }

    /// Logs many entries in one transaction: all of them or none; they come back in the same order. An entry whose
    /// `request_id` was logged already, or stands twice in the batch, is answered with the first one.
    ///
    /// # Errors
    /// As [`Ledger::log`], with the place of the entry (`entries[3].input`).
    pub async fn log_many(&self, new: Vec<NewLedgerEntry>) -> Result<Vec<LedgerEntry>> {
        for (index, new) in new.iter().enumerate() {
            new.check().map_err(|error| error.at(&format!("entries[{index}]")))?;
        }
        self.log_checked(new).await
    }

    async fn log_checked(&self, new: Vec<NewLedgerEntry>) -> Result<Vec<LedgerEntry>> {
        let mut entries = self.priced(new).await?;
        let mut first: HashMap<&str, usize> = HashMap::new();
        // For each entry the place of the one that answers for it: its own, or that of an earlier one of the batch.
        let mut places = Vec::with_capacity(entries.len());
        for (place, entry) in entries.iter().enumerate() {
            let first = entry.request_id.as_deref().map_or(place, |id| *first.entry(id).or_insert(place));
            places.push(first);
        }
        let mut known: HashMap<usize, LedgerEntry> = HashMap::new();
        for attempt in 1.. {
            let wanted = |place: usize| places[place] == place && !known.contains_key(&place);
            let fresh: Vec<&LedgerEntry> =
                entries.iter().enumerate().filter(|(place, _)| wanted(*place)).map(|(_, entry)| entry).collect();
            let Err(error) = self.write(&fresh).await else {
                rollups::after_log(self.0, fresh.len()).await;
                break;
            };
            let code = match &error {
                Error::Database { code: Some(code), .. } => code.clone(),
                _ => return Err(error),
            };
            // 23505: some were logged already. 23503: a budget was deleted meanwhile, or there is no such tenant.
            if attempt == TRIES || !matches!(code.as_str(), "23505" | "23503") {
                return Err(explain(&self.0.executor, &TABLE, &params![self.0.tenant], &[], error).await);
            }
            for (place, entry) in entries.iter().enumerate() {
                let Some(request) = &entry.request_id else { continue };
                if code == "23505" && places[place] == place && !known.contains_key(&place) {
                    let params = params![self.0.tenant, request.as_str()];
                    known.extend(
                        self.0.executor.fetch_optional(&GET_BY_REQUEST, &params).await?.map(|found| (place, found)),
                    );
                }
            }
        }
        for (place, found) in known {
            entries[place] = found;
        }
        if places.iter().enumerate().all(|(place, first)| place == *first) {
            return Ok(entries);
        }
        Ok(places.into_iter().map(|place| entries[place].clone()).collect())
    }

    /// The entries as they will be stored.
    async fn priced(&self, new: Vec<NewLedgerEntry>) -> Result<Vec<LedgerEntry>> {
        let now = self.0.now();
        let mut prices: HashMap<String, Vec<Price>> = HashMap::new();
        let mut entries = Vec::with_capacity(new.len());
        for new in new {
            let (tokens, created_at) = (new.tokens(), new.created_at.unwrap_or(now));
            let cost = match (&new.cost, &new.model) {
                (Some(cost), _) => Some(*cost),
                (None, None) => None,
                (None, Some(model)) => {
                    if !prices.contains_key(model) {
                        prices.insert(model.clone(), self.0.prices().of_model(model).await?);
                    }
                    cost_of(prices.get(model).map_or(&[][..], Vec::as_slice), &new.provider, &tokens, created_at)?
                }
            };
            entries.push(LedgerEntry {
                id: self.0.new_id(now),
                scope: new.scope,
                provider: new.provider,
                model: new.model,
                tokens,
                total: tokens.total(),
                cost,
                agent_id: new.agent_id,
                user_id: new.user_id,
                session_id: new.session_id,
                message_id: new.message_id,
                job_id: new.job_id,
                reservation_id: new.reservation_id,
                request_id: new.request_id,
                tags: new.tags,
                metadata: new.metadata,
                created_at,
            });
        }
        Ok(entries)
    }

    /// Writes entries, their sums, and what budgets have to know, all in one transaction.
    async fn write(&self, entries: &[&LedgerEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let (tenant, now) = (self.0.tenant, self.0.now());
        let write = |executor: Executor| async move {
            rollups::ensure_head(&executor, tenant).await?;
            // First, since it holds the head: nobody deletes the tenant before its entries are there to go with it.
            for batch in entries.chunks(ENTRIES_A_BATCH) {
                rollups::add_to_tail(&executor, tenant, batch).await?;
            }
            let plain = entries.iter().all(|entry| is_plain(entry));
            let insert = if plain { &INSERT_PLAIN } else { &INSERT };
            let rows = entries.iter().map(|entry| row_of(entry, plain)).collect();
            executor.batch::<(i64,)>(insert, &params![tenant], rows).await?;
            // Read behind the write: who makes a budget waits for it, and counts what was logged before.
            budgets::spend(&executor, tenant, entries, now).await
        };
        self.0.executor.transaction(write).await
    }

    /// The entry with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: LedgerEntryId) -> Result<Option<LedgerEntry>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The entry of that request; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_request_id(&self, request_id: &str) -> Result<Option<LedgerEntry>> {
        self.0.executor.fetch_optional(&GET_BY_REQUEST, &params![self.0.tenant, request_id]).await
    }

    /// One page of the entries. Filters: id, scope, provider, model, total, cost, agent_id, user_id, session_id,
    /// message_id, job_id, reservation_id, request_id, created_at, tags.PATH, metadata.PATH. Orders: id, created_at
    /// (the default), total.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<LedgerEntry>> {
        list_by_hour(&BY_HOUR, &self.0.executor, self.0.tenant, request).await
    }

    /// What was used and spent since so many times 24 hours before now, by scope and provider; empty when nothing
    /// was.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn token_stats(&self, days_back: u32) -> Result<Vec<LedgerStatistics>> {
        let from = self.0.now().minus(std::time::Duration::from_secs(u64::from(days_back) * 86_400));
        let by = [LedgerDimension::Scope, LedgerDimension::Provider];
        self.statistics(&LedgerStatisticsRequest::by(&by).from(from)).await
    }

    /// What was used and spent in a range of time, in groups: exact sums of all entries that were committed before,
    /// ordered by what groups are formed by; empty when there are none. By hour, day, scope, provider, model and agent
    /// it takes milliseconds however many entries there are. Groups by user or session, and those of one user or
    /// session, are summed from the entries; one user or session is looked for in each hour of the range.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that ends before it begins, and for hour together with day.
    pub async fn statistics(&self, request: &LedgerStatisticsRequest) -> Result<Vec<LedgerStatistics>> {
        ledger_statistics::statistics(self.0, request).await
    }

    /// Moves everything that was logged into the roll-ups; how many entries it were. Nobody has to call it: logging
    /// and reading do the same in small steps when there is enough to move.
    ///
    /// # Errors
    /// What the database reports; the steps before it are done.
    pub async fn roll_up(&self) -> Result<u64> {
        let mut moved = 0;
        loop {
            match rollups::step(self.0).await? {
                0 => return Ok(moved),
                entries => moved += entries.unsigned_abs(),
            }
        }
    }

    /// Computes the roll-ups anew from the entries; how many entries they hold. Statistics are right meanwhile, and
    /// others may log. It is needed only after entries were changed by direct SQL.
    ///
    /// # Errors
    /// What the database reports; the weeks before it are done.
    pub async fn rebuild(&self) -> Result<u64> {
        self.roll_up().await?;
        Ok(rollups::rebuild(self.0).await?.unsigned_abs())
    }
}

/// Whether an entry is of no message, job, reservation and request.
fn is_plain(entry: &LedgerEntry) -> bool {
    entry.message_id.is_none() && entry.job_id.is_none() && entry.reservation_id.is_none() && entry.request_id.is_none()
}

/// The columns of a row, in the order of [`INSERT`], or of [`INSERT_PLAIN`].
fn row_of(entry: &LedgerEntry, plain: bool) -> Vec<Value> {
    let mut row: Vec<Value> = params![
        entry.id,
        entry.scope,
        entry.provider.as_str(),
        entry.model.clone(),
        entry.tokens.input,
        entry.tokens.output,
        entry.tokens.cache_read,
        entry.tokens.cache_write,
        entry.tokens.reasoning,
        entry.total,
        entry.cost,
        entry.agent_id,
        entry.user_id,
        entry.session_id,
        entry.tags.clone(),
        entry.metadata.clone(),
        entry.created_at,
    ]
    .into();
    if !plain {
        row.extend(params![entry.message_id, entry.job_id, entry.reservation_id, entry.request_id.clone()]);
    }
    row
}

/// Entries by the reservation that they settle.
pub(super) fn by_reservation<'a>(
    entries: &[&'a LedgerEntry],
) -> BTreeMap<agentkeep_core::ReservationId, Vec<&'a LedgerEntry>> {
    let mut reservations: BTreeMap<_, Vec<&LedgerEntry>> = BTreeMap::new();
    for entry in entries {
        if let Some(id) = entry.reservation_id {
            reservations.entry(id).or_default().push(entry);
        }
    }
    reservations
}
