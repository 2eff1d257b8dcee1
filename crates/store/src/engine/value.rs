//! Values on their way into a statement, and how text with NUL bytes travels.
//!
//! PostgreSQL refuses U+0000 in text and in jsonb; tool output has it. The engine escapes it on the way in
//! and back on the way out, in text on both engines, in JSON only for `jsonb` columns. What comes back is
//! exactly what went in. The escape character is U+0010 (DLE, "data link escape"): `DLE 0` stands for NUL,
//! `DLE 1` for DLE itself.

use std::{borrow::Cow, fmt, sync::LazyLock};

use agentkeep_core::{AgentId, Json, JsonArray, JsonObject, TenantId, Timestamp};
use memchr::{memchr, memchr2, memmem};
use uuid::Uuid;

/// A parameter of a statement, or a column of a [`super::Row`].
///
/// Its `Debug` tells the type and the length only: parameters hold secrets, and drivers log them.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A 32-bit number: tenant ids.
    I32(i32),
    /// A 64-bit number.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// Text; any characters, NUL included.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// A point in time.
    Time(Timestamp),
    /// JSON.
    Json(Json),
}

impl Value {
    /// Whether this is NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(_) => f.write_str("bool"),
            Self::I32(_) => f.write_str("i32"),
            Self::I64(_) => f.write_str("i64"),
            Self::F64(_) => f.write_str("f64"),
            Self::Text(text) => write!(f, "text[{}]", text.len()),
            Self::Bytes(bytes) => write!(f, "bytes[{}]", bytes.len()),
            Self::Uuid(_) => f.write_str("uuid"),
            Self::Time(_) => f.write_str("time"),
            Self::Json(json) => write!(f, "json[{}]", json.as_str().len()),
        }
    }
}

macro_rules! into_value {
    ($($from:ty => |$value:ident| $make:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $make
            }
        }
    )*};
}

into_value! {
    bool => |value| Self::Bool(value);
    i32 => |value| Self::I32(value);
    i64 => |value| Self::I64(value);
    u32 => |value| Self::I64(i64::from(value));
    f64 => |value| Self::F64(value);
    String => |value| Self::Text(value);
    &str => |value| Self::Text(value.to_owned());
    Vec<u8> => |value| Self::Bytes(value);
    Uuid => |value| Self::Uuid(value);
    Timestamp => |value| Self::Time(value);
    Json => |value| Self::Json(value);
    JsonObject => |value| Self::Json(value.into());
    JsonArray => |value| Self::Json(value.into());
    agentkeep_core::SecretObject => |value| Self::Json(value.into_revealed().into());
    TenantId => |value| Self::I32(value.0);
    AgentId => |value| Self::I64(value.0);
    agentkeep_core::Money => |value| Self::I64(value.units());
    agentkeep_core::UserId => |value| Self::Uuid(value.0);
    agentkeep_core::AgentVersionId => |value| Self::Uuid(value.0);
    agentkeep_core::TeamId => |value| Self::Uuid(value.0);
    agentkeep_core::SessionId => |value| Self::Uuid(value.0);
    agentkeep_core::MessageId => |value| Self::Uuid(value.0);
    agentkeep_core::ArtifactId => |value| Self::Uuid(value.0);
    agentkeep_core::MemoryId => |value| Self::Uuid(value.0);
    agentkeep_core::PromptId => |value| Self::Uuid(value.0);
    agentkeep_core::PreferenceId => |value| Self::Uuid(value.0);
    agentkeep_core::McpServerId => |value| Self::Uuid(value.0);
    agentkeep_core::MetricId => |value| Self::Uuid(value.0);
    agentkeep_core::RoutingDecisionId => |value| Self::Uuid(value.0);
    agentkeep_core::CheckpointId => |value| Self::Uuid(value.0);
    agentkeep_core::JobId => |value| Self::Uuid(value.0);
    agentkeep_core::JobScheduleId => |value| Self::Uuid(value.0);
    agentkeep_core::ApprovalId => |value| Self::Uuid(value.0);
    agentkeep_core::LedgerEntryId => |value| Self::Uuid(value.0);
    agentkeep_core::PriceId => |value| Self::Uuid(value.0);
    agentkeep_core::BudgetId => |value| Self::Uuid(value.0);
    agentkeep_core::ReservationId => |value| Self::Uuid(value.0);
    agentkeep_core::DeploymentId => |value| Self::Uuid(value.0);
    agentkeep_core::ApiKeyId => |value| Self::Uuid(value.0);
    agentkeep_core::RunId => |value| Self::Uuid(value.0);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

const ESCAPE: u8 = 0x10;

/// Text as it is stored: without NUL.
pub(super) fn escape_text(text: &str) -> Cow<'_, str> {
    if memchr2(0, ESCAPE, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => escaped.push_str("\u{10}0"),
            '\u{10}' => escaped.push_str("\u{10}1"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Text as it was before [`escape_text`]. An escape character that is followed by neither 0 nor 1 was
/// written by somebody else and stays as it is.
pub(super) fn unescape_text(text: &str) -> Cow<'_, str> {
    if memchr(ESCAPE, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let replacement = match (character, characters.peek()) {
            ('\u{10}', Some('0')) => '\0',
            ('\u{10}', Some('1')) => '\u{10}',
            _ => {
                plain.push(character);
                continue;
            }
        };
        characters.next();
        plain.push(replacement);
    }
    Cow::Owned(plain)
}

/// JSON as a `jsonb` column takes it: the escapes of NUL and of the escape character spelled with it.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    replace_json_escapes(json, |digits, _| match digits {
        "0000" => Some(("\\u00100", 0)),
        "0010" => Some(("\\u00101", 0)),
        _ => None,
    })
}

