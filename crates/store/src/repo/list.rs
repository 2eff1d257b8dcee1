//! Lists: one machine for every entity.
//!
//! Filters and orders name fields of a fixed list; the statement is assembled from them, so that each
//! combination is planned with the index that fits it. Pages are found by key, not by counting.

use agentkeep_core::{
    Cursor, Direction, Error, Filter, FilterOperator, ListRequest, Money, Page, Result, TenantId, Timestamp, parse_uuid,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use sha2::{Digest, Sha256};

use super::table::{Field, FieldKind, Record, Table};
use crate::engine::{Dialect, Executor, FromRow, RowRef, Sql, Value};

/// A row of a list: the entity, and where it stands in the order.
struct Listed<T> {
    item: T,
    place: [Value; 2],
}

impl<T: Record> FromRow for Listed<T> {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self { item: T::from_row(row)?, place: [row.get(T::WIDTH)?, row.get(T::WIDTH + 1)?] })
    }
}

/// One page of the entities of a tenant.
pub(crate) async fn list<T: Record>(executor: &Executor, tenant: TenantId, request: &ListRequest) -> Result<Page<T>> {
    list_of(T::TABLE, executor, tenant, request, None, None).await
}

/// As [`list`], of a table that is indexed by fields of `by_hour` behind the hour.
pub(crate) async fn list_by_hour<T: Record>(
    by_hour: &ByHour,
    executor: &Executor,
    tenant: TenantId,
    request: &ListRequest,
) -> Result<Page<T>> {
    let hours = if by_hour.serves(request) { by_hour.hours(executor, tenant).await? } else { None };
    list_of(T::TABLE, executor, tenant, request, None, hours.map(|hours| wanted(request, hours))).await
}

/// As [`list`], from another view of the entity's table.
pub(crate) async fn list_from<T: Record>(
    table: &Table,
    executor: &Executor,
    tenant: TenantId,
    request: &ListRequest,
) -> Result<Page<T>> {
    list_of(table, executor, tenant, request, None, None).await
}

/// As [`list`], of those only for which the condition holds. Its value may differ from page to page.
pub(crate) async fn list_where<T: Record>(
    condition: Condition,
    executor: &Executor,
    tenant: TenantId,
    request: &ListRequest,
) -> Result<Page<T>> {
    list_of(T::TABLE, executor, tenant, request, Some(condition), None).await
}

/// A condition beside the filters: its text, and the value of `$2` in it.
pub(crate) type Condition = (&'static str, Value);

async fn list_of<T: Record>(
    table: &Table,
    executor: &Executor,
    tenant: TenantId,
    request: &ListRequest,
    condition: Option<Condition>,
    hours: Option<Hours>,
) -> Result<Page<T>> {
    request.check()?;
    let query = Query::new(executor.dialect(), table, tenant, request, condition)?;
    let begin = match (&request.cursor, &request.after_id) {
        (Some(cursor), _) => Some(query.read(cursor)?),
        (None, Some(id)) => Some(query.place_of(executor, id).await?),
        (None, None) => None,
    };
    let mut rows: Vec<Listed<T>> = Vec::new();
    let wanted = request.limit as usize + 1;
    for window in query.windows(request, begin.as_ref(), hours) {
        let (sql, params) = query.page(request, begin.as_ref(), window, wanted - rows.len());
        rows.extend(executor.fetch_all(&sql, &params).await?);
        if rows.len() >= wanted {
            break;
        }
    }
    let more = rows.len() > request.limit as usize;
    rows.truncate(request.limit as usize);
    let next = match rows.last() {
        Some(last) if more => Some(query.cursor(&last.place)?),
        _ => None,
    };
    let total = if request.with_total {
        let (sql, params) = query.count(hours);
        Some(executor.fetch_one::<(i64,)>(&sql, &params).await?.0.max(0).unsigned_abs())
    } else {
        None
    };
    Ok(Page { items: rows.into_iter().map(|row| row.item).collect(), next, total })
}

/// Hours since 1970, from one to another that is among them.
pub(crate) type Hours = (i64, i64);

/// An index by the hour and then by a field, as writers like it: what comes at about the same time lies together. It
/// finds the rows of one value of the field in a few microseconds for each hour, so readers go from hour to hour.
pub(crate) struct ByHour {
    pub fields: &'static [&'static str],
    /// Reads the times of the first row and of the last one.
    pub ends: &'static Sql,
}

