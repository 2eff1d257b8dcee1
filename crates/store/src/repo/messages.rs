//! Messages: appended to their session with the next seq, and read back by it.

use std::collections::HashSet;

use agentkeep_core::{
    Direction, Error, Json, JsonObject, ListRequest, Message, MessageId, MessagePatch, NewMessage, Page, Result,
    SessionEvent, SessionEventKind, SessionId, TenantId, Timestamp,
};

use super::{
    list::list,
    session_events::{Place, data_of},
    table::{Changes, Field, FieldKind, Table, check_reference, explain, params, record},
};
use crate::{
    engine::{AppendSql, Executor, Sql, Value},
    store::TenantStore,
};

/// The messages of a tenant.
pub struct Messages<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, session_id, seq, role, type, content, parts, tool_calls, tool_name, tool_args, tool_call_id, \
         channel_payload, author_user_id, agent_id, platform_message_id, is_streaming, is_complete, usage, extra, \
         metadata, created_at, updated_at"
    };
}

record!(Message, &TABLE, {
    id, session_id, seq, role, kind, content, parts, tool_calls, tool_name, tool_args, tool_call_id, channel_payload,
    author_user_id, agent_id, platform_message_id, is_streaming, is_complete, usage, extra, metadata, created_at,
    updated_at,
});

pub(super) static TABLE: Table = Table {
    entity: "message",
    name: "messages",
    from: "messages",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("seq", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("seq", FieldKind::Int).sortable(),
        Field::new("role", FieldKind::Text),
        Field::new("type", FieldKind::Text),
        Field::new("content", FieldKind::Text),
        Field::new("tool_name", FieldKind::Text),
        Field::new("tool_call_id", FieldKind::Text),
        Field::new("author_user_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("platform_message_id", FieldKind::Text),
        Field::new("is_streaming", FieldKind::Bool),
        Field::new("is_complete", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["session_id", "platform_message_id"]],
    references: &[],
};

// The heads of a group, and the head of a lone row.
macro_rules! heads {
    () => {
        "WITH head AS (
             UPDATE session_heads h
             SET last_seq = h.last_seq + g.n, message_count = h.message_count + g.n,
                 last_message_at = GREATEST(h.last_message_at, g.at)
             FROM unnest($2::uuid[], $3::int8[], $4::timestamptz[]) AS g (session_id, n, at)
             WHERE h.tenant_id = $1 AND h.session_id = ANY($2::uuid[]) AND h.session_id = g.session_id
             RETURNING h.session_id, h.last_seq - g.n AS base
         )"
    };
}
macro_rules! head {
    () => {
        "WITH head AS (
             UPDATE session_heads h
             SET last_seq = h.last_seq + 1, message_count = h.message_count + 1,
                 last_message_at = GREATEST(h.last_message_at, $3::timestamptz)
             WHERE h.tenant_id = $1 AND h.session_id = $2
             RETURNING h.session_id, h.last_seq
         )"
    };
}

