//! The versions of agents.

use agentkeep_core::{AgentId, AgentPatch, AgentVersion, Error, ListRequest, NewAgent, VersionNote};

use super::{
    Home,
    agents::full,
    fixtures::{object, race},
};

async fn versions(home: &Home, agent: AgentId) -> Vec<AgentVersion> {
    let request = ListRequest::new().filter("agent_id", agent).limit(1000);
    home.tenant.agent_versions().list(&request).await.expect("listed").items
}

fn model(model: &str) -> AgentPatch {
    AgentPatch { model: Some(Some(model.into())), ..AgentPatch::default() }
}

/// What makes a version, and who and why is kept with it.
pub async fn every_change_of_an_agent_makes_a_version_and_nothing_else_does(home: &Home) {
    let agents = home.tenant.agents();
    let ada = agents.create(full("ada")).await.expect("created");
    agents.increment_run_id(ada.id).await.expect("counted");
    agents.record_use(ada.id).await.expect("counted");
    agents.update(ada.id, AgentPatch::default()).await.expect("nothing to do");
    agents.update(ada.id, model("gpt-4o-mini")).await.expect("nothing to do");
    agents.upsert(full("ada")).await.expect("nothing to do");
    assert_eq!(versions(home, ada.id).await.len(), 1);

    let by = |author: &str| Some(author.to_owned());
    let patch = AgentPatch { author: by("bob"), note: Some("a\0note".into()), ..model("m2") };
    agents.update(ada.id, patch).await.expect("changed");
    agents.upsert(NewAgent { author: by("cid"), ..NewAgent::new("ada") }).await.expect("changed");
    agents.soft_delete(ada.id, &VersionNote::new("dan", "tidy")).await.expect("deleted");
    let last = agents.restore(ada.id, &VersionNote::new("eve", "oops")).await.expect("restored");

    let kept = versions(home, ada.id).await;
    let told: Vec<_> = kept.iter().map(|v| (v.number, v.author.as_deref(), v.note.as_deref())).collect();
    let expected = [
        (5, Some("eve"), Some("oops")),
        (4, Some("dan"), Some("tidy")),
        (3, Some("cid"), None),
        (2, Some("bob"), Some("a\0note")),
        (1, Some("ann"), Some("first")),
    ];
    assert_eq!(told, expected);
    assert_eq!(last.version, 5);
    assert_eq!(kept[0].snapshot, last.snapshot());
    assert_eq!(kept[4].snapshot, ada.snapshot());
    assert_eq!(kept[4].snapshot.persona, ada.persona);
    assert!(kept[1].snapshot.deleted_at.is_some() && !kept[1].snapshot.active);
    let second = home.tenant.agent_versions().get(ada.id, 2).await.expect("read").expect("there");
    assert_eq!((second.snapshot.model.as_deref(), &second), (Some("m2"), &kept[3]));
    assert_eq!(home.tenant.agent_versions().get(ada.id, 6).await.expect("read"), None);
    assert_eq!(home.other.agent_versions().get(ada.id, 1).await.expect("read"), None);
}

