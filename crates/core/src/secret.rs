//! Secrets: kept and handed out on purpose, never shown by the way.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, JsonObject, Result};

/// What stands in the place of a secret.
const MASK: &str = "***";

/// A JSON object whose values are secrets: environment variables, request headers. Printed or serialised, it
/// shows its keys and `***` for every value; [`SecretObject::reveal`] gives the values.
#[derive(Clone, Default, PartialEq)]
pub struct SecretObject(JsonObject);

impl SecretObject {
    /// Takes the object as secret.
    #[must_use]
    pub fn new(object: JsonObject) -> Self {
        Self(object)
    }

    /// The object with its secrets. Keep it out of logs and answers.
    #[must_use]
    pub fn reveal(&self) -> &JsonObject {
        &self.0
    }

    /// The object with its secrets, owned. Keep it out of logs and answers.
    #[must_use]
    pub fn into_revealed(self) -> JsonObject {
        self.0
    }

    /// The keys with `***` for every value.
    #[must_use]
    pub fn masked(&self) -> JsonObject {
        let mut value = self.0.to_value();
        value
            .as_object_mut()
            .into_iter()
            .flat_map(|fields| fields.iter_mut())
            .for_each(|(_, value)| *value = MASK.into());
        JsonObject::from_stored(value.to_string())
    }

    /// Refuses `***` for a value: what a reader was shown is about to be written back over the secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key (`env.TOKEN`).
    pub fn check(&self, field: &str) -> Result<()> {
        let value = self.0.to_value();
        match value.as_object().into_iter().flatten().find(|(_, value)| value.as_str() == Some(MASK)) {
            Some((key, _)) => {
                let reason = format!("{MASK} is what is shown in place of the secret; leave the key out to keep it");
                Err(Error::invalid(format!("{field}.{key}"), reason))
            }
            None => Ok(()),
        }
    }
}

impl From<JsonObject> for SecretObject {
    fn from(object: JsonObject) -> Self {
        Self(object)
    }
}

impl fmt::Debug for SecretObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked().as_str())
    }
}

impl Serialize for SecretObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.masked().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        JsonObject::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_keys_only() {
        let secret: SecretObject =
            serde_json::from_str(r#"{"TOKEN":"hunter2","nested":{"a":"hunter2"}}"#).expect("secret");
        for shown in
            [format!("{secret:?}"), serde_json::to_string(&secret).expect("json"), format!("{:?}", Some(&secret))]
        {
            assert!(shown.contains(r#"{"TOKEN":"***","nested":"***"}"#), "{shown}");
        }
        assert!(secret.reveal().as_str().contains("hunter2"));
        assert!(secret.check("env").is_ok());
        let masked = SecretObject::new(secret.masked());
        assert!(matches!(masked.check("env"), Err(Error::Invalid { field, .. }) if field == "env.TOKEN"));
    }
}
