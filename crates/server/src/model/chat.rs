//! Stored messages and tools in the chat format of OpenAI.

use agentkeep_core::{JsonArray, Message, MessageRole, MessageType};
use serde_json::{Value, json};

/// The messages as a model is given them. Reasoning and errors are left out: they are no part of what was said.
pub(crate) fn chat_messages(messages: &[Message]) -> Vec<Value> {
    let said = |message: &&Message| !matches!(message.kind, MessageType::Thinking | MessageType::Error);
    messages.iter().filter(said).map(chat_message).collect()
}

fn chat_message(message: &Message) -> Value {
    let parts = || message.parts.as_ref().map(JsonArray::to_value);
    let text = || message.content.clone().map(Value::String);
    let empty = || Value::String(String::new());
    match message.role {
        // Parts may hold more than the text: images, files.
        MessageRole::User => json!({"role": "user", "content": parts().or_else(text).unwrap_or_else(empty)}),
        MessageRole::System => json!({"role": "system", "content": text().or_else(parts).unwrap_or_else(empty)}),
        MessageRole::Tool => json!({
            "role": "tool",
            "tool_call_id": message.tool_call_id,
            "content": text().or_else(parts).unwrap_or_else(empty),
        }),
        MessageRole::Assistant => {
            let calls = message.tool_calls.as_ref().map(JsonArray::to_value);
            match calls.filter(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty())) {
                Some(calls) => json!({"role": "assistant", "content": text(), "tool_calls": calls}),
                None => json!({"role": "assistant", "content": text().or_else(parts).unwrap_or_else(empty)}),
            }
        }
    }
}

/// The tools of an agent as a model is given them: whole entries stay as they are, a function without its frame gets
/// one, and a mere name is a function that takes anything.
pub(crate) fn chat_tools(tools: &JsonArray) -> Vec<Value> {
    let Value::Array(tools) = tools.to_value() else { return Vec::new() };
    let function = |function: Value| json!({"type": "function", "function": function});
    tools
        .into_iter()
        .filter_map(|tool| match tool {
            Value::String(name) => Some(function(json!({"name": name, "parameters": {"type": "object"}}))),
            Value::Object(ref fields) if fields.contains_key("type") => Some(tool),
            Value::Object(ref fields) if fields.contains_key("name") => Some(function(tool)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_may_be_given_in_three_ways() {
        let text =
            r#"["search", {"name": "add", "parameters": {}}, {"type": "function", "function": {"name": "x"}}, 3]"#;
        let tools = chat_tools(&JsonArray::parse("tools", text).expect("tools"));
        let names: Vec<&Value> = tools.iter().map(|tool| &tool["function"]["name"]).collect();
        assert_eq!(names, ["search", "add", "x"]);
    }
}
