//! The chat messages of OpenAI's API, as messages of ours and back.
//!
//! What has a column goes into it; every other field goes into `extra`, exactly as it came. What the columns
//! cannot tell (a content that is absent rather than null) is noted in `extra` under [`NOTES`]. Each message
//! is mapped back before it is accepted, and one that does not come out equal as JSON is kept as a whole:
//! what is exported is always what was imported.

use agentkeep_core::{
    Error, Json, JsonArray, JsonObject, Message, MessageRole, MessageType, NewMessage, Result, SessionId, limits,
};
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The key of `extra` that holds our own notes about a message.
const NOTES: &str = "$agentkeep";
/// In the notes: the fields that the message does not have.
const ABSENT: &str = "absent";
/// In the notes: the whole message.
const ORIGINAL: &str = "original";

/// Where the list of messages of an item stands, in the order of looking.
const LISTS: [&str; 3] = ["messages", "traj", "conversation"];
/// What names an item, in the order of looking.
const IDS: [&str; 3] = ["id", "session_id", "conversation_id"];
/// What may be shown as the name of a session.
const NAMES: [&str; 2] = ["name", "title"];
/// A key that the JSON reader gives a meaning of its own, so that what has it could not be kept exactly.
const RESERVED: &str = "$serde_json::private::";

/// An item of a log: one conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// What identifies it, when the item says so.
    pub id: Option<String>,
    /// The session it was exported from, when the item is one of our own exports.
    pub exported_from: Option<SessionId>,
    /// A name to show.
    pub name: Option<String>,
    /// What stood beside the list of messages.
    pub metadata: JsonObject,
    /// The messages.
    pub messages: Vec<NewMessage>,
    /// SHA-256 of the item, in hexadecimal; white space and the order of keys do not count.
    pub hash: String,
}

impl Conversation {
    /// Reads an item: a JSON object with a list of chat messages under `messages`, `traj` or `conversation`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the place in the item (`messages[3].role`).
    pub fn parse(text: &str) -> Result<Self> {
        Json::parse("", text).map_err(without_field)?;
        if text.contains(RESERVED) {
            return Err(Error::invalid("item", format!("has a key that begins with {RESERVED:?}, which is reserved")));
        }
        let item: Value = serde_json::from_str(text).map_err(|error| Error::invalid("item", error.to_string()))?;
        let hash = hash(&item);
        let Value::Object(mut fields) = item else {
            return Err(Error::invalid("item", format!("is {}, not a JSON object", kind_of(&item))));
        };
        let (list, messages) = take_messages(&mut fields)?;
        let messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, message)| new_message(message).map_err(|error| error.at(&format!("{list}[{index}]"))));
        let messages = messages.collect::<Result<_>>()?;
        if let Some(id) = exported_from(&fields) {
            return Self::of_export(id, fields, messages, hash);
        }
        let id = IDS.iter().find_map(|key| fields.get(*key)).and_then(id_text);
        let name = NAMES.iter().find_map(|key| fields.get(*key)?.as_str()).filter(|name| is_name(name));
        let name = name.map(str::to_owned);
        let metadata = JsonObject::from_serialize("metadata", &fields)?;
        Ok(Self { id, exported_from: None, name, metadata, messages, hash })
    }

    /// An item that [`super::export`] wrote: its name and metadata are those of the session.
    fn of_export(
        id: SessionId,
        mut fields: Map<String, Value>,
        messages: Vec<NewMessage>,
        hash: String,
    ) -> Result<Self> {
        let name = fields.get("name").and_then(Value::as_str).map(str::to_owned);
        let metadata = fields.remove("metadata").unwrap_or_default();
        let metadata = JsonObject::from_serialize("metadata", &metadata)?;
        Ok(Self { id: Some(id.to_string()), exported_from: Some(id), name, metadata, messages, hash })
    }
}

/// Whether a JSON text is an object that has a list of messages: what the scanner looks for behind a broken
/// item.
pub(super) fn has_messages(text: &[u8]) -> bool {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(text) else { return false };
    LISTS.iter().any(|list| fields.get(*list).is_some_and(|value| value.get().starts_with('[')))
}

