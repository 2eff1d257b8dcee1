//! Values in, columns out, errors mapped to the SQLSTATEs that everything above the engine knows.

use std::borrow::Cow;

use agentkeep_core::{Error, Result};
use rusqlite::{
    ErrorCode, Statement, ToSql, ffi,
    types::{ToSqlOutput, Value as Owned, ValueRef},
};

use super::super::{
    ColumnRef, RowRef,
    row::Rows,
    value::{Value, escape_text},
};

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Self::I32(value) => ValueRef::Integer(i64::from(*value)),
            Self::I64(value) => ValueRef::Integer(*value),
            Self::F64(value) => ValueRef::Real(*value),
            Self::Text(text) => match escape_text(text) {
                Cow::Borrowed(text) => ValueRef::Text(text.as_bytes()),
                Cow::Owned(text) => return Ok(ToSqlOutput::Owned(Owned::Text(text))),
            },
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Uuid(id) => ValueRef::Blob(id.as_bytes()),
            Self::Time(time) => ValueRef::Integer(time.as_micros()),
            Self::Json(json) => ValueRef::Text(json.as_str().as_bytes()),
        }))
    }
}

/// Column `index` of a row, as it is stored. Inlined, and without a `Result`: this runs for every column of every row.
#[inline]
pub(crate) fn column<'a>(row: &'a rusqlite::Row<'_>, index: usize) -> ColumnRef<'a> {
    match row.get_ref(index) {
        Ok(ValueRef::Null) => ColumnRef::Null,
        Ok(ValueRef::Integer(value)) => ColumnRef::Int(value),
        Ok(ValueRef::Real(value)) => ColumnRef::Float(value),
        Ok(ValueRef::Text(bytes)) => {
            std::str::from_utf8(bytes).map_or(ColumnRef::Broken("it holds text that is not UTF-8"), ColumnRef::Text)
        }
        Ok(ValueRef::Blob(bytes)) => ColumnRef::Bytes(bytes),
        Err(_) => ColumnRef::Broken("there is no such column"),
    }
}

/// Binds `params` to `$1`, `$2` …
pub(super) fn bind<'a>(
    statement: &mut Statement<'_>,
    params: impl ExactSizeIterator<Item = &'a Value>,
) -> rusqlite::Result<()> {
    let (given, wanted) = (params.len(), statement.parameter_count());
    if given != wanted {
        return Err(rusqlite::Error::InvalidParameterCount(given, wanted));
    }
    bind_all(statement, params)
}

/// Binds parameters that are known to be as many as the statement has.
pub(super) fn bind_all<'a>(
    statement: &mut Statement<'_>,
    params: impl Iterator<Item = &'a Value>,
) -> rusqlite::Result<()> {
    for (index, value) in params.enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

/// Runs a bound statement and decodes its rows into `items`. `map` turns an error of the driver into ours.
pub(super) fn collect(
    statement: &mut Statement<'_>,
    mut items: Box<dyn Rows>,
    map: impl Fn(rusqlite::Error) -> Error,
) -> Result<Box<dyn Rows>> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(&map)? {
        items.keep(&RowRef::Sqlite(row))?;
    }
    Ok(items)
}

/// An error of the driver as one of ours, with the SQLSTATE that PostgreSQL has for the same fault.
pub(super) fn error(cause: rusqlite::Error, target: &str) -> Error {
    let (failure, message) = match &cause {
        rusqlite::Error::SqliteFailure(failure, message) => (failure, message),
        rusqlite::Error::SqlInputError { msg, .. } => {
            return Error::Database { code: Some(misunderstood(msg).to_owned()), message: msg.clone() };
        }
        _ => return Error::database(cause.to_string()),
    };
    let message = message.clone().unwrap_or_else(|| failure.to_string());
    let unavailable = |reason: String| Error::Unavailable { target: target.to_owned(), reason };
    let state = match failure.code {
        ErrorCode::NotADatabase => return unavailable("this is no SQLite database".into()),
        ErrorCode::CannotOpen => return unavailable(format!("it cannot be opened: {message}")),
        ErrorCode::DatabaseCorrupt => return unavailable(format!("the file is damaged: {message}")),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "55P03",
        ErrorCode::DiskFull => "53100",
        ErrorCode::OutOfMemory => "53200",
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => "25006",
        ErrorCode::SystemIoFailure => "58030",
        ErrorCode::TooBig => "54000",
        ErrorCode::TypeMismatch => "42804",
        ErrorCode::ConstraintViolation => match failure.extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "23505",
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
            ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
            _ => "23514",
        },
        ErrorCode::Unknown => misunderstood(&message),
        _ => "XX000",
    };
    Error::Database { code: Some(state.to_owned()), message }
}

/// The SQLSTATE of a statement that SQLite does not understand: it has one code for all of them, and tells
/// them apart in the message only.
fn misunderstood(message: &str) -> &'static str {
    let known = [
        ("no such table", "42P01"),
        ("no such column", "42703"),
        ("no such function", "42883"),
        ("has no column named", "42703"),
        ("ambiguous column name", "42702"),
        ("already exists", "42P07"),
        ("syntax error", "42601"),
        ("incomplete input", "42601"),
        ("unrecognized token", "42601"),
        ("malformed JSON", "22032"),
    ];
    known.iter().find(|(part, _)| message.contains(part)).map_or("XX000", |(_, state)| state)
}
