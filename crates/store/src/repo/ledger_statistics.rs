//! Statistics of the ledger: exact, from roll-ups where they hold what is asked for.

use std::collections::{BTreeMap, HashMap};

use agentkeep_core::{
    AgentId, Error, LedgerDimension, LedgerStatistics, LedgerStatisticsRequest, Result, SessionId, Timestamp,
    TokenScope, UserId,
};

use super::{
    ledger::BY_HOUR,
    ledger_rollups::{self as rollups, DAYS, HOUR, HOURS, Level, RAW_SUMS, Range, Series, WEEKS, hour_time},
    ledger_sums::{BLOCK, Sums, unpack},
    list::{Hours, IN_HOURS, from_hours, hour_of},
    table::params,
};
use crate::{
    engine::{Executor, FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// Reads that are tried before the roll-ups are locked for one.
const TRIES: usize = 5;

static STILL: Sql = Sql::both("UPDATE ledger_heads SET version = version WHERE tenant_id = $1");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static FIXED: &[&Sql] = &[&STILL];

/// Statistics, ordered by what groups are formed by.
pub(super) async fn statistics(
    store: &TenantStore,
    request: &LedgerStatisticsRequest,
) -> Result<Vec<LedgerStatistics>> {
    request.check()?;
    let beyond_rollups = request.user_id.is_some()
        || request.session_id.is_some()
        || request.has(LedgerDimension::User)
        || request.has(LedgerDimension::Session);
    if beyond_rollups {
        return of_entries(store, request).await;
    }
    rollups::shorten(store).await?;
    for _ in 0..TRIES {
        if let Some(groups) = of_rollups(&store.executor, store, request).await? {
            return Ok(groups);
        }
    }
    // Somebody moves the roll-ups all the time: not while this transaction reads.
    let locked = |executor: Executor| async move {
        executor.execute(&STILL, &params![store.tenant]).await?;
        of_rollups(&executor, store, request).await
    };
    let read = store.executor.transaction(locked).await?;
    read.ok_or_else(|| Error::database("the roll-ups of the ledger were moved under their lock"))
}

/// What tells one group from another.
type Key = (
    Option<Timestamp>,
    Option<TokenScope>,
    Option<String>,
    Option<String>,
    Option<AgentId>,
    Option<UserId>,
    Option<SessionId>,
);

/// Groups as they are summed up.
struct Groups<'a> {
    request: &'a LedgerStatisticsRequest,
    sums: BTreeMap<Key, Sums>,
}

impl Groups<'_> {
    fn add(&mut self, hour: i64, series: &Series, sums: &Sums) -> Result<()> {
        match self.key(hour, series) {
            Some(key) => self.sums.entry(key).or_default().add(sums, 1),
            None => Ok(()),
        }
    }

    /// The group of a series in an hour; `None` when it is not asked for.
    fn key(&self, hour: i64, series: &Series) -> Option<Key> {
        let request = self.request;
        let Series(scope, provider, model, agent) = series;
        let fits = request.scope.is_none_or(|wanted| wanted == *scope)
            && request.provider.as_ref().is_none_or(|wanted| wanted == provider)
            && request.model.as_ref().is_none_or(|wanted| wanted == model)
            && request.agent_id.is_none_or(|wanted| wanted.0 == *agent);
        let has = |dimension| request.has(dimension);
        fits.then(|| {
            (
                self.start(hour),
                has(LedgerDimension::Scope).then_some(*scope),
                has(LedgerDimension::Provider).then(|| provider.clone()),
                (has(LedgerDimension::Model) && !model.is_empty()).then(|| model.clone()),
                (has(LedgerDimension::Agent) && *agent != 0).then_some(AgentId(*agent)),
                None,
                None,
            )
        })
    }

    /// Adds rows of the roll-ups. They are summed by number first: there are many more sums in them than groups, and
    /// a group's key is expensive.
    fn add_blocks(&mut self, mut blocks: Vec<Block>, series: &[(i64, Series)]) -> Result<()> {
        let mut numbers: HashMap<Key, usize> = HashMap::new();
        // A series of each group, and the group of each series by its id.
        let mut groups: Vec<&Series> = Vec::new();
        let mut of_series: Vec<Member> = Vec::new();
        for (id, series) in series {
            let (block, place) = rollups::block_of(*id);
            let index = usize::try_from(block).unwrap_or_default() * BLOCK + place;
            if of_series.len() <= index {
                of_series.resize(index + 1, Member::Unknown);
            }
            of_series[index] = self.key(0, series).map_or(Member::OfNone, |key| {
                let next = groups.len();
                let number = *numbers.entry(key).or_insert(next);
                if number == next {
                    groups.push(series);
                }
                Member::Of(number)
            });
        }
        blocks.sort_unstable_by_key(|block| block.hour);
        let mut sums = vec![Sums::default(); groups.len()];
        for blocks in blocks.chunk_by(|one, next| one.hour == next.hour) {
            let mut hour = 0;
            for block in blocks {
                hour = block.hour;
                let first = usize::try_from(block.number).unwrap_or(usize::MAX).saturating_mul(BLOCK);
                unpack(&block.sums, |place, more| match of_series.get(first.saturating_add(place)) {
                    Some(Member::Of(group)) => sums[*group].add(more, block.sign),
                    Some(Member::OfNone) => Ok(()),
                    Some(Member::Unknown) | None => Err(Error::database("a series of the ledger is missing")),
                })?;
            }
            for (sums, series) in sums.iter_mut().zip(&groups) {
                if !sums.is_zero() {
                    self.add(hour, series, &std::mem::take(sums))?;
                }
            }
        }
        Ok(())
    }

    /// The start of the group's time that an hour belongs to.
    fn start(&self, hour: i64) -> Option<Timestamp> {
        if self.request.has(LedgerDimension::Hour) {
            Some(hour_time(hour))
        } else {
            self.request.has(LedgerDimension::Day).then(|| hour_time(DAYS.start(hour)))
        }
    }

    fn finish(self) -> Vec<LedgerStatistics> {
        let groups = self.sums.into_iter().filter(|(_, sums)| sums.entries() != 0);
        groups
            .map(|((start, scope, provider, model, agent_id, user_id, session_id), sums)| LedgerStatistics {
                start,
                scope,
                provider,
                model,
                agent_id,
                user_id,
                session_id,
                entries: sums.entries(),
                tokens: sums.tokens(),
                total: sums.tokens().total(),
                cost: sums.cost(),
                unpriced: sums.unpriced(),
            })
            .collect()
    }
}