// The texts differ by necessity, see AppendSql. The columns that most messages leave empty come last.
pub(super) static APPEND: AppendSql = AppendSql {
    postgres: Sql::both(concat!(
        heads!(),
        ", written AS (
             INSERT INTO messages (tenant_id, session_id, seq, created_at, updated_at, id, role, type, is_streaming,
                 is_complete, metadata, content, parts, tool_calls, tool_name, tool_args, tool_call_id,
                 channel_payload, author_user_id, agent_id, platform_message_id, usage, extra)
             SELECT $1, m.session_id, head.base + m.place, m.created_at, m.created_at, m.id, m.role, m.type,
                 m.is_streaming, m.is_complete, m.metadata, m.content, m.parts, m.tool_calls, m.tool_name,
                 m.tool_args, m.tool_call_id, m.channel_payload, m.author_user_id, m.agent_id,
                 m.platform_message_id, m.usage, m.extra
             FROM unnest($5::int8[], $6::uuid[], $7::timestamptz[], $8::uuid[], $9::text[], $10::text[], $11::bool[],
                     $12::bool[], $13::jsonb[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[],
                     $19::text[], $20::text[], $21::uuid[], $22::int8[], $23::text[], $24::text[], $25::text[])
                 AS m (place, session_id, created_at, id, role, type, is_streaming, is_complete, metadata, content,
                     parts, tool_calls, tool_name, tool_args, tool_call_id, channel_payload, author_user_id,
                     agent_id, platform_message_id, usage, extra)
             JOIN head ON head.session_id = m.session_id
         )
         SELECT session_id, base FROM head",
    )),
    postgres_plain: Sql::both(concat!(
        heads!(),
        ", written AS (
             INSERT INTO messages (tenant_id, session_id, seq, created_at, updated_at, id, role, type, is_streaming,
                 is_complete, metadata, content)
             SELECT $1, m.session_id, head.base + m.place, m.created_at, m.created_at, m.id, m.role, m.type,
                 m.is_streaming, m.is_complete, m.metadata, m.content
             FROM unnest($5::int8[], $6::uuid[], $7::timestamptz[], $8::uuid[], $9::text[], $10::text[], $11::bool[],
                     $12::bool[], $13::jsonb[], $14::text[])
                 AS m (place, session_id, created_at, id, role, type, is_streaming, is_complete, metadata, content)
             JOIN head ON head.session_id = m.session_id
         )
         SELECT session_id, base FROM head",
    )),
    plain_columns: 9,
    postgres_one: Sql::both(concat!(
        head!(),
        ", written AS (
             INSERT INTO messages (tenant_id, session_id, seq, created_at, updated_at, id, role, type, is_streaming,
                 is_complete, metadata, content, parts, tool_calls, tool_name, tool_args, tool_call_id,
                 channel_payload, author_user_id, agent_id, platform_message_id, usage, extra)
             SELECT $1, head.session_id, head.last_seq, $3::timestamptz, $3::timestamptz,
                 $4::uuid, $5::text, $6::text, $7::bool, $8::bool, $9::jsonb, $10::text, $11::text, $12::text,
                 $13::text, $14::text, $15::text, $16::text, $17::uuid, $18::int8, $19::text, $20::text,
                 $21::text
             FROM head
         )
         SELECT session_id, last_seq - 1 FROM head",
    )),
    postgres_one_plain: Sql::both(concat!(
        head!(),
        ", written AS (
             INSERT INTO messages (tenant_id, session_id, seq, created_at, updated_at, id, role, type, is_streaming,
                 is_complete, metadata, content)
             SELECT $1, head.session_id, head.last_seq, $3::timestamptz, $3::timestamptz,
                 $4::uuid, $5::text, $6::text, $7::bool, $8::bool, $9::jsonb, $10::text
             FROM head
         )
         SELECT session_id, last_seq - 1 FROM head",
    )),
    sqlite_count: Sql::both(
        "UPDATE session_heads
         SET last_seq = agentkeep_note(last_seq) + $3, message_count = message_count + $3,
             last_message_at = MAX(COALESCE(last_message_at, $4), $4)
         WHERE tenant_id = $1 AND session_id = $2",
    ),
    sqlite_insert: Sql::both(
        "INSERT INTO messages (tenant_id, seq, session_id, created_at, updated_at, id, role, type, is_streaming,
             is_complete, metadata, content, parts, tool_calls, tool_name, tool_args, tool_call_id, channel_payload,
             author_user_id, agent_id, platform_message_id, usage, extra)
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    ),
};
pub(super) static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM messages WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_SEQ: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM messages WHERE tenant_id = $1 AND session_id = $2 AND seq = $3"))
        .short();
static GET_BY_PLATFORM_MESSAGE_ID: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM messages WHERE tenant_id = $1 AND session_id = $2 AND platform_message_id = $3"
))
.short();
static RECENT: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM messages WHERE tenant_id = $1 AND session_id = $2 ORDER BY seq DESC LIMIT $3"
))
.short();
static DELETE: Sql = Sql::both("DELETE FROM messages WHERE tenant_id = $1 AND id = $2 RETURNING seq");

/// Every fixed statement of this file, but for the append.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&GET, &GET_BY_SEQ, &GET_BY_PLATFORM_MESSAGE_ID, &RECENT, &DELETE]);

