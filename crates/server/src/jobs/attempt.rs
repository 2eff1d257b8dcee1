//! The fence of a running attempt.

use serde::Deserialize;
use utoipa::ToSchema;

/// A running attempt of a job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobAttempt {
    /// The attempt: what the claim said.
    pub(super) attempt: i32,
}
