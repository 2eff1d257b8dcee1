//! The entities: what each shows, takes and calls.

use agentkeep::core::{
    AgentPatch, Error, MessageId, MessagePatch, NewAgent, NewMessage, NewSession, NewTenant, NewUser, Result,
    SessionPatch, TenantPatch, UserPatch, VersionNote,
};

use super::{
    Action, Answer, Entity, Field, Kind, Scope,
    call::{agent_id, call, optional, page, parse, session_id, take_text, tenant_id, user_id, value},
};

/// Every entity, in the order of the help.
pub static ENTITIES: &[&Entity] = &[&TENANTS, &USERS, &AGENTS, &SESSIONS, &MESSAGES];

const fn text(name: &'static str, help: &'static str) -> Field {
    Field { name, kind: Kind::Text, help }
}

const fn json(name: &'static str, help: &'static str) -> Field {
    Field { name, kind: Kind::Json, help }
}

const METADATA: Field = json("metadata", "A JSON object of your own; update merges it (RFC 7396)");

/// What most entities have not.
macro_rules! entity {
    ($($field:ident: $value:expr),* $(,)?) => {
        Entity {
            $($field: $value,)*
            ..Entity {
                name: "",
                one: "",
                about: "",
                key: "ID",
                columns: &[],
                fields: &[],
                secrets: &[],
                scope: None,
                list: call!(|_home, _request| Err(Error::Unsupported("this list".to_owned()))),
                get: None,
                create: None,
                update: None,
                upsert: None,
                delete: None,
                delete_warning: None,
                actions: &[],
                parts: &[],
            }
        }
    };
}

