use agentkeep_core::{Metric, NewMetric};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, query::ListOf};

/// Samples to record.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMetrics {
    /// The samples.
    metrics: Vec<NewMetric>,
}

/// Record many samples: all of them or none.
///
/// They come back in the same order. What is wrong with one is told with its place: `metrics[3].value`.
#[utoipa::path(post, path = "/metrics/batch", tag = "metrics", request_body = NewMetrics,
    responses((status = 201, description = "The samples", body = ListOf<Metric>)))]
pub(super) async fn record_many(caller: Caller, Body(new): Body<NewMetrics>) -> Result<(StatusCode, ListOf<Metric>)> {
    let recorded = caller.tenant.metrics().record_many(new.metrics).await?;
    Ok((StatusCode::CREATED, ListOf::whole(recorded)))
}
