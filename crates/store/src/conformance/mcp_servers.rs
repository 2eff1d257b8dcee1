//! MCP servers and their links to agents.

use agentkeep_core::{
    AgentId, AgentMcpServerPatch, Error, ListRequest, McpServerId, McpServerPatch, McpServerStatus, McpTransport,
    NewAgent, NewMcpServer, Result, SecretObject,
};

use super::{
    Home,
    fixtures::{object, race},
};

fn secret(text: &str) -> SecretObject {
    SecretObject::new(object(text))
}

fn search() -> NewMcpServer {
    NewMcpServer {
        env: secret(r#"{"TOKEN":"hunter2\u0000","REGION":"eu"}"#),
        metadata: object(r#"{"owner":"ann"}"#),
        ..NewMcpServer::stdio("search", ["npx", "-y", "search\0server"])
    }
}

fn assert_invalid<T: std::fmt::Debug>(outcome: Result<T>, wanted: &str) {
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
}

fn assert_missing<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
}

/// The life of an MCP server.
pub async fn an_mcp_server_is_created_read_changed_and_deleted(home: &Home) {
    let servers = home.tenant.mcp_servers();
    let created = servers.create(search()).await.expect("created");
    assert_eq!(created.command, ["npx", "-y", "search\0server"]);
    assert_eq!(
        (created.transport, created.status, created.enabled),
        (McpTransport::Stdio, McpServerStatus::Stopped, true)
    );
    assert_eq!(servers.get(created.id).await.expect("read"), Some(created.clone()));
    assert_eq!(servers.get_by_name("search").await.expect("read"), Some(created.clone()));
    assert_eq!(servers.get_by_name("find").await.expect("read"), None);

    let patch = McpServerPatch {
        env: Some(secret(r#"{"REGION":null,"DEBUG":"1"}"#)),
        status: Some(McpServerStatus::Error),
        last_error: Some(Some("exit code 1".into())),
        enabled: Some(false),
        ..McpServerPatch::default()
    };
    let changed = servers.update(created.id, patch).await.expect("changed");
    assert_eq!(changed.env, secret(r#"{"TOKEN":"hunter2\u0000","DEBUG":"1"}"#));
    assert_eq!((changed.status, changed.last_error.as_deref()), (McpServerStatus::Error, Some("exit code 1")));
    assert_eq!((&changed.command, &changed.metadata, changed.enabled), (&created.command, &created.metadata, false));
    assert_eq!(servers.update(created.id, McpServerPatch::default()).await.expect("nothing to do"), changed);

    let moved = servers.upsert(NewMcpServer::http("search", "https://example.org/mcp")).await.expect("changed");
    assert_eq!((moved.id, moved.transport, &moved.command), (created.id, McpTransport::Http, &Vec::new()));
    assert_eq!((&moved.env, moved.enabled), (&SecretObject::default(), true));
    assert_eq!((moved.status, moved.last_error.as_deref()), (McpServerStatus::Error, Some("exit code 1")));
    let failed = ListRequest::new().filter("status", "error").filter("transport", "http");
    assert_eq!(servers.list(&failed).await.expect("listed").items, [moved]);
    assert_invalid(servers.list(&ListRequest::new().filter("env.TOKEN", "hunter2")).await, "filter");

    servers.delete(created.id).await.expect("deleted");
    assert_eq!(servers.get(created.id).await.expect("read"), None);
    assert_missing(servers.delete(created.id).await);
    assert_missing(servers.update(created.id, McpServerPatch::default()).await);
}

/// Nothing but `reveal` shows a secret.
pub async fn secrets_are_kept_and_not_shown(home: &Home) {
    let new = NewMcpServer {
        headers: secret(r#"{"Authorization":"Bearer hunter2"}"#),
        ..NewMcpServer::http("search", "https://example.org/mcp")
    };
    let created = home.tenant.mcp_servers().create(new).await.expect("created");
    let read = home.tenant.mcp_servers().get(created.id).await.expect("read").expect("there");
    assert_eq!(read.headers.reveal(), &object(r#"{"Authorization":"Bearer hunter2"}"#));
    for shown in [format!("{read:?}"), serde_json::to_string(&read).expect("json")] {
        assert!(!shown.contains("hunter2") && shown.contains(r#"{"Authorization":"***"}"#), "{shown}");
    }
    let masked =
        McpServerPatch { headers: Some(SecretObject::new(read.headers.masked())), ..McpServerPatch::default() };
    assert_invalid(home.tenant.mcp_servers().update(created.id, masked).await, "headers.Authorization");
    assert_eq!(home.tenant.mcp_servers().get(created.id).await.expect("read"), Some(read));
}

/// What breaks a rule.
pub async fn bad_mcp_servers_are_refused_and_nothing_changes(home: &Home) {
    let servers = home.tenant.mcp_servers();
    let find = servers.create(NewMcpServer::http("find", "https://example.org/mcp")).await.expect("created");
    let search = servers.create(search()).await.expect("created");
    let nothing: [&str; 0] = [];
    for (wanted, new) in [
        ("name", NewMcpServer::stdio("", ["npx"])),
        ("command", NewMcpServer::stdio("a", nothing)),
        ("url", NewMcpServer { url: None, ..NewMcpServer::http("a", "") }),
        ("url", NewMcpServer::http("a", " ")),
        ("env.TOKEN", NewMcpServer { env: secret(r#"{"TOKEN":"***"}"#), ..NewMcpServer::stdio("a", ["npx"]) }),
    ] {
        assert_invalid(servers.create(new.clone()).await, wanted);
        assert_invalid(servers.upsert(new).await, wanted);
    }
    let patch = McpServerPatch::default;
    for (wanted, patch) in [
        ("name", McpServerPatch { name: Some(String::new()), ..patch() }),
        ("command", McpServerPatch { command: Some(Vec::new()), enabled: Some(false), ..patch() }),
        ("url", McpServerPatch { transport: Some(McpTransport::Sse), enabled: Some(false), ..patch() }),
    ] {
        assert_invalid(servers.update(search.id, patch).await, wanted);
    }
    let taken = McpServerPatch { name: Some("find".into()), enabled: Some(false), ..patch() };
    for outcome in [servers.create(NewMcpServer::stdio("find", ["npx"])).await, servers.update(search.id, taken).await]
    {
        match outcome {
            Err(Error::AlreadyExists { entity: "MCP server", field, value }) => {
                assert_eq!((field.as_str(), value.as_str()), ("name", "\"find\""));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_invalid("pigeon".parse::<McpTransport>(), "transport");
    assert_invalid("asleep".parse::<McpServerStatus>(), "status");
    assert_eq!(servers.list(&ListRequest::new()).await.expect("listed").items, [find, search]);
}

/// Upsert under contention.
pub async fn racing_upserts_of_one_mcp_server_make_one(home: &Home) {
    let upserted =
        race(
            &home.tenant,
            16,
            |tenant, _| async move { tenant.mcp_servers().upsert(search()).await.expect("upserted").id },
        );
    let mut ids = upserted.await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(home.tenant.mcp_servers().list(&ListRequest::new()).await.expect("listed").items.len(), 1);
}

/// The links of an agent.
pub async fn an_mcp_server_is_assigned_to_agents_and_taken_away(home: &Home) {
    let (agents, servers, links) = (home.tenant.agents(), home.tenant.mcp_servers(), home.tenant.agent_mcp_servers());
    let ada = agents.create(NewAgent::new("ada")).await.expect("created").id;
    let bob = agents.create(NewAgent::new("bob")).await.expect("created").id;
    let search = servers.create(search()).await.expect("created");
    let find = servers.create(NewMcpServer::http("find", "https://example.org/mcp")).await.expect("created");
    assert_eq!(links.list_by_agent(ada).await.expect("listed"), []);

    let first = links.assign(ada, search.id, true, None).await.expect("assigned");
    assert_eq!((first.enabled, &first.tools), (true, &None));
    let again = links.assign(ada, search.id, true, Some(vec!["web\0".into()])).await.expect("assigned");
    assert_eq!((again.tools.as_deref(), again.created_at), (Some(["web\0".to_owned()].as_slice()), first.created_at));
    links.assign(ada, find.id, false, Some(Vec::new())).await.expect("assigned");
    links.assign(bob, search.id, true, None).await.expect("assigned");
    let of_ada = links.list_by_agent(ada).await.expect("listed");
    assert_eq!(of_ada.iter().map(|it| it.server.name.as_str()).collect::<Vec<_>>(), ["find", "search"]);
    assert_eq!((&of_ada[1].server, &of_ada[1].link), (&search, &again));
    assert_eq!((of_ada[0].link.enabled, &of_ada[0].link.tools), (false, &Some(Vec::new())));

    let patch = AgentMcpServerPatch { enabled: Some(false), ..AgentMcpServerPatch::default() };
    let off = links.update(ada, search.id, patch).await.expect("changed");
    assert_eq!((off.enabled, &off.tools), (false, &again.tools));
    let patch = AgentMcpServerPatch { tools: Some(None), ..AgentMcpServerPatch::default() };
    let all = links.update(ada, search.id, patch).await.expect("changed");
    assert_eq!((all.enabled, &all.tools), (false, &None));
    assert_eq!(links.update(ada, search.id, AgentMcpServerPatch::default()).await.expect("nothing to do"), all);
    assert_eq!(links.get(ada, search.id).await.expect("read"), Some(all));
    let users = ListRequest::new().filter("mcp_server_id", search.id).limit(1);
    let page = links.list(&users).await.expect("listed");
    let rest = links.list(&users.after(page.next.expect("more"))).await.expect("listed");
    assert_eq!((page.items[0].agent_id, rest.items[0].agent_id, rest.next), (ada, bob, None));

    links.remove(ada, find.id).await.expect("removed");
    assert_missing(links.remove(ada, find.id).await);
    assert_missing(links.update(ada, find.id, AgentMcpServerPatch::default()).await);
    agents.delete(ada).await.expect("deleted");
    assert_missing(links.list_by_agent(ada).await);
    assert_eq!(servers.get(search.id).await.expect("read"), Some(search.clone()));
    servers.delete(search.id).await.expect("deleted");
    assert_eq!(links.list_by_agent(bob).await.expect("listed"), []);
}

/// A link whose agent or server does not exist.
pub async fn a_link_to_nothing_is_told(home: &Home) {
    let links = home.tenant.agent_mcp_servers();
    let ada = home.tenant.agents().create(NewAgent::new("ada")).await.expect("created").id;
    let search = home.tenant.mcp_servers().create(search()).await.expect("created").id;
    let nobody = McpServerId(uuid::Uuid::nil());
    for (agent, server, wanted) in [(AgentId(99), search, "agent_id"), (ada, nobody, "mcp_server_id")] {
        match links.assign(agent, server, true, None).await {
            Err(Error::MissingReference { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{other:?}"),
        }
    }
    assert_invalid(links.assign(ada, search, true, Some(vec!["a".into(), " ".into()])).await, "tools[1]");
    assert_missing(links.list_by_agent(AgentId(99)).await);
    assert_eq!(links.list(&ListRequest::new()).await.expect("listed").items, []);
}

/// The same names in two tenants.
pub async fn mcp_servers_of_two_tenants_do_not_meet(home: &Home) {
    let mine = home.tenant.mcp_servers().create(search()).await.expect("created");
    let theirs = home.other.mcp_servers().create(search()).await.expect("created");
    let ada = home.tenant.agents().create(NewAgent::new("ada")).await.expect("created").id;
    home.tenant.agent_mcp_servers().assign(ada, mine.id, true, None).await.expect("assigned");
    assert_eq!(home.other.agents().create(NewAgent::new("ada")).await.expect("created").id, ada);
    let (servers, links) = (home.other.mcp_servers(), home.other.agent_mcp_servers());
    assert_eq!(servers.get(mine.id).await.expect("read"), None);
    assert_missing(servers.delete(mine.id).await);
    assert_missing(servers.update(mine.id, McpServerPatch::default()).await);
    assert_missing(links.remove(ada, mine.id).await);
    assert_eq!(links.list_by_agent(ada).await.expect("listed"), []);
    let outcome = links.assign(ada, mine.id, true, None).await;
    assert!(matches!(outcome, Err(Error::MissingReference { .. })), "{outcome:?}");
    assert_eq!(servers.list(&ListRequest::new()).await.expect("listed").items, [theirs]);
    assert_eq!(home.tenant.agent_mcp_servers().list_by_agent(ada).await.expect("listed").len(), 1);
}
