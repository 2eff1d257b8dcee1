use agentkeep::TenantStore;
use agentkeep_core::{self as core, Error, NewSession, Session};
use axum::response::{IntoResponse, Response};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Created, Found},
};

/// Get the session of a chat on a platform, or create it when there is none.
///
/// A session that is there stays as it is. Any number of callers at once get the same one.
#[utoipa::path(put, path = "/sessions", tag = "sessions", request_body = NewSession,
    responses((status = 200, description = "The session, which was there", body = Session),
        (status = 201, description = "The session, which was created", body = Session)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewSession>) -> Result<Response> {
    Ok(match created(&caller.tenant, &new).await? {
        Some(session) => Created(session).into_response(),
        None => Found(caller.tenant.sessions().get_or_create(new).await?).into_response(),
    })
}

/// The session, if this call created it; `None` when it is there, or cannot be looked for.
async fn created(tenant: &TenantStore, new: &NewSession) -> core::Result<Option<Session>> {
    let (Some(platform), Some(chat_id)) = (&new.platform, &new.chat_id) else { return Ok(None) };
    if tenant.sessions().get_by_chat(platform, chat_id).await?.is_some() {
        return Ok(None);
    }
    match tenant.sessions().create(new.clone()).await {
        Ok(session) => Ok(Some(session)),
        // Somebody else was first; or the id is taken, which is told then.
        Err(Error::AlreadyExists { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
