//! Agents.

use std::collections::BTreeSet;

use agentkeep_core::{
    Agent, AgentId, AgentPatch, Direction, Error, FilterOperator, ListRequest, NewAgent, NewMcpServer, NewMemory,
    NewPrompt, NewSession, NewTeamMember, Persona, Result, VersionNote,
};

use super::{
    Home,
    fixtures::{array, message, object, race, team},
};
use crate::TenantStore;

fn names(agents: &[Agent]) -> Vec<&str> {
    agents.iter().map(|agent| agent.name.as_str()).collect()
}

/// An agent with a value in every field.
pub(super) fn full(name: &str) -> NewAgent {
    let persona = r#"{"name":"Ada","description":"helps","personality":"dry\u0000","expertise":["tax","law"],"voice":{"pitch":1.10}}"#;
    let persona: Persona = serde_json::from_str(persona).expect("a persona");
    NewAgent {
        kind: Some("SequentialAgent".into()),
        model: Some("gpt-4o-mini".into()),
        description: Some("Helps customers\0".into()),
        config: object(r#"{"temperature":0.70,"nested":{"a":1,"b":"\u0000"}}"#),
        persona,
        tools: array(r#"["google_search",{"name":"calculator"}]"#),
        sub_agents: array("[1,2]"),
        planner: Some("plan-re-act".into()),
        metadata: object(r#"{"team":"support"}"#),
        author: Some("ann".into()),
        note: Some("first".into()),
        ..NewAgent::new(name)
    }
}

fn assert_missing<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(Error::NotFound { entity: "agent", .. })), "{outcome:?}");
}

fn assert_taken<T: std::fmt::Debug>(outcome: Result<T>, name: &str) {
    match outcome {
        Err(Error::AlreadyExists { entity: "agent", field, value }) => {
            assert_eq!((field.as_str(), value), ("name", format!("{name:?}")));
        }
        other => panic!("{other:?}"),
    }
}

