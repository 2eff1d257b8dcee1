//! Calls of tools that come in pieces, put together again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::ModelError;

/// Most calls of one answer.
const MOST_CALLS: usize = 128;

/// The calls of an answer, by their place in it.
#[derive(Default)]
pub(super) struct ToolCalls(BTreeMap<u64, Map<String, Value>>);

impl ToolCalls {
    /// Adds a piece: texts of the function grow, anything else is kept as it came first.
    pub(super) fn add(&mut self, piece: Map<String, Value>) -> Result<(), ModelError> {
        let place = piece.get("index").and_then(Value::as_u64).unwrap_or(0);
        if self.0.len() >= MOST_CALLS && !self.0.contains_key(&place) {
            return Err(ModelError::new(
                "model_too_large",
                format!("the model calls more than {MOST_CALLS} tools at once"),
            ));
        }
        merge(self.0.entry(place).or_default(), piece, false);
        Ok(())
    }

    /// The calls, whole; empty when there are none.
    ///
    /// # Errors
    /// `model_protocol` for a call without a name or without an id of its own.
    pub(super) fn whole(self) -> Result<Vec<Value>, ModelError> {
        let mut ids = std::collections::HashSet::new();
        for call in self.0.values() {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            let id = text(call.get("id"));
            if id.is_empty() || text(call.get("function").and_then(|function| function.get("name"))).is_empty() {
                return Err(ModelError::new(
                    "model_protocol",
                    "the model calls a tool without an id or without its name",
                ));
            }
            if !ids.insert(id) {
                return Err(ModelError::new("model_protocol", "two calls of tools have the same id"));
            }
        }
        Ok(self.0.into_values().map(Value::Object).collect())
    }
}

fn merge(call: &mut Map<String, Value>, piece: Map<String, Value>, in_function: bool) {
    for (name, value) in piece {
        match (call.get_mut(&name), value) {
            (_, Value::Null) => {}
            (None, _) if !in_function && name == "index" => {}
            (None, value) => {
                call.insert(name, value);
            }
            (Some(Value::Object(known)), Value::Object(more)) => merge(known, more, true),
            (Some(Value::String(known)), Value::String(more)) if in_function && name == "arguments" => {
                known.push_str(&more)
            }
            (Some(known @ Value::String(_)), more @ Value::String(_)) if known == "" => *known = more,
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pieces: &[&str]) -> Result<Value, ModelError> {
        let mut calls = ToolCalls::default();
        for piece in pieces {
            calls.add(serde_json::from_str(piece).expect("a piece"))?;
        }
        calls.whole().map(Value::Array)
    }

    #[test]
    fn pieces_are_put_together_by_their_place() {
        let calls = whole(&[
            r#"{"index":0,"id":"a","type":"function","function":{"name":"add","arguments":""}}"#,
            r#"{"index":1,"id":"b","type":"function","function":{"name":"sub","arguments":"{}"},"extra":1.10}"#,
            r#"{"index":0,"function":{"arguments":"{\"x\":"}}"#,
            r#"{"index":0,"id":null,"function":{"arguments":"1}"}}"#,
        ]);
        let expected: Value = serde_json::from_str(
            r#"[{"id":"a","type":"function","function":{"name":"add","arguments":"{\"x\":1}"}},
                {"id":"b","type":"function","function":{"name":"sub","arguments":"{}"},"extra":1.10}]"#,
        )
        .expect("json");
        assert_eq!(calls.expect("whole"), expected);
        assert!(whole(&[r#"{"index":0,"function":{"name":"add"}}"#]).is_err(), "no id");
    }
}
