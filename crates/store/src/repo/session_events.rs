//! The events of sessions: a log that grows with what happens while a session is watched, and is pruned when it is old.
//! Its numbers come from the session's head, as the seqs of messages do.

use agentkeep_core::{
    Error, EventPage, Json, ListRequest, MessageId, NewSessionEvent, Result, SessionEvent, SessionEventKind, SessionId,
    TenantId, Timestamp,
};

use super::table::{delete_in_batches, params};
use crate::{
    engine::{AppendSql, Executor, FromRow, RowRef, Sql},
    store::TenantStore,
};

/// The events of the sessions of a tenant.
pub struct SessionEvents<'a>(pub(super) &'a TenantStore);

// Every row is told in full, so rows that are nearly empty have no text of their own.
//
// A delta gets its seq from its message, if that is streaming: else it gets none, which the table refuses. The row of
// the message is read as it is once the head is locked (FOR SHARE looks at its newest version), and who ends a message
// locks the head first: no delta comes behind the end.
const POSTGRES: &str = "WITH head AS (
         UPDATE session_heads h SET last_event = h.last_event + g.n
         FROM unnest($2::uuid[], $3::int8[], $4::timestamptz[]) AS g (session_id, n, at)
         WHERE h.tenant_id = $1 AND h.session_id = ANY($2::uuid[]) AND h.session_id = g.session_id
         RETURNING h.session_id, h.last_seq, h.last_event - g.n AS base
     ), written AS (
         INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, message_id, run_id, data)
         SELECT $1, e.session_id, head.base + e.place,
             COALESCE(e.seq, CASE e.type WHEN 'message.delta' THEN (
                 SELECT m.seq FROM messages m
                 WHERE m.tenant_id = $1 AND m.id = e.message_id AND m.session_id = e.session_id AND m.is_streaming
                 FOR SHARE
             ) ELSE head.last_seq END),
             e.created_at, e.type, e.message_id, e.run_id, e.data
         FROM unnest($5::int8[], $6::uuid[], $7::timestamptz[], $8::text[], $9::int8[], $10::uuid[], $11::uuid[],
                 $12::text[])
             AS e (place, session_id, created_at, type, seq, message_id, run_id, data)
         JOIN head ON head.session_id = e.session_id
     )
     SELECT session_id, base FROM head";

const POSTGRES_ONE: &str = "WITH head AS (
         UPDATE session_heads h SET last_event = h.last_event + 1
         WHERE h.tenant_id = $1 AND h.session_id = $2
         RETURNING h.session_id, h.last_seq, h.last_event
     ), written AS (
         INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, message_id, run_id, data)
         SELECT $1, head.session_id, head.last_event,
             COALESCE($5::int8, CASE $4::text WHEN 'message.delta' THEN (
                 SELECT m.seq FROM messages m
                 WHERE m.tenant_id = $1 AND m.id = $6::uuid AND m.session_id = head.session_id AND m.is_streaming
                 FOR SHARE
             ) ELSE head.last_seq END),
             $3::timestamptz, $4::text, $6::uuid, $7::uuid, $8::text
         FROM head
     )
     SELECT session_id, last_event - 1 FROM head";

// The texts differ by necessity, see AppendSql.
pub(super) static APPEND: AppendSql = AppendSql {
    postgres: Sql::both(POSTGRES),
    postgres_plain: Sql::both(POSTGRES),
    plain_columns: 7,
    postgres_one: Sql::both(POSTGRES_ONE),
    postgres_one_plain: Sql::both(POSTGRES_ONE),
    sqlite_count: Sql::both(
        "UPDATE session_heads SET last_event = agentkeep_note(last_event) + $3
         WHERE tenant_id = $1 AND session_id = $2",
    ),
    sqlite_insert: Sql::both(
        "INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, message_id, run_id, data)
         VALUES ($1, $3, $2,
             COALESCE($6, CASE $5 WHEN 'message.delta' THEN (
                 SELECT seq FROM messages
                 WHERE tenant_id = $1 AND id = $7 AND session_id = $3 AND is_streaming
             ) ELSE (SELECT last_seq FROM session_heads WHERE tenant_id = $1 AND session_id = $3) END),
             $4, $5, $7, $8, $9)",
    ),
};

