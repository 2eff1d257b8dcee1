//! A metric: one sample of a named measure.

use serde::{Deserialize, Serialize};

use crate::{Error, JsonObject, MetricId, Result, Timestamp, limits};

/// A sample of a measure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metric {
    /// Its id.
    pub id: MetricId,
    /// The measure.
    pub name: String,
    /// The value.
    pub value: f64,
    /// What it was measured on: agent, model, status …
    pub labels: JsonObject,
    /// When it was measured.
    pub recorded_at: Timestamp,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A sample to record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMetric {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<MetricId>,
    /// The measure.
    pub name: String,
    /// The value; a finite number.
    pub value: f64,
    /// What it was measured on.
    #[serde(default)]
    pub labels: JsonObject,
    /// When it was measured; now when absent.
    #[serde(default)]
    pub recorded_at: Option<Timestamp>,
}

impl NewMetric {
    /// A sample measured now, without labels.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, ..Self::default() }
    }

    /// Refuses an empty or overlong name, labels over the limit, and a value that is no finite number.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)?;
        limits::check_content("labels", self.labels.as_str())?;
        if self.value.is_finite() {
            return Ok(());
        }
        Err(Error::invalid("value", format!("{} is no finite number", self.value)))
    }
}

/// What the samples of a measure amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricStatistics {
    /// Samples.
    pub count: u64,
    /// Their sum, in double precision; 0 without samples.
    pub sum: f64,
    /// The smallest; `None` without samples.
    pub min: Option<f64>,
    /// The largest; `None` without samples.
    pub max: Option<f64>,
    /// The mean; `None` without samples.
    pub avg: Option<f64>,
}