impl ByHour {
    /// Whether the rows of one value of a field are asked for.
    fn serves(&self, request: &ListRequest) -> bool {
        request.filters.iter().any(|filter| {
            let is_value = filter.operator == FilterOperator::Equal && !filter.value.is_null();
            is_value && self.fields.contains(&filter.field.as_str())
        })
    }

    /// The hours that have rows at all; `None` when there are no rows.
    pub(crate) async fn hours(&self, executor: &Executor, tenant: TenantId) -> Result<Option<Hours>> {
        let ends: (Option<Timestamp>, Option<Timestamp>) = executor.fetch_one(self.ends, &[tenant.into()]).await?;
        Ok(ends.0.zip(ends.1).map(|(first, last)| (hour_of(first), hour_of(last))))
    }
}

/// What filters by time leave of some hours.
fn wanted(request: &ListRequest, (mut first, mut last): Hours) -> Hours {
    for filter in request.filters.iter().filter(|filter| filter.field == "created_at") {
        // A value that is no time is refused where the filters are read.
        let Some(Ok(time)) = filter.value.as_str().map(str::parse) else { continue };
        match filter.operator {
            FilterOperator::Greater | FilterOperator::GreaterOrEqual => first = first.max(hour_of(time)),
            FilterOperator::Less | FilterOperator::LessOrEqual => last = last.min(hour_of(time)),
            FilterOperator::Equal | FilterOperator::NotEqual | FilterOperator::Like => {}
        }
    }
    (first, last)
}

/// The hour of a time, counted from 1970.
pub(crate) fn hour_of(time: Timestamp) -> i64 {
    time.as_micros() / MICROS_OF_AN_HOUR
}

const MICROS_OF_AN_HOUR: i64 = 3_600_000_000;

/// A table hour by hour: what stands behind FROM. Every engine takes the hours first, whatever it knows of the table.
/// Their numbers are the parameters `first` and the one behind.
pub(crate) fn from_hours(table: &str, first: usize) -> String {
    format!(
        "(WITH RECURSIVE hours (each_hour) AS (SELECT CAST(${first} AS int4) UNION ALL SELECT each_hour + 1 FROM hours
         WHERE each_hour < ${}) SELECT each_hour FROM hours) h CROSS JOIN {table}",
        first + 1
    )
}

/// What belongs to [`from_hours`] behind WHERE.
pub(crate) const IN_HOURS: &str = "hour = each_hour";

/// Hours of the first window of a list; each one behind is so many times as large.
const FIRST_WINDOW: i64 = 64;
const WINDOWS_GROW: i64 = 4;

/// A list before its page is known.
struct Query<'a> {
    dialect: Dialect,
    table: &'a Table,
    order: &'a Field,
    direction: Direction,
    conditions: String,
    params: Vec<Value>,
    fingerprint: String,
}

/// What a cursor holds: which list it belongs to, and the place of the last item.
#[derive(Serialize, Deserialize)]
struct Place(String, JsonValue, JsonValue);

impl<'a> Query<'a> {
    fn new(
        dialect: Dialect,
        table: &'a Table,
        tenant: TenantId,
        request: &ListRequest,
        condition: Option<Condition>,
    ) -> Result<Self> {
        let (name, direction) = match &request.order {
            Some((name, direction)) => (name.as_str(), *direction),
            None => table.order,
        };
        let order = sort_field(table, name)?;
        let mut query = Self {
            dialect,
            table,
            order,
            direction,
            conditions: table.tenant.to_owned(),
            params: vec![tenant.into()],
            fingerprint: fingerprint(table, tenant, request, name, direction),
        };
        if let Some((condition, value)) = condition {
            query.conditions.push_str(" AND ");
            query.conditions.push_str(condition);
            query.params.push(value);
        }
        for filter in &request.filters {
            query.add(filter)?;
        }
        Ok(query)
    }

