//! The built-in model `echo`: it says the last message of the user again, word by word, and takes words for tokens.
//! It shows how an agent works without an endpoint, and lets tests choose what happens. An agent's `config.echo` may
//! have:
//!
//! - `tool_calls`: `[{"name": …, "arguments": {…}}, …]`, tools to call in place of an answer. When their results are
//!   there it says these, one on a line.
//! - `fail_after`: after so many words it fails with the code `echo_failed`.
//! - `pause_ms`: how long it waits before each word.

use std::{sync::LazyLock, time::Duration};

use agentkeep_core::{Clock, IdGenerator, JsonObject, SystemClock, TokenCounts};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream};

/// Its name, as a provider and as a model.
pub(crate) const NAME: &str = "echo";

/// Where the ids of its calls come from.
static IDS: LazyLock<IdGenerator> = LazyLock::new(IdGenerator::default);

/// The built-in model.
pub(crate) struct Echo;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    tool_calls: Vec<Call>,
    fail_after: Option<usize>,
    pause_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl ModelProvider for Echo {
    fn name(&self) -> &str {
        NAME
    }

    fn answer(&self, request: ModelRequest) -> ModelStream {
        let settings =
            request.settings.get(NAME).cloned().map_or_else(|| Ok(Settings::default()), serde_json::from_value);
        let (settings, events): (Settings, _) = match settings {
            Ok(settings) => {
                let events = events(&request.messages, &settings);
                (settings, events)
            }
            Err(error) => (Settings::default(), vec![Err(ModelError::new("echo_settings", error.to_string()))]),
        };
        let pause = Duration::from_millis(settings.pause_ms);
        let events = stream::iter(events).then(move |event| async move {
            if !pause.is_zero() && matches!(event, Ok(ModelEvent::Text(_))) {
                tokio::time::sleep(pause).await;
            }
            event
        });
        events.boxed()
    }
}

fn events(messages: &[Value], settings: &Settings) -> Vec<Result<ModelEvent, ModelError>> {
    let is = |message: &&Value, role: &str| message["role"] == role;
    // The results of the newest calls, if nobody spoke since.
    let results: Vec<String> = messages
        .iter()
        .rev()
        .take_while(|message| is(message, "tool"))
        .map(|message| text(&message["content"]))
        .collect();
    let heard: usize = messages.iter().map(|message| words(&text(&message["content"])).count()).sum();
    if !settings.tool_calls.is_empty() && results.is_empty() {
        let calls = settings.tool_calls.iter().map(|call| {
            let id = format!("call_{}", IDS.generate(SystemClock.now()).simple());
            let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
            json!({"id": id, "type": "function", "function": function})
        });
        return vec![
            Ok(ModelEvent::ToolCalls(calls.collect())),
            Ok(usage(heard, 0)),
            Ok(ModelEvent::Finished { reason: "tool_calls".to_owned() }),
        ];
    }
    let said = match results.is_empty() {
        true => {
            messages.iter().rev().find(|message| is(message, "user")).map(|it| text(&it["content"])).unwrap_or_default()
        }
        false => results.into_iter().rev().collect::<Vec<_>>().join("\n"),
    };
    let all: Vec<&str> = words(&said).collect();
    let end = settings.fail_after.unwrap_or(usize::MAX).min(all.len());
    let mut events: Vec<_> = all[..end].iter().map(|word| Ok(ModelEvent::Text((*word).to_owned()))).collect();
    match settings.fail_after {
        Some(after) => {
            events.push(Err(ModelError::new("echo_failed", format!("it was told to fail after {after} words"))));
        }
        None => {
            events.push(Ok(usage(heard, all.len())));
            events.push(Ok(ModelEvent::Finished { reason: "stop".to_owned() }));
        }
    }
    events
}

/// The words of a text, each with the space behind it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

/// The text of a content: itself, or that of its parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn usage(input: usize, output: usize) -> ModelEvent {
    let count = |words: usize| i64::try_from(words).unwrap_or(i64::MAX);
    let reported = json!({"prompt_tokens": input, "completion_tokens": output}).to_string();
    ModelEvent::Usage {
        tokens: TokenCounts::new(count(input), count(output)),
        reported: JsonObject::from_stored(reported),
    }
}
