//! Rows on their way out.
//!
//! Inside the store rows are decoded in place, straight from the driver's buffers ([`FromRow`]); raw access
//! gets owned [`Row`]s.

use std::{any::Any, sync::Arc};

use agentkeep_core::{AgentId, Error, Json, JsonArray, JsonObject, Money, Result, TenantId, Timestamp};
use uuid::Uuid;

use super::{
    postgres::{self, Numeric},
    value::{Value, unescape_json, unescape_text},
};

/// A column as the driver holds it.
#[derive(Clone, Copy)]
pub(crate) enum ColumnRef<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text as it is stored, escapes and all.
    Text(&'a str),
    /// A decimal number of any size (PostgreSQL).
    Numeric(Numeric<'a>),
    Bytes(&'a [u8]),
    Uuid(Uuid),
    Time(Timestamp),
    /// The text of a `jsonb` column, escapes and all.
    Jsonb(&'a str),
    /// What cannot be read, and why.
    Broken(&'static str),
}

impl std::fmt::Debug for ColumnRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl ColumnRef<'_> {
    /// What kind of value it is, for error messages: the value itself may be a secret.
    fn kind(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a floating-point number",
            Self::Text(_) => "text",
            Self::Numeric(_) => "a decimal number",
            Self::Bytes(_) => "bytes",
            Self::Uuid(_) => "a UUID",
            Self::Time(_) => "a time",
            Self::Jsonb(_) => "jsonb",
            Self::Broken(why) => why,
        }
    }
}

/// A row as the driver holds it.
pub(crate) enum RowRef<'a> {
    Postgres(&'a postgres::Row<'a>),
    Sqlite(&'a rusqlite::Row<'a>),
}

impl RowRef<'_> {
    /// Decodes column `index`, counted from 0.
    #[inline]
    pub(crate) fn get<T: FromColumn>(&self, index: usize) -> Result<T> {
        let value = match self {
            Self::Postgres(row) => postgres::value(row, index),
            Self::Sqlite(row) => T::from_column(super::sqlite::column(row, index)).ok(),
        };
        value.ok_or_else(|| self.unwanted(index, |column| T::from_column(column).err()))
    }

    /// Why column `index` does not become what was `wanted`, which tells its name.
    #[cold]
    fn unwanted(&self, index: usize, wanted: fn(ColumnRef<'_>) -> Option<&'static str>) -> Error {
        let (column, title) = match self {
            Self::Postgres(row) => (postgres::column(row, index), postgres::title(row, index)),
            Self::Sqlite(row) => {
                (super::sqlite::column(row, index), row.as_ref().column_name(index).ok().map(str::to_owned))
            }
        };
        let wanted = wanted(column).unwrap_or("what was wanted");
        let title = title.map_or_else(String::new, |title| format!(" ({title})"));
        Error::database(match column {
            ColumnRef::Broken(why) => format!("column {index}{title}: {why}"),
            column => format!("column {index}{title} holds {column:?}, not {wanted}"),
        })
    }
}

/// What a row becomes.
pub(crate) trait FromRow: Sized + Send + 'static {
    fn from_row(row: &RowRef<'_>) -> Result<Self>;
}

/// Rows on their way to whoever asked for them, in a list whose type only they know: what runs statements is compiled
/// once, and not once for every entity.
pub(crate) trait Rows: Send {
    /// Decodes a row and keeps it.
    fn keep(&mut self, row: &RowRef<'_>) -> Result<()>;

    fn count(&self) -> usize;

    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: FromRow> Rows for Vec<T> {
    fn keep(&mut self, row: &RowRef<'_>) -> Result<()> {
        self.push(T::from_row(row)?);
        Ok(())
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes an empty list: a statement that is tried again begins with a new one.
pub(crate) type NewRows = fn() -> Box<dyn Rows>;

/// An empty list of rows that become `T`.
pub(crate) fn rows_of<T: FromRow>() -> Box<dyn Rows> {
    Box::new(Vec::<T>::new())
}

/// The rows of a list that [`rows_of`] the same type has made.
pub(crate) fn typed<T: FromRow>(rows: Box<dyn Rows>) -> Result<Vec<T>> {
    let rows = rows.into_any().downcast::<Vec<T>>();
    rows.map(|rows| *rows).map_err(|_| Error::database("the rows are of another type than was asked for"))
}

/// What a column becomes. The error is the name of what was wanted.
pub(crate) trait FromColumn: Sized {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str>;
}

macro_rules! from_column {
    ($($type:ty, $wanted:literal: $($pattern:pat => $value:expr),+;)*) => {$(
        impl FromColumn for $type {
            fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
                match column {
                    $($pattern => Ok($value),)+
                    _ => Err($wanted),
                }
            }
        }
    )*};
}

from_column! {
    bool, "a truth value": ColumnRef::Bool(value) => value, ColumnRef::Int(value @ (0 | 1)) => value == 1;
    String, "text": ColumnRef::Text(text) => unescape_text(text).into_owned(), ColumnRef::Numeric(number) => number.to_string();
    Vec<u8>, "bytes": ColumnRef::Bytes(bytes) => bytes.to_vec();
    Json, "JSON": ColumnRef::Jsonb(text) => Json::from_stored(unescape_json(text)), ColumnRef::Text(text) => Json::from_stored(text);
    JsonObject, "a JSON object": ColumnRef::Jsonb(text) => Self::from_stored(unescape_json(text)), ColumnRef::Text(text) => Self::from_stored(text);
    JsonArray, "a JSON array": ColumnRef::Jsonb(text) => Self::from_stored(unescape_json(text)), ColumnRef::Text(text) => Self::from_stored(text);
}

impl FromColumn for i64 {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        match column {
            ColumnRef::Int(value) => Ok(value),
            ColumnRef::Numeric(number) => number.to_string().parse().map_err(|_| "a whole number of 64 bits"),
            _ => Err("a whole number"),
        }
    }
}

impl FromColumn for f64 {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        match column {
            ColumnRef::Float(value) => Ok(value),
            ColumnRef::Int(value) => Ok(value as Self),
            ColumnRef::Numeric(number) => number.to_string().parse().map_err(|_| "a number"),
            _ => Err("a number"),
        }
    }
}

impl FromColumn for Uuid {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        match column {
            ColumnRef::Uuid(id) => Ok(id),
            ColumnRef::Bytes(bytes) => Self::from_slice(bytes).map_err(|_| "a UUID"),
            ColumnRef::Text(text) => Self::parse_str(text).map_err(|_| "a UUID"),
            _ => Err("a UUID"),
        }
    }
}

impl FromColumn for Timestamp {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        match column {
            ColumnRef::Time(time) => Ok(time),
            ColumnRef::Int(micros) => Self::from_micros(micros).map_err(|_| "a time"),
            _ => Err("a time"),
        }
    }
}

