//! What the entities share: how their tables are described, listed, changed, and how a violated key or
//! reference is told.

use agentkeep_core::{Direction, Error, JsonObject, Result, TenantId, Timestamp};

use uuid::Uuid;

use crate::engine::{Dialect, Executor, FromRow, RowRef, Sql, Value};

/// A table as the shared functions see it.
pub(crate) struct Table {
    /// The entity, in the singular, for messages to people.
    pub entity: &'static str,
    /// The table that is written.
    pub name: &'static str,
    /// What a row of the entity is read from: the table, or a join.
    pub from: &'static str,
    /// The tenant condition of every table in `from`.
    pub tenant: &'static str,
    /// The columns of the entity, in the order its `FromRow` reads them.
    pub columns: &'static str,
    /// The id, as a list of `from` reads it: it makes every order total.
    pub key: &'static str,
    /// The order of a list when none is asked for: a sortable field.
    pub order: (&'static str, Direction),
    /// What lists may be filtered and ordered by.
    pub fields: &'static [Field],
    /// The unique keys beside the id.
    pub unique: &'static [&'static [&'static str]],
    /// What points to other entities.
    pub references: &'static [Reference],
}

/// A field that lists may be filtered or ordered by.
pub(crate) struct Field {
    pub name: &'static str,
    /// The column, or an expression.
    pub column: &'static str,
    pub kind: FieldKind,
    /// Only for columns that are never NULL: a page starts behind a value.
    pub sortable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    Uuid,
    Int,
    Float,
    Bool,
    Text,
    Time,
    /// An amount, filtered by decimal US dollars.
    Money,
    /// A JSON object that is filtered by a path into it.
    Json,
}

impl Field {
    pub(crate) const fn new(name: &'static str, kind: FieldKind) -> Self {
        Self { name, column: name, kind, sortable: false }
    }

    pub(crate) const fn column(mut self, column: &'static str) -> Self {
        self.column = column;
        self
    }

    pub(crate) const fn sortable(mut self) -> Self {
        self.sortable = true;
        self
    }
}

/// A column that holds the id of another entity.
pub(crate) struct Reference {
    pub column: &'static str,
    pub entity: &'static str,
    pub table: &'static str,
}

impl Reference {
    pub(crate) const fn new(column: &'static str, entity: &'static str, table: &'static str) -> Self {
        Self { column, entity, table }
    }
}

/// An entity that is read from a table.
pub(crate) trait Record: FromRow {
    const TABLE: &'static Table;
    /// How many columns it reads.
    const WIDTH: usize;

    /// Reads it from its columns, the first of which stands at `first`: in a row that holds more.
    fn read(row: &RowRef<'_>, first: usize) -> Result<Self>;
}

/// Implements `FromRow` for an entity: its fields in the order of the columns its statements select.
macro_rules! record {
    ($entity:ident, $table:expr, { $($field:ident),+ $(,)? }) => {
        impl $crate::engine::FromRow for $entity {
            fn from_row(row: &$crate::engine::RowRef<'_>) -> agentkeep_core::Result<Self> {
                $crate::repo::table::Record::read(row, 0)
            }
        }

        impl $crate::repo::table::Record for $entity {
            const TABLE: &'static $crate::repo::table::Table = $table;
            const WIDTH: usize = [$(stringify!($field)),+].len();

            fn read(row: &$crate::engine::RowRef<'_>, first: usize) -> agentkeep_core::Result<Self> {
                let mut index = first..;
                let mut next = || index.next().unwrap_or(usize::MAX);
                Ok(Self { $($field: row.get(next())?),+ })
            }
        }
    };
}
pub(crate) use record;

/// The parameters of a statement, each made into a [`Value`].
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$($crate::engine::Value::from($value)),*]
    };
}
pub(crate) use params;

/// The changes of one row, as one UPDATE that writes only the columns that change.
pub(crate) struct Changes {
    dialect: Dialect,
    sets: Vec<String>,
    conditions: Vec<String>,
    params: Vec<Value>,
}

impl Changes {
    /// Changes of the row with that id.
    pub(crate) fn new(dialect: Dialect, tenant: TenantId, id: impl Into<Value>) -> Self {
        Self { dialect, sets: Vec::new(), conditions: Vec::new(), params: vec![tenant.into(), id.into()] }
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    fn param(&mut self, value: Value) -> usize {
        self.params.push(value);
        self.params.len()
    }

    /// Sets a column if there is a value for it. For a nullable column `Some(None)` takes the value away.
    pub(crate) fn set(&mut self, column: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let parameter = self.param(value.into());
            self.sets.push(format!("{column} = ${parameter}"));
        }
    }

    /// Applies a merge patch (RFC 7396) to a JSON column, if there is one.
    pub(crate) fn merge(&mut self, column: &str, patch: Option<JsonObject>) {
        if let Some(patch) = patch {
            let parameter = self.param(patch.into());
            let merged = self.dialect.merge_patch(column, parameter);
            self.sets.push(format!("{column} = {merged}"));
        }
    }

