//! A team: agents that share the work of a conversation.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, JsonObject, Result, TeamId, Timestamp,
    limits::{check_name, check_optional_name},
    text_enum,
};

text_enum! {
    /// How a team works together.
    TeamMode, "mode" {
        /// One member is chosen to answer.
        Route = "route",
        /// A leader hands out work and puts the answers together.
        Coordinate = "coordinate",
        /// All members work on the same.
        Collaborate = "collaborate",
    }
}

/// A team.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Its name, unique within the tenant.
    pub name: String,
    /// How it works together.
    pub mode: TeamMode,
    /// How it chooses who answers.
    pub routing: JsonObject,
    /// Whether it is in use.
    pub active: bool,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it, or who is in it, was last changed.
    pub updated_at: Timestamp,
}

/// A team to create or upsert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTeam {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<TeamId>,
    /// Its name, unique within the tenant.
    pub name: String,
    /// How it works together; `route` when absent.
    #[serde(default)]
    pub mode: Option<TeamMode>,
    /// How it chooses who answers.
    #[serde(default)]
    pub routing: JsonObject,
    /// Whether it is in use; true when absent.
    #[serde(default)]
    pub active: Option<bool>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewTeam {
    /// A team of that name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The mode that was given, or `route`.
    #[must_use]
    pub fn mode(&self) -> TeamMode {
        self.mode.unwrap_or(TeamMode::Route)
    }

    /// Refuses an empty or overlong name.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_name("name", &self.name)
    }
}

/// Changes of a team; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TeamPatch {
    /// A new name.
    pub name: Option<String>,
    /// Another mode.
    pub mode: Option<TeamMode>,
    /// A merge patch (RFC 7396) of the routing.
    pub routing: Option<JsonObject>,
    /// Whether it is in use.
    pub active: Option<bool>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl TeamPatch {
    /// Refuses an empty or overlong name.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_optional_name("name", self.name.as_deref())
    }
}

/// A member of a team.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TeamMember {
    /// The team.
    pub team_id: TeamId,
    /// The agent; deleted with it.
    pub agent_id: AgentId,
    /// What it does in the team.
    pub role: Option<String>,
    /// Its place: 1, 2, 3 … without holes.
    pub position: i64,
    /// When it joined.
    pub created_at: Timestamp,
}

/// An agent to make a member of a team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTeamMember {
    /// The agent.
    pub agent_id: AgentId,
    /// What it does in the team.
    #[serde(default)]
    pub role: Option<String>,
}

impl NewTeamMember {
    /// An agent without a role of its own.
    #[must_use]
    pub fn new(agent_id: AgentId) -> Self {
        Self { agent_id, role: None }
    }

    /// Refuses an empty or overlong role.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_optional_name("role", self.role.as_deref())
    }
}
