//! A message: one entry of a session, in the order it was appended.

use serde::{Deserialize, Serialize};

use crate::{AgentId, Json, JsonArray, JsonObject, MessageId, Result, SessionId, Timestamp, UserId, limits, text_enum};

text_enum! {
    /// Who speaks.
    MessageRole, "role" {
        /// The user.
        User = "user",
        /// The agent.
        Assistant = "assistant",
        /// The instructions.
        System = "system",
        /// A tool, with its result.
        Tool = "tool",
    }
}

text_enum! {
    /// What a message holds.
    MessageType, "type" {
        /// Plain text or content blocks.
        Text = "text",
        /// A call of one or more tools.
        ToolCall = "tool_call",
        /// The result of a tool.
        ToolResponse = "tool_response",
        /// Reasoning of the model.
        Thinking = "thinking",
        /// An error that was part of the conversation.
        Error = "error",
    }
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Its place in the session: 1, 2, 3 … without gaps.
    pub seq: i64,
    /// Who speaks.
    pub role: MessageRole,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// The text.
    pub content: Option<String>,
    /// Content blocks exactly as the provider gave them.
    pub parts: Option<JsonArray>,
    /// Tool calls exactly as the provider gave them.
    pub tool_calls: Option<JsonArray>,
    /// The tool that was called or that answers.
    pub tool_name: Option<String>,
    /// The arguments of the call.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub tool_args: Option<Json>,
    /// The id that binds a call to its result.
    pub tool_call_id: Option<String>,
    /// What the channel delivered, as it came.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub channel_payload: Option<Json>,
    /// The user who wrote it, in a session of several. A soft reference.
    pub author_user_id: Option<UserId>,
    /// The agent that wrote it. A soft reference.
    pub agent_id: Option<AgentId>,
    /// Its id on the chat platform; unique within the session.
    pub platform_message_id: Option<String>,
    /// Whether it is being written right now.
    pub is_streaming: bool,
    /// Whether it is all there.
    pub is_complete: bool,
    /// Token use, as the provider reported it.
    pub usage: Option<JsonObject>,
    /// Fields of the provider's message that have no column here, exactly as they came.
    pub extra: Option<JsonObject>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A message to append.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<MessageId>,
    /// Who speaks.
    pub role: MessageRole,
    /// What it holds; follows from the other fields when absent.
    #[serde(default, rename = "type")]
    pub kind: Option<MessageType>,
    /// The text.
    #[serde(default)]
    pub content: Option<String>,
    /// Content blocks exactly as the provider gave them.
    #[serde(default)]
    pub parts: Option<JsonArray>,
    /// Tool calls exactly as the provider gave them.
    #[serde(default)]
    pub tool_calls: Option<JsonArray>,
    /// The tool that was called or that answers.
    #[serde(default)]
    pub tool_name: Option<String>,
    /// The arguments of the call.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub tool_args: Option<Json>,
    /// The id that binds a call to its result.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// What the channel delivered, as it came.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub channel_payload: Option<Json>,
    /// The user who wrote it.
    #[serde(default)]
    pub author_user_id: Option<UserId>,
    /// The agent that wrote it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// Its id on the chat platform; a repeated one gives the first message back.
    #[serde(default)]
    pub platform_message_id: Option<String>,
    /// Whether it is being written right now.
    #[serde(default)]
    pub is_streaming: bool,
    /// Whether it is all there; true unless it is streaming, when absent.
    #[serde(default)]
    pub is_complete: Option<bool>,
    /// Token use, as the provider reported it.
    #[serde(default)]
    pub usage: Option<JsonObject>,
    /// Fields of the provider's message that have no column here.
    #[serde(default)]
    pub extra: Option<JsonObject>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
    /// When it was said; now when absent.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

impl NewMessage {
    /// A text message.
    #[must_use]
    pub fn text(role: MessageRole, content: impl Into<String>) -> Self {
        Self { content: Some(content.into()), ..Self::empty(role) }
    }

    /// A message without content, to fill in.
    #[must_use]
    pub fn empty(role: MessageRole) -> Self {
        Self {
            id: None,
            role,
            kind: None,
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
            is_complete: None,
            usage: None,
            extra: None,
            metadata: JsonObject::default(),
            created_at: None,
        }
    }

    /// The type that was given, or the one that follows from role and tool calls.
    #[must_use]
    pub fn kind(&self) -> MessageType {
        self.kind.unwrap_or(match self.role {
            MessageRole::Tool => MessageType::ToolResponse,
            _ if self.tool_calls.is_some() => MessageType::ToolCall,
            _ => MessageType::Text,
        })
    }

    /// Refuses a content over the limit, and empty or overlong names.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        let json = |json: Option<&Json>| json.map(|json| json.as_str().len()).unwrap_or(0);
        let array = |array: Option<&JsonArray>| json(array.map(JsonArray::as_json));
        let object = |object: Option<&JsonObject>| json(object.map(JsonObject::as_json));
        for (field, bytes) in [
            ("content", self.content.as_ref().map_or(0, String::len)),
            ("parts", array(self.parts.as_ref())),
            ("tool_calls", array(self.tool_calls.as_ref())),
            ("tool_args", json(self.tool_args.as_ref())),
            ("channel_payload", json(self.channel_payload.as_ref())),
            ("usage", object(self.usage.as_ref())),
            ("extra", object(self.extra.as_ref())),
            ("metadata", self.metadata.as_str().len()),
        ] {
            limits::check_content_bytes(field, bytes)?;
        }
        limits::check_optional_name("tool_name", self.tool_name.as_deref())?;
        limits::check_optional_name("tool_call_id", self.tool_call_id.as_deref())?;
        limits::check_optional_name("platform_message_id", self.platform_message_id.as_deref())
    }
}

/// Changes of a message; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MessagePatch {
    /// A new text.
    #[serde(deserialize_with = "crate::present")]
    pub content: Option<Option<String>>,
    /// New content blocks.
    #[serde(deserialize_with = "crate::present")]
    pub parts: Option<Option<JsonArray>>,
    /// New tool calls.
    #[serde(deserialize_with = "crate::present")]
    pub tool_calls: Option<Option<JsonArray>>,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Option<MessageType>,
    /// Whether it is being written right now.
    pub is_streaming: Option<bool>,
    /// Whether it is all there.
    pub is_complete: Option<bool>,
    /// Token use.
    #[serde(deserialize_with = "crate::present")]
    pub usage: Option<Option<JsonObject>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl MessagePatch {
    /// Refuses a content over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        let bytes = |array: &Option<Option<JsonArray>>| {
            array.as_ref().and_then(Option::as_ref).map_or(0, |array| array.as_str().len())
        };
        limits::check_content("content", self.content.as_ref().and_then(Option::as_deref).unwrap_or(""))?;
        limits::check_content_bytes("parts", bytes(&self.parts))?;
        limits::check_content_bytes("tool_calls", bytes(&self.tool_calls))
    }
}
