use agentkeep_core::{Prompt, PromptId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a version of a prompt.
#[utoipa::path(get, path = "/prompts/{id}", tag = "prompts",
    params(("id" = PromptId, Path, description = "Its id")),
    responses((status = 200, description = "The version", body = Prompt)))]
pub(super) async fn get(caller: Caller, Id(id): Id<PromptId>) -> Result<Found<Prompt>> {
    Found::or_not(caller.tenant.prompts().get(id).await?, id)
}