    /// Sets a column to an expression of its own.
    pub(crate) fn set_expression(&mut self, set: &str) {
        self.sets.push(set.to_owned());
    }

    /// Changes the row only if `column` still has this value.
    pub(crate) fn only_if(&mut self, column: &str, value: impl Into<Value>) {
        let parameter = self.param(value.into());
        self.conditions.push(format!("{column} = ${parameter}"));
    }

    /// Changes the row only if `column` has one of these values.
    pub(crate) fn only_if_in(&mut self, column: &str, values: impl IntoIterator<Item = impl Into<Value>>) {
        let parameters: Vec<_> = values.into_iter().map(|value| format!("${}", self.param(value.into()))).collect();
        // A list without members is no SQL; no row has one of no values.
        let condition =
            if parameters.is_empty() { "1 = 0".to_owned() } else { format!("{column} IN ({})", parameters.join(", ")) };
        self.conditions.push(condition);
    }

    /// The statement, which also says when the row was changed, and its parameters. It gives the changed row
    /// back; no row when there is none, or when a condition did not hold.
    pub(crate) fn statement(mut self, table: &Table, now: Timestamp) -> (Sql, Vec<Value>) {
        self.set("updated_at", Some(now));
        let conditions: String = self.conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        let text = format!(
            "UPDATE {} SET {} WHERE tenant_id = $1 AND id = $2{conditions} RETURNING {}",
            table.name,
            self.sets.join(", "),
            table.columns,
        );
        (Sql::assembled(text), self.params)
    }

    /// Writes the changes, if there are any; the row as it is then. `get` reads it by tenant and id.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what [`write`] tells.
    pub(crate) async fn apply<T: FromRow>(
        self,
        executor: &Executor,
        table: &Table,
        get: &Sql,
        now: Timestamp,
        held: Held<'_>,
    ) -> Result<T> {
        let id = show(&self.params[1]);
        let found = if self.is_empty() {
            executor.fetch_optional(get, &self.params[..2]).await?
        } else {
            let (sql, params) = self.statement(table, now);
            write(executor, table, &sql, &params, held).await?.into_iter().next()
        };
        found.ok_or_else(|| Error::not_found(table.entity, id))
    }
}

/// What a row holds in the columns that are unique or point elsewhere: for telling which of them a database
/// error is about. (The name of a violated constraint is not the same on every server.)
pub(crate) type Held<'a> = &'a [(&'static str, Value)];

/// Runs a statement that writes; a violated key or reference is told by field and value. Inside a
/// transaction the statement is undone alone, so that the transaction can go on.
pub(crate) async fn write<T: FromRow>(
    executor: &Executor,
    table: &Table,
    sql: &Sql,
    params: &[Value],
    held: Held<'_>,
) -> Result<Vec<T>> {
    match executor.write_all(sql, params).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(explain(executor, table, params, held, error).await),
    }
}

/// The same error, told by the field and value that caused it where that can be found out.
pub(crate) async fn explain(
    executor: &Executor,
    table: &Table,
    params: &[Value],
    held: Held<'_>,
    error: Error,
) -> Error {
    let Error::Database { code: Some(code), .. } = &error else { return error };
    let Some(tenant) = params.first() else { return error };
    let found = match code.as_str() {
        "23505" => taken(executor, table, tenant, held).await,
        "23503" => missing(executor, table, tenant, held).await,
        _ => Ok(None),
    };
    // A fault while looking is less telling than the error that is being explained.
    found.ok().flatten().unwrap_or(error)
}

async fn taken(executor: &Executor, table: &Table, tenant: &Value, held: Held<'_>) -> Result<Option<Error>> {
    let id: &[&str] = &["id"];
    for columns in table.unique.iter().chain([&id]) {
        let values: Vec<Value> = columns.iter().filter_map(|column| value_of(held, column)).collect();
        if values.len() < columns.len() {
            continue;
        }
        if exists(executor, table.name, tenant, columns, &values).await? {
            let told = columns.iter().zip(&values).map(|(column, value)| tell(column, value));
            let (fields, values): (Vec<_>, Vec<_>) = told.unzip();
            return Ok(Some(Error::AlreadyExists {
                entity: table.entity,
                field: fields.join(", "),
                value: values.join(", "),
            }));
        }
    }
    Ok(None)
}

/// A column of a unique key as people know it. `agent_key` and `user_key` repeat an id, with 0 and the nil
/// UUID for none, so that absent ids are equal to one another.
fn tell<'a>(column: &'a str, value: &Value) -> (&'a str, String) {
    let none = || "none".to_owned();
    match (column, value) {
        ("agent_key", Value::I64(0)) => ("agent_id", none()),
        ("agent_key", id) => ("agent_id", show(id)),
        ("user_key", Value::Uuid(id)) if id.is_nil() => ("user_id", none()),
        ("user_key", id) => ("user_id", show(id)),
        (column, value) => (column, show(value)),
    }
}

