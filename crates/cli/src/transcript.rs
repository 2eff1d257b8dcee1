//! `sessions show`: a conversation as a person reads it.

use std::io;

use agentkeep::core::{FilterOperator, ListRequest, Message, MessageRole, MessageType, Session, SessionId, limits};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::Value;

use crate::{
    entity::{Home, session_id},
    failure::Outcome,
    output::{Output, printable, time},
};

/// Messages read at a time.
const PAGE: u32 = 200;

/// The command.
pub fn command() -> Command {
    Command::new("show")
        .about("Print a session as a readable transcript")
        .arg(Arg::new("id").value_name("ID").required(true).help("The session: its id, or the beginning of it"))
        .arg(
            Arg::new("last")
                .long("last")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .help("Only the newest N messages"),
        )
        .after_help("Example:\n  agentkeep sessions show 0195f5a0 --last 20")
}

/// Runs the command.
pub async fn run(home: &Home, matches: &ArgMatches, output: &Output) -> Outcome {
    let id = session_id(home, matches.get_one::<String>("id").map_or("", String::as_str)).await?;
    let session = home.tenant.sessions().get(id).await?;
    let session = session.ok_or_else(|| agentkeep::core::Error::not_found("session", id))?;
    if !output.json {
        heading(&session, output)?;
    }
    let last = matches.get_one::<u32>("last").copied();
    match last {
        Some(last) if last <= limits::PAGE_ITEMS => {
            for message in home.tenant.messages().recent(id, last).await? {
                print(&message, output)?;
            }
        }
        _ => print_from(home, id, last.map_or(0, |last| session.last_seq - i64::from(last)), output).await?,
    }
    Ok(())
}

/// Prints the messages behind a seq, page by page.
async fn print_from(home: &Home, id: SessionId, seq: i64, output: &Output) -> Outcome {
    let mut request =
        ListRequest::new().filter("session_id", id).filter_by("seq", FilterOperator::Greater, seq).limit(PAGE);
    loop {
        let page = home.tenant.messages().list(&request).await?;
        for message in &page.items {
            print(message, output)?;
        }
        match page.next {
            Some(next) => request.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

fn heading(session: &Session, output: &Output) -> io::Result<()> {
    let name = session.name.as_deref().unwrap_or("(no name)");
    output.line(&output.strong(&printable(name)))?;
    let mut facts = vec![format!("session {}", session.id), session.status.to_string()];
    facts.extend(session.platform.clone());
    facts.push(format!("{} messages", session.message_count));
    facts.push(format!("created {} UTC", time(&session.created_at.to_string())));
    output.line(&output.faint(&printable(&facts.join(" · "))))
}

fn print(message: &Message, output: &Output) -> io::Result<()> {
    if output.json {
        return output.json(message);
    }
    let text = transcript(message, output);
    output.line(&text)
}

/// A message: a heading, and what it holds.
fn transcript(message: &Message, output: &Output) -> String {
    let mut lines = vec![String::new(), message_heading(message, output)];
    match (&message.parts, &message.content) {
        (Some(parts), _) => lines.extend(parts_of(&parts.to_value())),
        (None, Some(content)) if message.role == MessageRole::Tool => lines.push(indented(&pretty(content))),
        (None, Some(content)) => lines.push(printable(content)),
        (None, None) => {}
    }
    if let Some(calls) = &message.tool_calls {
        for call in calls.to_value().as_array().into_iter().flatten() {
            lines.push(call_of(call, output));
        }
    } else if let (MessageType::ToolCall, Some(arguments)) = (message.kind, &message.tool_args) {
        let name = message.tool_name.as_deref().unwrap_or("tool");
        lines.push(call_text(name, message.tool_call_id.as_deref(), &arguments.to_value(), output));
    }
    lines.join("\n")
}

fn message_heading(message: &Message, output: &Output) -> String {
    let color = match (message.kind, message.role) {
        (MessageType::Error, _) => "1;31",
        (_, MessageRole::User) => "1;32",
        (_, MessageRole::Assistant) => "1;36",
        (_, MessageRole::System) => "1;35",
        (_, MessageRole::Tool) => "1;33",
    };
    let mut who = message.role.as_str().to_uppercase();
    let tool = message.tool_name.as_deref().filter(|_| message.role == MessageRole::Tool);
    who.extend(tool.map(|tool| format!(" {tool}")));
    match message.kind {
        MessageType::Thinking => who.push_str(" (thinking)"),
        MessageType::Error => who.push_str(" (error)"),
        _ => {}
    }
    let mut place = format!("#{} · {}", message.seq, time(&message.created_at.to_string()));
    let call = message.tool_call_id.as_deref().filter(|_| message.role == MessageRole::Tool);
    place.extend(call.map(|call| format!(" · {call}")));
    if !message.is_complete {
        place.push_str(" · not complete");
    }
    format!("{}  {}", output.painted(color, &printable(&who)), output.faint(&printable(&place)))
}

/// Content blocks: their text, and a word for each that has none.
fn parts_of(parts: &Value) -> Vec<String> {
    let part = |part: &Value| {
        let kind = part["type"].as_str().unwrap_or("part");
        let text = ["text", "refusal", "thinking", "input_text"].iter().find_map(|key| part[*key].as_str());
        match text {
            Some(text) if kind == "thinking" => format!("(thinking)\n{}", indented(text)),
            Some(text) => printable(text),
            None => match part.pointer("/image_url/url").and_then(Value::as_str) {
                Some(url) if !url.starts_with("data:") => format!("[{kind} {}]", printable(url)),
                _ => format!("[{}]", printable(kind)),
            },
        }
    };
    parts.as_array().into_iter().flatten().map(part).collect()
}

fn call_of(call: &Value, output: &Output) -> String {
    let name = call.pointer("/function/name").or_else(|| call.get("name")).and_then(Value::as_str).unwrap_or("tool");
    let arguments = call.pointer("/function/arguments").or_else(|| call.get("input")).unwrap_or(&Value::Null);
    call_text(name, call["id"].as_str(), arguments, output)
}

/// A tool call: its name, its id, and its arguments indented.
fn call_text(name: &str, id: Option<&str>, arguments: &Value, output: &Output) -> String {
    let arguments = match arguments {
        Value::Null => String::new(),
        Value::String(text) => pretty(text),
        other => format!("{other:#}"),
    };
    let id = id.map(|id| output.faint(&format!(" {}", printable(id)))).unwrap_or_default();
    let head = format!("  → {}{id}", output.strong(&printable(name)));
    if arguments.is_empty() { head } else { format!("{head}\n{}", indented(&arguments)) }
}

/// JSON spread over lines; any other text as it is.
fn pretty(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => format!("{value:#}"),
        _ => text.to_owned(),
    }
}

fn indented(text: &str) -> String {
    printable(text).lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_its_arguments_indented() {
        let call = serde_json::json!({"id": "c1", "function": {"name": "find", "arguments": "{\"id\":\"x\"}"}});
        let output = Output::new(true, true);
        assert_eq!(call_of(&call, &output), "  → find c1\n    {\n      \"id\": \"x\"\n    }");
    }

    #[test]
    fn arguments_that_are_no_json_are_shown_as_they_are() {
        assert_eq!(pretty("{\"a\":"), "{\"a\":");
        assert_eq!(indented("a\nb"), "    a\n    b");
    }
}
