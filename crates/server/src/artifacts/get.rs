use agentkeep_core::{Artifact, ArtifactId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get an artifact.
#[utoipa::path(get, path = "/artifacts/{id}", tag = "artifacts",
    params(("id" = ArtifactId, Path, description = "Its id")),
    responses((status = 200, description = "The artifact", body = Artifact)))]
pub(super) async fn get(caller: Caller, Id(id): Id<ArtifactId>) -> Result<Found<Artifact>> {
    Found::or_not(caller.tenant.artifacts().get(id).await?, id)
}
