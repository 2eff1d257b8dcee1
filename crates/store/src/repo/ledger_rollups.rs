//! Roll-ups of the ledger: sums of its entries by hour, day and week, for each series.
//!
//! Whoever logs writes the sums of the batch into the *tail*, in the same transaction and without touching anything
//! that another writer touches. A *step* moves some rows of the tail into the roll-ups, in one transaction under the
//! lock of the tenant's head. So an entry is in exactly one of the two at any moment, whatever is killed, and a sum
//! over both is exact. The version of the head tells a reader whether a step came between two of its statements.

use std::collections::HashMap;

use agentkeep_core::{Error, LedgerEntry, Result, TenantId, Timestamp, TokenScope};
use parking_lot::Mutex;

use super::{
    ledger_sums::{BLOCK, SUMS, Sums, pack, put, take, unpack},
    table::params,
};
use crate::{
    engine::{BatchSql, Executor, FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// Microseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000_000;
/// The hour in which time ends.
const LAST_HOUR: i64 = Timestamp::MAX.as_micros() / HOUR + 1;
/// Entries that a step moves at least, if there are as many.
const STEP: i64 = 20_000;
/// Rows of the tail that a step moves at most.
const STEP_ROWS: i64 = 4_000;
/// What a row of the tail counts at least: it costs a reader as much as so many entries.
const ROW_WEIGHT: i64 = 10;
/// Steps that a reader who finds a long tail takes at most.
const STEPS_OF_A_READER: usize = 16;

/// The nodes of roll-ups: how many hours each holds, and where the first one begins.
pub(super) const HOURS: Level = Level { hours: 1, first: 0 };
pub(super) const DAYS: Level = Level { hours: 24, first: 0 };
/// Weeks begin on Mondays; the first one after 1970-01-01 was 1970-01-05.
pub(super) const WEEKS: Level = Level { hours: 168, first: 96 };

/// A level of roll-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    pub hours: i64,
    pub first: i64,
}

impl Level {
    /// The start of the node that holds an hour.
    pub(super) const fn start(self, hour: i64) -> i64 {
        (hour - self.first).div_euclid(self.hours) * self.hours + self.first
    }
}

/// What roll-ups are apart by; a model of `""` and an agent of 0 stand for none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series(pub TokenScope, pub String, pub String, pub i64);

/// The sums of a batch by series and hour, as a row of the tail holds them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    series: Vec<Series>,
    /// The place of the series, the hour, the sums.
    sums: Vec<(usize, i64, Sums)>,
}

impl Batch {
    pub(super) fn of(entries: &[&LedgerEntry]) -> Result<Self> {
        let mut batch = Self::default();
        let mut series: HashMap<(TokenScope, &str, &str, i64), usize> = HashMap::new();
        let mut places: HashMap<(usize, i64), usize> = HashMap::new();
        for entry in entries {
            let model = entry.model.as_deref().unwrap_or_default();
            let agent = entry.agent_id.map_or(0, |id| id.0);
            let next = series.len();
            let place = *series.entry((entry.scope, entry.provider.as_str(), model, agent)).or_insert(next);
            if place == batch.series.len() {
                batch.series.push(Series(entry.scope, entry.provider.clone(), model.to_owned(), agent));
            }
            let hour = entry.created_at.as_micros() / HOUR;
            let sum = *places.entry((place, hour)).or_insert(batch.sums.len());
            if sum == batch.sums.len() {
                batch.sums.push((place, hour, Sums::default()));
            }
            batch.sums[sum].2.add(&Sums::of(entry), 1)?;
        }
        Ok(batch)
    }

