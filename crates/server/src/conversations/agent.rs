//! Agents, named by their id or their name.

use agentkeep::TenantStore;
use agentkeep_core::{Agent, AgentId};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType},
};

use crate::error::{ApiError, Result};

/// An agent's id, as a number or its text, or its name.
#[derive(Debug)]
pub(super) struct AgentRef(String);

impl AgentRef {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The agent.
    ///
    /// # Errors
    /// 404 when there is none, or only a deleted one.
    pub(super) async fn find(&self, tenant: &TenantStore) -> Result<Agent> {
        let mut found = None;
        if let Ok(id) = self.0.parse::<AgentId>() {
            found = tenant.agents().get(id).await?.filter(|agent| agent.deleted_at.is_none());
        }
        if found.is_none() {
            found = tenant.agents().get_by_name(&self.0).await?;
        }
        found.ok_or_else(|| ApiError::not_found("agent", &self.0))
    }
}

impl<'de> Deserialize<'de> for AgentRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(id) => Ok(Self(id.to_string())),
            Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("must be an agent's id or its name")),
        }
    }
}

impl PartialSchema for AgentRef {
    fn schema() -> RefOr<Schema> {
        let types = SchemaType::from_iter([Type::Integer, Type::String]);
        ObjectBuilder::new().schema_type(types).description(Some("The id of an agent, or its name")).into()
    }
}

impl ToSchema for AgentRef {}