    fn param(&mut self, value: Value) -> usize {
        self.params.push(value);
        self.params.len()
    }

    fn add(&mut self, filter: &Filter) -> Result<()> {
        let condition = match filter.field.split_once('.') {
            Some((name, path)) => self.json_condition(filter, name, path)?,
            None => self.condition(filter)?,
        };
        self.conditions.push_str(" AND ");
        self.conditions.push_str(&condition);
        Ok(())
    }

    fn condition(&mut self, filter: &Filter) -> Result<String> {
        let field = filter_field(self.table, &filter.field)?;
        if field.kind == FieldKind::Json {
            let reason = format!("filter by a path into it, such as {}.key", field.name);
            return Err(Error::invalid(&filter.field, reason));
        }
        let column = field.column;
        if filter.value.is_null() {
            return match filter.operator {
                FilterOperator::Equal => Ok(format!("{column} IS NULL")),
                FilterOperator::NotEqual => Ok(format!("{column} IS NOT NULL")),
                _ => Err(Error::invalid(&filter.field, "null can only be compared with = and !=")),
            };
        }
        let sign = match filter.operator {
            FilterOperator::Like if field.kind != FieldKind::Text => {
                return Err(Error::invalid(&filter.field, "only text can be matched with a pattern"));
            }
            FilterOperator::Like => {
                let parameter = self.param(convert(field, &filter.value)?);
                return Ok(self.dialect.like(column, parameter));
            }
            operator => operator.sign(),
        };
        let parameter = self.param(convert(field, &filter.value)?);
        Ok(format!("{column} {sign} ${parameter}"))
    }

    /// A comparison of a value inside a JSON column.
    fn json_condition(&mut self, filter: &Filter, name: &str, path: &str) -> Result<String> {
        let field = filter_field(self.table, name)?;
        let refuse = |reason: &str| Err(Error::invalid(&filter.field, reason));
        if field.kind != FieldKind::Json {
            return refuse("is no JSON field, so it has no parts");
        }
        if filter.operator != FilterOperator::Equal {
            return refuse("a value inside JSON can only be compared with =");
        }
        let keys: Vec<&str> = path.split('.').collect();
        if keys.iter().any(|key| key.is_empty() || key.contains(['"', '\\'])) {
            return refuse("a path is made of keys with dots between them, without quotes");
        }
        if filter.value.is_array() || filter.value.is_object() {
            return refuse("compare with text, a number, true, false or null");
        }
        self.dialect.json_equals(field.column, &keys, &filter.value, &mut self.params)
    }

    /// The parts in which a list is read, one behind the other until the page is full. In the order of time these are
    /// windows that grow: who asks for a page of what is always there shall not look through all hours, and who asks
    /// for something rare shall not have a statement for each.
    fn windows(&self, request: &ListRequest, begin: Option<&[Value; 2]>, hours: Option<Hours>) -> Vec<Option<Hours>> {
        let Some((mut first, mut last)) = hours else { return vec![None] };
        if self.order.name != "created_at" || request.offset.is_some() {
            return vec![hours];
        }
        let ascending = matches!(self.direction, Direction::Ascending);
        let hour = match begin {
            Some([Value::Time(time), _]) => Some(hour_of(*time)),
            Some([Value::I64(micros), _]) => Some(micros / MICROS_OF_AN_HOUR),
            _ => None,
        };
        match hour {
            Some(hour) if ascending => first = first.max(hour),
            Some(hour) => last = last.min(hour),
            None => {}
        }
        let (mut windows, mut width) = (Vec::new(), FIRST_WINDOW);
        while first <= last {
            let window =
                if ascending { (first, last.min(first + width - 1)) } else { (first.max(last - width + 1), last) };
            if ascending {
                first = window.1 + 1
            } else {
                last = window.0 - 1
            }
            windows.push(Some(window));
            width *= WINDOWS_GROW;
        }
        windows
    }