    /// As a row of the tail holds it: how many series, each of them, then the sums.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.sums.len() * 64);
        put(&mut bytes, &[self.series.len() as i64]);
        for Series(scope, provider, model, agent) in &self.series {
            let proactive = i64::from(*scope == TokenScope::Proactive);
            put(&mut bytes, &[proactive, *agent, provider.len() as i64, model.len() as i64]);
            bytes.extend(provider.as_bytes());
            bytes.extend(model.as_bytes());
        }
        for (place, hour, Sums([a, b, c, d, e, f, g, h, i])) in &self.sums {
            put(&mut bytes, &[*place as i64, *hour, *a, *b, *c, *d, *e, *f, *g, *h, *i]);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes(bytes)
            .ok_or_else(|| Error::database("a row of ledger_tail cannot be read; delete it and rebuild the roll-ups"))
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        fn text(bytes: &mut &[u8], length: i64) -> Option<String> {
            let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            String::from_utf8(text.to_vec()).ok()
        }
        let mut batch = Self::default();
        let [series] = take(&mut bytes)?;
        for _ in 0..series {
            let [proactive, agent, provider, model] = take(&mut bytes)?;
            let scope = if proactive == 1 { TokenScope::Proactive } else { TokenScope::Reactive };
            let (provider, model) = (text(&mut bytes, provider)?, text(&mut bytes, model)?);
            batch.series.push(Series(scope, provider, model, agent));
        }
        while !bytes.is_empty() {
            let [place, hour, sums @ ..] = take::<{ 2 + SUMS }>(&mut bytes)?;
            let place = usize::try_from(place).ok().filter(|place| *place < batch.series.len())?;
            batch.sums.push((place, hour, Sums(sums)));
        }
        Some(batch)
    }

    /// Each sum with its series and hour.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Series, i64, &Sums)> {
        self.sums.iter().filter_map(|(place, hour, sums)| self.series.get(*place).map(|series| (series, *hour, sums)))
    }
}

/// What a reader finds outside of the roll-ups, all of it at one moment.
pub(super) struct Outside {
    /// The version of the roll-ups that it completes.
    pub version: i64,
    /// What is not in them yet.
    pub tail: Vec<Batch>,
    /// Sums of the entries themselves, of the ranges that were asked for, by hour and series.
    pub raw: Vec<(i64, Series, Sums)>,
}

/// Entries that are summed one by one: from a time on, before another, and added or, with a sign of -1, taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub from: Timestamp,
    pub to: Timestamp,
    pub sign: i64,
}

/// What stands for the version in a row of sums of entries.
const ADDED: i64 = -1;
const TAKEN_AWAY: i64 = -2;

/// A row of the statement that reads both.
struct OutsideRow {
    version: i64,
    sums: Option<Vec<u8>>,
    raw: (i64, Series, Sums),
}

impl FromRow for OutsideRow {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let version = row.get(0)?;
        // A row of the tail has no scope.
        let scope = match row.get::<String>(3)?.as_str() {
            "" => TokenScope::Reactive,
            scope => scope.parse()?,
        };
        let series = Series(scope, row.get(4)?, row.get(5)?, row.get(6)?);
        let mut sums = Sums::default();
        for (index, sum) in sums.0.iter_mut().enumerate() {
            *sum = row.get(7 + index)?;
        }
        Ok(Self { version, sums: row.get(1)?, raw: (row.get(2)?, series, sums) })
    }
}

/// The sums of entries, in the order of [`Sums`], each as a whole number of 64 bits.
pub(super) const RAW_SUMS: &str = "COUNT(*), CAST(SUM(input) AS int8), CAST(SUM(output) AS int8), \
    CAST(SUM(cache_read) AS int8), CAST(SUM(cache_write) AS int8), CAST(SUM(reasoning) AS int8), \
    CAST(COALESCE(SUM(cost >> 32), 0) AS int8), CAST(COALESCE(SUM(cost & 4294967295), 0) AS int8), \
    CAST(SUM(CASE WHEN cost IS NULL THEN 1 ELSE 0 END) AS int8)";

static ENSURE_HEAD: Sql = Sql::both(
    "INSERT INTO ledger_heads (tenant_id, version, last_series_id) VALUES ($1, 0, 0)
     ON CONFLICT (tenant_id) DO NOTHING",
);
static LOCK_HEAD: Sql =
    Sql::both("UPDATE ledger_heads SET version = version + 1 WHERE tenant_id = $1 RETURNING last_series_id");
