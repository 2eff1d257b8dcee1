//! Models that answer. What an agent asks goes to a [`ModelProvider`]: `echo`, which is built in, or an endpoint that
//! speaks the chat protocol of OpenAI. Their answers are streams of events, and every way to fail is a [`ModelError`].

mod chat;
mod echo;
mod openai;
mod tool_calls;

use std::{fmt, sync::Arc};

use agentkeep_core::{JsonObject, TokenCounts};
use futures_util::stream::BoxStream;
use serde_json::{Map, Value};

pub(crate) use chat::{chat_messages, chat_tools};
pub(crate) use echo::Echo;
pub use openai::OpenAi;

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelRequest {
    /// The name of the model.
    pub model: String,
    /// Who it is to be, and how it is to behave.
    pub system: Option<String>,
    /// The conversation, in the chat format of OpenAI: `role` with `content`, `tool_calls` or `tool_call_id`. Every
    /// call of a tool has exactly one result.
    pub messages: Vec<Value>,
    /// The tools it may call, in the same format.
    pub tools: Vec<Value>,
    /// The settings of the agent, all of its `config`: providers take those that they know.
    pub settings: Map<String, Value>,
}

/// What comes of asking a model, bit by bit.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// More of the text.
    Text(String),
    /// More of the reasoning.
    Thinking(String),
    /// The tools it calls, each call whole and as the provider gave it.
    ToolCalls(Vec<Value>),
    /// What it used.
    Usage {
        /// Tokens of each kind, each counted once.
        tokens: TokenCounts,
        /// As the provider reported it.
        reported: JsonObject,
    },
    /// It has ended, and why. A stream that ends without this broke off.
    Finished {
        /// In the words of the provider: `stop`, `length`, `tool_calls` …
        reason: String,
    },
}

/// Why a model did not answer, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelError {
    /// A word for programs.
    pub code: &'static str,
    /// A text for people. It holds no secret.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl ModelError {
    /// An error that a repetition does not cure.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false }
    }

    /// An error that may be gone later.
    #[must_use]
    pub fn retryable(code: &'static str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(code, message) }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ModelError {}

/// The events of an answer, until the first error. Dropping it ends the request.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, ModelError>>;

/// Whoever runs models.
pub trait ModelProvider: Send + Sync + 'static {
    /// Its name, in the ledger.
    fn name(&self) -> &str;

    /// Asks a model. Nothing happens before the stream is read.
    fn answer(&self, request: ModelRequest) -> ModelStream;
}

/// The models that agents of this server can run on.
#[derive(Clone, Default)]
pub struct Models {
    /// Whoever runs every model but `echo`.
    endpoint: Option<Arc<dyn ModelProvider>>,
    /// The model of agents that name none.
    model: Option<String>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.name());
        f.debug_struct("Models").field("endpoint", &endpoint).field("model", &self.model).finish()
    }
}

impl Models {
    /// No endpoint: `echo` only.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every model but `echo` is run by this provider.
    #[must_use]
    pub fn of(endpoint: impl ModelProvider) -> Self {
        Self { endpoint: Some(Arc::new(endpoint)), model: None }
    }

    /// Agents that name no model run on this one.
    #[must_use]
    pub fn with_default(self, model: impl Into<String>) -> Self {
        Self { model: Some(model.into()), ..self }
    }

