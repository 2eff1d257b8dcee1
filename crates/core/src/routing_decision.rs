//! A routing decision: which agent a team chose for a message, and why.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, Error, JsonArray, JsonObject, MessageId, Result, RoutingDecisionId, SessionId, TeamId, Timestamp, limits,
};

/// A decision that was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoutingDecision {
    /// Its id.
    pub id: RoutingDecisionId,
    /// The team that decided; its decisions are deleted with it.
    pub team_id: TeamId,
    /// The session it was taken in.
    pub session_id: Option<SessionId>,
    /// The message it was taken for.
    pub message_id: Option<MessageId>,
    /// The agent that was chosen; none when nobody fitted. A soft reference.
    pub agent_id: Option<AgentId>,
    /// The candidates with their scores.
    pub candidates: JsonArray,
    /// Why this agent.
    pub reason: Option<String>,
    /// How long the decision took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// A decision to record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRoutingDecision {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<RoutingDecisionId>,
    /// The team that decided.
    pub team_id: TeamId,
    /// The session it was taken in; that of the message when absent.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// The message it was taken for.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// The agent that was chosen.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The candidates with their scores.
    #[serde(default)]
    pub candidates: JsonArray,
    /// Why this agent.
    #[serde(default)]
    pub reason: Option<String>,
    /// How long the decision took, in milliseconds.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewRoutingDecision {
    /// A decision of a team, to fill in.
    #[must_use]
    pub fn new(team_id: TeamId) -> Self {
        Self {
            id: None,
            team_id,
            session_id: None,
            message_id: None,
            agent_id: None,
            candidates: JsonArray::default(),
            reason: None,
            latency_ms: None,
            metadata: JsonObject::default(),
        }
    }

    /// Refuses texts over the limit, and a latency that is no finite number from 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("candidates", self.candidates.as_str())?;
        limits::check_content("reason", self.reason.as_deref().unwrap_or(""))?;
        limits::check_content("metadata", self.metadata.as_str())?;
        match self.latency_ms {
            Some(latency) if !latency.is_finite() || latency < 0.0 => {
                Err(Error::invalid("latency_ms", format!("{latency} is no finite number from 0")))
            }
            _ => Ok(()),
        }
    }
}