static VERSION: Sql = Sql::both("SELECT version FROM ledger_heads WHERE tenant_id = $1").short();
static ADD_TO_TAIL: Sql = Sql::both("INSERT INTO ledger_tail (tenant_id, id, entries, sums) VALUES ($1, $2, $3, $4)");
static TAIL_LENGTH: Sql = Sql::both(
    "SELECT CAST(COALESCE(SUM(CASE WHEN entries > $2 THEN entries ELSE $2 END), 0) AS int8)
     FROM ledger_tail WHERE tenant_id = $1",
);
static TAIL_START: Sql =
    Sql::both("SELECT id, entries FROM ledger_tail WHERE tenant_id = $1 ORDER BY id LIMIT $2").short();
// What is deleted is what is moved: a row that was committed in between is either both or neither.
static TAKE_FROM_TAIL: Sql = Sql::both("DELETE FROM ledger_tail WHERE tenant_id = $1 AND id <= $2 RETURNING sums");
static SERIES: Sql = Sql::both("SELECT id, scope, provider, model, agent_id FROM ledger_series WHERE tenant_id = $1");
static COUNT_SERIES: Sql = Sql::both("UPDATE ledger_heads SET last_series_id = $2 WHERE tenant_id = $1");
// One text for each engine by necessity, see BatchSql.
static CREATE_SERIES: BatchSql = BatchSql::new(
    "INSERT INTO ledger_series (tenant_id, id, scope, provider, model, agent_id)
     SELECT $1, s.id, s.scope, s.provider, s.model, s.agent_id
     FROM unnest($2::int8[], $3::text[], $4::text[], $5::text[], $6::int8[])
         AS s (id, scope, provider, model, agent_id)",
    "INSERT INTO ledger_series (tenant_id, id, scope, provider, model, agent_id) VALUES ($1, $2, $3, $4, $5, $6)",
);

// As above. The LIMIT keeps PostgreSQL from a hash join, for which it reads every row that the tenant has: while a
// ledger fills, what it knows of the table is old.
static READ: BatchSql = BatchSql::new(
    "SELECT r.hours, r.start, r.block, r.sums
     FROM unnest($2::int8[], $3::int8[], $4::int8[]) AS n (hours, start, block)
         CROSS JOIN LATERAL (
             SELECT hours, start, block, sums FROM ledger_rollups
             WHERE tenant_id = $1 AND hours = n.hours AND start = n.start AND block = n.block LIMIT 1
         ) r",
    "SELECT hours, start, block, sums FROM ledger_rollups
     WHERE tenant_id = $1 AND hours = $2 AND start = $3 AND block = $4",
);
static WRITE: BatchSql = BatchSql::new(
    "INSERT INTO ledger_rollups (tenant_id, hours, start, block, sums)
     SELECT $1, n.hours, n.start, n.block, n.sums
     FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::bytea[]) AS n (hours, start, block, sums)
     ON CONFLICT (tenant_id, hours, start, block) DO UPDATE SET sums = excluded.sums",
    "INSERT INTO ledger_rollups (tenant_id, hours, start, block, sums) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (tenant_id, hours, start, block) DO UPDATE SET sums = excluded.sums",
);
static CLEAR: Sql = Sql::both(
    "DELETE FROM ledger_rollups WHERE tenant_id = $1 AND hours IN (1, 24, 168) AND start >= $2 AND start < $3",
);
static NEXT_ENTRY: Sql =
    Sql::both("SELECT MIN(created_at) FROM ledger WHERE tenant_id = $1 AND created_at >= $2").short();
static NEXT_ROLLUP: Sql =
    Sql::both("SELECT MIN(start) FROM ledger_rollups WHERE tenant_id = $1 AND hours IN (1, 24, 168) AND start >= $2");