    /// What stands behind FROM and WHERE, of some hours if there are any.
    fn source(&self, hours: Option<Hours>) -> (String, String, Vec<Value>) {
        let (mut from, mut conditions, mut params) =
            (self.table.from.to_owned(), self.conditions.clone(), self.params.clone());
        if let Some((first, last)) = hours {
            from = from_hours(&from, params.len() + 1);
            params.extend([Value::I64(first), Value::I64(last)]);
            conditions.push_str(&format!(" AND {IN_HOURS}"));
        }
        (from, conditions, params)
    }

    /// A page of at most so many rows that begins behind a place, or at the start.
    fn page(
        &self,
        request: &ListRequest,
        begin: Option<&[Value; 2]>,
        hours: Option<Hours>,
        rows: usize,
    ) -> (Sql, Vec<Value>) {
        let Table { columns, key, .. } = self.table;
        let order = self.order.column;
        let (word, sign) = match self.direction {
            Direction::Ascending => ("ASC", ">"),
            Direction::Descending => ("DESC", "<"),
        };
        let (from, mut conditions, mut params) = self.source(hours);
        if let Some(begin) = begin {
            let first = params.len() + 1;
            params.extend(begin.iter().cloned());
            conditions.push_str(&format!(" AND ({order}, {key}) {sign} (${first}, ${})", first + 1));
        }
        params.push(Value::I64(i64::try_from(rows).unwrap_or(i64::MAX)));
        let mut text = format!(
            "SELECT {columns}, {order}, {key} FROM {from} WHERE {conditions} ORDER BY {order} {word}, {key} {word} LIMIT ${}",
            params.len()
        );
        if let Some(offset) = request.offset {
            params.push(Value::I64(i64::try_from(offset).unwrap_or(i64::MAX)));
            text.push_str(&format!(" OFFSET ${}", params.len()));
        }
        (Sql::assembled(text), params)
    }

    /// Where the item with that id stands.
    async fn place_of(&self, executor: &Executor, id: &str) -> Result<[Value; 2]> {
        let refuse = |reason: String| Error::invalid("after", reason);
        let key = match (id.parse(), parse_uuid("after", id)) {
            (Ok(number), _) => Value::I64(number),
            (_, Ok(id)) => Value::Uuid(id),
            _ => return Err(refuse(format!("{id:?} is no id"))),
        };
        if matches!(key, Value::I64(_)) != has_number_as_key(self.table) {
            return Err(refuse(format!("{id:?} is no id of {}", plural(self.table))));
        }
        let found: Option<Standing> = executor.fetch_optional(&self.place(), &[self.params[0].clone(), key]).await?;
        found.map(|found| found.0).ok_or_else(|| refuse(format!("there is no {} {id}", self.table.entity)))
    }

    /// Reads where the item with id `$2` stands.
    fn place(&self) -> Sql {
        let Table { from, key, tenant, .. } = self.table;
        Sql::assembled(format!("SELECT {}, {key} FROM {from} WHERE {tenant} AND {key} = $2", self.order.column))
    }

    fn count(&self, hours: Option<Hours>) -> (Sql, Vec<Value>) {
        let (from, conditions, params) = self.source(hours);
        (Sql::assembled(format!("SELECT count(*) FROM {from} WHERE {conditions}")), params)
    }

    fn cursor(&self, place: &[Value; 2]) -> Result<Cursor> {
        let [order, key] = place;
        let place = Place(self.fingerprint.clone(), to_json(order)?, to_json(key)?);
        let text = serde_json::to_vec(&place).map_err(|error| Error::database(error.to_string()))?;
        Ok(Cursor::new(BASE64_URL_SAFE_NO_PAD.encode(text)))
    }

