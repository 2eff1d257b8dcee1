//! Spans of time in bodies.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

/// Seconds, with fractions; 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = f64, minimum = 0)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let refuse = |error| de::Error::custom(format!("{seconds} is no number of seconds: {error}"));
        Duration::try_from_secs_f64(seconds).map(Self).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_fractions_and_are_not_negative() {
        let read = |text: &str| serde_json::from_str::<Seconds>(text);
        assert_eq!(read("1.5").expect("seconds"), Seconds(Duration::from_millis(1500)));
        assert_eq!(read("0").expect("seconds"), Seconds(Duration::ZERO));
        for text in ["-1", "1e300", "\"1\"", "null"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
