//! Sums of whole numbers by groups.

use std::collections::HashMap;

use agentkeep_core::{Error, Result};

use super::{Dialect, Executor, FromRow, RowRef, Sql, Value};

/// Columns that groups are formed by.
pub(crate) const KEYS: usize = 2;
/// Columns that are summed.
pub(crate) const SUMS: usize = 9;

/// The sums of the rows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub keys: [i64; KEYS],
    pub sums: [i64; SUMS],
}

impl FromRow for Group {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let (mut keys, mut sums) = ([0; KEYS], [0; SUMS]);
        for (index, key) in keys.iter_mut().enumerate() {
            *key = row.get(index)?;
        }
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = row.get(KEYS + index)?;
        }
        Ok(Self { keys, sums })
    }
}

impl Executor {
    /// Groups the rows of a SELECT by its first [`KEYS`] columns and sums the [`SUMS`] behind them, all of them whole
    /// numbers. The groups come in no particular order.
    ///
    /// PostgreSQL groups in the server, by hash. SQLite would sort every row first, which takes three times as long
    /// as reading them: there they are summed here.
    ///
    /// # Errors
    /// [`Error::Database`] with code 22003 when a sum does not fit 64 bits.
    pub(crate) async fn sum_groups(&self, select: &str, params: &[Value]) -> Result<Vec<Group>> {
        match self.dialect() {
            Dialect::Postgres => self.fetch_all(&Sql::assembled(grouped(select)), params).await,
            Dialect::Sqlite => fold(self.fetch_all(&Sql::assembled(select), params).await?),
        }
    }
}

fn grouped(select: &str) -> String {
    let (keys, sums): (Vec<_>, Vec<_>) =
        ((0..KEYS).map(|index| format!("k{index}")).collect(), (0..SUMS).map(|index| format!("s{index}")).collect());
    let added: String = sums.iter().map(|sum| format!(", CAST(SUM({sum}) AS int8)")).collect();
    let keys = keys.join(", ");
    format!("SELECT {keys}{added} FROM ({select}) AS rows ({keys}, {}) GROUP BY {keys}", sums.join(", "))
}

fn fold(rows: Vec<Group>) -> Result<Vec<Group>> {
    let mut places: HashMap<[i64; KEYS], usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let place = *places.entry(row.keys).or_insert(groups.len());
        if place == groups.len() {
            groups.push(row);
            continue;
        }
        for (sum, more) in groups[place].sums.iter_mut().zip(row.sums) {
            *sum = sum.checked_add(more).ok_or_else(|| Error::Database {
                code: Some("22003".into()),
                message: "a sum does not fit 64 bits".into(),
            })?;
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_by_key_and_an_overflow_is_told() {
        let row = |key, sum| Group { keys: [key, 0], sums: [sum; SUMS] };
        let groups = fold(vec![row(1, 2), row(2, 5), row(1, -3)]).expect("sums");
        assert_eq!(groups, [row(1, -1), row(2, 5)]);
        assert!(fold(vec![row(1, i64::MAX), row(1, 1)]).is_err());
    }
}
