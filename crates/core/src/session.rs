//! A session: one conversation between a user and an agent, a team or a workflow.

use serde::{Deserialize, Serialize};

use crate::{AgentId, JsonObject, Result, SessionId, TeamId, Timestamp, UserId, limits, text_enum};

text_enum! {
    /// Who leads the conversation.
    SessionKind, "kind" {
        /// One agent.
        Agent = "agent",
        /// A team of agents.
        Team = "team",
        /// A workflow.
        Workflow = "workflow",
    }
}

text_enum! {
    /// Where a session stands in its life.
    SessionStatus, "status" {
        /// Messages come and go.
        Active = "active",
        /// Ended properly.
        Finished = "finished",
        /// Put away; can be made active again.
        Archived = "archived",
        /// Marked as deleted; its rows are still there.
        Deleted = "deleted",
    }
}

impl SessionStatus {
    /// Whether a session may go from this status to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Active, Self::Finished | Self::Archived | Self::Deleted) | (Self::Archived, Self::Active)
        )
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The user it belongs to; deleted with them.
    pub user_id: Option<UserId>,
    /// The agent that leads it. A soft reference: the conversation outlives the agent.
    pub agent_id: Option<AgentId>,
    /// The team that leads it. A soft reference, like the agent.
    pub team_id: Option<TeamId>,
    /// Who leads the conversation.
    pub kind: SessionKind,
    /// Name or title to show.
    pub name: Option<String>,
    /// The chat platform it takes place on.
    pub platform: Option<String>,
    /// The id of the chat on that platform; unique together with it.
    pub chat_id: Option<String>,
    /// Where it stands in its life.
    pub status: SessionStatus,
    /// State that agents keep between turns.
    pub state: JsonObject,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// Messages it holds.
    pub message_count: i64,
    /// The seq of its newest message; 0 before the first. Seqs of deleted messages are not given again.
    pub last_seq: i64,
    /// When the newest message was appended.
    pub last_message_at: Option<Timestamp>,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
    /// Grows by one with every change of the session itself (not with its messages), from 1.
    pub revision: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// By what a reader can tell whether what it knows of a session still holds: nothing of it moves without a change, and
/// no change leaves all of it as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SessionStamp {
    /// The session.
    pub id: SessionId,
    /// Grows with every change of the session itself.
    pub revision: i64,
    /// The seq of its newest message: grows with every append.
    pub last_seq: i64,
    /// Messages it holds.
    pub message_count: i64,
    /// The number of its newest event: grows with every event.
    pub last_event: i64,
    /// Grows with every change or deletion of one of its messages.
    pub edits: i64,
    /// When the session itself was last changed.
    pub updated_at: Timestamp,
}

/// A session to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewSession {
    /// The id, when the caller chooses it.
    pub id: Option<SessionId>,
    /// The user it belongs to.
    pub user_id: Option<UserId>,
    /// The agent that leads it.
    pub agent_id: Option<AgentId>,
    /// The team that leads it.
    pub team_id: Option<TeamId>,
    /// Who leads the conversation; `team` when only a team is given, else `agent`.
    pub kind: Option<SessionKind>,
    /// Name or title to show.
    pub name: Option<String>,
    /// The chat platform it takes place on.
    pub platform: Option<String>,
    /// The id of the chat on that platform; unique together with it.
    pub chat_id: Option<String>,
    /// State that agents keep between turns.
    pub state: JsonObject,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
}

impl NewSession {
    /// Refuses empty or overlong texts, and a chat id without its platform.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_deref())?;
        limits::check_optional_name("platform", self.platform.as_deref())?;
        limits::check_optional_name("chat_id", self.chat_id.as_deref())?;
        if self.chat_id.is_some() && self.platform.is_none() {
            return Err(crate::Error::invalid("platform", "is needed with a chat_id: the two together are unique"));
        }
        Ok(())
    }

    /// The kind that was given, or the one that follows from who leads it.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.kind.unwrap_or(match (self.agent_id, self.team_id) {
            (None, Some(_)) => SessionKind::Team,
            _ => SessionKind::Agent,
        })
    }
}

/// Changes of a session; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionPatch {
    /// Change only if the session is still at this revision.
    pub revision: Option<i64>,
    /// Another user.
    #[serde(deserialize_with = "crate::present")]
    pub user_id: Option<Option<UserId>>,
    /// Another agent.
    #[serde(deserialize_with = "crate::present")]
    pub agent_id: Option<Option<AgentId>>,
    /// Another team.
    #[serde(deserialize_with = "crate::present")]
    pub team_id: Option<Option<TeamId>>,
    /// Another kind.
    pub kind: Option<SessionKind>,
    /// A new name.
    #[serde(deserialize_with = "crate::present")]
    pub name: Option<Option<String>>,
    /// A legal next status.
    pub status: Option<SessionStatus>,
    /// A merge patch (RFC 7396) of the state.
    pub state: Option<JsonObject>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl SessionPatch {
    /// Refuses an empty or overlong name.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_ref().and_then(Option::as_deref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_changes_are_legal() {
        let legal: Vec<_> = SessionStatus::ALL
            .iter()
            .flat_map(|from| SessionStatus::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.can_become(*to))
            .map(|(from, to)| format!("{from}→{to}"))
            .collect();
        assert_eq!(legal, ["active→finished", "active→archived", "active→deleted", "archived→active"]);
    }
}
