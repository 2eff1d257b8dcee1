use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Prompt, PromptId, PromptPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change the metadata of a version of a prompt.
///
/// Its text never changes: another text is another version. A merge patch (RFC 7396): what it leaves out stays,
/// `null` takes a value away.
#[utoipa::path(patch, path = "/prompts/{id}", tag = "prompts",
    params(("id" = PromptId, Path, description = "Its id")),
    request_body(content = PromptPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The version", body = Prompt)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<PromptId>,
    if_match: IfMatch,
    Body(patch): Body<PromptPatch>,
) -> Result<Found<Prompt>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.prompts().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Prompt(id), change).await.map(Found)
}
