use agentkeep_core::{Artifact, NewArtifact};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create an artifact of a message.
///
/// Its session is that of the message. 409 when the id is taken, 422 when there is no such message.
#[utoipa::path(post, path = "/artifacts", tag = "artifacts", request_body = NewArtifact,
    responses((status = 201, description = "The artifact", body = Artifact)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewArtifact>) -> Result<Created<Artifact>> {
    Ok(Created(caller.tenant.artifacts().create(new).await?))
}