/// The life of an agent.
pub async fn an_agent_is_created_read_changed_and_deleted(home: &Home) {
    let agents = home.tenant.agents();
    let created = agents.create(full("ada")).await.expect("created");
    assert_eq!((created.kind.as_str(), created.description.as_deref()), ("SequentialAgent", Some("Helps customers\0")));
    assert_eq!((&created.config, &created.tools), (&full("ada").config, &full("ada").tools));
    assert_eq!(created.persona, full("ada").persona);
    assert_eq!((created.version, created.run_id, created.usage_count, created.active), (1, 0, 0, true));
    assert_eq!((created.last_used_at, created.deleted_at), (None, None));
    assert_eq!(agents.get(created.id).await.expect("read"), Some(created.clone()));
    assert_eq!(agents.get_by_name("ada").await.expect("read"), Some(created.clone()));
    assert_eq!(agents.get_by_name("Ada").await.expect("read"), None);

    let patch = AgentPatch {
        model: Some(None),
        config: Some(object(r#"{"temperature":null,"nested":{"a":2}}"#)),
        persona: Some(object(r#"{"personality":"warm","expertise":["tax"],"voice":{"speed":2}}"#)),
        tools: Some(array("[]")),
        active: Some(false),
        ..AgentPatch::default()
    };
    let changed = agents.update(created.id, patch).await.expect("changed");
    assert_eq!((changed.model.as_deref(), changed.active, changed.version), (None, false, 2));
    assert_eq!(changed.config, object(r#"{"nested":{"a":2,"b":"\u0000"}}"#));
    assert_eq!(
        (changed.persona.personality.as_deref(), &changed.persona.expertise),
        (Some("warm"), &vec!["tax".into()])
    );
    assert_eq!(
        changed.persona.extra["voice"],
        serde_json::from_str::<serde_json::Value>(r#"{"pitch":1.10,"speed":2}"#).expect("json")
    );
    assert_eq!((changed.tools.as_str(), changed.planner.as_deref()), ("[]", Some("plan-re-act")));
    assert!(changed.updated_at >= created.updated_at);
    assert_eq!(agents.get(created.id).await.expect("read"), Some(changed));

    agents.delete(created.id).await.expect("deleted");
    assert_eq!(agents.get(created.id).await.expect("read"), None);
    let versions = ListRequest::new().filter("agent_id", created.id);
    assert_eq!(home.tenant.agent_versions().list(&versions).await.expect("listed").items, []);
    assert_missing(agents.delete(created.id).await);
    assert_missing(agents.update(created.id, AgentPatch::default()).await);
    assert_missing(agents.soft_delete(created.id, &VersionNote::default()).await);
    assert_missing(agents.restore(created.id, &VersionNote::default()).await);
    assert_missing(agents.increment_run_id(created.id).await);
    assert_missing(agents.record_use(created.id).await);
}

/// Ids come from the tenant's counter.
pub async fn ids_are_serial_in_each_tenant_and_never_given_again(home: &Home) {
    let agents = home.tenant.agents();
    for number in 1..=3 {
        assert_eq!(agents.create(NewAgent::new(format!("a{number}"))).await.expect("created").id, AgentId(number));
    }
    agents.delete(AgentId(3)).await.expect("deleted");
    assert_eq!(agents.create(NewAgent::new("a4")).await.expect("created").id, AgentId(4));
    assert_eq!(home.other.agents().create(NewAgent::new("a1")).await.expect("created").id, AgentId(1));
}

/// A duplicate on create and on update.
pub async fn a_taken_name_is_told_and_nothing_changes(home: &Home) {
    let agents = home.tenant.agents();
    agents.create(full("ada")).await.expect("created");
    let bob = agents.create(full("bob")).await.expect("created");
    assert_taken(agents.create(NewAgent::new("ada")).await, "ada");
    let patch = AgentPatch { name: Some("ada".into()), planner: Some(None), ..AgentPatch::default() };
    assert_taken(agents.update(bob.id, patch).await, "ada");
    assert_eq!(agents.get(bob.id).await.expect("read"), Some(bob.clone()));
    let versions = ListRequest::new().filter("agent_id", bob.id);
    assert_eq!(home.tenant.agent_versions().list(&versions).await.expect("listed").items.len(), 1);
    let taken_inside = home
        .tenant
        .transaction(|tenant| async move {
            assert_taken(tenant.agents().create(NewAgent::new("ada")).await, "ada");
            tenant.agents().create(NewAgent::new("cid")).await
        })
        .await;
    let cid = taken_inside.expect("a transaction goes on after a refused part").id;
    assert_eq!(agents.get(cid).await.expect("read").expect("there").name, "cid");
}

/// What breaks a rule.
pub async fn bad_agents_are_refused_by_field(home: &Home) {
    let agents = home.tenant.agents();
    let long = "x".repeat(1025);
    let refused = [
        ("name", NewAgent::new(" ")),
        ("name", NewAgent::new(long.clone())),
        ("type", NewAgent { kind: Some(String::new()), ..NewAgent::new("a") }),
        ("model", NewAgent { model: Some(long.clone()), ..NewAgent::new("a") }),
        ("planner", NewAgent { planner: Some(String::new()), ..NewAgent::new("a") }),
        ("description", NewAgent { description: Some("x".repeat(16 * 1024 * 1024 + 1)), ..NewAgent::new("a") }),
        ("author", NewAgent { author: Some(String::new()), ..NewAgent::new("a") }),
    ];
    for (wanted, new) in refused {
        for outcome in [agents.create(new.clone()).await, agents.upsert(new).await] {
            assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
        }
    }
    let ada = agents.create(full("ada")).await.expect("created");
    let refused = [
        ("name", AgentPatch { name: Some(String::new()), ..AgentPatch::default() }),
        ("persona", AgentPatch { persona: Some(object(r#"{"expertise":3}"#)), ..AgentPatch::default() }),
        ("author", AgentPatch { author: Some(long), ..AgentPatch::default() }),
    ];
    for (wanted, patch) in refused {
        let outcome = agents.update(ada.id, patch).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    assert_eq!(agents.list(&ListRequest::new()).await.expect("listed").items, [ada]);
    let injected = "'; DROP TABLE agents; --";
    assert_eq!(agents.create(NewAgent::new(injected)).await.expect("created").name, injected);
}

/// System A's create.
pub async fn an_upsert_creates_or_changes_and_says_what_was_given(home: &Home) {
    let agents = home.tenant.agents();
    let created = agents.upsert(full("ada")).await.expect("created");
    assert_eq!((created.version, created.id), (1, AgentId(1)));
    agents.record_use(created.id).await.expect("counted");
    let same = agents.upsert(NewAgent { note: Some("again".into()), ..full("ada") }).await.expect("found");
    assert_eq!((same.version, same.id, same.usage_count), (1, created.id, 1));
    let other = agents.upsert(NewAgent::new("ada")).await.expect("changed");
    assert_eq!((other.version, other.id, other.usage_count), (2, created.id, 1));
    assert_eq!((other.kind.as_str(), other.model, other.persona), ("simple", None, Persona::default()));
    // The database may spell a number in another way; that is no difference.
    let spelled = |number: &str| NewAgent { config: object(&format!(r#"{{"t":{number}}}"#)), ..NewAgent::new("ada") };
    assert_eq!(agents.upsert(spelled("1e-05")).await.expect("changed").version, 3);
    assert_eq!(agents.upsert(spelled("1e-05")).await.expect("found").version, 3);
    assert_eq!(agents.upsert(spelled("1e-06")).await.expect("changed").version, 4);
}

/// Upsert under contention.
pub async fn racing_upserts_of_one_name_make_one_agent(home: &Home) {
    let upserted = race(&home.tenant, 32, |tenant, index| async move {
        let new = NewAgent { model: Some(format!("m{}", index % 4)), ..NewAgent::new("ada") };
        tenant.agents().upsert(new).await.expect("upserted").id
    });
    let ids: BTreeSet<AgentId> = upserted.await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    let all = home.tenant.agents().list(&ListRequest::new().with_total()).await.expect("listed");
    assert_eq!((all.items.len(), all.total), (1, Some(1)));
    let versions = home.tenant.agent_versions().list(&ListRequest::new()).await.expect("listed").items;
    let numbers: Vec<_> = versions.iter().rev().map(|version| version.number).collect();
    assert_eq!(numbers, (1..=all.items[0].version).collect::<Vec<_>>());
}

/// Create under contention: one wins, the others are told.
pub async fn racing_creates_of_one_name_make_one_agent(home: &Home) {
    let mut made = 0;
    let create = |tenant: TenantStore, _| async move { tenant.agents().create(NewAgent::new("ada")).await };
    for outcome in race(&home.tenant, 16, create).await {
        match outcome {
            Ok(_) => made += 1,
            other => assert_taken(other, "ada"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(home.tenant.agent_versions().list(&ListRequest::new()).await.expect("listed").items.len(), 1);
}

/// System D's delete.
pub async fn a_soft_deleted_agent_is_hidden_and_its_name_is_free(home: &Home) {
    let agents = home.tenant.agents();
    let ada = agents.create(full("ada")).await.expect("created");
    let bob = agents.create(full("bob")).await.expect("created");
    let new = NewSession { agent_id: Some(ada.id), name: Some("talk".into()), ..NewSession::default() };
    let talk = home.tenant.sessions().create(new).await.expect("created");

    let note = VersionNote::new("ann", "not needed");
    let gone = agents.soft_delete(ada.id, &note).await.expect("deleted");
    assert_eq!((gone.active, gone.version), (false, 2));
    assert!(gone.deleted_at.is_some_and(|at| at >= ada.created_at && at <= gone.updated_at));
    assert_eq!(agents.get_by_name("ada").await.expect("read"), None);
    assert_eq!(agents.list(&ListRequest::new().with_total()).await.expect("listed").total, Some(1));
    assert_eq!(agents.get(ada.id).await.expect("read"), Some(gone.clone()));
    let since = ListRequest::new().filter_by("deleted_at", FilterOperator::GreaterOrEqual, ada.created_at);
    assert_eq!(agents.list(&since).await.expect("listed").items, std::slice::from_ref(&gone));
    let living = ListRequest::new().filter("deleted_at", None::<&str>);
    assert_eq!(agents.list(&living).await.expect("listed").items, std::slice::from_ref(&bob));
    assert_eq!(agents.list_with_deleted(&ListRequest::new()).await.expect("listed").items, [gone, bob]);

    assert_missing(agents.soft_delete(ada.id, &note).await);
    assert_missing(agents.update(ada.id, AgentPatch { active: Some(true), ..AgentPatch::default() }).await);
    assert_missing(agents.increment_run_id(ada.id).await);
    assert_missing(agents.record_use(ada.id).await);
    let theirs = ListRequest::new().filter("agent_id", ada.id);
    assert_eq!(home.tenant.sessions().list(&theirs).await.expect("listed").items, [talk]);

    let second = agents.create(NewAgent::new("ada")).await.expect("the name is free");
    assert_ne!(second.id, ada.id);
    assert_eq!(agents.get_by_name("ada").await.expect("read"), Some(second.clone()));
    agents.soft_delete(second.id, &note).await.expect("two of one name may be deleted");
    let third = agents.upsert(NewAgent::new("ada")).await.expect("the name is free");
    assert_eq!((third.id, third.version), (AgentId(4), 1));
    agents.delete(ada.id).await.expect("deleted for good");
    assert_eq!(agents.get(ada.id).await.expect("read"), None);
}

/// Undoing a soft delete.
pub async fn a_soft_deleted_agent_comes_back_unless_its_name_is_taken(home: &Home) {
    let agents = home.tenant.agents();
    let note = VersionNote::default();
    let ada = agents.create(full("ada")).await.expect("created");
    let gone = agents.soft_delete(ada.id, &note).await.expect("deleted");
    let second = agents.create(NewAgent::new("ada")).await.expect("created");
    assert_taken(agents.restore(ada.id, &note).await, "ada");
    assert_eq!(agents.get(ada.id).await.expect("read"), Some(gone));
    let patch = AgentPatch { name: Some("eve".into()), active: Some(false), ..AgentPatch::default() };
    let second = agents.update(second.id, patch).await.expect("renamed");
    let back = agents.restore(ada.id, &note).await.expect("restored");
    assert_eq!((back.version, back.active, back.deleted_at), (3, true, None));
    assert_eq!(agents.get_by_name("ada").await.expect("read"), Some(back));
    assert_eq!(agents.restore(second.id, &note).await.expect("nothing to do"), second);
}

/// Counters under contention: 64 callers.
pub async fn racing_runs_and_uses_are_all_counted(home: &Home) {
    let ada = home.tenant.agents().create(NewAgent::new("ada")).await.expect("created");
    let id = ada.id;
    let counted = race(&home.tenant, 64, move |tenant, _| async move {
        let run = tenant.agents().increment_run_id(id).await.expect("counted");
        let patch = AgentPatch { description: Some(Some(format!("run {run}"))), ..AgentPatch::default() };
        tenant.agents().update(id, patch).await.expect("changed");
        (run, tenant.agents().record_use(id).await.expect("counted"))
    });
    let (mut runs, mut uses): (Vec<i64>, Vec<i64>) = counted.await.into_iter().unzip();
    runs.sort_unstable();
    uses.sort_unstable();
    let expected: Vec<i64> = (1..=64).collect();
    assert_eq!((&runs, &uses), (&expected, &expected));
    let ada = home.tenant.agents().get(ada.id).await.expect("read").expect("there");
    assert_eq!((ada.run_id, ada.usage_count, ada.version), (64, 64, 65));
    assert!(ada.last_used_at.is_some_and(|used| used >= ada.created_at));
}

/// System A's `link_session_to_agent`.
pub async fn a_session_is_linked_to_an_agent_and_outlives_it(home: &Home) {
    let agents = home.tenant.agents();
    let ada = agents.create(NewAgent::new("ada")).await.expect("created");
    let talk = home.tenant.sessions().create(NewSession::default()).await.expect("created");
    let linked = agents.link_session(ada.id, talk.id).await.expect("linked");
    assert_eq!((linked.agent_id, linked.revision), (Some(ada.id), 2));
    let outcome = agents.link_session(AgentId(99), talk.id).await;
    assert!(
        matches!(&outcome, Err(Error::MissingReference { field, entity: "agent", .. }) if field == "agent_id"),
        "{outcome:?}"
    );
    let nobody = home.other.sessions().create(NewSession::default()).await.expect("created");
    let outcome = agents.link_session(ada.id, nobody.id).await;
    assert!(matches!(outcome, Err(Error::NotFound { entity: "session", .. })), "{outcome:?}");
    agents.delete(ada.id).await.expect("deleted");
    assert_eq!(home.tenant.sessions().get(talk.id).await.expect("read"), Some(linked));
}

/// What goes with an agent, and what stays.
pub async fn a_deleted_agent_takes_what_is_its_own(home: &Home) {
    let tenant = &home.tenant;
    let ada = tenant.agents().create(NewAgent::new("ada")).await.expect("created").id;
    let memory = NewMemory { agent_id: Some(ada), ..NewMemory::new("taste", "sweet") };
    let memory = tenant.memories().create(memory).await.expect("created").id;
    let prompt = NewPrompt { agent_id: Some(ada), ..NewPrompt::new("greeting", "Hello") };
    let prompt = tenant.prompts().create(prompt).await.expect("created").id;
    let server = tenant.mcp_servers().create(NewMcpServer::stdio("search", ["npx"])).await.expect("created").id;
    tenant.agent_mcp_servers().assign(ada, server, true, None).await.expect("assigned");
    let team = team(tenant).await;
    tenant.team_members().add(team, NewTeamMember::new(ada), None).await.expect("joined");
    let new = NewSession { agent_id: Some(ada), ..NewSession::default() };
    let talk = tenant.sessions().create(new).await.expect("created").id;
    let said = message(tenant, talk).await;

    tenant.agents().delete(ada).await.expect("deleted");
    assert_eq!(tenant.memories().get(memory).await.expect("read"), None);
    assert_eq!(tenant.prompts().get(prompt).await.expect("read"), None);
    assert_eq!(tenant.agent_mcp_servers().get(ada, server).await.expect("read"), None);
    assert_eq!(tenant.team_members().of_team(team).await.expect("listed"), []);
    assert_eq!(tenant.agent_versions().list(&ListRequest::new()).await.expect("listed").items, []);
    assert!(tenant.mcp_servers().get(server).await.expect("read").is_some());
    assert!(tenant.messages().get(said).await.expect("read").is_some());
    assert_eq!(tenant.sessions().get(talk).await.expect("read").and_then(|talk| talk.agent_id), Some(ada));
}

/// What lists of agents can do.
pub async fn agents_are_filtered_and_ordered(home: &Home) {
    let agents = home.tenant.agents();
    for (name, active) in [("cid", true), ("ada", false), ("bob", true)] {
        let metadata = object(&format!(r#"{{"first":"{}"}}"#, &name[..1]));
        let new = NewAgent { active: Some(active), metadata, ..NewAgent::new(name) };
        agents.create(new).await.expect("created");
    }
    let active = agents.list(&ListRequest::new().filter("active", true)).await.expect("listed");
    assert_eq!(names(&active.items), ["cid", "bob"]);
    let by_name = ListRequest::new().order_by("name", Direction::Ascending).limit(2);
    let first = agents.list(&by_name).await.expect("listed");
    assert_eq!(names(&first.items), ["ada", "bob"]);
    let rest = agents.list(&by_name.after(first.next.expect("more"))).await.expect("listed");
    assert_eq!((names(&rest.items), rest.next), (vec!["cid"], None));
    let like = ListRequest::new().filter_by("name", FilterOperator::Like, "%b%");
    assert_eq!(names(&agents.list(&like).await.expect("listed").items), ["bob"]);
    let path = ListRequest::new().filter("metadata.first", "a");
    assert_eq!(names(&agents.list(&path).await.expect("listed").items), ["ada"]);
    let first = agents.list(&ListRequest::new().limit(1)).await.expect("listed");
    let rest = agents.list(&ListRequest::new().after(first.next.expect("more"))).await.expect("listed");
    assert_eq!(names(&rest.items), ["ada", "bob"]);
    assert!(matches!(agents.list(&ListRequest::new().filter("tools", "x")).await, Err(Error::Invalid { .. })));
}

/// Stamps move with every change of the agent and of its active prompt of that name, and with nothing else.
pub async fn what_was_made_of_an_agent_holds_until_it_or_its_prompt_changes(home: &Home) {
    let (agents, prompts) = (home.tenant.agents(), home.tenant.prompts());
    let (ada, bob) =
        (agents.create(full("ada")).await.expect("created"), agents.create(full("bob")).await.expect("created"));
    let stamps = async |ids: &[AgentId]| home.tenant.agents().stamps(ids, "system").await.expect("read");
    let first = stamps(&[ada.id]).await;
    assert_eq!(first[0].map(|stamp| (stamp.id, stamp.version, stamp.active_prompt)), Some((ada.id, 1, None)));
    agents.record_use(ada.id).await.expect("counted");
    for (agent, name, active) in [(ada.id, "system", false), (ada.id, "other", true), (bob.id, "system", true)] {
        let new = NewPrompt { agent_id: Some(agent), active, ..NewPrompt::new(name, "x") };
        prompts.create(new).await.expect("created");
    }
    assert_eq!(stamps(&[ada.id]).await, first);
    let new = NewPrompt { agent_id: Some(ada.id), active: true, ..NewPrompt::new("system", "x") };
    let prompt = prompts.create(new).await.expect("created");
    assert_eq!(stamps(&[ada.id]).await[0].and_then(|stamp| stamp.active_prompt), Some(prompt.id));
    let patch = AgentPatch { active: Some(false), ..AgentPatch::default() };
    agents.update(ada.id, patch).await.expect("changed");
    assert_eq!(stamps(&[ada.id]).await[0].map(|stamp| stamp.version), Some(2));

    let many = stamps(&[bob.id, AgentId(99), ada.id, bob.id]).await;
    assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(stamps(&[]).await, []);
    assert_eq!(home.other.agents().stamps(&[ada.id], "system").await.expect("read"), [None]);
    let outcome = agents.stamps(&[ada.id; 1001], "system").await;
    assert!(matches!(outcome, Err(Error::Invalid { field, .. }) if field == "ids"));
}

/// The same names and ids in two tenants.
pub async fn agents_of_two_tenants_do_not_meet(home: &Home) {
    let mine = home.tenant.agents().create(full("ada")).await.expect("created");
    home.tenant.agents().create(full("bob")).await.expect("created");
    let theirs = home.other.agents().create(NewAgent::new("ada")).await.expect("created");
    assert_eq!((mine.id, theirs.id), (AgentId(1), AgentId(1)));
    let others = home.other.agents();
    assert_eq!(others.get_by_name("bob").await.expect("read"), None);
    assert_missing(others.delete(AgentId(2)).await);
    assert_missing(others.increment_run_id(AgentId(2)).await);
    assert_missing(others.update(AgentId(2), AgentPatch::default()).await);
    assert_eq!(others.upsert(full("ada")).await.expect("changed").version, 2);
    others.soft_delete(theirs.id, &VersionNote::default()).await.expect("deleted");
    assert_eq!(home.tenant.agents().get(mine.id).await.expect("read"), Some(mine.clone()));
    assert_eq!(home.tenant.agent_versions().list(&ListRequest::new()).await.expect("listed").items.len(), 2);
    others.delete(theirs.id).await.expect("deleted");
    assert_eq!(home.tenant.agents().get_by_name("ada").await.expect("read"), Some(mine));
}