// Conflicts with the lock that every foreign key to the head takes, so that nobody is logging meanwhile. SQLite has
// one writer at a time anyway, and no such clause.
static LOCK_OUT_WRITERS: Sql = Sql::per_engine(
    "SELECT version FROM ledger_heads WHERE tenant_id = $1 FOR UPDATE",
    "SELECT version FROM ledger_heads WHERE tenant_id = $1",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static FIXED: &[&Sql] = &[
    &ENSURE_HEAD,
    &LOCK_HEAD,
    &VERSION,
    &ADD_TO_TAIL,
    &TAIL_LENGTH,
    &TAIL_START,
    &TAKE_FROM_TAIL,
    &SERIES,
    &COUNT_SERIES,
    &CLEAR,
    &NEXT_ENTRY,
    &NEXT_ROLLUP,
    &LOCK_OUT_WRITERS,
];

/// Every batch of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static BATCHES: &[&BatchSql] = &[&CREATE_SERIES, &READ, &WRITE];

/// Makes the tenant's head if it has none.
pub(super) async fn ensure_head(executor: &Executor, tenant: TenantId) -> Result<()> {
    executor.execute(&ENSURE_HEAD, &params![tenant]).await.map(|_| ())
}

/// Waits for everybody who is logging, and lets nobody log until the transaction ends.
pub(super) async fn lock_out_writers(executor: &Executor, tenant: TenantId) -> Result<()> {
    ensure_head(executor, tenant).await?;
    executor.fetch_all::<(i64,)>(&LOCK_OUT_WRITERS, &params![tenant]).await.map(|_| ())
}

/// Writes the sums of a batch into the tail; its first entry names it.
pub(super) async fn add_to_tail(executor: &Executor, tenant: TenantId, entries: &[&LedgerEntry]) -> Result<()> {
    let Some(first) = entries.first() else { return Ok(()) };
    let params = params![tenant, first.id, entries.len() as i64, Batch::of(entries)?.to_bytes()];
    executor.execute(&ADD_TO_TAIL, &params).await.map(|_| ())
}

/// The version of the roll-ups; `None` when nothing was ever logged.
pub(super) async fn version(executor: &Executor, tenant: TenantId) -> Result<Option<i64>> {
    Ok(executor.fetch_optional::<(i64,)>(&VERSION, &params![tenant]).await?.map(|(version,)| version))
}

/// Every series with its id.
pub(super) async fn series(executor: &Executor, tenant: TenantId) -> Result<Vec<(i64, Series)>> {
    let rows: Vec<(i64, TokenScope, String, String, i64)> = executor.fetch_all(&SERIES, &params![tenant]).await?;
    Ok(rows
        .into_iter()
        .map(|(id, scope, provider, model, agent)| (id, Series(scope, provider, model, agent)))
        .collect())
}

/// Reads the tail, and sums the entries of the ranges of time themselves, in one statement: at one moment. `None`
/// when nothing was ever logged.
pub(super) async fn outside(executor: &Executor, tenant: TenantId, ranges: &[Range]) -> Result<Option<Outside>> {
    let hour = executor.dialect().hours_since_1970("created_at");
    let mut params = params![tenant].to_vec();
    let mut text = "SELECT h.version, t.sums, CAST(0 AS int8), '', '', '', CAST(0 AS int8), 0, 0, 0, 0, 0, 0, 0, 0, 0
        FROM ledger_heads h LEFT JOIN ledger_tail t ON t.tenant_id = $1 WHERE h.tenant_id = $1"
        .to_owned();
    for Range { from, to, sign } in ranges {
        let first = params.len() + 1;
        params.extend(params![*from, *to]);
        let mark = if *sign < 0 { TAKEN_AWAY } else { ADDED };
        text.push_str(&format!(
            " UNION ALL SELECT {mark}, NULL, {hour}, scope, provider, COALESCE(model, ''), COALESCE(agent_id, 0), {RAW_SUMS}
             FROM ledger WHERE tenant_id = $1 AND created_at >= ${first} AND created_at < ${}
             GROUP BY 3, 4, 5, 6, 7",
            first + 1
        ));
    }
    let mut found: Option<Outside> = None;
    let mut raw = Vec::new();
    for row in executor.fetch_all::<OutsideRow>(&Sql::assembled(text), &params).await? {
        let (hour, series, sums) = row.raw;
        if row.version < 0 {
            let mut signed = Sums::default();
            signed.add(&sums, if row.version == TAKEN_AWAY { -1 } else { 1 })?;
            raw.push((hour, series, signed));
            continue;
        }
        let outside = found.get_or_insert_with(|| Outside { version: row.version, tail: Vec::new(), raw: Vec::new() });
        if let Some(sums) = row.sums {
            outside.tail.push(Batch::read(&sums)?);
        }
    }
    if let Some(outside) = &mut found {
        outside.raw = raw;
    }
    Ok(found)
}

/// Moves some rows of the tail into the roll-ups; how many entries it were, 0 when there are none.
pub(super) async fn step(store: &TenantStore) -> Result<i64> {
    let tenant = store.tenant;
    let step = |executor: Executor| async move {
        // Nothing to do is no change: readers need not look again.
        if first_rows(&executor, tenant).await?.is_none() {
            return Ok(0);
        }
        let Some((last_series,)) = executor.fetch_optional::<(i64,)>(&LOCK_HEAD, &params![tenant]).await? else {
            return Ok(0);
        };
        // Another step may have been at work while this one waited for the lock.
        let Some(last) = first_rows(&executor, tenant).await? else { return Ok(0) };
        let taken: Vec<(Vec<u8>,)> = executor.fetch_all(&TAKE_FROM_TAIL, &params![tenant, last]).await?;
        let mut names = Names::read(&executor, tenant, last_series).await?;
        let mut sums: HashMap<(i64, i64), Sums> = HashMap::new();
        let mut entries = 0;
        for (bytes,) in taken {
            let batch = Batch::read(&bytes)?;
            let ids: Vec<i64> = batch.series.iter().map(|series| names.id(series)).collect();
            for (place, hour, more) in &batch.sums {
                let Some(id) = ids.get(*place) else { continue };
                entries += more.entries();
                sums.entry((*hour, *id)).or_default().add(more, 1)?;
            }
        }
        names.write_new(&executor, tenant).await?;
        add(&executor, tenant, &sums).await?;
        Ok(entries)
    };
    store.executor.transaction(step).await
}

/// The id of the last row of the tail that a step takes.
async fn first_rows(executor: &Executor, tenant: TenantId) -> Result<Option<uuid::Uuid>> {
    let rows: Vec<(uuid::Uuid, i64)> = executor.fetch_all(&TAIL_START, &params![tenant, STEP_ROWS]).await?;
    let mut entries = 0;
    let mut last = None;
    for (id, count) in rows {
        last = Some(id);
        entries += count;
        if entries >= STEP {
            break;
        }
    }
    Ok(last)
}

/// The ids of series. The head is locked.
struct Names {
    ids: HashMap<Series, i64>,
    last: i64,
    new: Vec<Vec<Value>>,
}

impl Names {
    async fn read(executor: &Executor, tenant: TenantId, last: i64) -> Result<Self> {
        let ids = series(executor, tenant).await?.into_iter().map(|(id, series)| (series, id)).collect();
        Ok(Self { ids, last, new: Vec::new() })
    }

    /// The id of a series, a new one if it has none.
    fn id(&mut self, series: &Series) -> i64 {
        if let Some(id) = self.ids.get(series) {
            return *id;
        }
        self.last += 1;
        let Series(scope, provider, model, agent) = series;
        self.new.push(params![self.last, *scope, provider.as_str(), model.as_str(), *agent].to_vec());
        self.ids.insert(series.clone(), self.last);
        self.last
    }

    async fn write_new(self, executor: &Executor, tenant: TenantId) -> Result<()> {
        if self.new.is_empty() {
            return Ok(());
        }
        executor.batch::<(i64,)>(&CREATE_SERIES, &params![tenant], self.new).await?;
        executor.execute(&COUNT_SERIES, &params![tenant, self.last]).await.map(|_| ())
    }
}

/// A row of the roll-ups: hours, start, block.
type Place = (i64, i64, i64);

/// Rows that are read and written at a time.
const ROWS_AT_ONCE: usize = 500;

/// The block of a series, and its place in it.
pub(super) const fn block_of(id: i64) -> (i64, usize) {
    (id.div_euclid(BLOCK as i64), id.rem_euclid(BLOCK as i64) as usize)
}

/// Adds sums by hour and series to the roll-ups of every level. The head is locked.
async fn add(executor: &Executor, tenant: TenantId, sums: &HashMap<(i64, i64), Sums>) -> Result<()> {
    let mut parts: Vec<(Place, usize, &Sums)> = Vec::with_capacity(sums.len() * 3);
    for ((hour, id), sums) in sums {
        let (block, place) = block_of(*id);
        parts.extend([HOURS, DAYS, WEEKS].map(|level| ((level.hours, level.start(*hour), block), place, sums)));
    }
    // Ordered, so that every level is written from its beginning to its end.
    parts.sort_unstable_by_key(|(place, ..)| *place);
    let rows: Vec<&[(Place, usize, &Sums)]> = parts.chunk_by(|(one, ..), (next, ..)| one == next).collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let places = rows.iter().filter_map(|parts| parts.first()).map(|(place, ..)| *place);
        let keys = places.map(|(hours, start, block)| params![hours, start, block].to_vec()).collect();
        let found: Vec<(i64, i64, i64, Vec<u8>)> = executor.batch(&READ, &params![tenant], keys).await?;
        let found: HashMap<Place, Vec<u8>> =
            found.into_iter().map(|(hours, start, block, sums)| ((hours, start, block), sums)).collect();
        let mut written = Vec::with_capacity(rows.len());
        for parts in rows {
            let Some((place, ..)) = parts.first() else { continue };
            let mut sums = [Sums::default(); BLOCK];
            if let Some(packed) = found.get(place) {
                unpack(packed, |index, held| sums[index].add(held, 1))?;
            }
            for (_, index, more) in *parts {
                sums[*index].add(more, 1)?;
            }
            let (hours, start, block) = *place;
            written.push(params![hours, start, block, pack(&sums)].to_vec());
        }
        executor.batch::<(i64,)>(&WRITE, &params![tenant], written).await?;
    }
    Ok(())
}

