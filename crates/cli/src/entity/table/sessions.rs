//! Sessions and what hangs from them: messages, artifacts, checkpoints and runs.

use agentkeep::core::{MessageId, MessagePatch, NewArtifact, NewCheckpoint, NewMessage, NewSession, SessionPatch};

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Scope,
    call::{call, optional, page, parse, session_id, take_text, value},
};

pub(super) static SESSIONS: Entity = entity! {
    name: "sessions",
    one: "session",
    about: "Sessions: conversations with an agent, a team or a workflow",
    key: "ID",
    columns: &["id", "name", "status", "message_count", "last_message_at", "platform", "created_at"],
    fields: &[
        text("name", "Name to show"),
        text("kind", "Who leads it: agent, team or workflow"),
        text("user_id", "The user it belongs to"),
        json("agent_id", "The agent that leads it"),
        text("team_id", "The team that leads it"),
        text("platform", "The chat platform (create only)"),
        text("chat_id", "The id of the chat on that platform (create only)"),
        text("status", "A legal next status: active, finished, archived or deleted (update only)"),
        json("state", "State that agents keep between turns, a JSON object"),
        json("revision", "Change only if the session is still at this revision (update only)"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.sessions().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.sessions().get(session_id(home, &key).await?).await?))),
    create: Some(call!(|home, body| value(home.tenant.sessions().create(parse::<NewSession>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = session_id(home, &key).await?;
        value(home.tenant.sessions().update(id, parse::<SessionPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.sessions().delete(session_id(home, &key).await?).await)),
    actions: &[
        Action {
            name: "of-chat",
            about: "The session of a chat on a platform; created when there is none",
            arguments: &[("PLATFORM", "The chat platform"), ("CHAT", "The id of the chat on it")],
            columns: &[],
            run: call!(|home, arguments| {
                let (platform, chat_id) = (Some(arguments[0].clone()), Some(arguments[1].clone()));
                let new = NewSession { platform, chat_id, ..NewSession::default() };
                value(home.tenant.sessions().get_or_create(new).await?).map(Answer::One)
            }),
        },
        Action {
            name: "finish",
            about: "Mark a session as finished",
            arguments: &[("ID", "The session")],
            columns: &[],
            run: call!(|home, arguments| {
                let id = session_id(home, &arguments[0]).await?;
                value(home.tenant.sessions().finish(id).await?).map(Answer::One)
            }),
        },
    ],
};

pub(super) static MESSAGES: Entity = entity! {
    name: "messages",
    one: "message",
    about: "Messages: the entries of sessions",
    columns: &["id", "seq", "role", "type", "tool_name", "content", "created_at"],
    fields: &[
        text("session_id", "The session it is appended to (create only)"),
        text("role", "Who speaks: user, assistant, system or tool (create only)"),
        text("type", "What it holds: text, tool_call, tool_response, thinking or error"),
        text("content", "The text"),
        json("tool_calls", "Tool calls, a JSON array"),
        text("tool_name", "The tool that answers (create only)"),
        text("tool_call_id", "What binds a call to its result (create only)"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "SESSION",
        field: "session_id",
        resolve: call!(|home, key| value(session_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.messages().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.messages().get(key.parse()?).await?))),
    create: Some(call!(|home, body| {
        let mut body = body;
        let session = session_id(home, &take_text(&mut body, "session_id")?).await?;
        value(home.tenant.messages().append(session, parse::<NewMessage>(body)?).await?)
    })),
    update: Some(call!(|home, key, body| {
        let id: MessageId = key.parse()?;
        value(home.tenant.messages().update(id, parse::<MessagePatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.messages().delete(key.parse()?).await)),
};

pub(super) static ARTIFACTS: Entity = entity! {
    name: "artifacts",
    one: "artifact",
    about: "Artifacts: what belongs to a message beside its text",
    columns: &["id", "message_id", "kind", "uri", "content", "created_at"],
    fields: &[
        text("message_id", "The message it belongs to"),
        text("kind", "voice_transcript, image_json, ocr_text, file_meta or tool_result"),
        json("content", "What it holds, any JSON"),
        text("uri", "Where the thing itself is"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "SESSION",
        field: "session_id",
        resolve: call!(|home, key| value(session_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.artifacts().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.artifacts().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.artifacts().create(parse::<NewArtifact>(body)?).await?))),
    delete: Some(call!(|home, key| home.tenant.artifacts().delete(key.parse()?).await)),
};

pub(super) static CHECKPOINTS: Entity = entity! {
    name: "checkpoints",
    one: "checkpoint",
    about: "Checkpoints: what a run of an agent needs to go on",
    columns: &["id", "session_id", "namespace", "parent_id", "created_at"],
    fields: &[
        text("session_id", "The session it belongs to"),
        text("namespace", "The part of the run"),
        text("parent_id", "The checkpoint before it"),
        json("channel_values", "The state, any JSON"),
        json("pending_writes", "What is not yet applied, a JSON array"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "SESSION",
        field: "session_id",
        resolve: call!(|home, key| value(session_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.checkpoints().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.checkpoints().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.checkpoints().put(parse::<NewCheckpoint>(body)?).await?))),
    delete: Some(call!(|home, key| home.tenant.checkpoints().delete(key.parse()?).await)),
};

pub(super) static RUNS: Entity = entity! {
    name: "runs",
    one: "run",
    about: "Runs: answers of agents in sessions, and who is at them",
    columns: &["id", "session_id", "agent_id", "status", "owner", "lease_until", "created_at"],
    scope: Some(Scope {
        argument: "SESSION",
        field: "session_id",
        resolve: call!(|home, key| value(session_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.runs().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.runs().get(key.parse()?).await?))),
};
