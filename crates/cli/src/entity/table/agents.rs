//! Agents with their versions, teams with their members, and the MCP servers that agents use.

use agentkeep::core::{
    AgentPatch, Error, McpServer, McpServerPatch, NewAgent, NewMcpServer, NewTeam, NewTeamMember, Page, Result,
    TeamPatch, VersionNote,
};
use serde_json::Value;

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Scope,
    call::{agent_id, call, mcp_server_id, optional, page, parse, team_id, value},
};

pub(super) static AGENTS: Entity = entity! {
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
    whole_number("number", text)
}

fn whole_number(field: &str, text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid(field, format!("{text:?} is no whole number")))
}

pub(super) static TEAMS: Entity = entity! {
    name: "teams",
    one: "team",
    about: "Teams of agents and their members",
    key: "ID-or-NAME",
    columns: &["id", "name", "mode", "active", "routing", "updated_at"],
    fields: &[
        text("name", "Its name, unique within the tenant"),
        text("mode", "How its members work together: route, coordinate or collaborate"),
        json("routing", "How work finds its agent, a JSON object"),
        json("active", "Whether it is in use: true or false"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.teams().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.teams().get(team_id(home, &key).await?).await?))),
    create: Some(call!(|home, body| value(home.tenant.teams().create(parse::<NewTeam>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.teams().upsert(parse::<NewTeam>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = team_id(home, &key).await?;
        value(home.tenant.teams().update(id, parse::<TeamPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.teams().delete(team_id(home, &key).await?).await)),
    parts: &[&TEAM_MEMBERS],
};

static TEAM_MEMBERS: Entity = entity! {
    name: "members",
    one: "member",
    about: "The members of teams, in their order",
    columns: &["position", "agent_id", "role", "team_id", "created_at"],
    scope: Some(Scope {
        argument: "TEAM",
        field: "team_id",
        resolve: call!(|home, key| value(team_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.team_members().list(&request).await?)),
    actions: &[
        Action {
            name: "add",
            about: "Make an agent the last member of a team",
            arguments: &[("TEAM", "Its id or name"), ("AGENT", "Its id or name"), ("[ROLE]", "What it does there")],
            columns: &[],
            run: call!(|home, arguments| {
                let team = team_id(home, &arguments[0]).await?;
                let agent_id = agent_id(home, &arguments[1]).await?;
                let member = NewTeamMember { agent_id, role: arguments.get(2).cloned() };
                value(home.tenant.team_members().add(team, member, None).await?).map(Answer::One)
            }),
        },
        Action {
            name: "move",
            about: "Move a member to a position, from 1; the others make room",
            arguments: &[("TEAM", "Its id or name"), ("AGENT", "Its id or name"), ("POSITION", "The position")],
            columns: &[],
            run: call!(|home, arguments| {
                let (team, agent) = (team_id(home, &arguments[0]).await?, agent_id(home, &arguments[1]).await?);
                let position = whole_number("position", &arguments[2])?;
                value(home.tenant.team_members().move_to(team, agent, position).await?).map(Answer::One)
            }),
        },
        Action {
            name: "remove",
            about: "Take an agent out of a team",
            arguments: &[("TEAM", "Its id or name"), ("AGENT", "Its id or name")],
            columns: &[],
            run: call!(|home, arguments| {
                let (team, agent) = (team_id(home, &arguments[0]).await?, agent_id(home, &arguments[1]).await?);
                home.tenant.team_members().remove(team, agent).await?;
                Ok(Answer::Done(format!("agent {agent} is no longer in team {team}")))
            }),
        },
    ],
};

pub(super) static MCP_SERVERS: Entity = entity! {
    name: "mcp-servers",
    one: "MCP server",
    about: "MCP servers and the agents that use them",
    key: "ID-or-NAME",
    columns: &["id", "name", "transport", "command", "url", "enabled", "status", "last_error"],
    fields: &[
        text("name", "Its name, unique within the tenant"),
        text("transport", "How it is reached: stdio, http or sse"),
        json("command", "The program and its arguments, a JSON array of text (stdio)"),
        text("url", "Its address (http and sse)"),
        json("env", "Variables of its environment, a JSON object; kept as secrets"),
        json("headers", "Headers of requests to it, a JSON object; kept as secrets"),
        json("enabled", "Whether it may be used: true or false"),
        text("status", "What it was last seen doing (update only)"),
        METADATA,
    ],
    secrets: &["env", "headers"],
    list: call!(|home, request| {
        let Page { items, next, total } = home.tenant.mcp_servers().list(&request).await?;
        let items = items.iter().map(revealed).collect::<Result<_>>()?;
        Ok(Page { items, next, total })
    }),
    get: Some(call!(|home, key| {
        let id = mcp_server_id(home, &key).await?;
        home.tenant.mcp_servers().get(id).await?.as_ref().map(revealed).transpose()
    })),
    create: Some(call!(|home, body| revealed(&home.tenant.mcp_servers().create(parse::<NewMcpServer>(body)?).await?))),
    upsert: Some(call!(|home, body| revealed(&home.tenant.mcp_servers().upsert(parse::<NewMcpServer>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = mcp_server_id(home, &key).await?;
        revealed(&home.tenant.mcp_servers().update(id, parse::<McpServerPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.mcp_servers().delete(mcp_server_id(home, &key).await?).await)),
    actions: &[
        Action {
            name: "assign",
            about: "Let an agent use a server: all of its tools, or only those that are listed",
            arguments: &[
                ("SERVER", "Its id or name"),
                ("AGENT", "Its id or name"),
                ("[TOOLS]", "The tools it may use, with commas between them"),
            ],
            columns: &[],
            run: call!(|home, arguments| {
                let server = mcp_server_id(home, &arguments[0]).await?;
                let agent = agent_id(home, &arguments[1]).await?;
                let tools = arguments.get(2).map(|tools| tools.split(',').map(|tool| tool.trim().to_owned()).collect());
                value(home.tenant.agent_mcp_servers().assign(agent, server, true, tools).await?).map(Answer::One)
            }),
        },
        Action {
            name: "unassign",
            about: "Take a server away from an agent",
            arguments: &[("SERVER", "Its id or name"), ("AGENT", "Its id or name")],
            columns: &[],
            run: call!(|home, arguments| {
                let server = mcp_server_id(home, &arguments[0]).await?;
                let agent = agent_id(home, &arguments[1]).await?;
                home.tenant.agent_mcp_servers().remove(agent, server).await?;
                Ok(Answer::Done(format!("agent {agent} no longer uses MCP server {server}")))
            }),
        },
        Action {
            name: "of-agent",
            about: "List the servers that an agent uses",
            arguments: &[("AGENT", "Its id or name")],
            columns: &["mcp_server_id", "name", "transport", "enabled", "tools"],
            run: call!(|home, arguments| {
                let agent = agent_id(home, &arguments[0]).await?;
                let servers = home.tenant.agent_mcp_servers().list_by_agent(agent).await?;
                servers.iter().map(|assigned| {
                    let mut item = value(&assigned.link)?;
                    item["name"] = Value::from(assigned.server.name.as_str());
                    item["transport"] = value(assigned.server.transport)?;
                    Ok(item)
                })
                .collect::<Result<_>>()
                .map(Answer::Many)
            }),
        },
    ],
};

/// A server with its secrets: they are hidden again unless they were asked for.
fn revealed(server: &McpServer) -> Result<Value> {
    let mut item = value(server)?;
    item["env"] = server.env.reveal().to_value();
    item["headers"] = server.headers.reveal().to_value();
    Ok(item)
}
