//! Lists: filters, order, and pages by cursor.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result, limits};

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterOperator {
    /// Equal; with JSON `null`, the field has no value.
    Equal,
    /// Not equal, and there at all; with JSON `null`, the field has a value.
    NotEqual,
    /// Matches a pattern of SQL LIKE: `%` any text, `_` one character.
    Like,
    /// Less than.
    Less,
    /// Less than or equal.
    LessOrEqual,
    /// Greater than.
    Greater,
    /// Greater than or equal.
    GreaterOrEqual,
}

impl FilterOperator {
    /// Every operator, the two-character ones first, so that a reader of text finds the longest.
    pub const ALL: &'static [Self] =
        &[Self::LessOrEqual, Self::GreaterOrEqual, Self::NotEqual, Self::Equal, Self::Like, Self::Less, Self::Greater];

    /// The sign it is written with: `=`, `!=`, `~`, `<`, `<=`, `>`, `>=`.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Like => "~",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// One condition of a list. Which fields may be filtered is fixed for each entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The field, or a path into a JSON field (`metadata.customer.tier`).
    pub field: String,
    /// How it is compared.
    pub operator: FilterOperator,
    /// With what. Ids and times are given as text.
    pub value: Value,
}

impl FromStr for Filter {
    type Err = Error;

    /// Reads `field=value`, `name~pattern%`, `created_at>=2025-01-01T00:00:00Z`. A value that is JSON
    /// (`3`, `true`, `null`, `"3"`) is taken as that, anything else as text.
    fn from_str(text: &str) -> Result<Self> {
        let start = text.find(['=', '!', '~', '<', '>']).ok_or_else(|| {
            Error::invalid("filter", format!("{text:?} has no operator; write field=value (or != ~ < <= > >=)"))
        })?;
        let (field, rest) = text.split_at(start);
        let operator = FilterOperator::ALL
            .iter()
            .copied()
            .find(|operator| rest.starts_with(operator.sign()))
            .ok_or_else(|| Error::invalid("filter", format!("{text:?} has no operator that is known")))?;
        let value = &rest[operator.sign().len()..];
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self { field: field.trim().to_owned(), operator, value })
    }
}

/// The direction of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

/// Where the next page of a list starts. Opaque: only the list that made it can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// Wraps the text a list gave out.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to list: filters, order, and which page.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRequest {
    /// Conditions, all of which hold for every item.
    pub filters: Vec<Filter>,
    /// The field and direction of the order; the entity's own order when absent.
    pub order: Option<(String, Direction)>,
    /// Items on a page, 1 to 1,000.
    pub limit: u32,
    /// The `next` of the page before.
    pub cursor: Option<Cursor>,
    /// In place of a cursor, the id of the item that the page begins behind.
    pub after_id: Option<String>,
    /// Items to pass over: for callers that count pages. Pages by offset repeat or skip items when rows
    /// are written between them; a cursor does not.
    pub offset: Option<u64>,
    /// Whether the number of all matching items is wanted. It costs a scan of them.
    pub with_total: bool,
}

impl Default for ListRequest {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            order: None,
            limit: limits::DEFAULT_PAGE_ITEMS,
            cursor: None,
            after_id: None,
            offset: None,
            with_total: false,
        }
    }
}

impl ListRequest {
    /// The first page, in the entity's own order.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that `field` equals `value`.
    #[must_use]
    pub fn filter(self, field: impl Into<String>, value: impl Into<FilterValue>) -> Self {
        self.filter_by(field, FilterOperator::Equal, value)
    }

    /// Adds any condition.
    #[must_use]
    pub fn filter_by(
        mut self,
        field: impl Into<String>,
        operator: FilterOperator,
        value: impl Into<FilterValue>,
    ) -> Self {
        self.filters.push(Filter { field: field.into(), operator, value: value.into().0 });
        self
    }

    /// Sets the order.
    #[must_use]
    pub fn order_by(mut self, field: impl Into<String>, direction: Direction) -> Self {
        self.order = Some((field.into(), direction));
        self
    }

    /// Sets the size of the page.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Continues where the page before ended.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Chooses a page by its number, from 1, the way systems that count pages do.
    #[must_use]
    pub fn page(mut self, page: u32, page_size: u32) -> Self {
        self.limit = page_size;
        self.offset = Some(u64::from(page.saturating_sub(1)) * u64::from(page_size));
        self
    }

    /// Asks for the number of all matching items too.
    #[must_use]
    pub fn with_total(mut self) -> Self {
        self.with_total = true;
        self
    }

    /// Refuses a page of 0 or of more than 1,000 items, and more than one way to say where it begins.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `limit`, `after` or `offset`.
    pub fn check(&self) -> Result<()> {
        if self.limit == 0 || self.limit > limits::PAGE_ITEMS {
            let reason = format!("is {}; a page has 1 to {} items", self.limit, limits::PAGE_ITEMS);
            return Err(Error::invalid("limit", reason));
        }
        if self.cursor.is_some() && self.after_id.is_some() {
            return Err(Error::invalid("after", "cannot be combined with a cursor"));
        }
        if self.offset.is_some() && (self.cursor.is_some() || self.after_id.is_some()) {
            return Err(Error::invalid("offset", "cannot be combined with a cursor, nor with after"));
        }
        if self.offset.is_some_and(|offset| i64::try_from(offset).is_err()) {
            return Err(Error::invalid("offset", "is out of range"));
        }
        Ok(())
    }
}

/// A value to filter by. Made from text, numbers, truth values, ids and `Option`s of them.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterValue(pub Value);

macro_rules! filter_values {
    ($($from:ty => |$value:ident| $make:expr;)*) => {$(
        impl From<$from> for FilterValue {
            fn from($value: $from) -> Self {
                Self($make)
            }
        }
    )*};
}

filter_values! {
    Value => |value| value;
    &str => |text| Value::String(text.to_owned());
    String => |text| Value::String(text);
    bool => |truth| Value::Bool(truth);
    i32 => |number| Value::from(number);
    i64 => |number| Value::from(number);
    crate::AgentId => |id| Value::from(id.0);
    crate::Timestamp => |time| Value::String(time.to_string());
}

impl<T: Into<FilterValue>> From<Option<T>> for FilterValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self(Value::Null), Into::into)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T> {
    /// The items, in the order asked for.
    pub items: Vec<T>,
    /// Where the next page starts; `None` when this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
    /// The number of all matching items, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_from_text() {
        let filter: Filter = "created_at>=2025-01-01T00:00:00Z".parse().expect("a filter");
        assert_eq!((filter.field.as_str(), filter.operator), ("created_at", FilterOperator::GreaterOrEqual));
        let filter: Filter = "metadata.task=3".parse().expect("a filter");
        assert_eq!(filter.value, serde_json::json!(3));
        let filter: Filter = "status!=deleted".parse().expect("a filter");
        assert_eq!((filter.field.as_str(), filter.operator), ("status", FilterOperator::NotEqual));
        assert!("status".parse::<Filter>().is_err());
    }

    #[test]
    fn a_page_has_1_to_1000_items() {
        for limit in [0, 1001] {
            assert!(ListRequest::new().limit(limit).check().is_err());
        }
        assert!(ListRequest::new().limit(1000).check().is_ok());
    }
}
