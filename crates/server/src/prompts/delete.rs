use agentkeep::{Lockable, TenantStore};
use agentkeep_core::PromptId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a version of a prompt.
///
/// Its number is not given again. When it was active, no version is.
#[utoipa::path(delete, path = "/prompts/{id}", tag = "prompts",
    params(("id" = PromptId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<PromptId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.prompts().delete(id).await };
    if_match.then(&caller, Lockable::Prompt(id), delete).await.map(|()| Gone)
}
