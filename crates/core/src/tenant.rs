//! A tenant: the isolation unit that every other row belongs to.

use serde::{Deserialize, Serialize};

use crate::{JsonObject, Result, TenantId, Timestamp, limits};

/// A tenant. Two tenants never see or block each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tenant {
    /// Its number; 1 is the default tenant.
    pub id: TenantId,
    /// Its name, unique in the database.
    pub name: String,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A tenant to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its name, unique in the database.
    pub name: String,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewTenant {
    /// A tenant of that name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Refuses an empty or overlong name.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)
    }
}

/// Changes of a tenant; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// A new name.
    #[serde(default)]
    pub name: Option<String>,
    /// A merge patch (RFC 7396) of the metadata.
    #[serde(default)]
    pub metadata: Option<JsonObject>,
}

impl TenantPatch {
    /// Refuses an empty or overlong name.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_deref())
    }
}