    fn read(&self, cursor: &Cursor) -> Result<[Value; 2]> {
        let refuse = |reason: &str| Error::invalid("cursor", reason);
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(cursor.as_str()).map_err(|_| refuse("is none that a list gave out"))?;
        let Place(fingerprint, place, id) =
            serde_json::from_slice(&bytes).map_err(|_| refuse("is none that a list gave out"))?;
        if fingerprint != self.fingerprint {
            return Err(refuse("belongs to another list: keep filters and order while paging"));
        }
        let key = Field::new("id", key_kind(&id));
        let read = |field: &Field, value: &JsonValue| {
            convert(field, value).map_err(|_| refuse("is none that a list gave out"))
        };
        Ok([read(self.order, &place)?, read(&key, &id)?])
    }
}

/// Where an item stands in an order: what it is ordered by, and its id.
struct Standing([Value; 2]);

impl FromRow for Standing {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self([row.get(0)?, row.get(1)?]))
    }
}

fn has_number_as_key(table: &Table) -> bool {
    matches!(table.name, "agents" | "tenants")
}

/// Ids are UUIDs, those of agents and tenants numbers.
fn key_kind(id: &JsonValue) -> FieldKind {
    if id.is_number() { FieldKind::Int } else { FieldKind::Uuid }
}

fn filter_field<'a>(table: &'a Table, name: &str) -> Result<&'a Field> {
    table.fields.iter().find(|field| field.name == name).ok_or_else(|| {
        let known: Vec<_> = table.fields.iter().map(|field| field.name).collect();
        Error::invalid(
            "filter",
            format!("{name:?} is no field that {} are filtered by; there are {}", plural(table), known.join(", ")),
        )
    })
}

fn sort_field<'a>(table: &'a Table, name: &str) -> Result<&'a Field> {
    table.fields.iter().find(|field| field.name == name && field.sortable).ok_or_else(|| {
        let known: Vec<_> = table.fields.iter().filter(|field| field.sortable).map(|field| field.name).collect();
        Error::invalid(
            "order",
            format!("{name:?} is no field that {} are ordered by; there are {}", plural(table), known.join(", ")),
        )
    })
}

/// What the rows are called.
fn plural(table: &Table) -> String {
    table.name.replace('_', " ")
}

/// A filter's value as the type of its field. Ids and times come as text, numbers also.
fn convert(field: &Field, value: &JsonValue) -> Result<Value> {
    let refuse = |wanted: &str| Error::invalid(field.name, format!("{value} is not {wanted}"));
    let text = value.as_str();
    match field.kind {
        FieldKind::Text => match value {
            JsonValue::String(text) => Ok(Value::Text(text.clone())),
            JsonValue::Number(number) => Ok(Value::Text(number.to_string())),
            JsonValue::Bool(truth) => Ok(Value::Text(truth.to_string())),
            _ => Err(refuse("text")),
        },
        FieldKind::Uuid => parse_uuid(field.name, text.ok_or_else(|| refuse("a UUID"))?).map(Value::Uuid),
        FieldKind::Time => {
            // A cursor holds the time as the engine keeps it; SQLite keeps microseconds.
            if let Some(micros) = value.as_i64() {
                return Timestamp::from_micros(micros).map(Value::Time);
            }
            let time = text.ok_or_else(|| refuse("a time"))?.parse();
            time.map(Value::Time).map_err(|_| refuse("a time such as 2025-03-01T12:00:00Z"))
        }
        FieldKind::Int => {
            let number = value.as_i64().or_else(|| text.and_then(|text| text.parse().ok()));
            number.map(Value::I64).ok_or_else(|| refuse("a whole number"))
        }
        FieldKind::Money => {
            let money = serde_json::from_value::<Money>(value.clone());
            money.map(Value::from).map_err(|_| refuse("an amount of US dollars such as 0.25"))
        }
        FieldKind::Float => {
            let number = value.as_f64().or_else(|| text.and_then(|text| text.parse().ok()));
            number.map(Value::F64).ok_or_else(|| refuse("a number"))
        }
        FieldKind::Bool => {
            let truth = value.as_bool().or_else(|| text.and_then(|text| text.parse().ok()));
            truth.map(Value::Bool).ok_or_else(|| refuse("true or false"))
        }
        FieldKind::Json => Err(refuse("comparable with a whole JSON field")),
    }
}

