//! A session, as a conversation.

use agentkeep_core::{AgentId, JsonObject, Message, Session, SessionId, SessionStatus, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::resource::Resource;

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Conversation {
    /// The id of its session.
    session_id: SessionId,
    /// The same id.
    conversation_id: SessionId,
    /// The agent.
    agent_id: Option<AgentId>,
    /// The user: the id of one that is kept here, or whatever text names them elsewhere.
    user_id: Option<String>,
    /// Its title.
    title: Option<String>,
    /// Where it stands in its life.
    status: SessionStatus,
    /// Messages it holds.
    message_count: i64,
    /// Anything the application wants to keep with it.
    metadata: JsonObject,
    /// When it began.
    created_at: Timestamp,
    /// When it was last changed.
    updated_at: Timestamp,
    /// When the newest message was appended.
    last_message_at: Option<Timestamp>,
    /// Its messages, oldest first; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
    /// Grows with every change of the conversation itself.
    #[serde(skip)]
    revision: i64,
}

impl Conversation {
    pub(super) fn with(self, messages: Vec<Message>) -> Self {
        Self { messages: Some(messages), ..self }
    }
}

impl From<Session> for Conversation {
    fn from(session: Session) -> Self {
        let elsewhere = || session.metadata.to_value().get("user_id").and_then(|id| id.as_str().map(str::to_owned));
        Self {
            session_id: session.id,
            conversation_id: session.id,
            agent_id: session.agent_id,
            user_id: session.user_id.map(|id| id.to_string()).or_else(elsewhere),
            title: session.name,
            status: session.status,
            message_count: session.message_count,
            metadata: session.metadata,
            created_at: session.created_at,
            updated_at: session.updated_at,
            last_message_at: session.last_message_at,
            messages: None,
            revision: session.revision,
        }
    }
}

impl Resource for Conversation {
    const ENTITY: &'static str = "conversation";
    const FOLDER: &'static str = "conversations";

    fn id(&self) -> String {
        self.session_id.to_string()
    }

    fn version(&self) -> Option<i64> {
        Some(self.revision)
    }

    fn tag(&self) -> Option<String> {
        // Its messages change without it.
        self.version().filter(|_| self.messages.is_none()).map(|version| version.to_string())
    }
}
