//! A memory: something an agent keeps in mind, about one user or for all of them.

use serde::{Deserialize, Serialize};

use crate::{AgentId, JsonObject, MemoryId, Result, SessionId, Timestamp, UserId, limits};

/// A memory. Its name is unique for its agent and user; an absent agent or user counts as a value of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Memory {
    /// Its id.
    pub id: MemoryId,
    /// The agent that remembers; deleted with it.
    pub agent_id: Option<AgentId>,
    /// The user it is about; deleted with them. None: the agent's global memory.
    pub user_id: Option<UserId>,
    /// The session it comes from; deleted with it.
    pub session_id: Option<SessionId>,
    /// Its name.
    pub name: String,
    /// What is remembered.
    pub content: String,
    /// When the agent gets to read it (`system_prompt`, `tool`): a word of the application's.
    pub read_mode: Option<String>,
    /// Who may change it: a word of the application's.
    pub access: Option<String>,
    /// When it is forgotten: from then on it is neither listed nor found by name.
    pub expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A memory to create or upsert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewMemory {
    /// The id, when the caller chooses it.
    pub id: Option<MemoryId>,
    /// The agent that remembers.
    pub agent_id: Option<AgentId>,
    /// The user it is about. None: the agent's global memory.
    pub user_id: Option<UserId>,
    /// The session it comes from.
    pub session_id: Option<SessionId>,
    /// Its name.
    pub name: String,
    /// What is remembered.
    pub content: String,
    /// When the agent gets to read it.
    pub read_mode: Option<String>,
    /// Who may change it.
    pub access: Option<String>,
    /// When it is forgotten.
    pub expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
}

impl NewMemory {
    /// A memory of that name.
    #[must_use]
    pub fn new(name: impl Into<String>, content: impl Into<String>) -> Self {
        Self { name: name.into(), content: content.into(), ..Self::default() }
    }

    /// Refuses empty or overlong names and a content over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)?;
        check_texts(Some(&self.content), self.read_mode.as_deref(), self.access.as_deref(), Some(&self.metadata))
    }
}

/// Changes of a memory; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MemoryPatch {
    /// Another agent.
    #[serde(deserialize_with = "crate::present")]
    pub agent_id: Option<Option<AgentId>>,
    /// Another user.
    #[serde(deserialize_with = "crate::present")]
    pub user_id: Option<Option<UserId>>,
    /// Another session.
    #[serde(deserialize_with = "crate::present")]
    pub session_id: Option<Option<SessionId>>,
    /// A new name.
    pub name: Option<String>,
    /// A new content.
    pub content: Option<String>,
    /// When the agent gets to read it.
    #[serde(deserialize_with = "crate::present")]
    pub read_mode: Option<Option<String>>,
    /// Who may change it.
    #[serde(deserialize_with = "crate::present")]
    pub access: Option<Option<String>>,
    /// When it is forgotten.
    #[serde(deserialize_with = "crate::present")]
    pub expires_at: Option<Option<Timestamp>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl MemoryPatch {
    /// Refuses empty or overlong names and a content over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        let text = |field: &'_ Option<Option<String>>| field.clone().flatten();
        limits::check_optional_name("name", self.name.as_deref())?;
        check_texts(
            self.content.as_deref(),
            text(&self.read_mode).as_deref(),
            text(&self.access).as_deref(),
            self.metadata.as_ref(),
        )
    }
}

fn check_texts(
    content: Option<&str>,
    read_mode: Option<&str>,
    access: Option<&str>,
    metadata: Option<&JsonObject>,
) -> Result<()> {
    limits::check_content("content", content.unwrap_or(""))?;
    limits::check_optional_name("read_mode", read_mode)?;
    limits::check_optional_name("access", access)?;
    limits::check_content("metadata", metadata.map_or("", JsonObject::as_str))
}
