use agentkeep_core::{MetricStatistics, Timestamp};
use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{auth::Caller, error::Result, query::Query};

/// Which samples.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Samples {
    /// The measure.
    name: String,
    /// Recorded from then on; from the first when absent.
    from: Option<Timestamp>,
    /// Recorded before then; to the last when absent.
    to: Option<Timestamp>,
}

/// Tell what the samples of a measure amount to: how many, their sum, the smallest, the largest, the mean.
///
/// Every sample counts. Of a measure without samples the count is 0.
#[utoipa::path(get, path = "/metrics/statistics", tag = "metrics", params(Samples),
    responses((status = 200, description = "What they amount to", body = MetricStatistics)))]
pub(super) async fn statistics(caller: Caller, Query(samples): Query<Samples>) -> Result<Json<MetricStatistics>> {
    let Samples { name, from, to } = samples;
    Ok(Json(caller.tenant.metrics().statistics(&name, from, to).await?))
}