impl Messages<'_> {
    /// Appends a message to a session: it gets the next seq, without gap, whatever races. Durable when this
    /// returns. A `platform_message_id` that the session has already gives the first message back.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::NotFound`] when there is no such session,
    /// [`Error::MissingReference`] when author or agent do not exist in this tenant,
    /// [`Error::AlreadyExists`] when the id is taken.
    pub async fn append(&self, session: SessionId, new: NewMessage) -> Result<Message> {
        new.check()?;
        let executor = &self.0.executor;
        if let Some(first) = self.repeated(session, &new).await? {
            return Ok(first);
        }
        check_speakers(executor, self.0.tenant, &new).await?;
        let message = self.stored(session, new);
        let row = row_of(&message);
        match executor.append(&APPEND, self.0.tenant, row).await {
            Ok(Some(seq)) => Ok(Message { seq, ..message }),
            Ok(None) => Err(Error::not_found("session", session)),
            Err(error) => self.after_failure(message, error).await,
        }
    }

    /// Appends many messages to a session, in order and in one transaction: all of them or none. The limits
    /// and errors are those of [`Messages::append`], with the place of the message (`messages[3].content`).
    ///
    /// # Errors
    /// As [`Messages::append`]; a repeated `platform_message_id` is [`Error::AlreadyExists`] here.
    pub async fn append_many(&self, session: SessionId, new: Vec<NewMessage>) -> Result<Vec<Message>> {
        let executor = &self.0.executor;
        let mut messages = Vec::with_capacity(new.len());
        for (index, new) in new.into_iter().enumerate() {
            let place = || format!("messages[{index}]");
            new.check().map_err(|error| error.at(&place()))?;
            check_speakers(executor, self.0.tenant, &new).await.map_err(|error| error.at(&place()))?;
            messages.push(self.stored(session, new));
        }
        if messages.is_empty() {
            return Ok(messages);
        }
        check_distinct(&messages)?;
        let rows = messages.iter().map(row_of).collect();
        let numbers = match executor.append_many(&APPEND, self.0.tenant, rows).await {
            Ok(numbers) => numbers,
            Err(error) => return Err(self.explain_many(&messages, error).await),
        };
        for (message, number) in messages.iter_mut().zip(numbers) {
            message.seq = number.ok_or_else(|| Error::not_found("session", session))?;
        }
        Ok(messages)
    }

    /// The message that was appended first with the same platform message id.
    pub(super) async fn repeated(&self, session: SessionId, new: &NewMessage) -> Result<Option<Message>> {
        match &new.platform_message_id {
            Some(id) => self.get_by_platform_message_id(session, id).await,
            None => Ok(None),
        }
    }

    /// A racing append of the same platform message id is no error: its message is the answer.
    pub(super) async fn after_failure(&self, message: Message, error: Error) -> Result<Message> {
        let taken = matches!(&error, Error::Database { code: Some(code), .. } if code == "23505");
        if taken
            && let Some(id) = &message.platform_message_id
            && let Some(first) = self.get_by_platform_message_id(message.session_id, id).await?
        {
            return Ok(first);
        }
        Err(self.explain_many(std::slice::from_ref(&message), error).await)
    }

    async fn explain_many(&self, messages: &[Message], mut error: Error) -> Error {
        for message in messages {
            let held = [
                ("id", Value::from(message.id)),
                ("session_id", Value::from(message.session_id)),
                ("platform_message_id", Value::from(message.platform_message_id.clone())),
            ];
            error = explain(&self.0.executor, &TABLE, &params![self.0.tenant], &held, error).await;
            if !matches!(error, Error::Database { .. }) {
                break;
            }
        }
        error
    }

    /// The message as it will be stored, its seq excepted.
    pub(super) fn stored(&self, session_id: SessionId, new: NewMessage) -> Message {
        let now = self.0.now();
        let created_at: Timestamp = new.created_at.unwrap_or(now);
        Message {
            id: new.id.unwrap_or_else(|| self.0.new_id(now)),
            session_id,
            seq: 0,
            kind: new.kind(),
            role: new.role,
            content: new.content,
            parts: new.parts,
            tool_calls: new.tool_calls,
            tool_name: new.tool_name,
            tool_args: new.tool_args,
            tool_call_id: new.tool_call_id,
            channel_payload: new.channel_payload,
            author_user_id: new.author_user_id,
            agent_id: new.agent_id,
            platform_message_id: new.platform_message_id,
            is_streaming: new.is_streaming,
            is_complete: new.is_complete.unwrap_or(!new.is_streaming),
            usage: new.usage,
            extra: new.extra,
            metadata: new.metadata,
            created_at,
            updated_at: created_at,
        }
    }

    /// The message with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: MessageId) -> Result<Option<Message>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The message of a session with that seq; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_seq(&self, session: SessionId, seq: i64) -> Result<Option<Message>> {
        self.0.executor.fetch_optional(&GET_BY_SEQ, &params![self.0.tenant, session, seq]).await
    }

    /// The message of a session with that id on its platform; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_platform_message_id(&self, session: SessionId, id: &str) -> Result<Option<Message>> {
        self.0.executor.fetch_optional(&GET_BY_PLATFORM_MESSAGE_ID, &params![self.0.tenant, session, id]).await
    }

    /// The newest messages of a session, oldest first; empty when there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `limit` is not 1 to 1,000.
    pub async fn recent(&self, session: SessionId, limit: u32) -> Result<Vec<Message>> {
        ListRequest::new().limit(limit).check()?;
        let mut messages: Vec<Message> =
            self.0.executor.fetch_all(&RECENT, &params![self.0.tenant, session, i64::from(limit)]).await?;
        messages.reverse();
        Ok(messages)
    }

    /// One page of the messages. Filters: id, session_id, seq, role, type, content, tool_name, tool_call_id,
    /// author_user_id, agent_id, platform_message_id, is_streaming, is_complete, created_at, updated_at,
    /// metadata.PATH. Orders: seq (the default), id, created_at, updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Message>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a message; what the patch leaves out stays. Those who watch the session are told, in the same
    /// transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Invalid`].
    pub async fn update(&self, id: MessageId, patch: MessagePatch) -> Result<Message> {
        patch.check()?;
        let (tenant, now) = (self.0.tenant, self.0.now());
        let mut changes = Changes::new(self.0.executor.dialect(), tenant, id);
        changes.set("content", patch.content);
        changes.set("parts", patch.parts);
        changes.set("tool_calls", patch.tool_calls);
        changes.set("type", patch.kind);
        changes.set("is_streaming", patch.is_streaming);
        changes.set("is_complete", patch.is_complete);
        changes.set("usage", patch.usage);
        changes.merge("metadata", patch.metadata);
        if changes.is_empty() {
            return self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id));
        }
        let (sql, params) = changes.statement(&TABLE, now);
        let (sql, params) = (&sql, &params);
        let update = |executor: Executor| async move {
            // The head is locked before the message, as an append and the deletion of a session do: no deadlock.
            let place = Place::take_of_message(&executor, tenant, id, 0).await?;
            let changed: Option<Message> = executor.fetch_optional(sql, params).await?;
            let (Some(place), Some(changed)) = (place, changed) else {
                return Err(Error::not_found(TABLE.entity, id));
            };
            let event = SessionEvent {
                number: place.number,
                seq: changed.seq,
                kind: SessionEventKind::MessageUpdated,
                message_id: Some(id),
                run_id: None,
                data: data_of(&changed)?,
                created_at: now,
            };
            place.write(&executor, event).await?;
            Ok(changed)
        };
        let changed = self.0.executor.transaction(update).await?;
        self.0.session_changed(changed.session_id);
        Ok(changed)
    }

    /// Deletes a message with its artifacts. Its seq is not given again. Those who watch the session are told, in the
    /// same transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: MessageId) -> Result<()> {
        let (tenant, now) = (self.0.tenant, self.0.now());
        let delete = |executor: Executor| async move {
            let place = Place::take_of_message(&executor, tenant, id, 1).await?;
            let gone: Option<(i64,)> = executor.fetch_optional(&DELETE, &params![tenant, id]).await?;
            let (Some(place), Some((seq,))) = (place, gone) else {
                return Err(Error::not_found(TABLE.entity, id));
            };
            let (number, session) = (place.number, place.session);
            let kind = SessionEventKind::MessageDeleted;
            let (message_id, data) = (Some(id), Json::from(JsonObject::default()));
            let event = SessionEvent { number, seq, kind, message_id, run_id: None, data, created_at: now };
            place.write(&executor, event).await?;
            Ok(session)
        };
        let session = self.0.executor.transaction(delete).await?;
        self.0.session_changed(session);
        Ok(())
    }
}

