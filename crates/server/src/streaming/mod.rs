//! Agents that answer, streamed to whoever asks: a message in, the events of its run out.
//!
//! These routes keep the keys of repeatable requests themselves: what is kept is not the answer but where it begins, so
//! that a repeated request streams the same run, also while it is still under way.

mod start;
mod tool_results;

use agentkeep::TenantStore;
use agentkeep_core::{Run, RunId, SessionId, StoredAnswer};
use axum::{extract::FromRequestParts, http::request::Parts, response::Response};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use crate::{
    app::App,
    error::{ApiError, Result},
    idempotency::Claim,
    routes::Routes,
    stream::{self, Position},
};

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(start::start)).routes(routes!(tool_results::tool_results))
}

/// Does something to its end, also when the client goes away meanwhile.
async fn regardless<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(target: "agentkeep::answers", "{error}");
            Err(ApiError::internal())
        }
    }
}

/// Where the stream of a run begins: kept under the key of its request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Beginning {
    session_id: SessionId,
    run_id: RunId,
    seq: i64,
    number: i64,
}

impl Beginning {
    /// Before the message with this seq and the event with this number.
    fn before(run: &Run, seq: i64, number: i64) -> Self {
        Self { session_id: run.session_id, run_id: run.id, seq: seq - 1, number: number - 1 }
    }

    /// The one that is kept under the key; `None` when the request is a new one, or has no key.
    async fn kept(tenant: &TenantStore, claim: Option<&Claim>) -> Result<Option<Self>> {
        let Some(claim) = claim else { return Ok(None) };
        let Some(answer) = claim.take(tenant).await? else { return Ok(None) };
        let kept = serde_json::from_slice(&answer.body);
        kept.map(Some).map_err(|error| ApiError::invalid("Idempotency-Key", error.to_string()))
    }

    /// Keeps it under the key, if there is one.
    async fn keep(self, tenant: &TenantStore, claim: Option<&Claim>) -> Result<()> {
        let Some(claim) = claim else { return Ok(()) };
        let body = serde_json::to_vec(&self).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        claim.keep(tenant, &StoredAnswer { status: 200, headers: Vec::new(), body }).await
    }

    /// The stream, from its beginning or from where the client was told of it.
    async fn stream(self, app: &App, tenant: TenantStore, last: LastEvent) -> Result<Response> {
        let begin = Position::new(self.seq, self.number);
        let from = match last.0 {
            Some(last) if last.number >= begin.number => last,
            _ => begin,
        };
        stream::respond(app, tenant, self.session_id, from, Some(self.run_id)).await
    }
}

/// `Last-Event-ID`: what the client was told last.
#[derive(Clone, Copy)]
struct LastEvent(Option<Position>);

impl LastEvent {
    /// Nothing has been told of a run that is new.
    fn filter(self, is_repeated: bool) -> Self {
        Self(self.0.filter(|_| is_repeated))
    }
}

impl FromRequestParts<App> for LastEvent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        let Some(value) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let position = value.to_str().unwrap_or_default().parse();
        position
            .map(|position| Self(Some(position)))
            .map_err(|_| ApiError::invalid("Last-Event-ID", "is no id of an event"))
    }
}
