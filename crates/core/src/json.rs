//! JSON kept as the text it came as.
//!
//! A value goes into the database and comes back without being rebuilt, so no number loses a digit and
//! reading a message does not pay for parsing its metadata. The text is checked once, on the way in.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{Error, Result, json_value, limits};

/// A JSON value as text: valid, at most [`limits::JSON_DEPTH`] deep, without lone surrogates.
///
/// Two values are equal when they are equal as JSON (the order of keys, white space and the spelling of a number
/// do not count).
#[derive(Clone)]
pub struct Json(Box<str>);

impl Json {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `field` when it is no JSON, nests too deep or escapes half a surrogate pair.
    pub fn parse(field: &str, text: impl Into<Box<str>>) -> Result<Self> {
        let text = text.into();
        check(field, &text)?;
        Ok(Self(text))
    }

    /// Keeps text that a database column of type JSON, or this type's own `as_str`, gave out.
    #[must_use]
    pub fn from_stored(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Writes any serialisable value as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `field` when it cannot be written as JSON or nests too deep.
    pub fn from_serialize(field: &str, value: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(value).map_err(|error| Error::invalid(field, error.to_string()))?;
        Self::parse(field, text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0.into_string()
    }

    /// The value, parsed.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// The value as a type of the caller's.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `field` when it does not have that shape.
    pub fn decode<T: DeserializeOwned>(&self, field: &str) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| Error::invalid(field, error.to_string()))
    }

    fn starts_with(&self, first: u8) -> bool {
        self.0.bytes().find(|byte| !byte.is_ascii_whitespace()) == Some(first)
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || json_value::same(&self.to_value(), &other.to_value())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse("json", Box::<str>::from(raw)).map_err(serde::de::Error::custom)
    }
}

macro_rules! json_shapes {
    ($($(#[$doc:meta])* $name:ident $first:literal $empty:literal $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(transparent)]
        pub struct $name(Json);

        impl $name {
            #[doc = concat!("Checks that `text` is JSON and ", $what, ".")]
            ///
            /// # Errors
            /// [`Error::Invalid`] with `field` when it is not.
            pub fn parse(field: &str, text: impl Into<Box<str>>) -> Result<Self> {
                Self::from_json(field, Json::parse(field, text)?)
            }

            #[doc = concat!("Checks that `json` is ", $what, ".")]
            ///
            /// # Errors
            /// [`Error::Invalid`] with `field` when it is not.
            pub fn from_json(field: &str, json: Json) -> Result<Self> {
                if json.starts_with($first) {
                    Ok(Self(json))
                } else {
                    Err(Error::invalid(field, concat!("must be ", $what)))
                }
            }

            #[doc = concat!("Writes a serialisable value that is ", $what, ".")]
            ///
            /// # Errors
            /// [`Error::Invalid`] with `field` when it is not.
            pub fn from_serialize(field: &str, value: &impl Serialize) -> Result<Self> {
                Self::from_json(field, Json::from_serialize(field, value)?)
            }

            /// Keeps text that a database column gave out.
            #[must_use]
            pub fn from_stored(text: impl Into<Box<str>>) -> Self {
                Self(Json::from_stored(text))
            }

            /// The value behind it.
            #[must_use]
            pub fn as_json(&self) -> &Json {
                &self.0
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The value, parsed.
            #[must_use]
            pub fn to_value(&self) -> Value {
                self.0.to_value()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::from_stored($empty)
            }
        }

        impl From<$name> for Json {
            fn from(shaped: $name) -> Self {
                shaped.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::from_json("json", Json::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

json_shapes! {
    /// A JSON object; `{}` by default.
    JsonObject b'{' "{}" "a JSON object";
    /// A JSON array; `[]` by default.
    JsonArray b'[' "[]" "a JSON array";
}

impl JsonObject {
    /// This object after a merge patch (RFC 7396).
    #[must_use]
    pub fn merged(&self, patch: &Self) -> Self {
        let (Value::Object(mut target), Value::Object(patch)) = (self.to_value(), patch.to_value()) else {
            return patch.clone();
        };
        json_value::merge(&mut target, patch);
        Self(Value::Object(target).into())
    }
}

/// Syntax, depth and surrogates, in that order of telling: depth first, because a parser that recurses
/// would stop there with a message of its own.
fn check(field: &str, text: &str) -> Result<()> {
    check_depth_and_surrogates(field, text)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| Error::invalid(field, format!("is not JSON: {error}")))
}

fn check_depth_and_surrogates(field: &str, text: &str) -> Result<()> {
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += escape_length(field, &bytes[at..], at)?,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    let reason = format!("nests deeper than {} at byte {at}", limits::JSON_DEPTH);
                    return Err(Error::invalid(field, reason));
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// How many bytes the escape at the start of `bytes` has behind its backslash. Malformed escapes pass here
/// as one byte: the parser names them better.
fn escape_length(field: &str, bytes: &[u8], at: usize) -> Result<usize> {
    match unicode_escape(bytes) {
        Some(0xD800..=0xDBFF) => match bytes.get(6..).and_then(unicode_escape) {
            Some(0xDC00..=0xDFFF) => Ok(11),
            _ => Err(lone_surrogate(field, at)),
        },
        Some(0xDC00..=0xDFFF) => Err(lone_surrogate(field, at)),
        Some(_) => Ok(5),
        None => Ok(1),
    }
}

fn unicode_escape(bytes: &[u8]) -> Option<u16> {
    if bytes.len() < 6 || bytes[0] != b'\\' || bytes[1] != b'u' {
        return None;
    }
    let digits = std::str::from_utf8(&bytes[2..6]).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

fn lone_surrogate(field: &str, at: usize) -> Error {
    Error::invalid(field, format!("escapes half of a surrogate pair at byte {at}; that is no character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_to_the_letter_and_compared_as_json() {
        let json = Json::parse("metadata", r#"{"b": 1.10, "a":2}"#).expect("json");
        assert_eq!(json.as_str(), r#"{"b": 1.10, "a":2}"#);
        assert_eq!(json, Json::parse("metadata", r#"{"a":2,"b":1.10}"#).expect("json"));
        assert_eq!(serde_json::to_string(&json).expect("text"), r#"{"b": 1.10, "a":2}"#);
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_field() {
        for text in ["", "{", "{} {}", "nul", "\"\\x\"", "[1,]"] {
            let error = Json::parse("config", text).expect_err(text);
            assert!(error.to_string().starts_with("config: is not JSON"), "{error}");
        }
    }

    #[test]
    fn depth_128_is_allowed_and_129_is_not() {
        // serde_json itself stops at 127 open brackets below the first.
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse("state", nested(127)).is_ok());
        let error = Json::parse("state", nested(129)).expect_err("too deep");
        assert!(error.to_string().contains("deeper than 128"), "{error}");
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        assert!(Json::parse("state", r#""\ud83d\ude00""#).is_ok());
        for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx\ude00""#] {
            assert!(Json::parse("state", text).is_err(), "{text}");
        }
        assert!(Json::parse("state", r#""\\ud83d""#).is_ok(), "an escaped backslash is no escape of a surrogate");
    }

    #[test]
    fn an_object_is_not_an_array() {
        assert!(JsonObject::parse("metadata", "[]").is_err());
        assert!(JsonArray::parse("tools", " [1]").is_ok());
    }
}
