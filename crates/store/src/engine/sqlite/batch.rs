//! Statements about many rows: prepared ones in a loop, inside the writer's transaction.

use agentkeep_core::Result;
use rusqlite::Statement;

use super::{
    super::{FromRow, Last, RowRef, RowSql, Value},
    codec,
    connection::Session,
};

/// Runs a batch over `rows`; the rows that come of it.
pub(super) fn run<T: FromRow>(session: &Session, sql: &RowSql, fixed: &[Value], rows: &[Vec<Value>]) -> Result<Vec<T>> {
    let map = |cause| session.error(cause);
    let prepare = |text| session.connection.prepare_cached(text).map_err(map);
    let mut each = prepare(sql.each.sqlite())?;
    let mut out = Output { items: Vec::with_capacity(rows.len()), noted: Noted::new(&sql.last) };
    let mut writes = sql.writes.iter().flatten().map(|write| prepare(write.sqlite())).collect::<Result<Vec<_>>>()?;
    let mut write = |params: &[Value]| -> Result<()> {
        for write in &mut writes {
            bind(write, fixed.iter().chain(params)).map_err(map)?;
            write.raw_execute().map_err(map)?;
        }
        Ok(())
    };
    if let Some(then) = &sql.then {
        let mut then = prepare(then.sqlite())?;
        for row in rows {
            bind(&mut each, fixed.iter().chain(row)).map_err(map)?;
            for between in codec::collect::<Columns>(&mut each, map)? {
                bind(&mut then, fixed.iter().chain(&between.0)).map_err(map)?;
                if out.collect(session, &mut then)? {
                    write(&between.0)?;
                }
            }
        }
    } else {
        for row in rows {
            bind(&mut each, fixed.iter().chain(row)).map_err(map)?;
            if out.collect(session, &mut each)? {
                write(row)?;
            }
        }
    }
    let finish = |text, params: [Value; 2]| {
        let mut last = prepare(text)?;
        bind(&mut last, fixed.iter().chain(&params)).map_err(map)?;
        codec::collect::<Columns>(&mut last, map).map(|_| ())
    };
    match (&sql.last, out.noted) {
        (Last::Together(last), Noted::Ids(ids)) if !out.items.is_empty() => {
            finish(last.sqlite(), [Value::I64(i64::try_from(out.items.len()).unwrap_or(i64::MAX)), Value::Bytes(ids)])?;
        }
        (Last::Grouped(last), Noted::Groups(groups)) => {
            for (value, count) in groups {
                finish(last.sqlite(), [value, Value::I64(count)])?;
            }
        }
        _ => {}
    }
    Ok(out.items)
}

/// Binds what a statement takes; a text may do without the last of the parameters it shares with others.
fn bind<'a>(statement: &mut Statement<'_>, params: impl Iterator<Item = &'a Value>) -> rusqlite::Result<()> {
    let wanted = statement.parameter_count();
    codec::bind_all(statement, params.take(wanted))
}

/// The columns of a row, whatever they are.
struct Columns(Vec<Value>);

impl FromRow for Columns {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let RowRef::Sqlite(columns) = row else { return Ok(Self(Vec::new())) };
        let statement: &Statement<'_> = columns.as_ref();
        (0..statement.column_count()).map(|index| row.get(index)).collect::<Result<_>>().map(Self)
    }
}

/// What comes out, and what the last statement needs to know of it.
struct Output<T> {
    items: Vec<T>,
    noted: Noted,
}

enum Noted {
    Nothing,
    Ids(Vec<u8>),
    Groups(Vec<(Value, i64)>),
}

impl Noted {
    fn new(last: &Last) -> Self {
        match last {
            Last::Nothing => Self::Nothing,
            Last::Together(_) => Self::Ids(Vec::new()),
            Last::Grouped(_) => Self::Groups(Vec::new()),
        }
    }

    fn note(&mut self, row: &RowRef<'_>) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Ids(ids) => ids.extend(row.get::<Vec<u8>>(0)?),
            Self::Groups(groups) => {
                let value: Value = row.get(1)?;
                // Rows of one group lie together, and there are few groups.
                match groups.iter_mut().rev().find(|(known, _)| *known == value) {
                    Some((_, count)) => *count += 1,
                    None if value.is_null() => {}
                    None => groups.push((value, 1)),
                }
            }
        }
        Ok(())
    }
}

impl<T: FromRow> Output<T> {
    /// Whether anything came out.
    fn collect(&mut self, session: &Session, statement: &mut Statement<'_>) -> Result<bool> {
        let before = self.items.len();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|cause| session.error(cause))? {
            let row = RowRef::Sqlite(row);
            self.noted.note(&row)?;
            self.items.push(T::from_row(&row)?);
        }
        Ok(self.items.len() > before)
    }
}
