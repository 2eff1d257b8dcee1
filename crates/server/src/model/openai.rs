//! Any endpoint that speaks the chat protocol of OpenAI, answers streamed as server-sent events.
//!
//! Everything that comes is bounded: the time to connect, the silence between two reads, the length of an event, of a
//! refusal and of the answer. What cannot be understood is an error. The key is sent to the endpoint and stands nowhere
//! else: redirections are not followed, and no error names it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentkeep_core::{JsonObject, MOST_TOKENS, TokenCounts};
use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream, tool_calls::ToolCalls};

/// Where OpenAI is.
pub(super) const BASE_URL: &str = "https://api.openai.com/v1";

const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
/// The longest that an answer may take, however busy the endpoint seems.
const LONGEST: Duration = Duration::from_secs(3600);
/// The largest event: a larger one is no part of an answer.
const EVENT_BYTES: usize = 1024 * 1024;
/// What is read of a refusal, and what of it is told.
const REFUSAL_BYTES: usize = 64 * 1024;
const REFUSAL_CHARS: usize = 500;

/// Settings of an agent that are handed over as they are.
const SETTINGS: [&str; 15] = [
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "service_tier",
    "verbosity",
];

/// An endpoint that speaks the chat protocol of OpenAI.
#[derive(Clone)]
pub struct OpenAi {
    name: String,
    url: String,
    key: Option<String>,
    idle: Duration,
    connect: Duration,
    client: Arc<OnceLock<reqwest::Client>>,
}

impl OpenAi {
    /// The endpoint at an address such as `https://api.openai.com/v1`, with its key if it needs one. Whether the
    /// address is one shows when it is used.
    #[must_use]
    pub fn new(base_url: impl Into<String>, key: Option<String>) -> Self {
        let url = format!("{}/chat/completions", base_url.into().trim().trim_end_matches('/'));
        let host = reqwest::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let name = match host.as_deref() {
            Some("api.openai.com") => "openai".to_owned(),
            Some(host) => host.to_owned(),
            None => "endpoint".to_owned(),
        };
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        Self { name, url, key, idle: IDLE, connect: CONNECT, client: Arc::default() }
    }

    /// How long it may be silent; 60 s unless this is called.
    #[must_use]
    pub fn idle_timeout(self, idle: Duration) -> Self {
        Self { idle, connect: CONNECT.min(idle), client: Arc::default(), ..self }
    }

    /// Asks, and reads how it answers.
    async fn ask(
        self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let mut call = self.client()?.post(&self.url).header(ACCEPT, "text/event-stream").json(&body(request));
        if let Some(key) = &self.key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                ModelError::new("model_misconfigured", "the key of the endpoint is no text for a header")
            })?;
            value.set_sensitive(true);
            call = call.header(AUTHORIZATION, value);
        }
        let response = call.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refusal(status, response).await);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        if !content_type.to_ascii_lowercase().starts_with("text/event-stream") {
            let detail = format!("the endpoint answers with {content_type:?} where a stream of events is due");
            return Err(ModelError::new("model_protocol", detail));
        }
        let pieces = response.bytes_stream().map_err({
            let endpoint = self.clone();
            move |error| endpoint.broken_off(&error)
        });
        let reading = Reading::new(pieces.boxed());
        Ok(stream::try_unfold(reading, |mut reading| async move {
            let event = reading.next().await?;
            Ok(event.map(|event| (event, reading)))
        })
        .boxed())
    }

    /// The client: it keeps connections, so there is one.
    fn client(&self) -> Result<reqwest::Client, ModelError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let misconfigured = |error: &dyn std::fmt::Display| {
            ModelError::new("model_misconfigured", format!("requests cannot be made: {error}"))
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| misconfigured(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .connect_timeout(self.connect)
            .read_timeout(self.idle)
            .timeout(LONGEST)
            .user_agent(concat!("agentkeep/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| misconfigured(&error))?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    fn unreachable(&self, error: &reqwest::Error) -> ModelError {
        let name = &self.name;
        if error.is_builder() {
            return ModelError::new("model_misconfigured", "the base URL of the endpoint is no address");
        }
        if error.is_timeout() {
            let detail = match error.is_connect() {
                true => format!("{name} could not be reached within {:?}", self.connect),
                false => format!("{name} did not answer within {:?}", self.idle),
            };
            return ModelError::retryable("model_timeout", detail);
        }
        ModelError::retryable("model_unreachable", format!("{name} could not be reached"))
    }

    fn broken_off(&self, error: &reqwest::Error) -> ModelError {
        let name = &self.name;
        match error.is_timeout() {
            true => ModelError::retryable("model_timeout", format!("{name} was silent for {:?}", self.idle)),
            false => ModelError::retryable("model_broken_off", format!("the connection to {name} broke off")),
        }
    }

    async fn refusal(&self, status: StatusCode, response: reqwest::Response) -> ModelError {
        let mut told = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            told.extend_from_slice(&piece);
            if told.len() >= REFUSAL_BYTES {
                break;
            }
        }
        let told = serde_json::from_slice::<Value>(&told).ok().and_then(|told| message_of(&told)).unwrap_or_default();
        let told = self.shown(&told);
        let detail = format!("{} answers {status}{}{told}", self.name, if told.is_empty() { "" } else { ": " });
        match status.as_u16() {
            429 => ModelError::retryable("model_rate_limited", detail),
            401 | 403 => ModelError::new("model_not_permitted", detail),
            408 | 500.. => ModelError::retryable("model_failed", detail),
            _ => ModelError::new("model_refused", detail),
        }
    }

    /// What an endpoint says, as far as it is told: some repeat the key.
    fn shown(&self, told: &str) -> String {
        let told = match &self.key {
            Some(key) => told.replace(key.as_str(), "[key]"),
            None => told.to_owned(),
        };
        told.chars().take(REFUSAL_CHARS).collect()
    }
}

impl ModelProvider for OpenAi {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.clone();
        let shown = self.clone();
        let events = stream::once(endpoint.ask(request)).try_flatten();
        // What was told amid the stream goes through the same sieve as a refusal.
        events.map_err(move |error| ModelError { message: shown.shown(&error.message), ..error }).boxed()
    }
}