// Locks the head, before anything that hangs from it, and takes the number of one event.
static TAKE_NUMBER: Sql = Sql::both(
    "UPDATE session_heads SET last_event = last_event + 1, edits = edits + $3
     WHERE tenant_id = $1 AND session_id = $2
     RETURNING last_seq, last_event",
);
// The same for the session of a message that is about to be changed, or to go. The subselect finds the session, which a
// message never leaves; that the message is still there is seen once the head is locked.
static TAKE_NUMBER_OF_MESSAGE: Sql = Sql::both(
    "UPDATE session_heads SET last_event = last_event + 1, edits = edits + 1, message_count = message_count - $3
     WHERE tenant_id = $1 AND session_id = (SELECT session_id FROM messages WHERE tenant_id = $1 AND id = $2)
     RETURNING session_id, last_seq, last_event",
);
static INSERT: Sql = Sql::both(
    "INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, message_id, run_id, data)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
);
// The limit is that of the events: the head comes along even when there are none, and tells what was the newest when
// they were read.
static AFTER: Sql = Sql::both(
    "SELECT h.last_event, h.last_seq, e.number, e.seq, e.type, e.message_id, e.run_id, e.data, e.created_at
     FROM session_heads h LEFT JOIN (
         SELECT number, seq, type, message_id, run_id, data, created_at FROM session_events
         WHERE tenant_id = $1 AND session_id = $2 AND number > $3
         ORDER BY number LIMIT $4
     ) e ON 1 = 1
     WHERE h.tenant_id = $1 AND h.session_id = $2
     ORDER BY e.number",
)
.short();
static STREAMED: Sql = Sql::both(
    "SELECT seq FROM session_events
     WHERE tenant_id = $1 AND session_id = $2 AND seq >= $3 AND seq <= $4 AND type = 'message.started'
     ORDER BY seq",
)
.short();
static PRUNE: Sql = Sql::both(
    "DELETE FROM session_events WHERE tenant_id = $1 AND (session_id, number) IN (
         SELECT e.session_id, e.number FROM session_events e
         WHERE e.tenant_id = $1 AND e.created_at < $2 AND NOT EXISTS (
             SELECT 1 FROM messages m WHERE m.tenant_id = $1 AND m.id = e.message_id AND m.is_streaming
         )
         ORDER BY e.created_at, e.session_id, e.number LIMIT $3
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static FIXED: &[&Sql] = &[&TAKE_NUMBER, &TAKE_NUMBER_OF_MESSAGE, &INSERT, &AFTER, &STREAMED, &PRUNE];

/// A row of [`AFTER`].
struct Found {
    last_event: i64,
    last_seq: i64,
    event: Option<SessionEvent>,
}

impl FromRow for Found {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let event = match row.get::<Option<i64>>(2)? {
            None => None,
            Some(number) => Some(SessionEvent {
                number,
                seq: row.get(3)?,
                kind: row.get(4)?,
                message_id: row.get(5)?,
                run_id: row.get(6)?,
                data: row.get(7)?,
                created_at: row.get(8)?,
            }),
        };
        Ok(Self { last_event: row.get(0)?, last_seq: row.get(1)?, event })
    }
}

