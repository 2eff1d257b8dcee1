//! A prompt: a text for an agent in numbered versions, at most one of them active.

use serde::{Deserialize, Serialize};

use crate::{AgentId, JsonObject, PromptId, Result, Timestamp, limits};

/// A version of a prompt. Its text never changes: another text is another version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prompt {
    /// The id of the version.
    pub id: PromptId,
    /// The agent it is for; deleted with it. None: a prompt of no agent in particular.
    pub agent_id: Option<AgentId>,
    /// The name its versions share, for one agent.
    pub name: String,
    /// 1, 2, 3 … for an agent and name; the number of a deleted version is not given again.
    pub version: i64,
    /// The text.
    pub text: String,
    /// Whether it is the version in use: at most one is for an agent and name.
    pub active: bool,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed, activation included.
    pub updated_at: Timestamp,
}

/// A version of a prompt to create. It gets the number after the newest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewPrompt {
    /// The id, when the caller chooses it.
    pub id: Option<PromptId>,
    /// The agent it is for.
    pub agent_id: Option<AgentId>,
    /// The name its versions share.
    pub name: String,
    /// The text.
    pub text: String,
    /// Whether it is to be in use at once, in place of the version that is.
    pub active: bool,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
}

impl NewPrompt {
    /// A version of the prompt of that name.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), ..Self::default() }
    }

    /// Refuses an empty or overlong name and a text over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)?;
        limits::check_content("text", &self.text)?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}

/// Changes of a version of a prompt; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PromptPatch {
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl PromptPatch {
    /// Refuses metadata over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("metadata", self.metadata.as_ref().map_or("", JsonObject::as_str))
    }
}
