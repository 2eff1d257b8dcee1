//! An agent: what answers in a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AgentId, AgentSnapshot, Error, JsonArray, JsonObject, PromptId, Result, Timestamp, VersionNote,
    limits::{check_content, check_name, check_optional_name},
};

/// The type of an agent that is created without one.
const DEFAULT_KIND: &str = "simple";

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// Its number within the tenant.
    pub id: AgentId,
    /// Its name, unique within the tenant among the agents that are not deleted.
    pub name: String,
    /// What kind of agent it is, in the words of the framework that runs it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The model it runs on.
    pub model: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Its settings.
    pub config: JsonObject,
    /// The number of its newest version.
    pub version: i64,
    /// Whether it is in use.
    pub active: bool,
    /// The number of its newest run; 0 before the first.
    pub run_id: i64,
    /// Who it appears to be.
    pub persona: Persona,
    /// The tools it may use.
    pub tools: JsonArray,
    /// The agents it hands work to.
    pub sub_agents: JsonArray,
    /// How it plans its steps.
    pub planner: Option<String>,
    /// How often it was used.
    pub usage_count: i64,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// When it was soft-deleted; its conversations stay readable.
    pub deleted_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed or used.
    pub updated_at: Timestamp,
}

impl Agent {
    /// What a version of it keeps.
    #[must_use]
    pub fn snapshot(&self) -> AgentSnapshot {
        AgentSnapshot {
            name: self.name.clone(),
            kind: self.kind.clone(),
            model: self.model.clone(),
            description: self.description.clone(),
            config: self.config.clone(),
            active: self.active,
            persona: self.persona.clone(),
            tools: self.tools.clone(),
            sub_agents: self.sub_agents.clone(),
            planner: self.planner.clone(),
            metadata: self.metadata.clone(),
            deleted_at: self.deleted_at,
        }
    }
}

/// Who an agent appears to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Persona {
    /// The name it goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it does for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How it speaks and behaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<String>,
    /// What it knows about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expertise: Vec<String>,
    /// Fields that have no place of their own here, exactly as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Persona {
    /// The persona as JSON, as it is stored and patched.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it nests too deep.
    pub fn to_json(&self) -> Result<JsonObject> {
        JsonObject::from_serialize("persona", self)
    }

    /// This persona after a merge patch (RFC 7396).
    ///
    /// # Errors
    /// [`Error::Invalid`] when a field would not be what it has to be.
    fn merged(&self, patch: &JsonObject) -> Result<Self> {
        self.to_json()?.merged(patch).as_json().decode("persona")
    }
}

/// By what a reader can tell whether what it made of an agent and of its prompt still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentStamp {
    /// The agent.
    pub id: AgentId,
    /// The number of its newest version: every change of it makes one.
    pub version: i64,
    /// The version of the prompt that is active. Its text never changes.
    pub active_prompt: Option<PromptId>,
}

/// An agent to create or upsert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    /// Its name, unique within the tenant.
    pub name: String,
    /// What kind of agent it is; `simple` when absent.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The model it runs on.
    #[serde(default)]
    pub model: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Its settings.
    #[serde(default)]
    pub config: JsonObject,
    /// Whether it is in use; true when absent.
    #[serde(default)]
    pub active: Option<bool>,
    /// Who it appears to be.
    #[serde(default)]
    pub persona: Persona,
    /// The tools it may use.
    #[serde(default)]
    pub tools: JsonArray,
    /// The agents it hands work to.
    #[serde(default)]
    pub sub_agents: JsonArray,
    /// How it plans its steps.
    #[serde(default)]
    pub planner: Option<String>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
    /// Who makes this version of it.
    #[serde(default)]
    pub author: Option<String>,
    /// Why this version is made.
    #[serde(default)]
    pub note: Option<String>,
}

impl NewAgent {
    /// An agent of that name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The agent's first content and what is said about it, checked.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn into_snapshot(self) -> Result<(AgentSnapshot, VersionNote)> {
        let snapshot = AgentSnapshot {
            name: self.name,
            kind: self.kind.unwrap_or_else(|| DEFAULT_KIND.to_owned()),
            model: self.model,
            description: self.description,
            config: self.config,
            active: self.active.unwrap_or(true),
            persona: self.persona,
            tools: self.tools,
            sub_agents: self.sub_agents,
            planner: self.planner,
            metadata: self.metadata,
            deleted_at: None,
        };
        snapshot.check()?;
        let note = VersionNote { author: self.author, note: self.note };
        note.check()?;
        Ok((snapshot, note))
    }
}

