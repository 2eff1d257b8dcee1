//! A checkpoint: what a resumable run of an agent needs to go on.

use serde::{Deserialize, Serialize};

use crate::{CheckpointId, Json, JsonArray, JsonObject, Result, SessionId, Timestamp, limits};

/// A checkpoint of a run, kept in a session and a namespace within it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The session of the run; deleted with it.
    pub session_id: SessionId,
    /// The part of the run; empty for the run itself.
    pub namespace: String,
    /// The checkpoint before it. A soft reference: older checkpoints may go.
    pub parent_id: Option<CheckpointId>,
    /// The state of the run, exactly as it was given.
    pub channel_values: Json,
    /// What was written since, each write exactly as it was given, in order.
    pub pending_writes: JsonArray,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A checkpoint to put.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCheckpoint {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<CheckpointId>,
    /// The session of the run.
    pub session_id: SessionId,
    /// The part of the run; empty for the run itself.
    #[serde(default)]
    pub namespace: String,
    /// The checkpoint before it.
    #[serde(default)]
    pub parent_id: Option<CheckpointId>,
    /// The state of the run.
    pub channel_values: Json,
    /// What was written since.
    #[serde(default)]
    pub pending_writes: JsonArray,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewCheckpoint {
    /// A checkpoint of the run itself.
    #[must_use]
    pub fn new(session_id: SessionId, channel_values: impl Into<Json>) -> Self {
        Self {
            id: None,
            session_id,
            namespace: String::new(),
            parent_id: None,
            channel_values: channel_values.into(),
            pending_writes: JsonArray::default(),
            metadata: JsonObject::default(),
        }
    }

    /// Refuses an overlong namespace and JSON over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        if !self.namespace.is_empty() {
            limits::check_name("namespace", &self.namespace)?;
        }
        limits::check_content("channel_values", self.channel_values.as_str())?;
        limits::check_content("pending_writes", self.pending_writes.as_str())?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}