fn to_json(value: &Value) -> Result<JsonValue> {
    Ok(match value {
        Value::Text(text) => JsonValue::from(text.as_str()),
        Value::Bool(value) => JsonValue::from(*value),
        Value::I32(value) => JsonValue::from(*value),
        Value::I64(value) => JsonValue::from(*value),
        Value::F64(value) => JsonValue::from(*value),
        Value::Uuid(id) => JsonValue::from(id.to_string()),
        Value::Time(time) => JsonValue::from(time.to_string()),
        Value::Bytes(bytes) => {
            let id = uuid::Uuid::from_slice(bytes).map_err(|error| Error::database(error.to_string()))?;
            JsonValue::from(id.to_string())
        }
        Value::Null | Value::Json(_) => return Err(Error::database("a list is ordered by a value that has no order")),
    })
}

/// Tells one list from another: the table, the tenant, the filters and the order, not the size of the page.
fn fingerprint(table: &Table, tenant: TenantId, request: &ListRequest, order: &str, direction: Direction) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{} {tenant} {order} {direction:?}", table.name));
    for filter in &request.filters {
        hash.update(format!("\0{}\0{}\0{}", filter.field, filter.operator.sign(), filter.value));
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Every statement that lists of this table can assemble, one filter at a time: for the test that prepares
/// them all.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn statements(dialect: Dialect, table: &'static Table, by_hour: Option<&ByHour>) -> Result<Vec<Sql>> {
    let tenant = TenantId::DEFAULT;
    let sample = |kind| match kind {
        FieldKind::Uuid => JsonValue::from(uuid::Uuid::nil().to_string()),
        FieldKind::Int | FieldKind::Money => JsonValue::from(1),
        FieldKind::Float => JsonValue::from(0.5),
        FieldKind::Bool => JsonValue::from(true),
        FieldKind::Text | FieldKind::Json => JsonValue::from("x"),
        FieldKind::Time => JsonValue::from("2025-01-01T00:00:00Z"),
    };
    let mut requests = vec![ListRequest::new(), ListRequest::new().page(2, 10)];
    for field in table.fields {
        let name = if field.kind == FieldKind::Json { format!("{}.key", field.name) } else { field.name.to_owned() };
        requests.push(ListRequest::new().filter(name, sample(field.kind)));
        if field.kind == FieldKind::Text {
            requests.push(ListRequest::new().filter_by(field.name, FilterOperator::Like, "x%"));
        }
        if field.sortable {
            requests.push(ListRequest::new().order_by(field.name, Direction::Descending));
        }
    }
    let mut statements = Vec::new();
    for request in requests {
        let query = Query::new(dialect, table, tenant, &request, None)?;
        let hours = by_hour.filter(|by_hour| by_hour.serves(&request)).map(|_| (0, 1));
        let rows = request.limit as usize + 1;
        statements.push(query.page(&request, None, hours, rows).0);
        statements.push(query.count(hours).0);
        statements.push(query.place());
        if request.offset.is_none() {
            let kind = if has_number_as_key(table) { FieldKind::Int } else { FieldKind::Uuid };
            let key = convert(&Field::new("id", kind), &sample(kind))?;
            let place = [convert(query.order, &sample(query.order.kind))?, key];
            let begin = query.read(&query.cursor(&place)?)?;
            statements.push(query.page(&request, Some(&begin), hours, rows).0);
        }
    }
    Ok(statements)
}
