use agentkeep_core::{Prompt, PromptId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Make a version of a prompt inactive: none of its prompt is active then.
///
/// One that is not active stays as it is.
#[utoipa::path(post, path = "/prompts/{id}/deactivate", tag = "prompts",
    params(("id" = PromptId, Path, description = "Its id")),
    responses((status = 200, description = "The version", body = Prompt)))]
pub(super) async fn deactivate(caller: Caller, Id(id): Id<PromptId>) -> Result<Found<Prompt>> {
    Ok(Found(caller.tenant.prompts().deactivate(id).await?))
}