/// The group of a series.
#[derive(Debug, Clone, Copy)]
enum Member {
    /// There is no such series.
    Unknown,
    /// It is not asked for.
    OfNone,
    Of(usize),
}

/// A row of the roll-ups: its sums count in the group of an hour, added or taken away.
struct Block {
    sign: i64,
    hour: i64,
    number: i64,
    sums: Vec<u8>,
}

impl FromRow for Block {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self { sign: row.get(0)?, hour: row.get(1)?, number: row.get(2)?, sums: row.get(3)? })
    }
}

/// The range of time in parts: hours as the roll-ups know them, and entries before and behind them that are added, or
/// taken away again where an hour is wanted for the greater part.
#[derive(Debug, PartialEq)]
struct Parts {
    /// The first hour, and the first one behind; `None` for an end that is open.
    hours: Option<(i64, Option<i64>)>,
    edges: Vec<Range>,
}

impl Parts {
    fn of(from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        let start = from.map_or(0, |from| from.as_micros().max(0));
        let end = to.map(|to| to.as_micros().max(0));
        let mut edges = Vec::new();
        let mut edge = |from: i64, to: i64, sign: i64| {
            let time = |micros| Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX);
            if from < to {
                edges.push(Range { from: time(from), to: time(to), sign });
            }
        };
        if let Some(end) = end
            && end / HOUR == start / HOUR
        {
            edge(start, end, 1);
            return Self { hours: None, edges };
        }
        let first = nearest_hour(start);
        edge(start, first * HOUR, 1);
        edge(first * HOUR, start, -1);
        let last = end.map(|end| {
            let last = nearest_hour(end);
            edge(last * HOUR, end, 1);
            edge(end, last * HOUR, -1);
            last
        });
        Self { hours: Some((first, last)), edges }
    }
}

/// The hour that begins nearest to a time; none that begins when time has ended.
fn nearest_hour(micros: i64) -> i64 {
    let hour = micros / HOUR;
    if micros % HOUR > HOUR / 2 && (hour + 1) * HOUR <= Timestamp::MAX.as_micros() { hour + 1 } else { hour }
}

