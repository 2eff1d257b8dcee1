//! Preferences: what a user likes, as JSON, by category.

use serde::{Deserialize, Serialize};

use crate::{JsonObject, PreferenceId, Result, Timestamp, UserId, limits};

/// The preferences of a user in one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preference {
    /// Their id.
    pub id: PreferenceId,
    /// The user; they are deleted with them.
    pub user_id: UserId,
    /// The category, unique for the user.
    pub category: String,
    /// The preferences.
    pub preferences: JsonObject,
    /// Anything the application wants to keep with them.
    pub metadata: JsonObject,
    /// When they were created.
    pub created_at: Timestamp,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

/// Preferences to create or upsert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewPreference {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<PreferenceId>,
    /// The user.
    pub user_id: UserId,
    /// The category.
    pub category: String,
    /// The preferences.
    #[serde(default)]
    pub preferences: JsonObject,
    /// Anything the application wants to keep with them.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewPreference {
    /// Preferences of a user in a category.
    #[must_use]
    pub fn new(user_id: UserId, category: impl Into<String>, preferences: JsonObject) -> Self {
        Self { id: None, user_id, category: category.into(), preferences, metadata: JsonObject::default() }
    }

    /// Refuses an empty or overlong category and JSON over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("category", &self.category)?;
        limits::check_content("preferences", self.preferences.as_str())?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}

/// Changes of preferences; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PreferencePatch {
    /// Another category.
    pub category: Option<String>,
    /// A merge patch (RFC 7396) of the preferences.
    pub preferences: Option<JsonObject>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl PreferencePatch {
    /// Refuses an empty or overlong category and JSON over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("category", self.category.as_deref())?;
        for (field, json) in [("preferences", &self.preferences), ("metadata", &self.metadata)] {
            limits::check_content(field, json.as_ref().map_or("", JsonObject::as_str))?;
        }
        Ok(())
    }
}