fn take_messages(fields: &mut Map<String, Value>) -> Result<(&'static str, Vec<Value>)> {
    let found = LISTS.into_iter().find(|list| fields.get(*list).is_some_and(Value::is_array));
    if let Some(list) = found
        && let Some(Value::Array(messages)) = fields.shift_remove(list)
    {
        return Ok((list, messages));
    }
    let wanted = "a list of chat messages under messages, traj or conversation";
    match LISTS.into_iter().find_map(|list| Some((list, fields.get(list)?))) {
        Some((list, value)) => Err(Error::invalid(list, format!("is {}, not a list of chat messages", kind_of(value)))),
        None => Err(Error::invalid("item", format!("has no {}", wanted.trim_start_matches("a ")))),
    }
}

/// The session an item was exported from, when it has the fields of an export and no others.
fn exported_from(fields: &Map<String, Value>) -> Option<SessionId> {
    let named = fields.get("name").is_some_and(|name| name.is_null() || name.as_str().is_some_and(is_name));
    let whole = fields.len() == 3 && named && fields.get("metadata").is_some_and(Value::is_object);
    fields.get("id").filter(|_| whole)?.as_str()?.parse().ok()
}

/// An id as text; one that is neither text nor a number, or that no column can hold, is none.
fn id_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    is_name(&text).then_some(text)
}

fn is_name(text: &str) -> bool {
    limits::check_name("", text).is_ok()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "a JSON object",
    }
}

/// The same error about the item as a whole.
fn without_field(error: Error) -> Error {
    match error {
        Error::Invalid { reason, .. } => Error::Invalid { field: "item".to_owned(), reason },
        other => other,
    }
}

fn hash(item: &Value) -> String {
    let mut hash = Sha256::new();
    hash_value(item, &mut hash);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Feeds a value as compact JSON with sorted keys.
fn hash_value(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Array(items) => {
            hash.update("[");
            for item in items {
                hash_value(item, hash);
                hash.update(",");
            }
            hash.update("]");
        }
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            hash.update("{");
            for key in keys {
                hash.update(Value::from(key.as_str()).to_string());
                hash.update(":");
                hash_value(&fields[key], hash);
                hash.update(",");
            }
            hash.update("}");
        }
        leaf => hash.update(leaf.to_string()),
    }
}

/// A chat message of OpenAI's API as one of ours.
///
/// # Errors
/// [`Error::Invalid`] when it is no object, has no role that is known, or passes a limit.
pub fn new_message(message: Value) -> Result<NewMessage> {
    let Value::Object(fields) = &message else {
        return Err(Error::invalid("", format!("is {}, not a JSON object", kind_of(&message))));
    };
    let mut new = NewMessage::empty(role(fields)?);
    let mut extra = Map::new();
    for (key, value) in fields {
        if !take_field(&mut new, key, value)? {
            extra.insert(key.clone(), value.clone());
        }
    }
    if !fields.contains_key("content") {
        extra.insert(NOTES.to_owned(), serde_json::json!({ ABSENT: ["content"] }));
    }
    describe(&mut new, fields);
    if !extra.is_empty() {
        new.extra = Some(JsonObject::from_serialize("extra", &extra)?);
    }
    if openai_message(&new) != message {
        let whole = serde_json::json!({ NOTES: { ORIGINAL: message } });
        new.extra = Some(JsonObject::from_serialize("extra", &whole)?);
    }
    new.check()?;
    Ok(new)
}

fn role(fields: &Map<String, Value>) -> Result<MessageRole> {
    let Some(value) = fields.get("role") else { return Err(Error::invalid("role", "is missing")) };
    match value.as_str() {
        None => Err(Error::invalid("role", format!("is {}, not text", kind_of(value)))),
        Some("developer") => Ok(MessageRole::System),
        Some("function") => Ok(MessageRole::Tool),
        Some(text) => text.parse(),
    }
}