/// Changes of an agent; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AgentPatch {
    /// Change only if this is still the agent's newest version.
    pub version: Option<i64>,
    /// A new name.
    pub name: Option<String>,
    /// Another type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Another model.
    #[serde(deserialize_with = "crate::present")]
    pub model: Option<Option<String>>,
    /// A new description.
    #[serde(deserialize_with = "crate::present")]
    pub description: Option<Option<String>>,
    /// A merge patch (RFC 7396) of the settings.
    pub config: Option<JsonObject>,
    /// Whether it is in use.
    pub active: Option<bool>,
    /// A merge patch (RFC 7396) of the persona.
    pub persona: Option<JsonObject>,
    /// The tools it may use from now on.
    pub tools: Option<JsonArray>,
    /// The agents it hands work to from now on.
    pub sub_agents: Option<JsonArray>,
    /// Another planner.
    #[serde(deserialize_with = "crate::present")]
    pub planner: Option<Option<String>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
    /// Who makes this version of it.
    pub author: Option<String>,
    /// Why this version is made.
    pub note: Option<String>,
}

impl AgentPatch {
    /// What is said about the version that the patch makes.
    #[must_use]
    pub fn version_note(&self) -> VersionNote {
        VersionNote { author: self.author.clone(), note: self.note.clone() }
    }

    /// The agent's content after the patch.
    ///
    /// # Errors
    /// [`Error::StaleRevision`] when the agent is at another version than the patch expects;
    /// [`Error::Invalid`] with the field.
    pub fn apply(&self, agent: &Agent) -> Result<AgentSnapshot> {
        if let Some(expected) = self.version.filter(|expected| *expected != agent.version) {
            let (key, current) = (agent.id.to_string(), agent.version);
            return Err(Error::StaleRevision { entity: "agent", key, expected, current });
        }
        let old = agent.snapshot();
        let merged = |old: JsonObject, patch: &Option<JsonObject>| match patch {
            Some(patch) => old.merged(patch),
            None => old,
        };
        let snapshot = AgentSnapshot {
            name: self.name.clone().unwrap_or(old.name),
            kind: self.kind.clone().unwrap_or(old.kind),
            model: self.model.clone().unwrap_or(old.model),
            description: self.description.clone().unwrap_or(old.description),
            config: merged(old.config, &self.config),
            active: self.active.unwrap_or(old.active),
            persona: self.persona.as_ref().map_or(Ok(old.persona.clone()), |patch| old.persona.merged(patch))?,
            tools: self.tools.clone().unwrap_or(old.tools),
            sub_agents: self.sub_agents.clone().unwrap_or(old.sub_agents),
            planner: self.planner.clone().unwrap_or(old.planner),
            metadata: merged(old.metadata, &self.metadata),
            deleted_at: old.deleted_at,
        };
        snapshot.check()?;
        Ok(snapshot)
    }
}

impl AgentSnapshot {
    /// Refuses empty or overlong texts, and JSON that nests too deep.
    pub(crate) fn check(&self) -> Result<()> {
        check_name("name", &self.name)?;
        check_name("type", &self.kind)?;
        check_optional_name("model", self.model.as_deref())?;
        check_optional_name("planner", self.planner.as_deref())?;
        check_content("description", self.description.as_deref().unwrap_or_default())?;
        self.persona.to_json()?;
        self.to_json().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persona_keeps_what_it_does_not_know() {
        let text = r#"{"name":"Ada","expertise":["tax"],"voice":{"pitch":1.10},"n":12345678901234567890123}"#;
        let persona: Persona = serde_json::from_str(text).expect("a persona");
        assert_eq!(persona.expertise, ["tax"]);
        let json = persona.to_json().expect("json");
        assert!(json.as_str().contains("1.10") && json.as_str().contains("12345678901234567890123"), "{json:?}");
        assert_eq!(json, JsonObject::parse("persona", text).expect("json"));
        let patch = JsonObject::parse("persona", r#"{"name":null,"voice":{"speed":2}}"#).expect("json");
        let expected = r#"{"expertise":["tax"],"voice":{"pitch":1.1,"speed":2},"n":12345678901234567890123}"#;
        let expected = JsonObject::parse("persona", expected).expect("json");
        assert_eq!(persona.merged(&patch).expect("merged").to_json().expect("json"), expected);
        let wrong = JsonObject::parse("persona", r#"{"expertise":"tax"}"#).expect("json");
        assert!(matches!(persona.merged(&wrong), Err(Error::Invalid { field, .. }) if field == "persona"));
    }
}