/// Refuses messages of one batch that would take each other's id.
fn check_distinct(messages: &[Message]) -> Result<()> {
    let taken = |field: &str, value: String| Error::AlreadyExists { entity: TABLE.entity, field: field.into(), value };
    let (mut ids, mut platform_ids) = (HashSet::new(), HashSet::new());
    for message in messages {
        if !ids.insert(message.id) {
            return Err(taken("id", message.id.to_string()));
        }
        if let Some(id) = &message.platform_message_id
            && !platform_ids.insert(id)
        {
            return Err(taken("session_id, platform_message_id", format!("{}, {id:?}", message.session_id)));
        }
    }
    Ok(())
}

/// The columns of a row, in the order of [`APPEND`].
pub(super) fn row_of(message: &Message) -> Vec<Value> {
    params![
        message.session_id,
        message.created_at,
        message.id,
        message.role,
        message.kind,
        message.is_streaming,
        message.is_complete,
        message.metadata.clone(),
        message.content.clone(),
        message.parts.clone(),
        message.tool_calls.clone(),
        message.tool_name.clone(),
        message.tool_args.clone(),
        message.tool_call_id.clone(),
        message.channel_payload.clone(),
        message.author_user_id,
        message.agent_id,
        message.platform_message_id.clone(),
        message.usage.clone(),
        message.extra.clone(),
    ]
    .into()
}

/// Author and agent are soft references: they must exist when they are set, and may go afterwards.
pub(super) async fn check_speakers(executor: &Executor, tenant: TenantId, new: &NewMessage) -> Result<()> {
    check_reference(executor, tenant, "author_user_id", "user", "users", new.author_user_id).await?;
    check_reference(executor, tenant, "agent_id", "agent", "agents", new.agent_id).await
}