/// Statistics from the roll-ups, what is not in them yet, and the entries of hours that are not wanted whole. `None`
/// when the roll-ups were moved meanwhile.
async fn of_rollups(
    executor: &Executor,
    store: &TenantStore,
    request: &LedgerStatisticsRequest,
) -> Result<Option<Vec<LedgerStatistics>>> {
    let tenant = store.tenant;
    let mut groups = Groups { request, sums: BTreeMap::new() };
    let parts = Parts::of(request.from, request.to);
    let Some(outside) = rollups::outside(executor, tenant, &parts.edges).await? else { return Ok(Some(Vec::new())) };
    for (hour, series, sums) in &outside.raw {
        groups.add(*hour, series, sums)?;
    }
    if let Some((first, last)) = parts.hours {
        let whole = |hour: i64| hour >= first && last.is_none_or(|last| hour < last);
        for (series, hour, sums) in outside.tail.iter().flat_map(rollups::Batch::each) {
            if whole(hour) {
                groups.add(hour, series, sums)?;
            }
        }
        let (select, params) = select(request, tenant.into(), first, last);
        if !select.is_empty() {
            let blocks = executor.fetch_all(&Sql::assembled(select), &params).await?;
            groups.add_blocks(blocks, &rollups::series(executor, tenant).await?)?;
        }
    }
    if rollups::version(executor, tenant).await? != Some(outside.version) {
        return Ok(None);
    }
    Ok(Some(groups.finish()))
}

/// The statement that reads the roll-ups of whole hours: a row for each [`Block`].
fn select(request: &LedgerStatisticsRequest, tenant: Value, first: i64, last: Option<i64>) -> (String, Vec<Value>) {
    let (levels, hour): (&[Level], _) = if request.has(LedgerDimension::Hour) {
        (&[HOURS], "start")
    } else if request.has(LedgerDimension::Day) {
        (&[HOURS, DAYS], "start / 24 * 24")
    } else {
        (&[HOURS, DAYS, WEEKS], "0")
    };
    let mut params = vec![tenant];
    let selects = cover(levels, first, last).into_iter().map(|part| {
        let sign = if part.added { 1 } else { -1 };
        params.extend(params![part.level.hours, part.from]);
        let from = params.len();
        let end = part.to.map(|to| {
            params.push(Value::I64(to));
            format!(" AND start < ${}", params.len())
        });
        format!(
            "SELECT {sign}, {hour}, block, sums FROM ledger_rollups WHERE tenant_id = $1 AND hours = ${} AND start >= \
             ${from}{}",
            from - 1,
            end.unwrap_or_default()
        )
    });
    let text = selects.collect::<Vec<_>>().join(" UNION ALL ");
    (text, params)
}

/// Nodes of one level that are added, or taken away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    level: Level,
    from: i64,
    to: Option<i64>,
    added: bool,
}

/// The nodes that amount to the hours from `first` on and before `last`: large ones inside, small ones at the ends.
/// Where it is shorter, an end is a large node less some small ones.
fn cover(levels: &[Level], first: i64, last: Option<i64>) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut from, mut to) = (first, last);
    for (index, level) in levels.iter().enumerate() {
        if to.is_some_and(|to| to <= from) {
            break;
        }
        let part = |from, to, added| Part { level: *level, from, to, added };
        let Some(larger) = levels.get(index + 1) else {
            parts.push(part(from, to, true));
            break;
        };
        let (inner_from, inner_to) = (nearest(*larger, from), to.map(|to| nearest(*larger, to)));
        if let (Some(to), Some(inner_to)) = (to, inner_to) {
            let ends = ((from - inner_from).abs() + (to - inner_to).abs()) / level.hours;
            if (to - from) / level.hours <= ends + (inner_to - inner_from) / larger.hours {
                parts.push(part(from, Some(to), true));
                break;
            }
        }
        let mut end = |from: i64, to: i64, added| {
            if from < to {
                parts.push(part(from, Some(to), added));
            }
        };
        end(from, inner_from, true);
        end(inner_from, from, false);
        if let (Some(to), Some(inner_to)) = (to, inner_to) {
            end(inner_to, to, true);
            end(to, inner_to, false);
        }
        (from, to) = (inner_from, inner_to);
    }
    parts
}

