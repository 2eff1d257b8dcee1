use agentkeep::{Lockable, TenantStore};
use agentkeep_core::UserId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a user with their sessions, memories and preferences.
#[utoipa::path(delete, path = "/users/{id}", tag = "users", params(("id" = UserId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<UserId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.users().delete(id).await };
    if_match.then(&caller, Lockable::User(id), delete).await.map(|()| Gone)
}
