//! The events of a session: what those who watch it are told, in order.

use serde::{Deserialize, Serialize};

use crate::{Json, JsonArray, JsonObject, MessageId, Result, RunId, Timestamp, limits, text_enum};

text_enum! {
    /// What an event tells.
    SessionEventKind, "type" {
        /// A message is being streamed in; its data is the message as it began.
        MessageStarted = "message.started",
        /// A streamed message grew; its data is the [`Delta`].
        MessageDelta = "message.delta",
        /// A streamed message is all there; its data is the message.
        MessageCompleted = "message.completed",
        /// A streamed message broke off; its data is the message, with the error in its metadata.
        MessageIncomplete = "message.incomplete",
        /// A message was changed; its data is the message as it is then.
        MessageUpdated = "message.updated",
        /// A message was deleted.
        MessageDeleted = "message.deleted",
        /// An agent began to answer; its data is the run.
        RunStarted = "run.started",
        /// An agent has answered.
        RunCompleted = "run.completed",
        /// An agent could not answer.
        RunFailed = "run.failed",
        /// An agent that waited goes on; its data is the run.
        RunResumed = "run.resumed",
        /// An agent waits for somebody else to run its tools.
        ToolCallsRequested = "tool_calls.requested",
    }
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionEvent {
    /// Its place among the events of the session: 1, 2, 3 … without gaps.
    pub number: i64,
    /// The seq of the message it is about; of the newest message at that time when it is about none.
    pub seq: i64,
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: SessionEventKind,
    /// The message it is about.
    pub message_id: Option<MessageId>,
    /// The run that brought it about.
    pub run_id: Option<RunId>,
    /// What there is to tell, exactly as it was given.
    pub data: Json,
    /// When it happened.
    pub created_at: Timestamp,
}

/// An event to append to a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSessionEvent {
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: SessionEventKind,
    /// The message it is about.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// The run that brought it about.
    #[serde(default)]
    pub run_id: Option<RunId>,
    /// What there is to tell.
    #[serde(default)]
    pub data: JsonObject,
}

impl NewSessionEvent {
    /// An event without data.
    #[must_use]
    pub fn new(kind: SessionEventKind) -> Self {
        Self { kind, message_id: None, run_id: None, data: JsonObject::default() }
    }

    /// Refuses data over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("data", self.data.as_str())
    }
}

/// The events of a session behind a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The events, in order; empty when there are none.
    pub events: Vec<SessionEvent>,
    /// Whether events are missing among them: they were pruned, or the number was never given. Who was told of
    /// everything before has to read the messages anew.
    pub gap: bool,
    /// The number of the session's newest event, whether it is on this page or not; 0 before the first.
    pub last_event: i64,
    /// The seq of the session's newest message at that time; 0 before the first.
    pub last_seq: i64,
}

/// What a streamed message grew by; what is absent did not grow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Delta {
    /// More of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of the reasoning. It is told, and kept with the message only as far as its parts have it in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// More of the tool calls, exactly as the provider gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<JsonArray>,
}

impl Delta {
    /// More text.
    #[must_use]
    pub fn text(content: impl Into<String>) -> Self {
        Self { content: Some(content.into()), ..Self::default() }
    }

    /// Refuses parts over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("content", self.content.as_deref().unwrap_or(""))?;
        limits::check_content("thinking", self.thinking.as_deref().unwrap_or(""))?;
        limits::check_content("tool_calls", self.tool_calls.as_ref().map_or("", JsonArray::as_str))
    }
}

/// How a streamed message ends. What is absent stays as the message began; the content is what it began with and
/// its deltas, unless another one is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Finish {
    /// The whole text, in place of the deltas.
    pub content: Option<String>,
    /// Content blocks exactly as the provider gave them.
    pub parts: Option<JsonArray>,
    /// Tool calls exactly as the provider gave them, whole.
    pub tool_calls: Option<JsonArray>,
    /// Token use.
    pub usage: Option<JsonObject>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
    /// Why it broke off: the message stays incomplete then.
    pub error: Option<StreamError>,
}

impl Finish {
    /// It broke off.
    #[must_use]
    pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error: Some(StreamError { code: code.into(), message: message.into() }), ..Self::default() }
    }

    /// Refuses values over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("content", self.content.as_deref().unwrap_or(""))?;
        limits::check_content("parts", self.parts.as_ref().map_or("", JsonArray::as_str))?;
        limits::check_content("tool_calls", self.tool_calls.as_ref().map_or("", JsonArray::as_str))?;
        limits::check_content("usage", self.usage.as_ref().map_or("", JsonObject::as_str))?;
        limits::check_content("metadata", self.metadata.as_ref().map_or("", JsonObject::as_str))?;
        self.error.as_ref().map_or(Ok(()), StreamError::check)
    }
}

/// Why a message or a run broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamError {
    /// A word for programs.
    pub code: String,
    /// A text for people.
    pub message: String,
}

impl StreamError {
    /// Refuses an empty code and a text over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("error.code", &self.code)?;
        limits::check_content("error.message", &self.message)
    }
}
