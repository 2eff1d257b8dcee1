//! The parameters of lists.

use agentkeep_core::{Cursor, Direction, Filter, FilterOperator, ListRequest};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::App,
    body,
    error::{ApiError, Result},
    resource::Resource,
};

/// What every list takes. Any other parameter is a filter by the field of that name: `status=active`,
/// `metadata.customer=gold`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what `ListQuery` reads")]
pub(crate) struct ListParams {
    /// Items on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<u32>,
    /// Begin behind the item with this id: the `last_id` of the page before.
    after: Option<String>,
    /// Begin where the page before ended: its `next_cursor`.
    cursor: Option<String>,
    /// The field to order by, with `:desc` for the largest first.
    order: Option<String>,
    /// A condition, such as `created_at>=2025-01-01T00:00:00Z` or `name~Ann%`; may be repeated. Operators: = !=
    /// ~ (SQL LIKE) < <= > >=.
    filter: Option<Vec<String>>,
    /// Whether to count all items that match.
    total: Option<bool>,
    /// The number of a page, from 1, for those who count pages; they may repeat or skip items that are written
    /// between them.
    #[param(minimum = 1, maximum = 2147483647)]
    page: Option<u32>,
    /// Items on a page, beside `page`.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// Items to pass over, beside `limit`.
    #[param(minimum = 0, maximum = 2147483647)]
    offset: Option<u32>,
}

/// The parameters of a list.
pub(crate) struct ListQuery(pub(crate) ListRequest);

impl FromRequestParts<App> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

impl ListQuery {
    /// The same list, of those only whose field has this value.
    pub(crate) fn only(self, field: &str, value: impl Into<agentkeep_core::FilterValue>) -> ListRequest {
        self.0.filter(field, value)
    }

    /// Takes a switch of a list's own out of the parameters: whether it is on. It is off when absent.
    ///
    /// # Errors
    /// 400 for a value that is neither true nor false.
    pub(crate) fn switch(&mut self, name: &str) -> Result<bool> {
        match self.0.filters.iter().position(|filter| filter.field == name) {
            Some(place) => truth(name, &self.0.filters.remove(place).value.to_string()),
            None => Ok(false),
        }
    }

    /// The same, of items that have no id that `after` could name.
    ///
    /// # Errors
    /// 400 when there is an `after`.
    pub(crate) fn without_after(self) -> Result<Self> {
        match self.0.after_id {
            Some(_) => Err(ApiError::invalid("after", "is not possible in this list; take its next_cursor")),
            None => Ok(self),
        }
    }
}

fn read(query: &str) -> Result<ListRequest> {
    let mut request = ListRequest::new();
    let (mut page, mut page_size) = (None, None);
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "limit" => request.limit = number(&name, &value)?,
            "page" => page = Some(number(&name, &value)?),
            "page_size" => page_size = Some(number(&name, &value)?),
            "offset" => request.offset = Some(number(&name, &value)?),
            "cursor" => request.cursor = Some(Cursor::new(value)),
            "after" => request.after_id = Some(value),
            "order" => request.order = Some(order(&value)?),
            "total" => request.with_total = truth(&name, &value)?,
            "filter" => request.filters.push(value.parse()?),
            _ => request.filters.push(equal(name, value)),
        }
    }
    if page.is_some() || page_size.is_some() {
        if request.offset.is_some() {
            return Err(ApiError::invalid("offset", "cannot be combined with page"));
        }
        let page = page.unwrap_or(1);
        if page == 0 {
            return Err(ApiError::invalid("page", "is 0; pages are counted from 1"));
        }
        let size = page_size.unwrap_or(request.limit);
        request = request.page(page, size);
    }
    request.check()?;
    Ok(request)
}

/// The names and values of a query.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>> {
    let pairs: std::result::Result<Vec<(String, String)>, _> = serde_urlencoded::from_str(query);
    pairs.map_err(|error| ApiError::invalid("query", error.to_string()))
}

fn equal(field: String, value: String) -> Filter {
    let value = serde_json::from_str(&value).unwrap_or(serde_json::Value::String(value));
    Filter { field, operator: FilterOperator::Equal, value }
}

fn order(text: &str) -> Result<(String, Direction)> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), Direction::Ascending)),
        Some((field, "asc")) => Ok((field.to_owned(), Direction::Ascending)),
        Some((field, "desc")) => Ok((field.to_owned(), Direction::Descending)),
        Some((_, direction)) => Err(ApiError::invalid("order", format!("{direction:?} is neither asc nor desc"))),
    }
}

/// A number as the document describes it: of 31 bits.
fn number<T: TryFrom<u64>>(name: &str, value: &str) -> Result<T> {
    let number = value.parse::<u64>().ok().filter(|number| *number <= i32::MAX.unsigned_abs().into());
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| ApiError::invalid(name, format!("{value:?} is not a whole number in range")))
}

fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::invalid(name, format!("{value:?} is neither true nor false"))),
    }
}

/// Parameters of a type of their own; one that is not known is refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query as a type.
///
/// # Errors
/// 400 with the parameter that is wrong.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(query: &str) -> Result<T> {
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "query".to_owned(),
            path => path,
        };
        ApiError::invalid(field, error.inner().to_string())
    })
}

/// A list, as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListOf<T> {
    /// Always `list`.
    #[schema(value_type = String, pattern = "^list$")]
    object: &'static str,
    /// The items, in the order asked for.
    data: Vec<T>,
    /// The id of the first item; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_id: Option<String>,
    /// The id of the last item: `after` takes it. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_id: Option<String>,
    /// Whether more items follow.
    has_more: bool,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// How many items match in all, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

impl<T: Resource> From<agentkeep_core::Page<T>> for ListOf<T> {
    fn from(page: agentkeep_core::Page<T>) -> Self {
        Self {
            has_more: page.next.is_some(),
            next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
            total: page.total,
            ..Self::whole(page.items)
        }
    }
}

impl<T: Resource> ListOf<T> {
    /// A list that is all there.
    pub(crate) fn whole(data: Vec<T>) -> Self {
        Self {
            first_id: data.first().map(Resource::id),
            last_id: data.last().map(Resource::id),
            ..Self::of_values(data)
        }
    }
}

impl<T> ListOf<T> {
    /// A list that is all there, of what has no id of its own.
    pub(crate) fn of_values(data: Vec<T>) -> Self {
        Self { object: "list", data, first_id: None, last_id: None, has_more: false, next_cursor: None, total: None }
    }
}

impl<T: Serialize> IntoResponse for ListOf<T> {
    fn into_response(self) -> Response {
        body::answer(StatusCode::OK, HeaderMap::new(), &self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_parameter_of_lists_is_a_filter() {
        let request =
            read("limit=5&order=created_at:desc&status=active&metadata.tier=gold&filter=name~Ann%25").expect("read");
        assert_eq!((request.limit, request.filters.len()), (5, 3));
        assert_eq!(request.order, Some(("created_at".into(), Direction::Descending)));
        assert_eq!(request.filters[2].operator, FilterOperator::Like);
    }

    #[test]
    fn pages_may_be_counted() {
        let request = read("page=3&page_size=20").expect("read");
        assert_eq!((request.limit, request.offset), (20, Some(40)));
        for query in
            ["limit=0", "limit=x", "page=0", "page=1&offset=1", "order=a:up", "total=maybe", "cursor=a&offset=1"]
        {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