/// How long the tail is, in entries; rows of few entries count more.
pub(super) async fn tail_length(executor: &Executor, tenant: TenantId) -> Result<i64> {
    Ok(executor.fetch_one::<(i64,)>(&TAIL_LENGTH, &params![tenant, ROW_WEIGHT]).await?.0)
}

/// Shortens a tail that would slow a reader down, a bounded number of steps. Inside of a transaction nothing is done:
/// the reader's transaction should lock nobody out.
pub(super) async fn shorten(store: &TenantStore) -> Result<()> {
    if matches!(store.executor, Executor::Tx(_)) {
        return Ok(());
    }
    for _ in 0..STEPS_OF_A_READER {
        if tail_length(&store.executor, store.tenant).await? <= STEP || step(store).await? == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Steps' worth of entries that may wait before whoever logs moves some of them first.
const MOST_STEPS_BEHIND: i64 = 50;

/// What this process has logged for each tenant since it last moved the tail.
#[derive(Default)]
pub(crate) struct Moves(Mutex<HashMap<TenantId, Waiting>>);

#[derive(Default)]
struct Waiting {
    entries: i64,
    running: bool,
}

/// What is to be done after something was logged.
enum Next {
    Nothing,
    /// Begin to move the tail beside the caller.
    Begin,
    /// Too much waits: move some of it now.
    Help,
}

impl Moves {
    fn count(&self, tenant: TenantId, entries: i64) -> Next {
        let mut tenants = self.0.lock();
        let waiting = tenants.entry(tenant).or_default();
        waiting.entries += entries;
        if waiting.entries < STEP {
            return Next::Nothing;
        }
        if !std::mem::replace(&mut waiting.running, true) {
            return Next::Begin;
        }
        if waiting.entries < STEP * MOST_STEPS_BEHIND { Next::Nothing } else { Next::Help }
    }

    /// Takes a step's worth of what waits; false, and nobody moves the tail any more, when there is less.
    fn take(&self, tenant: TenantId) -> bool {
        let mut tenants = self.0.lock();
        let waiting = tenants.entry(tenant).or_default();
        waiting.running = waiting.entries >= STEP;
        if waiting.running {
            waiting.entries -= STEP;
        }
        waiting.running
    }

    /// What waits is left to others: a later log or a reader.
    fn give_up(&self, tenant: TenantId) {
        self.0.lock().remove(&tenant);
    }
}

/// Sees to it that the tail is moved when this process has logged enough: beside the caller, or by the caller when
/// logging is faster than moving. What fails here is still in the tail: the next one who logs or reads moves it.
pub(super) async fn after_log(store: &TenantStore, entries: usize) {
    if matches!(store.executor, Executor::Tx(_)) {
        return;
    }
    let weight = (entries as i64).max(ROW_WEIGHT);
    match store.ledger_moves().count(store.tenant, weight) {
        Next::Nothing => {}
        Next::Begin => drop(tokio::spawn(move_tail(store.clone()))),
        Next::Help => {
            if let Err(error) = step(store).await {
                tell(store.tenant, &error);
            }
        }
    }
}

async fn move_tail(store: TenantStore) {
    while store.ledger_moves().take(store.tenant) {
        if let Err(error) = step(&store).await {
            store.ledger_moves().give_up(store.tenant);
            return tell(store.tenant, &error);
        }
    }
}

fn tell(tenant: TenantId, error: &Error) {
    tracing::warn!(target: "agentkeep::ledger", "the roll-ups of tenant {tenant} wait: {error}");
}

/// Computes the roll-ups anew from the entries, week by week, each in a transaction of its own; how many entries
/// they hold. What is in the tail stays there.
pub(super) async fn rebuild(store: &TenantStore) -> Result<i64> {
    let (mut week, mut entries) = (i64::MIN, 0);
    while let Some(start) = next_week(store, week).await? {
        entries += rebuild_week(store, start).await?;
        week = start + WEEKS.hours;
    }
    Ok(entries)
}

/// The first week from that hour on that has entries or roll-ups.
async fn next_week(store: &TenantStore, from: i64) -> Result<Option<i64>> {
    let time = hour_time(from.max(0));
    let entry: (Option<Timestamp>,) = store.executor.fetch_one(&NEXT_ENTRY, &params![store.tenant, time]).await?;
    let rollup: (Option<i64>,) = store.executor.fetch_one(&NEXT_ROLLUP, &params![store.tenant, from]).await?;
    let entry = entry.0.map(|time| time.as_micros() / HOUR);
    Ok(entry.into_iter().chain(rollup.0).min().map(|hour| WEEKS.start(hour)))
}

async fn rebuild_week(store: &TenantStore, start: i64) -> Result<i64> {
    let tenant = store.tenant;
    let rebuild = |executor: Executor| async move {
        let Some((last_series,)) = executor.fetch_optional::<(i64,)>(&LOCK_HEAD, &params![tenant]).await? else {
            return Ok(0);
        };
        let end = start + WEEKS.hours;
        let range = Range { from: hour_time(start.max(0)), to: hour_time(end), sign: 1 };
        let Some(outside) = outside(&executor, tenant, &[range]).await? else { return Ok(0) };
        let mut names = Names::read(&executor, tenant, last_series).await?;
        let mut sums: HashMap<(i64, i64), Sums> = HashMap::new();
        for (hour, series, more) in &outside.raw {
            sums.entry((*hour, names.id(series))).or_default().add(more, 1)?;
        }
        // What the tail holds was read at the same moment, and stays there while the head is locked.
        for (series, hour, more) in outside.tail.iter().flat_map(Batch::each) {
            if (start..end).contains(&hour) {
                sums.entry((hour, names.id(series))).or_default().add(more, -1)?;
            }
        }
        executor.execute(&CLEAR, &params![tenant, start, end]).await?;
        sums.retain(|_, sums| sums.entries() != 0);
        let entries = sums.values().map(Sums::entries).sum();
        names.write_new(&executor, tenant).await?;
        add(&executor, tenant, &sums).await?;
        Ok(entries)
    };
    store.executor.transaction(rebuild).await
}

/// The start of an hour.
pub(super) fn hour_time(hour: i64) -> Timestamp {
    Timestamp::from_micros(hour.min(LAST_HOUR) * HOUR).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_went_in_or_is_an_error() {
        let series = |model: &str, agent| Series(TokenScope::Proactive, "anthropic".into(), model.into(), agent);
        let batch = Batch {
            series: vec![series("", 0), series("large \u{0} \u{e9}", i64::MAX)],
            sums: vec![(0, 0, Sums::default()), (1, 482_000, Sums([1, 2, 3, 4, 5, 6, 1 << 31, (1 << 32) - 1, 0]))],
        };
        let bytes = batch.to_bytes();
        assert_eq!(Batch::read(&bytes).expect("a batch"), batch);
        for length in [0, 1, 5, bytes.len() - 1] {
            assert!(Batch::read(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