/// Updates under contention.
pub async fn racing_changes_make_distinct_versions_and_lose_nothing(home: &Home) {
    let ada = home.tenant.agents().create(NewAgent::new("ada")).await.expect("created");
    let id = ada.id;
    let changed = race(&home.tenant, 24, move |tenant, index| async move {
        let config = Some(object(&format!(r#"{{"racer{index}":{index}}}"#)));
        tenant.agents().update(id, AgentPatch { config, ..AgentPatch::default() }).await.expect("changed").version
    });
    let mut numbers = changed.await;
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=25).collect::<Vec<i64>>());
    let ada = home.tenant.agents().get(ada.id).await.expect("read").expect("there");
    assert_eq!(ada.config.to_value().as_object().map(serde_json::Map::len), Some(24));
    let kept = versions(home, ada.id).await;
    assert_eq!(kept.iter().map(|v| v.number).collect::<Vec<_>>(), (1..=25).rev().collect::<Vec<i64>>());
    assert_eq!(kept[0].snapshot, ada.snapshot());
}

/// An update that expects a version.
pub async fn a_stale_version_is_told_and_nothing_changes(home: &Home) {
    let agents = home.tenant.agents();
    let ada = agents.create(NewAgent::new("ada")).await.expect("created");
    let expecting = |version| AgentPatch { version: Some(version), ..model(&format!("m{version}")) };
    let changed = agents.update(ada.id, expecting(1)).await.expect("changed");
    match agents.update(ada.id, expecting(1)).await {
        Err(Error::StaleRevision { entity: "agent", expected: 1, current: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(agents.get(ada.id).await.expect("read"), Some(changed));
}

/// What differs.
pub async fn versions_are_compared_by_field(home: &Home) {
    let (agents, versions) = (home.tenant.agents(), home.tenant.agent_versions());
    let ada = agents.create(full("ada")).await.expect("created");
    let patch = AgentPatch { config: Some(object(r#"{"temperature":0.9}"#)), ..model("m2") };
    agents.update(ada.id, patch).await.expect("changed");
    let mut told: Vec<_> = versions
        .diff(ada.id, 1, 2)
        .await
        .expect("compared")
        .into_iter()
        .map(|d| (d.field, d.before.to_value(), d.after.to_value()))
        .collect();
    told.sort_by(|left, right| left.0.cmp(&right.0));
    let config = |text: &str| object(text).to_value();
    let expected = [
        (
            "config".to_owned(),
            config(r#"{"temperature":0.70,"nested":{"a":1,"b":"\u0000"}}"#),
            config(r#"{"temperature":0.9,"nested":{"a":1,"b":"\u0000"}}"#),
        ),
        ("model".to_owned(), "gpt-4o-mini".into(), "m2".into()),
    ];
    assert_eq!(told, expected);
    assert_eq!(versions.diff(ada.id, 2, 2).await.expect("compared"), []);
    for (from, to) in [(1, 3), (3, 1)] {
        match versions.diff(ada.id, from, to).await {
            Err(Error::NotFound { entity: "agent version", key }) => assert_eq!(key, "3 of agent 1"),
            other => panic!("{other:?}"),
        }
    }
}

/// Going back.
pub async fn a_version_is_restored_as_a_new_one(home: &Home) {
    let (agents, versions) = (home.tenant.agents(), home.tenant.agent_versions());
    let ada = agents.create(full("ada")).await.expect("created");
    agents.increment_run_id(ada.id).await.expect("counted");
    agents.update(ada.id, AgentPatch { name: Some("eve".into()), ..model("m2") }).await.expect("changed");
    agents.soft_delete(ada.id, &VersionNote::default()).await.expect("deleted");
    let note = VersionNote::new("ann", "as it was");
    let back = versions.restore(ada.id, 1, &note).await.expect("restored");
    assert_eq!(back.snapshot(), ada.snapshot());
    assert_eq!((back.version, back.run_id, back.created_at), (4, 1, ada.created_at));
    let newest = versions.get(ada.id, 4).await.expect("read").expect("there");
    assert_eq!((newest.author.as_deref(), newest.note.as_deref()), (Some("ann"), Some("as it was")));
    assert_eq!(versions.restore(ada.id, 4, &note).await.expect("nothing to do").version, 4);
    let outcome = versions.restore(ada.id, 9, &note).await;
    assert!(matches!(outcome, Err(Error::NotFound { entity: "agent version", .. })), "{outcome:?}");
    let outcome = home.other.agent_versions().restore(ada.id, 1, &note).await;
    assert!(matches!(outcome, Err(Error::NotFound { entity: "agent version", .. })), "{outcome:?}");
}

/// Going back to a name that another agent has by now.
pub async fn a_version_is_not_restored_over_a_taken_name(home: &Home) {
    let agents = home.tenant.agents();
    let ada = agents.create(NewAgent::new("ada")).await.expect("created");
    let eve = AgentPatch { name: Some("eve".into()), ..AgentPatch::default() };
    let eve = agents.update(ada.id, eve).await.expect("renamed");
    agents.create(NewAgent::new("ada")).await.expect("created");
    let outcome = home.tenant.agent_versions().restore(ada.id, 1, &VersionNote::default()).await;
    assert!(matches!(outcome, Err(Error::AlreadyExists { entity: "agent", .. })), "{outcome:?}");
    assert_eq!(agents.get(eve.id).await.expect("read"), Some(eve));
}
