use agentkeep_core::{Job, NewJob};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, query::ListOf};

/// Jobs to enqueue.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJobs {
    /// At most 10,000.
    jobs: Vec<NewJob>,
}

/// Enqueue many jobs: all of them or none.
///
/// They come back in the order given. What is wrong with one is told with its place (`jobs[3].payload`).
#[utoipa::path(post, path = "/jobs/batch", tag = "jobs", request_body = NewJobs,
    responses((status = 201, description = "The jobs", body = ListOf<Job>)))]
pub(super) async fn enqueue_many(caller: Caller, Body(new): Body<NewJobs>) -> Result<(StatusCode, ListOf<Job>)> {
    let jobs = caller.tenant.jobs().enqueue_many(new.jobs).await?;
    Ok((StatusCode::CREATED, ListOf::whole(jobs)))
}