/// Puts a field into its column; false when there is none that would give it back.
fn take_field(new: &mut NewMessage, key: &str, value: &Value) -> Result<bool> {
    match (key, value) {
        ("role", Value::String(text)) => return Ok(text == new.role.as_str()),
        ("content", Value::Null) => {}
        ("content", Value::String(text)) => new.content = Some(text.clone()),
        ("content", Value::Array(parts)) => new.parts = Some(JsonArray::from_serialize("content", parts)?),
        ("tool_calls", Value::Array(calls)) => new.tool_calls = Some(JsonArray::from_serialize("tool_calls", calls)?),
        ("tool_call_id", Value::String(id)) if is_name(id) => new.tool_call_id = Some(id.clone()),
        ("name", Value::String(name)) if new.role == MessageRole::Tool && is_name(name) => {
            new.tool_name = Some(name.clone());
        }
        ("usage", Value::Object(usage)) => new.usage = Some(JsonObject::from_serialize("usage", usage)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sets what follows from the other fields: the type, and the tool of a message that calls just one, so that
/// it is found by the name.
fn describe(new: &mut NewMessage, fields: &Map<String, Value>) {
    let calls = fields.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if new.role == MessageRole::Tool {
        return;
    }
    let calls_function = fields.get("function_call").is_some_and(Value::is_object);
    new.kind = Some(if calls.is_empty() && !calls_function { MessageType::Text } else { MessageType::ToolCall });
    if let [call] = calls {
        let name = call.pointer("/function/name").and_then(Value::as_str).filter(|name| is_name(name));
        new.tool_name = name.map(str::to_owned);
    }
}

/// A message of ours, stored or new, as a chat message of OpenAI's API: equal as JSON to the one it was made
/// from, if it was made by [`new_message`].
pub fn openai_message<'a>(message: impl Into<Columns<'a>>) -> Value {
    let columns = message.into();
    let mut extra = match columns.extra.map(JsonObject::to_value) {
        Some(Value::Object(extra)) => extra,
        _ => Map::new(),
    };
    let notes = extra.shift_remove(NOTES).unwrap_or_default();
    if let Some(original) = notes.get(ORIGINAL) {
        return original.clone();
    }
    let content = match (columns.content, columns.parts) {
        (_, Some(parts)) => parts.to_value(),
        (Some(text), None) => Value::from(text),
        (None, None) => Value::Null,
    };
    let mut fields = Map::new();
    fields.insert("role".to_owned(), Value::from(columns.role.as_str()));
    fields.insert("content".to_owned(), content);
    let name = columns.tool_name.filter(|_| columns.role == MessageRole::Tool);
    for (key, value) in [
        ("name", name.map(Value::from)),
        ("tool_calls", columns.tool_calls.map(JsonArray::to_value)),
        ("tool_call_id", columns.tool_call_id.map(Value::from)),
        ("usage", columns.usage.map(JsonObject::to_value)),
    ] {
        fields.extend(value.map(|value| (key.to_owned(), value)));
    }
    fields.extend(extra);
    let absent = notes.get(ABSENT).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for key in absent.iter().filter_map(Value::as_str) {
        fields.shift_remove(key);
    }
    Value::Object(fields)
}

/// The columns of a message that a chat message is made from.
pub struct Columns<'a> {
    role: MessageRole,
    content: Option<&'a str>,
    parts: Option<&'a JsonArray>,
    tool_calls: Option<&'a JsonArray>,
    tool_name: Option<&'a str>,
    tool_call_id: Option<&'a str>,
    usage: Option<&'a JsonObject>,
    extra: Option<&'a JsonObject>,
}

macro_rules! columns_of {
    ($($type:ty),*) => {$(
        impl<'a> From<&'a $type> for Columns<'a> {
            fn from(message: &'a $type) -> Self {
                Self {
                    role: message.role,
                    content: message.content.as_deref(),
                    parts: message.parts.as_ref(),
                    tool_calls: message.tool_calls.as_ref(),
                    tool_name: message.tool_name.as_deref(),
                    tool_call_id: message.tool_call_id.as_deref(),
                    usage: message.usage.as_ref(),
                    extra: message.extra.as_ref(),
                }
            }
        }
    )*};
}

