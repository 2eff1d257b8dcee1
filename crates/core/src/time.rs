//! Points in time, UTC with microseconds.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A point in time, UTC, in whole microseconds: what both engines store exactly.
///
/// Written and read as RFC 3339 (`2025-03-01T12:00:00.000000Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Years 0001 to 9999: what RFC 3339 can write.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// The earliest time there is.
    pub const MIN: Self = Self(FIRST);
    /// The latest time there is.
    pub const MAX: Self = Self(LAST);

    /// From microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside the years 0001 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self> {
        if (FIRST..=LAST).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(Error::invalid("time", format!("{micros} microseconds since 1970 lies outside the years 0001 to 9999")))
        }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This time moved later by `duration`, at most to the end of the year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros).min(LAST))
    }

    /// This time moved earlier by `duration`, at most to the start of the year 0001.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros).max(FIRST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let time: jiff::Timestamp = text.parse().map_err(|error| {
            Error::invalid("time", format!("{text:?} is not an RFC 3339 time such as 2025-03-01T12:00:00Z: {error}"))
        })?;
        Self::from_micros(time.as_microsecond())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_microseconds_and_read_back() {
        let time: Timestamp = "2025-03-01T12:00:00.000001Z".parse().expect("a time");
        assert_eq!(time.to_string(), "2025-03-01T12:00:00.000001Z");
        assert_eq!(time.to_string().parse::<Timestamp>().expect("a time"), time);
    }

    #[test]
    fn a_time_that_is_none_says_so() {
        let error = "yesterday".parse::<Timestamp>().expect_err("no time");
        assert!(error.to_string().contains("yesterday"), "{error}");
    }
}
