//! An API key: what a program shows to be let in, as whom, and to what.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, Error, JsonObject, Result, Scope, TenantId, Timestamp, limits};

/// An API key, without the secret: that is shown once, when the key is created, and only its hash is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// What it is for, as people know it; several may have the same.
    pub name: String,
    /// The part of the key that names it, unique within the tenant; no secret.
    pub prefix: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// The first time at which it is valid no longer, if it ever ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used. Written now and then, so that it may lie a little behind.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed; to be used is no change.
    pub updated_at: Timestamp,
}

/// An API key to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is for, as people know it.
    pub name: String,
    /// What it allows: at least one scope.
    pub scopes: Vec<Scope>,
    /// The first time at which it is valid no longer; it never ends when absent.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewApiKey {
    /// A key of that name that allows this, and never ends.
    #[must_use]
    pub fn new(name: impl Into<String>, scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self { name: name.into(), scopes: scopes.into_iter().collect(), ..Self::default() }
    }

    /// Refuses an empty or overlong name, metadata over the limit, and scopes that are none or stand there twice.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)?;
        limits::check_content("metadata", self.metadata.as_str())?;
        if self.scopes.is_empty() {
            return Err(Error::invalid("scopes", "name at least one: a key without any would open nothing"));
        }
        let repeated = self.scopes.iter().enumerate().find(|(index, scope)| self.scopes[..*index].contains(scope));
        match repeated {
            Some((index, scope)) => {
                Err(Error::invalid(format!("scopes[{index}]"), format!("{scope} stands there twice")))
            }
            None => Ok(()),
        }
    }
}

/// Changes of an API key; what is `None` stays. What a key allows, and until when, never changes: create another one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeyPatch {
    /// Another name.
    pub name: Option<String>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl ApiKeyPatch {
    /// Refuses an empty or overlong name and metadata over the limit.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_deref())?;
        limits::check_content("metadata", self.metadata.as_ref().map_or("", JsonObject::as_str))
    }
}

/// An API key that was just created, with its secret: the only time it is shown. Serialised it is the fields of the
/// key and `key`; printed for debugging it hides the secret.
#[derive(Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuedApiKey {
    /// The key as it is kept.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The whole text that opens: `ak_TENANT_PREFIX_SECRET`. Keep it out of logs.
    pub key: String,
}

impl fmt::Debug for IssuedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedApiKey").field("api_key", &self.api_key).field("key", &"***").finish()
    }
}

/// What came of looking at the text of an API key.
#[derive(Debug, Clone, PartialEq)]
pub enum Authentication {
    /// The key is the right one, of that tenant.
    Valid(TenantId, ApiKey),
    /// No key of any tenant: its text is none, nobody has its prefix, or the secret is a wrong one. Which of them is
    /// not told.
    Unknown,
    /// The key is the right one, and its time is over.
    Expired(ApiKey),
    /// The key is the right one, and it was revoked.
    Revoked(ApiKey),
}

/// What the text of an API key tells about itself; whether it opens anything is for the store to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedApiKey {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    /// The part that names it.
    pub prefix: String,
}

impl ParsedApiKey {
    /// How many characters a prefix has.
    pub const PREFIX_LENGTH: usize = 12;
    /// How many characters a secret has: 43 of 62 kinds hold more than 256 bits.
    pub const SECRET_LENGTH: usize = 43;

    /// Takes the text apart; `None` when it has not the shape of a key. There is one text for each key: other
    /// spellings of the tenant's number are refused.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("ak_")?.split('_');
        let (tenant, prefix, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let number: i32 = tenant.parse().ok()?;
        let right = parts.next().is_none()
            && number > 0
            && number.to_string() == tenant
            && whole(prefix, Self::PREFIX_LENGTH)
            && whole(secret, Self::SECRET_LENGTH);
        right.then(|| Self { tenant: TenantId(number), prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        let time = Timestamp::MIN;
        ApiKey {
            id: ApiKeyId(uuid::Uuid::nil()),
            name: "ci".into(),
            prefix: "0123456789ab".into(),
            scopes: vec![Scope::Read],
            metadata: JsonObject::default(),
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
            created_at: time,
            updated_at: time,
        }
    }

    #[test]
    fn the_text_of_a_key_tells_its_tenant_and_prefix() {
        let secret = "s".repeat(ParsedApiKey::SECRET_LENGTH);
        let parsed = ParsedApiKey::parse(&format!("ak_17_0123456789aB_{secret}")).expect("a key");
        assert_eq!((parsed.tenant, parsed.prefix.as_str()), (TenantId(17), "0123456789aB"));
        for text in [
            String::new(),
            "ak".into(),
            "ak_17_0123456789aB".into(),
            format!("xk_17_0123456789aB_{secret}"),
            format!("ak_017_0123456789aB_{secret}"),
            format!("ak_+17_0123456789aB_{secret}"),
            format!("ak_0_0123456789aB_{secret}"),
            format!("ak_-1_0123456789aB_{secret}"),
            format!("ak_99999999999_0123456789aB_{secret}"),
            format!("ak_17_0123456789_{secret}"),
            format!("ak_17_0123456789a-_{secret}"),
            format!("ak_17_0123456789aB_{secret}s"),
            format!("ak_17_0123456789aB_{secret}_"),
            format!("ak_17_0123456789aB_{secret} "),
            format!(" ak_17_0123456789aB_{secret}"),
            format!("ak_17_0123456789aB_{}ä", &secret[2..]),
        ] {
            assert_eq!(ParsedApiKey::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn an_issued_key_is_serialised_with_its_text_and_printed_without() {
        let issued = IssuedApiKey { api_key: key(), key: "ak_1_0123456789ab_hunter2".into() };
        let shown = format!("{issued:?}");
        assert!(!shown.contains("hunter2") && shown.contains("0123456789ab"), "{shown}");
        let json = serde_json::to_value(&issued).expect("json");
        assert_eq!((&json["key"], &json["scopes"][0]), (&issued.key.clone().into(), &"read".into()));
        assert_eq!(json["metadata"], serde_json::json!({}));
    }

    #[test]
    fn scopes_that_are_none_or_stand_there_twice_are_refused() {
        assert!(NewApiKey::new("ci", [Scope::Read, Scope::Jobs]).check().is_ok());
        for (scopes, wanted) in [(vec![], "scopes"), (vec![Scope::Read, Scope::Jobs, Scope::Read], "scopes[2]")] {
            let outcome = NewApiKey::new("ci", scopes).check();
            assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{outcome:?}");
        }
    }
}
