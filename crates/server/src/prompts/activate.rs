use agentkeep_core::{Prompt, PromptId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Make a version of a prompt the active one, in place of the version that was.
///
/// One that is active already stays as it is.
#[utoipa::path(post, path = "/prompts/{id}/activate", tag = "prompts",
    params(("id" = PromptId, Path, description = "Its id")),
    responses((status = 200, description = "The version", body = Prompt)))]
pub(super) async fn activate(caller: Caller, Id(id): Id<PromptId>) -> Result<Found<Prompt>> {
    Ok(Found(caller.tenant.prompts().activate(id).await?))
}
