//! Parts of statements that differ by necessity between the engines.

use agentkeep_core::{Error, Json, Result};
use serde_json::Value as JsonValue;

use super::{Dialect, Value};

impl Dialect {
    /// A JSON merge patch (RFC 7396) of `column`. SQLite has a function for it; PostgreSQL has none, so the
    /// first migration makes one.
    pub(crate) fn merge_patch(self, column: &str, parameter: usize) -> String {
        self.pick(
            format!("agentkeep_merge_patch({column}, ${parameter})"),
            format!("json_patch({column}, ${parameter})"),
        )
    }

    /// Whole hours from 1970 to a time after it. Times are microseconds on SQLite.
    pub(crate) fn hours_since_1970(self, column: &str) -> String {
        self.pick(format!("CAST(floor(EXTRACT(epoch FROM {column}) / 3600) AS int8)"), format!("{column} / 3600000000"))
    }

    /// Matches a pattern of SQL LIKE, with the backslash as escape. SQLite has no escape unless told.
    pub(crate) fn like(self, column: &str, parameter: usize) -> String {
        self.pick(format!("{column} LIKE ${parameter}"), format!("{column} LIKE ${parameter} ESCAPE '\\'"))
    }

    /// Compares the value at a path inside a JSON object with text, a number, a truth value or null; adds
    /// its parameters to `params`. PostgreSQL asks for containment, which an index serves. SQLite has no
    /// such operator, so the type and the value at the path are compared.
    pub(crate) fn json_equals(
        self,
        column: &str,
        keys: &[&str],
        value: &JsonValue,
        params: &mut Vec<Value>,
    ) -> Result<String> {
        match self {
            Self::Postgres => Ok(contains(column, keys, value, params)),
            Self::Sqlite => equals_at_path(column, keys, value, params),
        }
    }
}

fn push(params: &mut Vec<Value>, value: Value) -> usize {
    params.push(value);
    params.len()
}

fn contains(column: &str, keys: &[&str], value: &JsonValue, params: &mut Vec<Value>) -> String {
    let nest = |inner, key: &&str| JsonValue::from_iter([((*key).to_owned(), inner)]);
    let nested = keys.iter().rev().fold(value.clone(), nest);
    format!("{column} @> ${}", push(params, Value::Json(Json::from(nested))))
}

fn equals_at_path(column: &str, keys: &[&str], value: &JsonValue, params: &mut Vec<Value>) -> Result<String> {
    // Keys are spelled as JSON spells them, so no character of theirs is one that text escapes on its way in.
    let path: String =
        std::iter::once("$".to_owned()).chain(keys.iter().map(|key| format!(".{}", JsonValue::from(*key)))).collect();
    let path = push(params, Value::Text(path));
    let typed = |kinds: &str| format!("json_type({column}, ${path}) IN ({kinds})");
    let (kinds, scalar) = match value {
        JsonValue::Null => return Ok(typed("'null'")),
        JsonValue::Bool(true) => return Ok(typed("'true'")),
        JsonValue::Bool(false) => return Ok(typed("'false'")),
        // Both sides are taken out of JSON, so that every character is spelled the same.
        JsonValue::String(_) => {
            let text = push(params, Value::Json(Json::from(value.clone())));
            let same = format!("json_extract({column}, ${path}) = json_extract(${text}, '$')");
            return Ok(format!("{} AND {same}", typed("'text'")));
        }
        JsonValue::Number(number) => ("'integer', 'real'", number_value(number)),
        JsonValue::Array(_) | JsonValue::Object(_) => ("", None),
    };
    let scalar = scalar.ok_or_else(|| Error::invalid(column, format!("{value} cannot be compared with")))?;
    Ok(format!("{} AND json_extract({column}, ${path}) = ${}", typed(kinds), push(params, scalar)))
}

fn number_value(number: &serde_json::Number) -> Option<Value> {
    number.as_i64().map(Value::I64).or_else(|| number.as_f64().filter(|value| value.is_finite()).map(Value::F64))
}
