//! The one statement that appends many rows: its parameters, built straight from the rows.

use std::collections::HashMap;

use agentkeep_core::{Error, Result, TenantId, Timestamp};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    super::{PostgresAppend, Value},
    encode::{ColumnArray, NumberArray, TimeArray, UuidArray},
    error::Fault,
    link::{Link, Ready},
};

/// Rows of one statement: what callers hand over at once is one, where its bytes allow that.
const ROWS_A_STATEMENT: usize = 10_000;
/// Bytes of one statement: the server takes 1 GB, and both sides hold it in memory.
const BYTES_A_STATEMENT: usize = 16 << 20;

/// The parameters of an append of some rows of one tenant.
struct Group<'a> {
    tenant: i32,
    parents: UuidArray,
    counts: NumberArray,
    latest: TimeArray,
    places: NumberArray,
    columns: Vec<ColumnArray<'a>>,
}

impl<'a> Group<'a> {
    /// # Errors
    /// [`Error::Invalid`] for rows that do not begin with the parent's id and a time or differ in length.
    fn new(tenant: TenantId, rows: &'a [&'a [Value]], columns: usize) -> Result<Self> {
        // Parents in the order of their ids: every writer locks them in the same order.
        let mut parents: Vec<(Uuid, Timestamp, i64)> = Vec::with_capacity(rows.len().min(64));
        let mut known: HashMap<Uuid, usize> = HashMap::with_capacity(rows.len());
        let mut places = Vec::with_capacity(rows.len());
        let width = rows.first().map_or(0, |row| row.len());
        for row in rows {
            let (parent, time) = parent_and_time(row, width)?;
            let index = *known.entry(parent).or_insert_with(|| {
                parents.push((parent, time, 0));
                parents.len() - 1
            });
            let (_, latest, count) = &mut parents[index];
            *latest = time.max(*latest);
            *count += 1;
            places.push(*count);
        }
        parents.sort_unstable_by_key(|(parent, ..)| *parent);
        Ok(Self {
            tenant: tenant.0,
            parents: UuidArray(parents.iter().map(|(parent, ..)| *parent).collect()),
            counts: NumberArray(parents.iter().map(|(.., count)| *count).collect()),
            latest: TimeArray(parents.iter().map(|(_, latest, _)| *latest).collect()),
            places: NumberArray(places),
            columns: (0..columns.min(width)).map(|column| ColumnArray { rows, column }).collect(),
        })
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let fixed: [&(dyn ToSql + Sync); 5] = [&self.tenant, &self.parents, &self.counts, &self.latest, &self.places];
        fixed.into_iter().chain(self.columns.iter().map(|column| column as &(dyn ToSql + Sync))).collect()
    }
}

fn parent_and_time(row: &[Value], width: usize) -> Result<(Uuid, Timestamp)> {
    match row {
        [Value::Uuid(parent), Value::Time(time), ..] if row.len() == width => Ok((*parent, *time)),
        _ => Err(Error::database(
            "a row to append has to begin with its parent's id and a time, and all to be of one length",
        )),
    }
}

/// Appends `rows` in one statement, the one that [`AppendSql::postgres_for`] gives for them, made `ready`; the
/// number of each, `None` where the parent is missing.
///
/// [`AppendSql::postgres_for`]: super::super::AppendSql::postgres_for
pub(super) async fn append(
    link: &Link,
    ready: &Ready,
    statement: PostgresAppend<'_>,
    tenant: TenantId,
    rows: &[&[Value]],
) -> Result<Vec<Option<i64>>, Fault> {
    let columns = match (statement, rows) {
        (PostgresAppend::Arrays(_, columns), _) => columns,
        (PostgresAppend::One(_, columns), rows) => {
            let tenant = Value::from(tenant);
            let row = rows.first().copied().unwrap_or_default();
            let params: Vec<&Value> = std::iter::once(&tenant).chain(row.iter().take(columns)).collect();
            let mut base: Vec<(Uuid, i64)> = Vec::new();
            link.rows(statement.text(), ready, &params, &mut base).await?;
            return Ok(vec![base.first().map(|(_, base)| base + 1)]);
        }
    };
    let group = Group::new(tenant, rows, columns).map_err(Fault::Unfit)?;
    let mut bases: Vec<(Uuid, i64)> = Vec::new();
    link.rows(statement.text(), ready, &group.parameters(), &mut bases).await?;
    let bases: HashMap<Uuid, i64> = bases.into_iter().collect();
    Ok(rows
        .iter()
        .zip(&group.places.0)
        .map(|(row, place)| match row.first() {
            Some(Value::Uuid(parent)) => bases.get(parent).map(|base| base + place),
            _ => None,
        })
        .collect())
}

/// About how many bytes a row takes in a statement.
pub(super) fn bytes_of(row: &[Value]) -> usize {
    row.iter()
        .map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Json(json) => json.as_str().len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 16,
        })
        .sum()
}

/// Splits rows into statements of at most `ROWS_A_STATEMENT` rows and `BYTES_A_STATEMENT` bytes; a row
/// larger than that has one to itself.
pub(super) fn statements(rows: &[Vec<Value>]) -> impl Iterator<Item = &[Vec<Value>]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest
            .iter()
            .take(ROWS_A_STATEMENT)
            .take_while(|row| {
                bytes += bytes_of(row);
                bytes <= BYTES_A_STATEMENT
            })
            .count();
        let (statement, behind) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = behind;
        (!statement.is_empty()).then_some(statement)
    })
}
