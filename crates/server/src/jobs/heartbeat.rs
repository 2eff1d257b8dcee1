use agentkeep_core::{JobId, Pulse};
use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::{Result, renamed},
    seconds::Seconds,
};

/// What a worker is at.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkerHeartbeat {
    /// The worker.
    worker: String,
    /// For how long from now it has its jobs; more than 0, at most a day.
    lease_seconds: Seconds,
    /// The jobs that it runs.
    #[serde(default)]
    running: Vec<RunningJob>,
}

/// A job that a worker runs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RunningJob {
    /// The job.
    id: JobId,
    /// The attempt: what the claim said.
    attempt: i32,
}

/// Say that a worker is alive.
///
/// It has its jobs for another lease. What comes back tells which of the jobs that it named are to be canceled, and
/// which are its no longer.
#[utoipa::path(post, path = "/jobs/heartbeat", tag = "jobs", request_body = WorkerHeartbeat,
    responses((status = 200, description = "What the worker has to stop", body = Pulse)))]
pub(super) async fn heartbeat(caller: Caller, Body(beat): Body<WorkerHeartbeat>) -> Result<Json<Pulse>> {
    let running: Vec<_> = beat.running.iter().map(|job| (job.id, job.attempt)).collect();
    let pulse = caller.tenant.jobs().heartbeat(&beat.worker, beat.lease_seconds.0, &running).await;
    pulse.map(Json).map_err(|error| renamed(error, "lease", "lease_seconds"))
}