/// JSON as it was before [`escape_json`].
pub(super) fn unescape_json(json: &str) -> Cow<'_, str> {
    replace_json_escapes(json, |digits, next| match (digits, next) {
        ("0010", Some(b'0')) => Some(("\\u0000", 1)),
        ("0010", Some(b'1')) => Some(("\\u0010", 1)),
        _ => None,
    })
}

/// How an escape that may have to be replaced begins; made once, since every JSON column that is read looks for it.
static JSON_ESCAPE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\\u00"));

/// Replaces `\uXXXX` escapes of a JSON text. `replace` gets the four digits and the byte behind them and
/// gives the new text and how many bytes behind the escape it used up.
fn replace_json_escapes(
    json: &str,
    replace: impl Fn(&str, Option<u8>) -> Option<(&'static str, usize)>,
) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    if JSON_ESCAPE.find(bytes).is_none() {
        return Cow::Borrowed(json);
    }
    let mut replaced = String::with_capacity(json.len() + 8);
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = memchr(b'\\', &bytes[at..]) {
        let escape = at + found;
        at = escape + 2;
        if bytes.get(escape + 1) == Some(&b'u')
            && let Some(digits) = json.get(escape + 2..escape + 6)
            && let Some((text, used)) = replace(digits, bytes.get(escape + 6).copied())
        {
            replaced.push_str(&json[copied..escape]);
            replaced.push_str(text);
            copied = escape + 6 + used;
            at = copied;
        }
        if at > bytes.len() {
            break;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_not_in_the_debug_text() {
        assert_eq!(format!("{:?}", Value::from("hunter2")), "text[7]");
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_left_alone() {
        let json = r#"{"path":"C:\\u0000","nul":"\u0000"}"#;
        assert_eq!(escape_json(json), r#"{"path":"C:\\u0000","nul":"\u00100"}"#);
        assert_eq!(unescape_json(&escape_json(json)), json);
    }

    proptest! {
        #[test]
        fn text_comes_back_as_it_went_in(text in "[\\x00\\x1001a-c\u{e9}]{0,40}") {
            let stored = escape_text(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(unescape_text(&stored), text.as_str());
        }

        #[test]
        fn json_comes_back_as_it_went_in(text in "[\\x00\\x1001\\\\u\"a-c\u{e9}]{0,40}") {
            let json = serde_json::to_string(&text).expect("json");
            let stored = escape_json(&json);
            prop_assert!(!serde_json::from_str::<String>(&stored).expect("json").contains('\0'));
            prop_assert_eq!(unescape_json(&stored), json.as_str());
        }
    }
}