impl SessionEvents<'_> {
    /// Appends an event to a session: it gets the next number, without gap, whatever races, and those who watch the
    /// session are woken. Durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for data over the limit and for events of messages, which
    /// [`Messages::start`](super::Messages::start), `delta`, `finish`, `update` and `delete` append; [`Error::NotFound`] when there is no
    /// such session.
    pub async fn append(&self, session: SessionId, new: NewSessionEvent) -> Result<i64> {
        new.check()?;
        if is_of_message(new.kind) {
            return Err(Error::invalid("type", format!("{} is told when that happens to a message", new.kind)));
        }
        let none: Option<i64> = None;
        let row = params![session, self.0.now(), new.kind, none, new.message_id, new.run_id, new.data];
        let number = self.0.executor.append(&APPEND, self.0.tenant, row.into()).await?;
        let number = number.ok_or_else(|| Error::not_found("session", session))?;
        self.0.session_changed(session);
        Ok(number)
    }

    /// The events of a session behind a number, the oldest first, at most `limit`; whether some are missing among them,
    /// because they were pruned or the number was never given.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `limit` is not 1 to 1,000, [`Error::NotFound`] when there is no such session.
    pub async fn after(&self, session: SessionId, number: i64, limit: u32) -> Result<EventPage> {
        ListRequest::new().limit(limit).check()?;
        let params = params![self.0.tenant, session, number, limit];
        let found: Vec<Found> = self.0.executor.fetch_all(&AFTER, &params).await?;
        let head = found.first().ok_or_else(|| Error::not_found("session", session))?;
        let (last_event, last_seq) = (head.last_event, head.last_seq);
        let events: Vec<SessionEvent> = found.into_iter().filter_map(|found| found.event).collect();
        // Numbers have no gaps of their own. A page that is not full reaches to the newest event.
        let full = events.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let end = if full { events.last().map_or(last_event, |event| event.number) } else { last_event };
        let there = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let gap = end.saturating_sub(number.max(0)) != there;
        Ok(EventPage { events, gap, last_event, last_seq })
    }

    /// The seqs of the messages from `from_seq` to `to_seq` that were streamed in, as far as their events are not
    /// pruned; in order, empty when there are none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn streamed(&self, session: SessionId, from_seq: i64, to_seq: i64) -> Result<Vec<i64>> {
        let params = params![self.0.tenant, session, from_seq, to_seq];
        let seqs: Vec<(i64,)> = self.0.executor.fetch_all(&STREAMED, &params).await?;
        Ok(seqs.into_iter().map(|(seq,)| seq).collect())
    }

    /// Deletes the events from before a time, in bounded batches, those of messages that are still streaming excepted;
    /// how many it were.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn prune(&self, before: Timestamp) -> Result<u64> {
        delete_in_batches(&self.0.executor, &PRUNE, &params![self.0.tenant, before]).await
    }
}

/// Whether an event is for the functions that change messages to append.
fn is_of_message(kind: SessionEventKind) -> bool {
    use SessionEventKind::{RunCompleted, RunFailed, RunResumed, RunStarted, ToolCallsRequested};
    !matches!(kind, RunStarted | RunResumed | RunCompleted | RunFailed | ToolCallsRequested)
}

/// The place of an event that is about to be written: the head of its session is locked until the end of the
/// transaction.
pub(super) struct Place {
    tenant: TenantId,
    pub(super) session: SessionId,
    /// The seq of the newest message.
    pub(super) last_seq: i64,
    /// The number of the event.
    pub(super) number: i64,
}

impl Place {
    /// Takes the next number of a session, and notes that so many of its messages are changed with it; `None` when
    /// there is no such session.
    pub(super) async fn take(
        executor: &Executor,
        tenant: TenantId,
        session: SessionId,
        edits: i64,
    ) -> Result<Option<Self>> {
        let taken: Option<(i64, i64)> = executor.fetch_optional(&TAKE_NUMBER, &params![tenant, session, edits]).await?;
        Ok(taken.map(|(last_seq, number)| Self { tenant, session, last_seq, number }))
    }

    /// Takes the next number of the session of a message that is about to be changed or, with 1 in `deleted`, to be
    /// deleted, and notes that; `None` when there is no such message.
    pub(super) async fn take_of_message(
        executor: &Executor,
        tenant: TenantId,
        message: MessageId,
        deleted: i64,
    ) -> Result<Option<Self>> {
        let params = params![tenant, message, deleted];
        let taken: Option<(SessionId, i64, i64)> = executor.fetch_optional(&TAKE_NUMBER_OF_MESSAGE, &params).await?;
        Ok(taken.map(|(session, last_seq, number)| Self { tenant, session, last_seq, number }))
    }

    /// Writes the event; its number is that of the place.
    pub(super) async fn write(self, executor: &Executor, event: SessionEvent) -> Result<()> {
        let params = params![
            self.tenant,
            self.session,
            self.number,
            event.seq,
            event.created_at,
            event.kind,
            event.message_id,
            event.run_id,
            event.data,
        ];
        executor.execute(&INSERT, &params).await.map(|_| ())
    }
}

/// An entity as the data of an event. It was checked when it was written, part by part.
pub(super) fn data_of(entity: &impl serde::Serialize) -> Result<Json> {
    let text = serde_json::to_string(entity).map_err(|error| Error::invalid("data", error.to_string()))?;
    Ok(Json::from_stored(text))
}
