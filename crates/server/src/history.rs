//! Histories that a provider takes: every tool call has exactly one result, right behind it.

use std::collections::HashSet;

use agentkeep_core::{JsonObject, Message, MessageId, MessageRole, MessageType};
use serde_json::Value;
use uuid::Uuid;

/// What a call is told that never got a result.
const INTERRUPTED: &str = "The call was interrupted before it had a result.";

/// A call of a tool: its id, and the name of the tool if it is known.
struct Call {
    id: String,
    name: Option<String>,
}

/// These messages, valid for a provider: behind every call of tools stand its results, in the order of the calls. A
/// missing one is filled in: a message that says so, with `synthesised` in its metadata and an id that no message has.
/// A result without its call is left out, and so is a second one of the same call. What is stored stays as it is.
pub(crate) fn valid(messages: Vec<Message>) -> Vec<Message> {
    let calls: Vec<Vec<Call>> = messages.iter().map(calls_of).collect();
    let results: Vec<Vec<String>> = messages.iter().map(results_of).collect();
    let mut taken = vec![false; messages.len()];
    let mut valid = Vec::with_capacity(messages.len());
    for (place, message) in messages.iter().enumerate() {
        if !is_result(message, &results[place]) {
            valid.push(message.clone());
        }
        for call in &calls[place] {
            // Some providers give the same ids again and again: the next call of that id is another one.
            let end = (place + 1..messages.len()).find(|later| calls[*later].iter().any(|other| other.id == call.id));
            let end = end.unwrap_or(messages.len());
            match (place + 1..end).find(|later| results[*later].contains(&call.id)) {
                // One message may hold the results of several calls.
                Some(result) if taken[result] => {}
                Some(result) => {
                    taken[result] = true;
                    valid.push(messages[result].clone());
                }
                None => valid.push(interrupted(message, call)),
            }
        }
    }
    valid
}

/// Whether a message is there for its results: one of a user who gives them with other words is as well.
fn is_result(message: &Message, results: &[String]) -> bool {
    message.role == MessageRole::Tool || !results.is_empty()
}

/// The calls of a message, each once, whichever of the usual forms they have.
fn calls_of(message: &Message) -> Vec<Call> {
    if message.role != MessageRole::Assistant {
        return Vec::new();
    }
    let mut calls: Vec<Call> = Vec::new();
    for call in items(message.tool_calls.as_ref().map(|calls| calls.to_value())) {
        let id = text(&call, "id").or_else(|| text(&call, "call_id"));
        let name = text(&call, "name").or_else(|| call.get("function").and_then(|function| text(function, "name")));
        calls.extend(id.map(|id| Call { id, name }));
    }
    for block in blocks(message, "tool_use") {
        calls.extend(text(&block, "id").map(|id| Call { id, name: text(&block, "name") }));
    }
    calls.extend(message.tool_call_id.clone().map(|id| Call { id, name: message.tool_name.clone() }));
    let mut known = HashSet::new();
    calls.retain(|call| known.insert(call.id.clone()));
    calls
}

/// The ids of the calls whose results a message holds.
fn results_of(message: &Message) -> Vec<String> {
    let of_tool = message.tool_call_id.clone().filter(|_| message.role == MessageRole::Tool);
    let in_blocks = match message.role {
        MessageRole::Tool | MessageRole::User => blocks(message, "tool_result"),
        _ => Vec::new(),
    };
    of_tool.into_iter().chain(in_blocks.iter().filter_map(|block| text(block, "tool_use_id"))).collect()
}

