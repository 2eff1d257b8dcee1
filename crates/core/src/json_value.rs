//! Parsed JSON: merging, and what counts as equal.

use serde_json::{Map, Number, Value};

/// Applies a merge patch (RFC 7396) to an object.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(&key);
            }
            Value::Object(patch) => {
                let inner = target.entry(key).or_insert(Value::Null);
                if !inner.is_object() {
                    *inner = Value::Object(Map::new());
                }
                if let Value::Object(inner) = inner {
                    merge(inner, patch);
                }
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}

/// Whether two values are the same JSON: numbers by what they are worth, not by how they are spelled, since
/// PostgreSQL keeps `1e2` as `100`.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || worth(left).is_some_and(|it| Some(it) == worth(right))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let in_right = |(key, left): (&String, &Value)| right.get(key).is_some_and(|right| same(left, right));
            left.len() == right.len() && left.iter().all(in_right)
        }
        (left, right) => left == right,
    }
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of the last digit.
/// `None` when the exponent is out of all reason.
fn worth(number: &Number) -> Option<(bool, String, i64)> {
    let text = number.to_string();
    let (negative, text) = text.strip_prefix('-').map_or((false, text.as_str()), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let power = exponent.parse::<i64>().ok()?.checked_sub(places)?.checked_add(dropped)?;
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).expect(text)
    }

    #[test]
    fn numbers_are_equal_by_worth() {
        for (left, right) in
            [("1e2", "100"), ("1.10", "1.1"), ("1e-05", "0.00001"), ("-0", "0"), ("0.0", "0e9"), ("1E+3", "1000.0")]
        {
            assert!(same(&value(left), &value(right)), "{left} {right}");
        }
        for (left, right) in
            [("1", "-1"), ("10", "1"), ("0.1", "0.01"), ("9007199254740993", "9007199254740992"), ("1", "\"1\"")]
        {
            assert!(!same(&value(left), &value(right)), "{left} {right}");
        }
        assert!(same(&value(r#"{"a":[1.0],"b":2}"#), &value(r#"{"b":2e0,"a":[1]}"#)));
        assert!(!same(&value(r#"{"a":null}"#), &value(r#"{"b":null}"#)));
    }

    #[test]
    fn a_merge_patch_follows_rfc_7396() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let (Value::Object(mut merged), Value::Object(patch)) = (value(target), value(patch)) else {
                panic!("objects")
            };
            merge(&mut merged, patch);
            assert_eq!(Value::Object(merged), value(expected), "{target}");
        }
    }
}