async fn missing(executor: &Executor, table: &Table, tenant: &Value, held: Held<'_>) -> Result<Option<Error>> {
    for reference in table.references {
        let Some(value) = value_of(held, reference.column) else { continue };
        if !exists(executor, reference.table, tenant, &["id"], std::slice::from_ref(&value)).await? {
            return Ok(Some(missing_reference(reference.column, reference.entity, &value)));
        }
    }
    if exists(executor, "tenants", tenant, &[], &[]).await? {
        return Ok(None);
    }
    Ok(Some(missing_reference("tenant_id", "tenant", tenant)))
}

/// As [`write`], for a statement that always gives one row.
pub(crate) async fn write_one<T: FromRow>(
    executor: &Executor,
    table: &Table,
    sql: &Sql,
    params: &[Value],
    held: Held<'_>,
) -> Result<T> {
    let row = write(executor, table, sql, params, held).await?.into_iter().next();
    row.ok_or_else(|| Error::database(format!("the {} that was written did not come back", table.entity)))
}

/// Deletes the row with that id.
pub(crate) async fn delete(
    executor: &Executor,
    table: &Table,
    sql: &Sql,
    tenant: TenantId,
    id: impl Into<Value>,
) -> Result<()> {
    let id = id.into();
    let key = show(&id);
    match executor.execute(sql, &[tenant.into(), id]).await? {
        0 => Err(Error::not_found(table.entity, key)),
        _ => Ok(()),
    }
}

/// Rows that one statement of [`delete_in_batches`] deletes at most: its last parameter.
const DELETED_AT_ONCE: i64 = 1000;

/// Deletes many rows, a bounded batch at a time, so that none of the statements holds its locks for long;
/// how many it were. The statement takes the size of a batch as its last parameter.
pub(crate) async fn delete_in_batches(executor: &Executor, sql: &Sql, params: &[Value]) -> Result<u64> {
    let params: Vec<Value> = params.iter().cloned().chain([Value::I64(DELETED_AT_ONCE)]).collect();
    let mut deleted = 0;
    loop {
        match executor.execute(sql, &params).await? {
            0 => return Ok(deleted),
            batch => deleted += batch,
        }
    }
}

/// Ids that one statement is asked about at most.
const IDS_AT_ONCE: usize = 1000;

/// A list of ids as one text, for statements about many rows at once: their digits ([`digits_of`] those of UUIDs), with
/// commas between them.
///
/// # Errors
/// [`Error::Invalid`] with `field` for more than 1,000.
pub(crate) fn id_list(field: &str, ids: impl ExactSizeIterator<Item = String>) -> Result<String> {
    if ids.len() > IDS_AT_ONCE {
        return Err(Error::invalid(field, format!("are {} ids; at most {IDS_AT_ONCE} are allowed", ids.len())));
    }
    Ok(ids.collect::<Vec<_>>().join(","))
}

/// A UUID without hyphens.
pub(crate) fn digits_of(id: impl Into<Uuid>) -> String {
    id.into().simple().to_string()
}

/// Checks a reference that no foreign key holds.
pub(crate) async fn check_reference(
    executor: &Executor,
    tenant: TenantId,
    field: &str,
    entity: &'static str,
    table: &str,
    id: Option<impl Into<Value>>,
) -> Result<()> {
    let Some(id) = id.map(Into::into) else { return Ok(()) };
    if exists(executor, table, &tenant.into(), &["id"], std::slice::from_ref(&id)).await? {
        return Ok(());
    }
    Err(missing_reference(field, entity, &id))
}

async fn exists(executor: &Executor, table: &str, tenant: &Value, columns: &[&str], values: &[Value]) -> Result<bool> {
    let own = match (table, columns) {
        // Names of tenants are unique in the database; see the table of tenants.
        ("tenants", []) => "id = $1",
        ("tenants", _) => "$1 > 0",
        _ => "tenant_id = $1",
    };
    let conditions: String =
        columns.iter().enumerate().map(|(index, column)| format!(" AND {column} = ${}", index + 2)).collect();
    let sql = Sql::assembled(format!("SELECT 1 FROM {table} WHERE {own}{conditions}")).short();
    let params: Vec<Value> = std::iter::once(tenant).chain(values).cloned().collect();
    Ok(executor.fetch_optional::<(i64,)>(&sql, &params).await?.is_some())
}

/// A reference that points to nothing.
pub(crate) fn missing_reference(field: &str, entity: &'static str, value: &Value) -> Error {
    Error::MissingReference { field: field.to_owned(), entity, value: show(value) }
}

fn value_of(held: Held<'_>, column: &str) -> Option<Value> {
    held.iter().find(|(name, _)| *name == column).map(|(_, value)| value.clone()).filter(|value| !value.is_null())
}

fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Uuid(id) => id.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