fn message_of(told: &Value) -> Option<String> {
    let error = told.get("error")?;
    let text = error.get("message").unwrap_or(error).as_str()?;
    Some(text.to_owned())
}

fn body(request: ModelRequest) -> Map<String, Value> {
    let mut body: Map<String, Value> = SETTINGS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), request.settings.get(*name)?.clone())))
        .filter(|(_, value)| !value.is_null())
        .collect();
    let system = request.system.map(|text| json!({"role": "system", "content": text}));
    body.insert("model".to_owned(), Value::String(request.model));
    body.insert("messages".to_owned(), system.into_iter().chain(request.messages).collect());
    if !request.tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(request.tools));
    }
    body.insert("stream".to_owned(), Value::Bool(true));
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    body
}

/// One event of the stream; what is not known is passed over.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Map<String, Value>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Map<String, Value>>>,
}

/// An answer that is being read.
struct Reading {
    events: BoxStream<'static, Result<String, ModelError>>,
    /// Bytes that came since the last event.
    unread: Arc<AtomicUsize>,
    ready: VecDeque<ModelEvent>,
    calls: ToolCalls,
    reason: Option<String>,
    ended: bool,
}

impl Reading {
    fn new(pieces: impl Stream<Item = Result<Bytes, ModelError>> + Send + 'static) -> Self {
        let unread = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&unread);
        let pieces = pieces.map(move |piece| {
            let piece = piece?;
            match counted.fetch_add(piece.len(), Ordering::Relaxed) {
                // What came before it belongs to one event.
                before if before > EVENT_BYTES => Err(ModelError::new(
                    "model_too_large",
                    format!("an event of the answer is larger than {EVENT_BYTES} bytes"),
                )),
                _ => Ok(piece),
            }
        });
        let events = pieces.boxed().eventsource().map(|event| match event {
            Ok(event) => Ok(event.data),
            Err(EventStreamError::Transport(error)) => Err(error),
            Err(_) => Err(ModelError::new("model_protocol", "the answer is no stream of events")),
        });
        Self {
            events: events.boxed(),
            unread,
            ready: VecDeque::new(),
            calls: ToolCalls::default(),
            reason: None,
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Option<ModelEvent>, ModelError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.events.next().await.transpose()? {
                Some(data) => {
                    self.unread.store(0, Ordering::Relaxed);
                    if data.trim() == "[DONE]" { self.end()? } else { self.read(&data)? }
                }
                None => self.end()?,
            }
        }
    }

    fn read(&mut self, data: &str) -> Result<(), ModelError> {
        let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
            ModelError::new("model_protocol", format!("an event of the answer cannot be read: {error}"))
        })?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let told = message_of(&json!({"error": error})).unwrap_or_else(|| "the model failed".to_owned());
            return Err(ModelError::retryable("model_failed", told));
        }
        if let Some(choice) = chunk.choices.into_iter().next() {
            if let Some(delta) = choice.delta {
                let thinking = delta.reasoning_content.filter(|text| !text.is_empty()).map(ModelEvent::Thinking);
                let texts = [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty());
                self.ready.extend(thinking.into_iter().chain(texts.map(ModelEvent::Text)));
                delta.tool_calls.unwrap_or_default().into_iter().try_for_each(|piece| self.calls.add(piece))?;
            }
            self.reason = choice.finish_reason.or(self.reason.take());
        }
        if let Some(usage) = chunk.usage {
            let tokens = tokens_of(&usage);
            let reported = JsonObject::from_stored(Value::Object(usage).to_string());
            self.ready.push_back(ModelEvent::Usage { tokens, reported });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ModelError> {
        self.ended = true;
        let Some(reason) = self.reason.take() else {
            return Err(ModelError::retryable("model_broken_off", "the answer ended before the model said so"));
        };
        let calls = std::mem::take(&mut self.calls).whole()?;
        if !calls.is_empty() {
            self.ready.push_back(ModelEvent::ToolCalls(calls));
        }
        self.ready.push_back(ModelEvent::Finished { reason });
        Ok(())
    }
}

/// What was used, each token once: cached ones are part of the prompt, reasoning is part of the completion.
fn tokens_of(usage: &Map<String, Value>) -> TokenCounts {
    let count = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or(0).clamp(0, MOST_TOKENS);
    let detail = |group: &str, name: &str| count(usage.get(group).and_then(|group| group.get(name)));
    let cache_read = detail("prompt_tokens_details", "cached_tokens");
    let reasoning = detail("completion_tokens_details", "reasoning_tokens");
    TokenCounts {
        input: (count(usage.get("prompt_tokens")) - cache_read).max(0),
        output: (count(usage.get("completion_tokens")) - reasoning).max(0),
        cache_read,
        cache_write: 0,
        reasoning,
    }
}