/// The start of a node of a level that is nearest to an hour.
fn nearest(level: Level, hour: i64) -> i64 {
    let before = level.start(hour);
    if hour - before > level.hours / 2 { before + level.hours } else { before }
}

/// A group of entries.
struct Entries {
    hour: i64,
    series: (String, Option<String>, Option<String>, Option<AgentId>),
    owner: (Option<UserId>, Option<SessionId>),
    sums: Sums,
}

impl FromRow for Entries {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let mut sums = Sums::default();
        for (index, sum) in sums.0.iter_mut().enumerate() {
            *sum = row.get(7 + index)?;
        }
        Ok(Self {
            hour: row.get(0)?,
            series: (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?),
            owner: (row.get(5)?, row.get(6)?),
            sums,
        })
    }
}

/// Statistics from the entries themselves: roll-ups know neither users nor sessions.
async fn of_entries(store: &TenantStore, request: &LedgerStatisticsRequest) -> Result<Vec<LedgerStatistics>> {
    let (sql, params) = select_entries(&store.executor, store.tenant.into(), request, of_one(store, request).await?);
    let mut groups = Groups { request, sums: BTreeMap::new() };
    for row in store.executor.fetch_all::<Entries>(&sql, &params).await? {
        let (scope, provider, model, agent) = row.series;
        let scope = if scope.is_empty() { None } else { Some(scope.parse()?) };
        let key = (groups.start(row.hour), scope, provider, model, agent, row.owner.0, row.owner.1);
        groups.sums.entry(key).or_default().add(&row.sums, 1)?;
    }
    Ok(groups.finish())
}

/// The hours in which the entries of one user or session are looked for.
async fn of_one(store: &TenantStore, request: &LedgerStatisticsRequest) -> Result<Option<Hours>> {
    if request.user_id.is_none() && request.session_id.is_none() {
        return Ok(None);
    }
    let hours = BY_HOUR.hours(&store.executor, store.tenant).await?;
    Ok(hours.map(|(first, last)| {
        (
            request.from.map_or(first, |from| hour_of(from).max(first)),
            request.to.map_or(last, |to| hour_of(to).min(last)),
        )
    }))
}

