//! A user: a person, or a system, that talks to agents.

use serde::{Deserialize, Serialize};

use crate::{Error, JsonObject, Result, Timestamp, UserId, limits};

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// E-mail address, unique within the tenant.
    pub email: Option<String>,
    /// Phone number, as given.
    pub phone_number: Option<String>,
    /// Name to show.
    pub name: Option<String>,
    /// Anything the application wants to keep with the user.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A user to create or upsert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewUser {
    /// The id, when the caller chooses it.
    pub id: Option<UserId>,
    /// E-mail address, unique within the tenant.
    pub email: Option<String>,
    /// Phone number, as given.
    pub phone_number: Option<String>,
    /// Name to show.
    pub name: Option<String>,
    /// Anything the application wants to keep with the user.
    pub metadata: JsonObject,
}

impl NewUser {
    /// Refuses empty or overlong texts and an e-mail without `@`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_texts(self.email.as_deref(), self.phone_number.as_deref(), self.name.as_deref())
    }
}

/// Changes of a user; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UserPatch {
    /// A new e-mail address.
    #[serde(deserialize_with = "crate::present")]
    pub email: Option<Option<String>>,
    /// A new phone number.
    #[serde(deserialize_with = "crate::present")]
    pub phone_number: Option<Option<String>>,
    /// A new name.
    #[serde(deserialize_with = "crate::present")]
    pub name: Option<Option<String>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl UserPatch {
    /// Refuses empty or overlong texts and an e-mail without `@`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        let text = |field: &'_ Option<Option<String>>| field.clone().flatten();
        check_texts(text(&self.email).as_deref(), text(&self.phone_number).as_deref(), text(&self.name).as_deref())
    }
}

fn check_texts(email: Option<&str>, phone_number: Option<&str>, name: Option<&str>) -> Result<()> {
    limits::check_optional_name("email", email)?;
    limits::check_optional_name("phone_number", phone_number)?;
    limits::check_optional_name("name", name)?;
    match email {
        Some(email) if !email.contains('@') => Err(Error::invalid("email", format!("{email:?} has no @"))),
        _ => Ok(()),
    }
}
