//! A version of an agent: everything about it as it was after one change.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, AgentVersionId, Json, JsonArray, JsonObject, Persona, Result, Timestamp,
    limits::{check_content, check_optional_name},
};

/// A version of an agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentVersion {
    /// Its id.
    pub id: AgentVersionId,
    /// The agent.
    pub agent_id: AgentId,
    /// Its number: 1, 2, 3 … of each agent.
    pub number: i64,
    /// The agent as it was.
    pub snapshot: AgentSnapshot,
    /// Who made the change.
    pub author: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// When the change was made.
    pub created_at: Timestamp,
}

/// What a version keeps of an agent: everything that people change. Its run and usage counters are not part
/// of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AgentSnapshot {
    /// Its name.
    pub name: String,
    /// What kind of agent it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The model it runs on.
    pub model: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Its settings.
    pub config: JsonObject,
    /// Whether it is in use.
    pub active: bool,
    /// Who it appears to be.
    pub persona: Persona,
    /// The tools it may use.
    pub tools: JsonArray,
    /// The agents it hands work to.
    pub sub_agents: JsonArray,
    /// How it plans its steps.
    pub planner: Option<String>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was soft-deleted.
    pub deleted_at: Option<Timestamp>,
}

/// Equal as JSON, so that a number that the database spells differently is no change.
impl PartialEq for AgentSnapshot {
    fn eq(&self, other: &Self) -> bool {
        match (self.to_json(), other.to_json()) {
            (Ok(this), Ok(other)) => this == other,
            _ => false,
        }
    }
}

impl AgentSnapshot {
    /// The snapshot as JSON, as it is stored.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when it nests too deep: config, persona and the lists stand one level deeper
    /// in it than by themselves.
    pub fn to_json(&self) -> Result<JsonObject> {
        JsonObject::from_serialize("agent", self)
    }

    /// The fields that differ between this snapshot and a later one, each with both values.
    ///
    /// # Errors
    /// As [`AgentSnapshot::to_json`].
    pub fn diff(&self, later: &Self) -> Result<Vec<FieldDifference>> {
        let (before, after) = (self.to_json()?.to_value(), later.to_json()?.to_value());
        let fields = before.as_object().into_iter().flat_map(|fields| fields.iter());
        let differences = fields.filter_map(|(field, before)| {
            let before = Json::from(before.clone());
            let after = Json::from(after.get(field).cloned().unwrap_or_default());
            (before != after).then(|| FieldDifference { field: field.clone(), before, after })
        });
        Ok(differences.collect())
    }
}

/// A field that differs between two versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldDifference {
    /// The field.
    pub field: String,
    /// Its value in the version compared from.
    pub before: Json,
    /// Its value in the version compared with.
    pub after: Json,
}

/// What is said about a change of an agent, kept with the version it makes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VersionNote {
    /// Who makes the change.
    pub author: Option<String>,
    /// Why.
    pub note: Option<String>,
}

impl VersionNote {
    /// A note by an author.
    #[must_use]
    pub fn new(author: impl Into<String>, note: impl Into<String>) -> Self {
        Self { author: Some(author.into()), note: Some(note.into()) }
    }

    /// Refuses an empty or overlong author and an overlong note.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_optional_name("author", self.author.as_deref())?;
        check_content("note", self.note.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_field_and_both_values() {
        let config = |text: &str| JsonObject::parse("config", text).expect("json");
        let before = AgentSnapshot { name: "ada".into(), config: config(r#"{"t":1e-1}"#), ..AgentSnapshot::default() };
        let after = AgentSnapshot { config: config(r#"{"t":0.10}"#), ..before.clone() };
        assert_eq!(before, after);
        assert_eq!(before.diff(&after).expect("a difference"), []);
        let after = AgentSnapshot { model: Some("m".into()), config: config(r#"{"t":0.2}"#), ..before.clone() };
        assert_ne!(before, after);
        let differences = before.diff(&after).expect("a difference");
        let told: Vec<_> = differences.iter().map(|d| format!("{}: {} → {}", d.field, d.before, d.after)).collect();
        assert_eq!(told, [r#"model: null → "m""#, r#"config: {"t":1e-1} → {"t":0.2}"#]);
    }
}
