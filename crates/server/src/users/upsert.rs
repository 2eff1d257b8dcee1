use agentkeep_core::{NewUser, User};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create a user, or change the one that has this e-mail to what is given here.
///
/// Without an e-mail a user is always created.
#[utoipa::path(put, path = "/users", tag = "users", request_body = NewUser,
    responses((status = 200, description = "The user", body = User)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewUser>) -> Result<Found<User>> {
    Ok(Found(caller.tenant.users().upsert(new).await?))
}
