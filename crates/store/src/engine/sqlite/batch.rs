//! Statements about many rows: prepared ones in a loop, inside the writer's transaction.

use std::collections::HashSet;

use agentkeep_core::Result;
use rusqlite::CachedStatement;

use super::{
    super::{
        Last, RowRef, RowSql, Sql, Then, Value,
        row::{NewRows, Rows},
    },
    connection::Session,
};

/// Runs a batch over `rows`; the rows that come of it.
pub(super) fn run(
    session: &Session,
    new: NewRows,
    sql: &RowSql,
    fixed: &[Value],
    rows: &[Vec<Value>],
) -> Result<Box<dyn Rows>> {
    let batch = Batch { session, fixed };
    let mut out = Output { items: new(), noted: Noted::new(&sql.last) };
    let mut each = batch.prepare(&sql.each)?;
    let mut writes = sql.writes.iter().flatten().map(|write| batch.prepare(write)).collect::<Result<Vec<_>>>()?;
    let mut write = |params: &[Value]| writes.iter_mut().try_for_each(|write| write.execute(params));
    match &sql.then {
        Then::Nothing => {
            for row in rows {
                each.bind(row)?;
                if out.collect(&mut each)? {
                    write(row)?;
                }
            }
        }
        Then::Each(then) => {
            let mut then = batch.prepare(then)?;
            for row in rows {
                each.bind(row)?;
                for between in each.collect()? {
                    then.bind(&between)?;
                    if out.collect(&mut then)? {
                        write(&between)?;
                    }
                }
            }
        }
        Then::TakeThrough(whole, part) => {
            let mut takes = [batch.prepare(whole)?, batch.prepare(part)?];
            let room = takes.iter().map(|take| take.room()).max().unwrap_or(0);
            for row in rows {
                each.bind(row)?;
                let mut taken = Vec::new();
                let Some(last) = out.take(&mut each, room.saturating_sub(row.len()), &mut taken)? else { continue };
                for take in &mut takes {
                    take.bind(row)?;
                    take.bind_behind(row.len(), &last)?;
                    take.run()?;
                }
                for first in taken {
                    write(std::slice::from_ref(&first))?;
                }
            }
        }
    }
    match (&sql.last, out.noted) {
        (Last::Together(last), Noted::Ids(ids)) if out.items.count() > 0 => {
            let count = i64::try_from(out.items.count()).unwrap_or(i64::MAX);
            batch.prepare(last)?.execute(&[Value::I64(count), Value::Bytes(ids)])?;
        }
        (Last::Grouped(last), Noted::Groups(groups)) if !groups.is_empty() => {
            let mut last = batch.prepare(last)?;
            for (value, count) in groups {
                last.execute(&[value, Value::I64(count)])?;
            }
        }
        _ => {}
    }
    Ok(out.items)
}

/// What all statements of a batch share.
struct Batch<'a> {
    session: &'a Session,
    fixed: &'a [Value],
}

impl<'a> Batch<'a> {
    /// Prepares a statement and binds the fixed parameters, which stay bound from one row to the next.
    fn prepare(&self, sql: &Sql) -> Result<Prepared<'a>> {
        let session = self.session;
        let statement = session.connection.prepare_cached(sql.sqlite()).map_err(|cause| session.error(cause))?;
        let mut prepared = Prepared { session, wanted: statement.parameter_count(), fixed: 0, statement };
        prepared.bind(self.fixed)?;
        prepared.fixed = self.fixed.len();
        Ok(prepared)
    }
}

/// A statement with its fixed parameters bound.
struct Prepared<'a> {
    session: &'a Session,
    statement: CachedStatement<'a>,
    /// How many parameters it has.
    wanted: usize,
    /// How many of them are the fixed ones.
    fixed: usize,
}

impl Prepared<'_> {
    /// Binds what comes behind the fixed parameters; a text may do without the last of those it shares with others.
    fn bind(&mut self, params: &[Value]) -> Result<()> {
        self.bind_behind(0, params)
    }

    /// Binds what comes behind the fixed parameters and `bound` others.
    fn bind_behind(&mut self, bound: usize, params: &[Value]) -> Result<()> {
        let first = self.fixed + bound + 1;
        for (index, value) in params.iter().enumerate().take((self.wanted + 1).saturating_sub(first)) {
            let bound = self.statement.raw_bind_parameter(first + index, value);
            bound.map_err(|cause| self.session.error(cause))?;
        }
        Ok(())
    }

    /// How many parameters it has behind the fixed ones.
    fn room(&self) -> usize {
        self.wanted.saturating_sub(self.fixed)
    }

    /// Binds and runs a statement whose rows nobody wants.
    fn execute(&mut self, params: &[Value]) -> Result<()> {
        self.bind(params)?;
        self.run()
    }

    fn run(&mut self) -> Result<()> {
        let session = self.session;
        self.statement.raw_execute().map(|_| ()).map_err(|cause| session.error(cause))
    }

    /// The columns of its rows.
    fn collect(&mut self) -> Result<Vec<Vec<Value>>> {
        let mut found = Vec::new();
        self.for_each(|row, width| {
            found.push((0..width).map(|index| row.get(index)).collect::<Result<_>>()?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `visit` with each row and the number of its columns.
    fn for_each(&mut self, mut visit: impl FnMut(&RowRef<'_>, usize) -> Result<()>) -> Result<()> {
        let (session, width) = (self.session, self.statement.column_count());
        let mut rows = self.statement.raw_query();
        while let Some(row) = rows.next().map_err(|cause| session.error(cause))? {
            visit(&RowRef::Sqlite(row), width)?;
        }
        Ok(())
    }
}

/// What comes out, and what the last statement needs to know of it.
struct Output {
    items: Box<dyn Rows>,
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

impl Output {
    fn keep(&mut self, row: &RowRef<'_>) -> Result<()> {
        self.noted.note(row)?;
        self.items.keep(row)
    }

    /// Whether anything came out.
    fn collect(&mut self, statement: &mut Prepared<'_>) -> Result<bool> {
        let before = self.items.count();
        statement.for_each(|row, _| self.keep(row))?;
        Ok(self.items.count() > before)
    }

    /// Keeps the rows whose first column is not NULL and did not come before, and notes those in `taken`; the last
    /// `width` columns of the last row, whatever its first is, if there was any.
    fn take(
        &mut self,
        statement: &mut Prepared<'_>,
        width: usize,
        taken: &mut Vec<Value>,
    ) -> Result<Option<Vec<Value>>> {
        let mut last = Vec::with_capacity(width);
        let mut seen = HashSet::new();
        statement.for_each(|row, columns| {
            if let Some(first) = row.get::<Option<Vec<u8>>>(0)?
                && seen.insert(first.clone())
            {
                self.keep(row)?;
                taken.push(Value::Bytes(first));
            }
            last.clear();
            for index in columns.saturating_sub(width)..columns {
                last.push(row.get(index)?);
            }
            Ok(())
        })?;
        Ok(Some(last).filter(|last| !last.is_empty()))
    }
}