impl FromColumn for i32 {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        i64::from_column(column).and_then(|value| Self::try_from(value).map_err(|_| "a 32-bit number"))
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        match column {
            ColumnRef::Null => Ok(None),
            column => T::from_column(column).map(Some),
        }
    }
}

impl FromColumn for Value {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        Ok(match column {
            ColumnRef::Null => Self::Null,
            ColumnRef::Bool(value) => Self::Bool(value),
            ColumnRef::Int(value) => Self::I64(value),
            ColumnRef::Float(value) => Self::F64(value),
            ColumnRef::Text(text) => Self::Text(unescape_text(text).into_owned()),
            ColumnRef::Numeric(number) => Self::Text(number.to_string()),
            ColumnRef::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            ColumnRef::Uuid(id) => Self::Uuid(id),
            ColumnRef::Time(time) => Self::Time(time),
            ColumnRef::Jsonb(text) => Self::Json(Json::from_stored(unescape_json(text))),
            ColumnRef::Broken(_) => return Err("a value"),
        })
    }
}

macro_rules! from_column_ids {
    ($($id:ident),* $(,)?) => {$(
        impl FromColumn for agentkeep_core::$id {
            fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
                Uuid::from_column(column).map(Self)
            }
        }
    )*};
}

from_column_ids! {
    UserId, AgentVersionId, TeamId, SessionId, MessageId, ArtifactId, MemoryId, PromptId, PreferenceId, McpServerId,
    MetricId, RoutingDecisionId, CheckpointId, JobId, JobScheduleId, ApprovalId,
    LedgerEntryId, PriceId, BudgetId, ReservationId, DeploymentId, ApiKeyId, RunId,
}

impl FromColumn for TenantId {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        i32::from_column(column).map(Self)
    }
}

impl FromColumn for AgentId {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        i64::from_column(column).map(Self)
    }
}

impl FromColumn for Money {
    fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
        i64::from_column(column).map(Self::from_units)
    }
}

/// Decodes text columns into one of the closed lists of words of `core`.
macro_rules! from_column_words {
    ($($word:ty),* $(,)?) => {$(
        impl $crate::engine::FromColumn for $word {
            fn from_column(column: $crate::engine::ColumnRef<'_>) -> Result<Self, &'static str> {
                match column {
                    $crate::engine::ColumnRef::Text(text) => text.parse().map_err(|_| concat!("a ", stringify!($word))),
                    _ => Err(concat!("a ", stringify!($word))),
                }
            }
        }

        impl From<$word> for $crate::engine::Value {
            fn from(word: $word) -> Self {
                Self::Text(word.as_str().to_owned())
            }
        }
    )*};
}
pub(crate) use from_column_words;

macro_rules! from_row_tuples {
    ($(($($type:ident $index:tt),+);)*) => {$(
        impl<$($type: FromColumn + Send + 'static),+> FromRow for ($($type,)+) {
            fn from_row(row: &RowRef<'_>) -> Result<Self> {
                Ok(($(row.get::<$type>($index)?,)+))
            }
        }
    )*};
}

from_row_tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
}

/// An owned row of raw access: its columns by name or place.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// The names of the columns.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns in order.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The columns in order, owned.
    #[must_use]
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// The column of that name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.names.iter().position(|known| known == name).and_then(|index| self.values.get(index))
    }
}

impl FromRow for Row {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let names: Arc<[String]> = match row {
            RowRef::Postgres(row) => row.names().map(str::to_owned).collect(),
            RowRef::Sqlite(row) => {
                let statement: &rusqlite::Statement<'_> = row.as_ref();
                statement.column_names().map(str::to_owned).collect()
            }
        };
        let values = (0..names.len()).map(|index| row.get(index)).collect::<Result<_>>()?;
        Ok(Self { names, values })
    }
}
