use agentkeep_core::{Metric, NewMetric};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Record a sample of a measure.
///
/// 409 when the id is taken.
#[utoipa::path(post, path = "/metrics", tag = "metrics", request_body = NewMetric,
    responses((status = 201, description = "The sample", body = Metric)))]
pub(super) async fn record(caller: Caller, Body(new): Body<NewMetric>) -> Result<Created<Metric>> {
    Ok(Created(caller.tenant.metrics().record(new).await?))
}
