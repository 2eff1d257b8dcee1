use agentkeep_core::{NewPrompt, Prompt};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create the next version of a prompt.
///
/// It gets the number after the newest, and is in use at once if it says `active`. 409 when the id is taken.
#[utoipa::path(post, path = "/prompts", tag = "prompts", request_body = NewPrompt,
    responses((status = 201, description = "The version", body = Prompt)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewPrompt>) -> Result<Created<Prompt>> {
    Ok(Created(caller.tenant.prompts().create(new).await?))
}
