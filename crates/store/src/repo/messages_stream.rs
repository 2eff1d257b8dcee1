//! Messages that are streamed in: announced when they begin, grown by deltas, whole or broken off in the end. Until then
//! their text is in the events of the session; the row of the message is written twice.

use agentkeep_core::{
    Delta, Error, Finish, Json, JsonObject, Message, MessageId, MessageType, NewMessage, Result, Run, RunId,
    SessionEvent, SessionEventKind, SessionId, StreamError, limits,
};

use super::{
    messages::{self, Messages, check_speakers, row_of},
    session_events::{self, Place, data_of},
    table::{Changes, check_reference, params},
};
use crate::engine::{Executor, Sql, Value};

/// Deltas that are read at once when a message ends.
const DELTAS_A_PAGE: i64 = 1000;

static STARTED: Sql = Sql::both(
    "SELECT number, run_id FROM session_events
     WHERE tenant_id = $1 AND session_id = $2 AND seq = $3 AND type = 'message.started'",
)
.short();
static DELTAS: Sql = Sql::both(
    "SELECT number, data FROM session_events
     WHERE tenant_id = $1 AND session_id = $2 AND number > $3 AND message_id = $4 AND type = 'message.delta'
     ORDER BY number LIMIT $5",
);

// The events of messages that are streaming are never pruned.
static STREAMING_OF_RUN: Sql = Sql::both(
    "SELECT m.id FROM session_events e JOIN messages m ON m.tenant_id = $1 AND m.id = e.message_id
     WHERE e.tenant_id = $1 AND e.session_id = $2 AND e.seq >= $3 AND e.type = 'message.started' AND e.run_id = $4
         AND m.is_streaming
     ORDER BY e.seq",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static FIXED: &[&Sql] = &[&STARTED, &DELTAS, &STREAMING_OF_RUN];

impl Messages<'_> {
    /// Begins to stream a message in: appends it as streaming and incomplete, and tells that in the same transaction.
    /// A `platform_message_id` that the session has already gives the first message back, and tells nothing.
    ///
    /// # Errors
    /// As [`Messages::append`]; [`Error::MissingReference`] also when there is no such run.
    pub async fn start(&self, session: SessionId, new: NewMessage, run: Option<RunId>) -> Result<Message> {
        new.check()?;
        let (executor, tenant) = (&self.0.executor, self.0.tenant);
        if let Some(first) = self.repeated(session, &new).await? {
            return Ok(first);
        }
        check_speakers(executor, tenant, &new).await?;
        check_reference(executor, tenant, "run_id", "run", "runs", run).await?;
        let message = self.stored(session, NewMessage { is_streaming: true, is_complete: Some(false), ..new });
        let now = self.0.now();
        let begin = |executor: Executor| {
            let message = message.clone();
            async move {
                let gone = || Error::not_found("session", session);
                // The number is taken first: it locks the head, once for both.
                let place = Place::take(&executor, tenant, session, 0).await?.ok_or_else(gone)?;
                let seq = executor.append(&messages::APPEND, tenant, row_of(&message)).await?.ok_or_else(gone)?;
                let message = Message { seq, ..message };
                let event = SessionEvent {
                    number: place.number,
                    seq,
                    kind: SessionEventKind::MessageStarted,
                    message_id: Some(message.id),
                    run_id: run,
                    data: data_of(&message)?,
                    created_at: now,
                };
                place.write(&executor, event).await?;
                Ok(message)
            }
        };
        match self.0.executor.transaction(begin).await {
            Ok(started) => {
                self.0.session_changed(session);
                Ok(started)
            }
            Err(error) => self.after_failure(message, error).await,
        }
    }

    /// Lets a message that is streaming grow; the number of the event that tells it. One append, whatever the length of
    /// the message. Durable when this returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session, or no such message in it, [`Error::IllegalTransition`] when
    /// the message is not streaming, [`Error::Invalid`] for a delta over the limit. Nothing was stored then.
    pub async fn delta(&self, session: SessionId, message: MessageId, delta: &Delta) -> Result<i64> {
        delta.check()?;
        let data = Json::from_serialize("delta", delta)?;
        let seq = self.seq_if_unfenced(session, message).await?;
        let (kind, run) = (SessionEventKind::MessageDelta, None::<RunId>);
        let row = params![session, self.0.now(), kind, seq, Some(message), run, data];
        match self.0.executor.append(&session_events::APPEND, self.0.tenant, row.into()).await {
            Ok(Some(number)) => {
                self.0.session_changed(session);
                Ok(number)
            }
            Ok(None) => Err(Error::not_found("session", session)),
            // It found no message that is streaming, and so no seq for the delta.
            Err(Error::Database { code: Some(code), message: told }) if code == "23502" => {
                self.streaming(&self.0.executor, session, message, "streaming").await?;
                Err(Error::Database { code: Some(code), message: told })
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing, so that the statement itself asks whether the message is streaming; where a test turned that off, what
    /// a look beforehand finds.
    async fn seq_if_unfenced(&self, session: SessionId, message: MessageId) -> Result<Option<i64>> {
        #[cfg(any(test, feature = "conformance"))]
        if self.0.controls().stream_fence_is_off() {
            let found = self.streaming(&self.0.executor, session, message, "streaming").await?;
            return Ok(Some(found.seq));
        }
        let _ = (session, message);
        Ok(None)
    }

    /// Ends a streamed message: writes its content (that of its deltas in order, unless another one is given) and
    /// whatever else is given, and tells the message as it is then, in one transaction. With an error it stays
    /// incomplete, and its metadata has the error.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session, or no such message in it, [`Error::IllegalTransition`] when
    /// it is not streaming, [`Error::Invalid`] for values over the limit: of all deltas together, too, in which case
    /// it can be ended with a content of its own. Nothing was changed then.
    pub async fn finish(&self, session: SessionId, message: MessageId, finish: Finish) -> Result<Message> {
        finish.check()?;
        let (tenant, finish) = (self.0.tenant, &finish);
        let kind = match finish.error {
            None => SessionEventKind::MessageCompleted,
            Some(_) => SessionEventKind::MessageIncomplete,
        };
        let end = |executor: Executor| async move {
            let now = self.0.now();
            // From here on no delta is written.
            let place = Place::take(&executor, tenant, session, 1).await?;
            let place = place.ok_or_else(|| Error::not_found("session", session))?;
            let to = if finish.error.is_none() { "complete" } else { "incomplete" };
            let begun = self.streaming(&executor, session, message, to).await?;
            let (run, content) = self.grown(&executor, &begun, finish.content.as_deref()).await?;
            let mut changes = Changes::new(executor.dialect(), tenant, message);
            changes.set("content", content);
            changes.set("parts", finish.parts.clone());
            changes.set("tool_calls", finish.tool_calls.clone());
            // It was not known yet when the message began.
            if finish.tool_calls.is_some() && begun.kind == MessageType::Text {
                changes.set("type", Some(MessageType::ToolCall));
            }
            changes.set("usage", finish.usage.clone());
            changes.merge("metadata", metadata_of(finish)?);
            changes.set("is_streaming", Some(false));
            changes.set("is_complete", Some(finish.error.is_none()));
            let (sql, params) = changes.statement(&messages::TABLE, now);
            let ended: Message = executor.fetch_one(&sql, &params).await?;
            let event = SessionEvent {
                number: place.number,
                seq: ended.seq,
                kind,
                message_id: Some(ended.id),
                run_id: run,
                data: data_of(&ended)?,
                created_at: now,
            };
            place.write(&executor, event).await?;
            Ok(ended)
        };
        let ended = self.0.executor.transaction(end).await?;
        self.0.session_changed(session);
        Ok(ended)
    }

    /// The messages that a run began and that are streaming still, in order; empty when there are none. For who ends
    /// the run in place of a process that is gone.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn streaming_of_run(&self, run: &Run) -> Result<Vec<MessageId>> {
        let params = params![self.0.tenant, run.session_id, run.first_seq, run.id];
        let found: Vec<(MessageId,)> = self.0.executor.fetch_all(&STREAMING_OF_RUN, &params).await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    /// The message, if it is streaming.
    async fn streaming(&self, executor: &Executor, session: SessionId, id: MessageId, to: &str) -> Result<Message> {
        let found: Option<Message> = executor.fetch_optional(&messages::GET, &params![self.0.tenant, id]).await?;
        let entity = messages::TABLE.entity;
        let found = found.filter(|message| message.session_id == session);
        let message = found.ok_or_else(|| Error::not_found(entity, id))?;
        if message.is_streaming {
            return Ok(message);
        }
        let from = if message.is_complete { "complete" } else { "incomplete" };
        Err(Error::IllegalTransition { entity, key: id.to_string(), from: from.to_owned(), to: to.to_owned() })
    }

    /// The run of a streamed message, and its content in the end: `given`, or what it began with and its deltas.
    async fn grown(
        &self,
        executor: &Executor,
        begun: &Message,
        given: Option<&str>,
    ) -> Result<(Option<RunId>, Option<Value>)> {
        let (tenant, session) = (self.0.tenant, begun.session_id);
        let started: Option<(i64, Option<RunId>)> =
            executor.fetch_optional(&STARTED, &params![tenant, session, begun.seq]).await?;
        let (mut number, run) = started.unwrap_or((0, None));
        if let Some(given) = given {
            return Ok((run, Some(Value::from(given))));
        }
        let mut content = begun.content.clone();
        loop {
            let params = params![tenant, session, number, begun.id, DELTAS_A_PAGE];
            let deltas: Vec<(i64, Json)> = executor.fetch_all(&DELTAS, &params).await?;
            for (_, delta) in &deltas {
                if let Some(more) = delta.decode::<Delta>("delta")?.content {
                    content.get_or_insert_default().push_str(&more);
                }
            }
            match deltas.last() {
                Some((last, _)) => number = *last,
                None => break,
            }
        }
        limits::check_content("content", content.as_deref().unwrap_or(""))?;
        Ok((run, content.map(Value::from)))
    }
}

/// The merge patch of the metadata: the given one, and the error.
fn metadata_of(finish: &Finish) -> Result<Option<JsonObject>> {
    #[derive(serde::Serialize)]
    struct Broken<'a> {
        error: &'a StreamError,
    }
    let Some(error) = &finish.error else { return Ok(finish.metadata.clone()) };
    let broken = JsonObject::from_serialize("error", &Broken { error })?;
    Ok(Some(finish.metadata.as_ref().map_or(broken.clone(), |metadata| metadata.merged(&broken))))
}