static TENANTS: Entity = entity! {
    name: "tenants",
    one: "tenant",
    about: "Tenants: nothing of one is seen by another",
    key: "ID-or-NAME",
    columns: &["id", "name", "metadata", "created_at"],
    fields: &[text("name", "Its name, unique in the database"), METADATA],
    list: call!(|home, request| page(home.store.tenants().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.store.tenants().get(tenant_id(home, &key).await?).await?))),
    create: Some(call!(|home, body| value(home.store.tenants().create(parse::<NewTenant>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = tenant_id(home, &key).await?;
        value(home.store.tenants().update(id, parse::<TenantPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.store.tenants().delete(tenant_id(home, &key).await?).await)),
    delete_warning: Some("everything that belongs to it"),
};

static USERS: Entity = entity! {
    name: "users",
    one: "user",
    about: "Users: the people, or systems, that talk to agents",
    key: "ID-or-EMAIL",
    columns: &["id", "name", "email", "phone_number", "created_at"],
    fields: &[
        text("name", "Name to show"),
        text("email", "E-mail address, unique within the tenant"),
        text("phone_number", "Phone number"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.users().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.users().get_by_identifier(&key).await?))),
    create: Some(call!(|home, body| value(home.tenant.users().create(parse::<NewUser>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.users().upsert(parse::<NewUser>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = user_id(home, &key).await?;
        value(home.tenant.users().update(id, parse::<UserPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.users().delete(user_id(home, &key).await?).await)),
};

static AGENTS: Entity = entity! {
    name: "agents",
    one: "agent",
    about: "Agents and their versions",
    key: "ID-or-NAME",
    columns: &["id", "name", "type", "model", "version", "active", "description", "updated_at"],
    fields: &[
        text("name", "Its name, unique within the tenant"),
        text("type", "What kind of agent it is"),
        text("model", "The model it runs on"),
        text("description", "What it is for"),
        json("active", "Whether it is in use: true or false"),
        json("config", "Its settings, a JSON object"),
        json("persona", "Who it appears to be: {\"name\":…,\"description\":…,\"personality\":…,\"expertise\":[…]}"),
        json("tools", "The tools it may use, a JSON array"),
        json("sub_agents", "The agents it hands work to, a JSON array"),
        text("planner", "How it plans its steps"),
        text("author", "Who makes this change, kept with the version"),
        text("note", "Why, kept with the version"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.agents().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.agents().get(agent_id(home, &key).await?).await?))),
    create: Some(call!(|home, body| value(home.tenant.agents().create(parse::<NewAgent>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.agents().upsert(parse::<NewAgent>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = agent_id(home, &key).await?;
        value(home.tenant.agents().update(id, parse::<AgentPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| {
        let id = agent_id(home, &key).await?;
        home.tenant.agents().soft_delete(id, &VersionNote::default()).await.map(|_| ())
    })),
    actions: &[
        Action {
            name: "restore",
            about: "Take the deletion of an agent back",
            arguments: &[("AGENT", "Its id")],
            columns: &[],
            run: call!(|home, arguments| {
                let id = agent_id(home, &arguments[0]).await?;
                value(home.tenant.agents().restore(id, &VersionNote::default()).await?).map(Answer::One)
            }),
        },
        Action {
            name: "remove",
            about: "Remove an agent for good, with its versions, memories and prompts (delete only hides it)",
            arguments: &[("AGENT", "Its id or name")],
            columns: &[],
            run: call!(|home, arguments| {
                let id = agent_id(home, &arguments[0]).await?;
                home.tenant.agents().delete(id).await?;
                Ok(Answer::Done(format!("removed agent {id}")))
            }),
        },
    ],
    parts: &[&AGENT_VERSIONS],
};

static AGENT_VERSIONS: Entity = entity! {
    name: "versions",
    one: "version",
    about: "The versions of agents: one for every change of one",
    columns: &["agent_id", "number", "author", "note", "created_at"],
    scope: Some(Scope {
        argument: "AGENT",
        field: "agent_id",
        resolve: call!(|home, key| value(agent_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.agent_versions().list(&request).await?)),
    actions: &[
        Action {
            name: "get",
            about: "Show an agent as it was",
            arguments: &[("AGENT", "Its id or name"), ("NUMBER", "The version")],
            columns: &[],
            run: call!(|home, arguments| {
                let (id, number) = (agent_id(home, &arguments[0]).await?, version(&arguments[1])?);
                let found = home.tenant.agent_versions().get(id, number).await?;
                value(found.ok_or_else(|| Error::not_found("version", number))?).map(Answer::One)
            }),
        },
        Action {
            name: "diff",
            about: "The fields that differ between two versions",
            arguments: &[("AGENT", "Its id or name"), ("FROM", "One version"), ("TO", "The other")],
            columns: &["field", "before", "after"],
            run: call!(|home, arguments| {
                let id = agent_id(home, &arguments[0]).await?;
                let (from, to) = (version(&arguments[1])?, version(&arguments[2])?);
                let differences = home.tenant.agent_versions().diff(id, from, to).await?;
                differences.into_iter().map(value).collect::<Result<_>>().map(Answer::Many)
            }),
        },
        Action {
            name: "restore",
            about: "Make an agent what it was; that is a new version",
            arguments: &[("AGENT", "Its id or name"), ("NUMBER", "The version")],
            columns: &[],
            run: call!(|home, arguments| {
                let (id, number) = (agent_id(home, &arguments[0]).await?, version(&arguments[1])?);
                let note = VersionNote { author: None, note: Some(format!("restored from version {number}")) };
                value(home.tenant.agent_versions().restore(id, number, &note).await?).map(Answer::One)
            }),
        },
    ],
};

fn version(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid("number", format!("{text:?} is no version number")))
}

static SESSIONS: Entity = entity! {
    name: "sessions",
    one: "session",
    about: "Sessions: conversations with an agent, a team or a workflow",
    key: "ID",
    columns: &["id", "name", "status", "platform", "message_count", "last_message_at", "created_at"],
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
    upsert: Some(call!(|home, body| value(home.tenant.sessions().get_or_create(parse::<NewSession>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = session_id(home, &key).await?;
        value(home.tenant.sessions().update(id, parse::<SessionPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.sessions().delete(session_id(home, &key).await?).await)),
    actions: &[Action {
        name: "finish",
        about: "Mark a session as finished",
        arguments: &[("ID", "The session")],
        columns: &[],
        run: call!(|home, arguments| {
            let id = session_id(home, &arguments[0]).await?;
            value(home.tenant.sessions().finish(id).await?).map(Answer::One)
        }),
    }],
};

static MESSAGES: Entity = entity! {
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
