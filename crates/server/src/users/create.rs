use agentkeep_core::{NewUser, User};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a user.
///
/// 409 when the e-mail or the id is taken.
#[utoipa::path(post, path = "/users", tag = "users", request_body = NewUser,
    responses((status = 201, description = "The user", body = User)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewUser>) -> Result<Created<User>> {
    Ok(Created(caller.tenant.users().create(new).await?))
}