    /// The endpoint that the environment names. `AGENTKEEP_MODEL_BASE_URL` and `AGENTKEEP_MODEL_API_KEY`, or, when
    /// neither is set, `OPENAI_BASE_URL` and `OPENAI_API_KEY`: a key never goes to the address of the other pair.
    /// A key without an address is for OpenAI. `AGENTKEEP_MODEL` is the model of agents that name none, and
    /// `AGENTKEEP_MODEL_IDLE_SECONDS` how long a model may be silent (60).
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let Some((url, key)) = endpoint_of(&variable) else { return Self::none() };
        let mut endpoint = OpenAi::new(url, key);
        if let Some(seconds) = variable("AGENTKEEP_MODEL_IDLE_SECONDS").and_then(|text| text.trim().parse().ok()) {
            endpoint = endpoint.idle_timeout(std::time::Duration::from_secs(seconds));
        }
        Self { model: variable("AGENTKEEP_MODEL").filter(|model| !model.trim().is_empty()), ..Self::of(endpoint) }
    }

    /// Who runs the model of an agent, and its name. `echo` and `echo/…` are built in; without an endpoint they are
    /// also the model of agents that name none.
    ///
    /// # Errors
    /// `model_not_configured` when nobody runs it, `model_missing` when none is named.
    pub(crate) fn find(&self, model: Option<&str>) -> Result<(Arc<dyn ModelProvider>, String), ModelError> {
        let echo = |name: &str| Ok((Arc::new(Echo) as Arc<dyn ModelProvider>, name.to_owned()));
        match (model.or(self.model.as_deref()), &self.endpoint) {
            (Some(model), _) if model == echo::NAME || model.starts_with("echo/") => echo(model),
            (None, None) => echo(echo::NAME),
            (Some(model), Some(endpoint)) => Ok((Arc::clone(endpoint), model.to_owned())),
            (Some(model), None) => Err(ModelError::new(
                "model_not_configured",
                format!(
                    "nobody runs {model:?}: set OPENAI_BASE_URL and OPENAI_API_KEY, or give the agent the model echo"
                ),
            )),
            (None, Some(_)) => Err(ModelError::new(
                "model_missing",
                "the agent names no model: give it one, or set AGENTKEEP_MODEL for those that have none",
            )),
        }
    }
}

/// The address and the key of the first pair of variables of which one is set; `None` when none is.
fn endpoint_of(variable: impl Fn(&str) -> Option<String>) -> Option<(String, Option<String>)> {
    let given = |name: String| variable(&name).filter(|value| !value.trim().is_empty());
    ["AGENTKEEP_MODEL", "OPENAI"].iter().find_map(|prefix| {
        match (given(format!("{prefix}_BASE_URL")), given(format!("{prefix}_API_KEY"))) {
            (None, None) => None,
            (url, key) => Some((url.unwrap_or_else(|| openai::BASE_URL.to_owned()), key)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(variables: &[(&str, &str)]) -> Models {
        let variables: std::collections::HashMap<&str, &str> = variables.iter().copied().collect();
        Models::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    fn found(models: &Models, model: Option<&str>) -> (String, String) {
        models.find(model).map_or_else(
            |error| (error.code.to_owned(), String::new()),
            |(provider, model)| (provider.name().to_owned(), model),
        )
    }

    #[test]
    fn echo_is_for_those_that_name_it_and_for_all_without_an_endpoint() {
        let none = models(&[("AGENTKEEP_MODEL", "x")]);
        assert_eq!(found(&none, None).0, "echo");
        assert_eq!(found(&none, Some("gpt")).0, "model_not_configured");
        let some = models(&[("OPENAI_API_KEY", "k")]);
        assert_eq!(found(&some, Some("echo/slow")), ("echo".into(), "echo/slow".into()));
        assert_eq!(found(&some, Some("gpt")), ("openai".into(), "gpt".into()));
        assert_eq!(found(&some, None).0, "model_missing");
        let named = models(&[("OPENAI_BASE_URL", "http://localhost:1/v1"), ("AGENTKEEP_MODEL", "small")]);
        assert_eq!(found(&named, None), ("localhost".into(), "small".into()));
    }

    #[test]
    fn a_key_does_not_go_to_the_address_of_the_other_pair() {
        let variable = |name: &str| match name {
            "AGENTKEEP_MODEL_BASE_URL" => Some("http://localhost:1".to_owned()),
            "OPENAI_API_KEY" => Some("hunter2".to_owned()),
            _ => None,
        };
        assert_eq!(endpoint_of(variable), Some(("http://localhost:1".to_owned(), None)));
    }
}