/// The statement that groups entries.
fn select_entries(
    executor: &Executor,
    tenant: Value,
    request: &LedgerStatisticsRequest,
    hours: Option<Hours>,
) -> (Sql, Vec<Value>) {
    let hour = executor.dialect().hours_since_1970("created_at");
    let time = if request.has(LedgerDimension::Hour) {
        Some(hour)
    } else {
        request.has(LedgerDimension::Day).then(|| format!("{hour} / 24 * 24"))
    };
    let column =
        |dimension, column: &'static str, none: &'static str| if request.has(dimension) { column } else { none };
    let columns = [
        time.as_deref().unwrap_or("0"),
        column(LedgerDimension::Scope, "scope", "''"),
        column(LedgerDimension::Provider, "provider", "CAST(NULL AS text)"),
        column(LedgerDimension::Model, "model", "CAST(NULL AS text)"),
        column(LedgerDimension::Agent, "agent_id", "CAST(NULL AS int8)"),
        column(LedgerDimension::User, "user_id", "CAST(NULL AS uuid)"),
        column(LedgerDimension::Session, "session_id", "CAST(NULL AS uuid)"),
    ];
    let asked = [
        time.is_some(),
        request.has(LedgerDimension::Scope),
        request.has(LedgerDimension::Provider),
        request.has(LedgerDimension::Model),
        request.has(LedgerDimension::Agent),
        request.has(LedgerDimension::User),
        request.has(LedgerDimension::Session),
    ];
    let places: Vec<String> =
        asked.iter().enumerate().filter(|(_, asked)| **asked).map(|(index, _)| (index + 1).to_string()).collect();
    let group = if places.is_empty() { String::new() } else { format!(" GROUP BY {}", places.join(", ")) };
    let mut params = vec![tenant];
    let (mut from, mut conditions) = ("ledger".to_owned(), String::new());
    if let Some((first, last)) = hours {
        from = from_hours(&from, params.len() + 1);
        params.extend(params![first, last]);
        conditions.push_str(&format!(" AND {IN_HOURS}"));
    }
    let mut condition = |comparison: &str, value: Option<Value>| {
        if let Some(value) = value {
            params.push(value);
            conditions.push_str(&format!(" AND {comparison} ${}", params.len()));
        }
    };
    condition("created_at >=", request.from.map(Value::from));
    condition("created_at <", request.to.map(Value::from));
    condition("scope =", request.scope.map(Value::from));
    condition("provider =", request.provider.clone().map(Value::from));
    condition("model =", request.model.clone().map(Value::from));
    condition("agent_id =", request.agent_id.map(Value::from));
    condition("user_id =", request.user_id.map(Value::from));
    condition("session_id =", request.session_id.map(Value::from));
    // Without a group there is one row even of no entries: it has none, and no sums.
    let text = format!(
        "SELECT {}, {RAW_SUMS} FROM {from} WHERE tenant_id = $1{conditions}{group} HAVING COUNT(*) > 0",
        columns.join(", ")
    );
    (Sql::assembled(text), params)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 3] = [HOURS, DAYS, WEEKS];

    /// How often each hour is counted.
    fn counted(parts: &[Part]) -> BTreeMap<i64, i64> {
        let mut hours = BTreeMap::new();
        for part in parts {
            let to = part.to.unwrap_or(3000);
            assert_eq!(part.level.start(part.from), part.from, "{part:?} begins with a node");
            assert!(part.to.is_none_or(|to| part.level.start(to) == to), "{part:?} ends with a node");
            for hour in part.from..to {
                *hours.entry(hour).or_insert(0) += if part.added { 1 } else { -1 };
            }
        }
        hours.retain(|_, count| *count != 0);
        hours
    }

    proptest! {
        #[test]
        fn nodes_amount_to_the_hours_of_the_range(first in 0_i64..1500, length in 0_i64..1500, levels in 1_usize..4) {
            let parts = cover(&LEVELS[..levels], first, Some(first + length));
            let expected: BTreeMap<i64, i64> = (first..first + length).map(|hour| (hour, 1)).collect();
            prop_assert_eq!(counted(&parts), expected);
            let open = counted(&cover(&LEVELS[..levels], first, None));
            prop_assert!(open.iter().all(|(hour, count)| *hour >= first && *count == 1), "{:?}", open);
        }

        #[test]
        fn the_parts_of_a_range_are_the_range(from in 0_i64..5 * HOUR, length in 0_i64..5 * HOUR) {
            let time = |micros| Timestamp::from_micros(micros).expect("a time");
            let parts = Parts::of(Some(time(from)), Some(time(from + length)));
            // By how much each moment is counted more than the one before it.
            let mut steps: BTreeMap<i64, i64> = BTreeMap::new();
            let mut count = |from: i64, to: i64, sign: i64| {
                *steps.entry(from).or_default() += sign;
                *steps.entry(to).or_default() -= sign;
            };
            for range in &parts.edges {
                prop_assert!(range.from < range.to, "{:?}", parts);
                count(range.from.as_micros(), range.to.as_micros(), range.sign);
            }
            if let Some((first, Some(last))) = parts.hours {
                prop_assert!(first <= last);
                count(first * HOUR, last * HOUR, 1);
            }
            steps.retain(|_, step| *step != 0);
            let whole = if length > 0 { vec![(from, 1), (from + length, -1)] } else { Vec::new() };
            prop_assert_eq!(steps.into_iter().collect::<Vec<_>>(), whole, "{:?}", parts);
            let read: i64 = parts.edges.iter().map(|range| range.to.as_micros() - range.from.as_micros()).sum();
            prop_assert!(read <= HOUR, "{:?}", parts);
        }
    }

    #[test]
    fn no_hour_ends_behind_the_end_of_time() {
        let parts = Parts::of(Timestamp::from_micros(0).ok(), Some(Timestamp::MAX));
        assert!(parts.edges.iter().all(|range| range.sign == 1 && range.to == Timestamp::MAX), "{parts:?}");
    }

    #[test]
    fn thirty_days_are_few_nodes() {
        let nodes = |first: i64| -> i64 {
            let parts = cover(&LEVELS, first, Some(first + 720));
            parts.iter().map(|part| (part.to.expect("an end") - part.from) / part.level.hours).sum()
        };
        let most = (10_000..10_168).map(nodes).max();
        assert!(most <= Some(36), "{most:?} of 720 hours");
    }
}