columns_of!(Message, NewMessage);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "-?[1-9][0-9]{0,24}(\\.[0-9]{1,24})?".prop_map(|number| serde_json::from_str(&number).expect("a number")),
            any::<String>().prop_map(Value::from),
            "[\\x00\\x10\\n\"a]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Messages whose known fields hold what they should, or anything.
    fn any_message() -> impl Strategy<Value = Value> {
        let role = prop::sample::select(vec!["user", "assistant", "system", "tool", "developer", "function"]);
        let known = prop::sample::select(vec![
            "content",
            "tool_calls",
            "tool_call_id",
            "name",
            "usage",
            "refusal",
            "function_call",
            "$agentkeep",
            "type",
        ]);
        let field = (prop_oneof![known.prop_map(str::to_owned), any::<String>()], any_value());
        (role, prop::collection::vec(field, 0..6)).prop_map(|(role, fields)| {
            let mut message: Map<String, Value> = fields.into_iter().collect();
            message.insert("role".to_owned(), Value::from(role));
            Value::Object(message)
        })
    }

    proptest! {
        #[test]
        fn any_message_comes_back_equal(message in any_message()) {
            let new = new_message(message.clone()).expect("a message");
            prop_assert_eq!(openai_message(&new), message);
        }
    }

    #[test]
    fn usual_messages_need_no_extra() {
        for message in [
            json!({"role": "user", "content": "hello"}),
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "function": {"name": "f"}}]}),
            json!({"role": "tool", "content": "4", "tool_call_id": "c", "name": "f"}),
            json!({"role": "user", "content": [{"type": "text", "text": "hello"}]}),
        ] {
            let new = new_message(message.clone()).expect("a message");
            assert_eq!(new.extra, None, "{message}");
        }
    }

    #[test]
    fn the_columns_hold_what_they_are_named_for() {
        let call = json!({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}], "n": 1.50});
        let new = new_message(call).expect("a message");
        assert_eq!((new.kind(), new.tool_name.as_deref()), (MessageType::ToolCall, Some("f")));
        assert_eq!(new.extra.expect("extra").as_str(), r#"{"n":1.5,"$agentkeep":{"absent":["content"]}}"#);
        let new = new_message(json!({"role": "developer", "content": "be brief"})).expect("a message");
        assert_eq!(new.role, MessageRole::System);
    }

    #[test]
    fn what_is_no_message_is_told_with_its_place() {
        for (item, wanted) in [
            (r#"{"messages":[{"role":"user"},{"role":"king"}]}"#, "messages[1].role: \"king\" is not one of"),
            (r#"{"traj":[{"content":"x"}]}"#, "traj[0].role: is missing"),
            (r#"{"conversation":["x"]}"#, "conversation[0]: is text, not a JSON object"),
            (r#"{"messages":"x"}"#, "messages: is text, not a list"),
            (r#"{"a":1}"#, "item: has no list of chat messages under messages, traj or conversation"),
            ("[1]", "item: is an array, not a JSON object"),
            (r#"{"messages":[{"role":"user","content":"\ud800"}]}"#, "half of a surrogate pair"),
        ] {
            let error = Conversation::parse(item).expect_err(item).to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_same_item_has_the_same_hash_however_it_is_written() {
        let hash = |text: &str| Conversation::parse(text).expect("an item").hash;
        let one = hash(r#"{"task":1,"messages":[{"role":"user","content":"a"}]}"#);
        assert_eq!(one, hash("{ \"messages\": [{\"content\":\"\\u0061\",\"role\":\"user\"}],\n\"task\": 1}"));
        assert_ne!(one, hash(r#"{"task":2,"messages":[{"role":"user","content":"a"}]}"#));
    }

    #[test]
    fn what_stands_beside_the_messages_becomes_metadata() {
        let item = Conversation::parse(r#"{"id":7,"title":"Lost bag","messages":[],"traj":3}"#).expect("an item");
        assert_eq!((item.id.as_deref(), item.name.as_deref()), (Some("7"), Some("Lost bag")));
        assert_eq!(item.metadata.to_value(), json!({"id": 7, "title": "Lost bag", "traj": 3}));
    }

    #[test]
    fn an_export_gives_name_and_metadata_back() {
        let id = "0195f5a0-0000-7000-8000-000000000001";
        let item = format!(r#"{{"id":"{id}","name":null,"metadata":{{"task":1}},"messages":[]}}"#);
        let item = Conversation::parse(&item).expect("an item");
        assert_eq!(item.exported_from.map(|id| id.to_string()).as_deref(), Some(id));
        assert_eq!(item.metadata.to_value(), json!({"task": 1}));
    }
}