/// The content blocks of a type.
fn blocks(message: &Message, kind: &str) -> Vec<Value> {
    // Most messages have none, and need not be parsed for that.
    let parts = message.parts.as_ref().filter(|parts| parts.as_str().contains(kind));
    let mut blocks = items(parts.map(|parts| parts.to_value()));
    blocks.retain(|block| block.get("type").and_then(Value::as_str) == Some(kind));
    blocks
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// The result of a call that never got one.
fn interrupted(message: &Message, call: &Call) -> Message {
    Message {
        id: MessageId(Uuid::nil()),
        session_id: message.session_id,
        seq: message.seq,
        role: MessageRole::Tool,
        kind: MessageType::ToolResponse,
        content: Some(INTERRUPTED.to_owned()),
        parts: None,
        tool_calls: None,
        tool_name: call.name.clone(),
        tool_args: None,
        tool_call_id: Some(call.id.clone()),
        channel_payload: None,
        author_user_id: None,
        agent_id: message.agent_id,
        platform_message_id: None,
        is_streaming: false,
        is_complete: true,
        usage: None,
        extra: None,
        metadata: JsonObject::from_stored(r#"{"synthesised":true,"reason":"interrupted"}"#),
        created_at: message.updated_at,
        updated_at: message.updated_at,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use agentkeep_core::{JsonArray, SessionId, Timestamp};

    use super::*;

    fn message(seq: i64, role: MessageRole) -> Message {
        let call = Call { id: String::new(), name: None };
        Message {
            id: MessageId(Uuid::from_u128(seq.unsigned_abs().into())),
            seq,
            role,
            kind: MessageType::Text,
            content: Some(format!("m{seq}")),
            tool_call_id: None,
            metadata: JsonObject::default(),
            ..interrupted(&empty(), &call)
        }
    }

    /// A message without anything.
    pub(crate) fn empty() -> Message {
        let (id, session_id) = (MessageId(Uuid::nil()), SessionId(Uuid::nil()));
        let (created_at, updated_at) = (Timestamp::MIN, Timestamp::MIN);
        Message {
            id,
            session_id,
            seq: 0,
            role: MessageRole::User,
            kind: MessageType::Text,
            content: None,
            parts: None,
            tool_calls: None,
            tool_name: None,
            tool_args: None,
            tool_call_id: None,
            channel_payload: None,
            author_user_id: None,
            agent_id: None,
            platform_message_id: None,
            is_streaming: false,
            is_complete: true,
            usage: None,
            extra: None,
            metadata: JsonObject::default(),
            created_at,
            updated_at,
        }
    }

    fn user(seq: i64) -> Message {
        message(seq, MessageRole::User)
    }

    fn call(seq: i64, ids: &[&str]) -> Message {
        let calls: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"id":"{id}","type":"function","function":{{"name":"look"}}}}"#)).collect();
        let calls = JsonArray::parse("tool_calls", format!("[{}]", calls.join(","))).expect("calls");
        Message { tool_calls: Some(calls), ..message(seq, MessageRole::Assistant) }
    }

    fn result(seq: i64, id: &str) -> Message {
        Message { tool_call_id: Some(id.to_owned()), ..message(seq, MessageRole::Tool) }
    }

    fn with_parts(message: Message, parts: &str) -> Message {
        Message { parts: Some(JsonArray::parse("parts", parts).expect("parts")), ..message }
    }

    /// The seqs of what becomes of it; `!id` for a result that was filled in.
    fn became(messages: Vec<Message>) -> String {
        let one = |message: &Message| match message.id.0.is_nil() {
            true => format!("!{}", message.tool_call_id.as_deref().unwrap_or("?")),
            false => message.seq.to_string(),
        };
        valid(messages).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_valid_stays() {
        assert_eq!(became(vec![]), "");
        assert_eq!(became(vec![user(1), call(2, &["a", "b"]), result(3, "a"), result(4, "b"), user(5)]), "1 2 3 4 5");
    }

    #[test]
    fn a_missing_result_is_filled_in() {
        assert_eq!(became(vec![user(1), call(2, &["a", "b"]), result(3, "b"), user(4)]), "1 2 !a 3 4");
        let filled = valid(vec![call(1, &["a"])]).pop().expect("a result");
        assert_eq!((filled.role, filled.tool_name.as_deref()), (MessageRole::Tool, Some("look")));
        assert_eq!(filled.content.as_deref(), Some(INTERRUPTED));
        assert_eq!(filled.metadata.to_value()["synthesised"], true);
    }

    #[test]
    fn a_result_without_its_call_is_left_out() {
        assert_eq!(became(vec![result(1, "cut"), user(2), result(3, "x"), message(4, MessageRole::Tool)]), "2");
    }

    #[test]
    fn results_stand_right_behind_their_call_and_once() {
        let late = vec![call(1, &["a", "b"]), user(2), result(3, "b"), user(4), result(5, "a"), result(6, "a")];
        assert_eq!(became(late), "1 5 3 2 4");
    }

    #[test]
    fn ids_may_be_given_again() {
        let twice = vec![call(1, &["a"]), result(2, "a"), call(3, &["a"]), user(4), call(5, &["a"]), result(6, "a")];
        assert_eq!(became(twice), "1 2 3 !a 4 5 6");
    }

    #[test]
    fn calls_and_results_may_be_content_blocks() {
        let calls = with_parts(
            message(1, MessageRole::Assistant),
            r#"[{"type":"text","text":"tool_use"},{"type":"tool_use","id":"a","name":"look"},{"type":"tool_use","id":"b"}]"#,
        );
        let results = |ids: &str| {
            let blocks: Vec<String> =
                ids.chars().map(|id| format!(r#"{{"type":"tool_result","tool_use_id":"{id}"}}"#)).collect();
            with_parts(user(2), &format!("[{}]", blocks.join(",")))
        };
        assert_eq!(became(vec![calls.clone(), results("ab"), user(3)]), "1 2 3");
        assert_eq!(became(vec![calls, results("b"), user(3)]), "1 !a 2 3");
        assert_eq!(became(vec![results("a"), user(3)]), "3");
    }

    #[test]
    fn a_single_call_may_stand_in_the_message_itself() {
        let one = Message { tool_call_id: Some("a".to_owned()), ..message(1, MessageRole::Assistant) };
        assert_eq!(became(vec![one.clone(), result(2, "a")]), "1 2");
        assert_eq!(became(vec![one, user(2)]), "1 !a 2");
    }
}
