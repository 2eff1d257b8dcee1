//! Live sessions: what happens in a session, told to whoever watches it, as server-sent events.
//!
//! The id of each event says what the client has been told by then ([`Position`]): the newest message, and the newest
//! event of the session. A client that comes back with it, to this server or to another one on the same database, goes on
//! right behind it: everything is told once. Nothing is kept for a client but its position; a session that is watched is
//! read once for all of them ([`hub`]).

mod client;
mod hub;
mod item;
mod merge;
mod position;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use agentkeep::TenantStore;
use agentkeep_core::{RunId, SessionId};
use axum::{
    body::Body,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::sync::mpsc;

pub(crate) use hub::Hub;
pub(crate) use position::Position;

use crate::{
    app::App,
    error::{ApiError, Result},
};
use client::{Chunk, Client};
use item::Reason;
use merge::Pace;

/// What is on its way to a client beside the buffers of its connection, the last word included.
const UNDER_WAY: usize = 8;

/// Keeps proxies from collecting a stream before they pass it on.
static ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers with what happens in a session behind a position, as server-sent events. With `until` the stream ends with
/// the event in which that run lets go (it completed, failed, or asks for tools); else it goes on until the client or
/// the server goes, or the session is deleted.
///
/// # Errors
/// 404 when there is no such session.
pub(crate) async fn respond(
    app: &App,
    tenant: TenantStore,
    session: SessionId,
    from: Position,
    until: Option<RunId>,
) -> Result<Response> {
    // The caller's view may be of a transaction, which ends before the stream does.
    let tenant = app.store()?.tenant(tenant.id());
    let Some(present) = present(&tenant, session).await? else {
        return Err(ApiError::not_found("session", session));
    };
    let (out, chunks) = mpsc::channel(UNDER_WAY);
    if !present.reaches(from) {
        // Of another database, or of a session that had this id before.
        let _ = out.try_send(Chunk::Text(item::reset(Reason::Gap, Some(present))));
        return Ok(answer(chunks));
    }
    let _ = out.try_send(Chunk::Text(item::beginning(from)));
    if let Ok(last) = out.clone().try_reserve_owned() {
        let watch = app.hub.watch(app, &tenant, session, present);
        let (app, pace) = (app.clone(), Pace::default());
        let client = Client { app, tenant, session, watch, position: from, pace, present, until, out };
        tokio::spawn(client.run(last));
    }
    Ok(answer(chunks))
}

/// Where a session stands now; `None` when there is none.
///
/// # Errors
/// What the database reports.
pub(crate) async fn present(tenant: &TenantStore, session: SessionId) -> agentkeep_core::Result<Option<Position>> {
    let stamps = tenant.sessions().stamps(&[session]).await?;
    Ok(stamps.into_iter().flatten().next().map(Position::from))
}

fn answer(mut chunks: mpsc::Receiver<Chunk>) -> Response {
    let mut rest: Option<Bytes> = None;
    let frames = move |context: &mut Context<'_>| {
        if let Some(rest) = rest.take() {
            return Poll::Ready(Some(Ok::<_, Infallible>(rest)));
        }
        chunks.poll_recv(context).map(|chunk| {
            let (first, second) = match chunk? {
                Chunk::Item(position, item) => item.frames(position),
                Chunk::Text(text) => (text, None),
            };
            rest = second;
            Some(Ok(first))
        })
    };
    let body = Body::from_stream(futures_util::stream::poll_fn(frames));
    let content_type = (header::CONTENT_TYPE, "text/event-stream");
    let headers = [content_type, (header::CACHE_CONTROL, "no-store"), (ACCEL_BUFFERING.clone(), "no")];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use agentkeep::{
        Config, Store,
        conformance::support::{said, session},
    };
    use agentkeep_core::{NewRun, RunOutcome, Timestamp};

    use super::*;
    use crate::Options;

    async fn begin() -> (App, TenantStore, SessionId) {
        let store = Store::open_with(Config::new("sqlite::memory:")).await.expect("a database");
        let app = App::new(Options::default());
        app.set_store(store.clone());
        let tenant = store.default_tenant().clone();
        let made = session(&tenant).await.id;
        (app, tenant, made)
    }

    /// All that a stream tells until it ends.
    async fn told(response: Response) -> String {
        let text = axum::body::to_bytes(response.into_body(), usize::MAX);
        let text = tokio::time::timeout(std::time::Duration::from_secs(10), text).await.expect("an end");
        String::from_utf8(text.expect("a body").to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn a_stream_of_a_run_ends_with_the_run() {
        let (app, tenant, made) = begin().await;
        let run = async || {
            let new = NewRun::new(made, "me", Timestamp::MAX);
            tenant.runs().create(new).await.expect("a run").id
        };
        let (first, second) = (run().await, run().await);
        let stream = |from, until| respond(&app, tenant.clone(), made, from, Some(until));
        let live = stream(Position::new(0, 0), second).await.expect("a stream");
        tenant.messages().append(made, said("x")).await.expect("appended");
        tenant.runs().finish(first, "me", RunOutcome::Completed, None).await.expect("finished");
        tenant.runs().finish(second, "me", RunOutcome::Waiting, None).await.expect("waiting");
        tenant.messages().append(made, said("later")).await.expect("appended");
        let live = told(live).await;
        assert!(live.contains("event: run.completed\n") && live.contains("event: message.created\n"), "{live}");
        let (_, end) = live.rsplit_once("event: ").expect("an event");
        assert!(end.starts_with("tool_calls.requested\n") && end.contains(&second.to_string()), "{end}");

        // The end of the first one lies before it, and nothing more will come.
        let late = told(stream(Position::new(0, 4), first).await.expect("a stream")).await;
        assert_eq!(late.matches("event: message.created\n").count(), 2, "{late}");
        assert!(!late.contains("event: run"), "{late}");
    }

    #[tokio::test]
    async fn a_session_is_watched_as_long_as_somebody_watches_it() {
        let (app, tenant, made) = begin().await;
        let responses = [(); 3].map(|()| respond(&app, tenant.clone(), made, Position::default(), None));
        let responses = futures_util::future::try_join_all(responses).await.expect("streams");
        assert_eq!(app.hub.watched(), 1);
        drop(responses);
        let gone = async {
            while app.hub.watched() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("nobody watches");
        let missing = respond(&app, tenant, SessionId(uuid::Uuid::nil()), Position::default(), None).await;
        assert_eq!(missing.expect_err("no session").into_response().status(), 404);
    }
}
