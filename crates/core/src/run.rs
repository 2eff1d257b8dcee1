//! A run: one answer of an agent in a session, written by a process that holds its lease.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, JsonObject, Result, RunId, SessionEventKind, SessionId, StreamError, Timestamp, limits, text_enum,
};

text_enum! {
    /// Where a run stands.
    RunStatus, "status" {
        /// Its owner is at it.
        Running = "running",
        /// The agent has answered.
        Completed = "completed",
        /// The agent could not answer.
        Failed = "failed",
        /// The agent waits for somebody else: for the results of tools.
        Waiting = "waiting",
    }
}

impl RunStatus {
    /// Whether a run may go from this status to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Running, Self::Completed | Self::Failed | Self::Waiting) | (Self::Waiting, Self::Running)
        )
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The session it answers in; deleted with it.
    pub session_id: SessionId,
    /// The agent that answers. A soft reference.
    pub agent_id: Option<AgentId>,
    /// Where it stands.
    pub status: RunStatus,
    /// The process that is at it, or was last.
    pub owner: String,
    /// Until when the owner was sure to have it: a running run may be taken over afterwards.
    pub lease_until: Timestamp,
    /// The first seq that a message of its answer can have.
    pub first_seq: i64,
    /// The number of the event that tells its start.
    pub first_event: i64,
    /// Why it failed: an object with code and message.
    pub error: Option<JsonObject>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it completed or failed.
    pub finished_at: Option<Timestamp>,
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<RunId>,
    /// The session it answers in.
    pub session_id: SessionId,
    /// The agent that answers.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The process that is at it: a name that no other process has.
    pub owner: String,
    /// Until when it is sure to be the owner's.
    pub lease_until: Timestamp,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewRun {
    /// A run of nobody in particular.
    #[must_use]
    pub fn new(session_id: SessionId, owner: impl Into<String>, lease_until: Timestamp) -> Self {
        let (id, agent_id, metadata) = (None, None, JsonObject::default());
        Self { id, session_id, agent_id, owner: owner.into(), lease_until, metadata }
    }

    /// Refuses an empty or overlong owner, and metadata over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("owner", &self.owner)?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}

/// How the owner lets go of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The agent has answered.
    Completed,
    /// The agent could not answer.
    Failed(StreamError),
    /// The agent asks for tools that somebody else runs.
    Waiting,
}

impl RunOutcome {
    /// The status that comes of it.
    #[must_use]
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Completed => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Waiting => RunStatus::Waiting,
        }
    }

    /// The event that tells it.
    #[must_use]
    pub const fn event(&self) -> SessionEventKind {
        match self {
            Self::Completed => SessionEventKind::RunCompleted,
            Self::Failed(_) => SessionEventKind::RunFailed,
            Self::Waiting => SessionEventKind::ToolCallsRequested,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_changes_are_legal() {
        let legal: Vec<_> = RunStatus::ALL
            .iter()
            .flat_map(|from| RunStatus::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.can_become(*to))
            .map(|(from, to)| format!("{from}→{to}"))
            .collect();
        assert_eq!(legal, ["running→completed", "running→failed", "running→waiting", "waiting→running"]);
    }
}
