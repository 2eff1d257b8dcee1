use std::time::Duration;

use agentkeep_core::{Approval, ApprovalId, Error};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, Result},
    query::Query,
    resource::{Found, Id},
};

/// The longest that anybody waits at once: proxies cut off what takes a minute.
const LONGEST_SECONDS: u64 = 55;

/// How long to wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Seconds at most.
    #[serde(default = "longest")]
    #[param(minimum = 0, maximum = 55, default = 55)]
    seconds: u64,
}

const fn longest() -> u64 {
    LONGEST_SECONDS
}

/// Wait until an approval is decided.
///
/// It comes back as it is then; still `pending` when nobody decided in time, or the server ends: ask again.
#[utoipa::path(get, path = "/approvals/{id}/wait", tag = "approvals",
    params(("id" = ApprovalId, Path, description = "Its id"), Wait),
    responses((status = 200, description = "The approval", body = Approval)))]
pub(super) async fn wait(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ApprovalId>,
    Query(wait): Query<Wait>,
) -> Result<Found<Approval>> {
    if wait.seconds > LONGEST_SECONDS {
        let reason = format!("is {}; at most {LONGEST_SECONDS} are allowed: ask again", wait.seconds);
        return Err(ApiError::invalid("seconds", reason));
    }
    // The answer has to be out before the request is cut off.
    let limit = Duration::from_secs(wait.seconds).min(app.options.request_timeout * 9 / 10);
    let approvals = caller.tenant.approvals();
    tokio::select! {
        decided = approvals.wait(id, limit) => match decided {
            Err(Error::Timeout { .. }) => {}
            decided => return Ok(Found(decided?)),
        },
        () = app.stopped() => {}
    }
    Found::or_not(approvals.get(id).await?, id)
}
