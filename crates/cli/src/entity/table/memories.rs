//! What agents remember, and what they are told.

use agentkeep::core::{MemoryPatch, NewMemory, NewPrompt, PromptPatch};

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Scope,
    call::{agent_id, call, optional, page, parse, value},
};

pub(super) static MEMORIES: Entity = entity! {
    name: "memories",
    one: "memory",
    about: "Memories of agents: for all users, or for one",
    columns: &["id", "name", "agent_id", "user_id", "read_mode", "content", "expires_at", "updated_at"],
    fields: &[
        text("name", "Its name, unique for agent and user"),
        text("content", "What is remembered"),
        json("agent_id", "The agent that remembers"),
        text("user_id", "The user it is about; without one it is the agent's for all users"),
        text("session_id", "The session it comes from"),
        text("read_mode", "When the agent reads it"),
        text("access", "Who may change it"),
        text("expires_at", "When it is forgotten: 2025-03-01T12:00:00Z"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "AGENT",
        field: "agent_id",
        resolve: call!(|home, key| value(agent_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.memories().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.memories().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.memories().create(parse::<NewMemory>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.memories().upsert(parse::<NewMemory>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        value(home.tenant.memories().update(id, parse::<MemoryPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.memories().delete(key.parse()?).await)),
};

pub(super) static PROMPTS: Entity = entity! {
    name: "prompts",
    one: "prompt",
    about: "Versions of prompts: create makes the next one, activate chooses one",
    columns: &["id", "name", "agent_id", "version", "active", "text", "updated_at"],
    fields: &[
        text("name", "The prompt"),
        text("text", "What it says (create only)"),
        json("agent_id", "The agent it is for; without one it is for all"),
        json("active", "Whether the new version becomes the active one: true or false (create only)"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "AGENT",
        field: "agent_id",
        resolve: call!(|home, key| value(agent_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.prompts().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.prompts().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.prompts().create(parse::<NewPrompt>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        value(home.tenant.prompts().update(id, parse::<PromptPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.prompts().delete(key.parse()?).await)),
    actions: &[
        Action {
            name: "activate",
            about: "Make a version the active one; the one before is no longer",
            arguments: &[("ID", "The version of the prompt")],
            columns: &[],
            run: call!(|home, arguments| {
                value(home.tenant.prompts().activate(arguments[0].parse()?).await?).map(Answer::One)
            }),
        },
        Action {
            name: "deactivate",
            about: "Leave the prompt without an active version",
            arguments: &[("ID", "The version of the prompt")],
            columns: &[],
            run: call!(|home, arguments| {
                value(home.tenant.prompts().deactivate(arguments[0].parse()?).await?).map(Answer::One)
            }),
        },
    ],
};
