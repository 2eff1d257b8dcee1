//! Prompts.

use std::{collections::HashSet, slice};

use agentkeep_core::{AgentId, Error, ListRequest, NewPrompt, Prompt, PromptId, PromptPatch, limits};

use super::{
    Home,
    fixtures::{agent, object, race},
};
use crate::TenantStore;

fn active(name: &str, text: &str) -> NewPrompt {
    NewPrompt { active: true, ..NewPrompt::new(name, text) }
}

async fn all(tenant: &TenantStore) -> Vec<Prompt> {
    tenant.prompts().list(&ListRequest::new()).await.expect("listed").items
}

/// The life of a prompt.
pub async fn versions_are_numbered_activated_and_read(home: &Home) {
    let prompts = home.tenant.prompts();
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), None);
    let first = prompts.create(active("greeting", "Hello\0")).await.expect("created");
    let second = prompts.create(NewPrompt::new("greeting", "Hi")).await.expect("created");
    assert_eq!((first.version, first.active, first.text.as_str()), (1, true, "Hello\0"));
    assert_eq!((second.version, second.active), (2, false));
    assert_eq!(prompts.get(second.id).await.expect("read"), Some(second.clone()));
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), Some(first.clone()));
    assert_eq!(prompts.get_by_version(None, "greeting", 2).await.expect("read"), Some(second.clone()));
    assert_eq!(prompts.get_by_version(None, "greeting", 3).await.expect("read"), None);

    let activated = prompts.activate(second.id).await.expect("activated");
    assert!(activated.active && activated.updated_at > second.updated_at);
    assert_eq!(prompts.activate(second.id).await.expect("activated"), activated, "once more changes nothing");
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), Some(activated));
    let third = prompts.create(active("greeting", "Hey")).await.expect("created");
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), Some(third.clone()));
    let off = prompts.deactivate(third.id).await.expect("deactivated");
    assert!(!off.active);
    assert_eq!(prompts.deactivate(third.id).await.expect("deactivated"), off);
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), None);

    let patch = PromptPatch { metadata: Some(object(r#"{"author":"Ann"}"#)) };
    let changed = prompts.update(third.id, patch).await.expect("changed");
    assert_eq!((changed.metadata, changed.text.as_str()), (object(r#"{"author":"Ann"}"#), "Hey"));
    prompts.delete(third.id).await.expect("deleted");
    let fourth = prompts.create(NewPrompt::new("greeting", "Yo")).await.expect("created");
    assert_eq!(fourth.version, 4, "the number of a deleted version is not given again");
}

/// Prompts of an agent and of none have their own versions.
pub async fn prompts_of_each_agent_are_counted_apart(home: &Home) {
    let prompts = home.tenant.prompts();
    let bot = agent(&home.tenant).await;
    let of_bot = || NewPrompt { agent_id: Some(bot), ..active("greeting", "beep") };
    prompts.create(active("greeting", "hello")).await.expect("created");
    prompts.create(active("farewell", "bye")).await.expect("created");
    let first = prompts.create(of_bot()).await.expect("created");
    let second = prompts.create(of_bot()).await.expect("created");
    assert_eq!((first.version, second.version, second.agent_id), (1, 2, Some(bot)));
    let global = prompts.get_active(None, "greeting").await.expect("read").expect("active");
    assert_eq!((global.text.as_str(), global.version), ("hello", 1));
    assert_eq!(prompts.get_active(Some(bot), "greeting").await.expect("read"), Some(second));

    let count = async |request: ListRequest| prompts.list(&request).await.expect("listed").items.len();
    assert_eq!(count(ListRequest::new().filter("agent_id", bot)).await, 2);
    assert_eq!(count(ListRequest::new().filter("agent_id", None::<AgentId>)).await, 2);
    assert_eq!(count(ListRequest::new().filter("name", "greeting").filter("active", true)).await, 2);

    home.tenant.agents().delete(bot).await.expect("deleted");
    assert_eq!(all(&home.tenant).await.len(), 2);
    assert_eq!(prompts.get(first.id).await.expect("read"), None);
}

/// New versions under contention.
pub async fn racing_versions_get_distinct_numbers(home: &Home) {
    let create = |tenant: TenantStore, index: usize| async move {
        let new = NewPrompt { active: index.is_multiple_of(2), ..NewPrompt::new("greeting", format!("{index}")) };
        tenant.prompts().create(new).await.expect("created").version
    };
    let versions: HashSet<i64> = race(&home.tenant, 32, create).await.into_iter().collect();
    assert_eq!(versions, (1..=32).collect());
    assert_eq!(all(&home.tenant).await.iter().filter(|prompt| prompt.active).count(), 1);
}

/// Activation under contention.
pub async fn racing_activations_leave_exactly_one_active(home: &Home) {
    let mut ids: Vec<PromptId> = Vec::new();
    for index in 0..8 {
        let new = NewPrompt::new("greeting", format!("{index}"));
        ids.push(home.tenant.prompts().create(new).await.expect("created").id);
    }
    let activate = |tenant: TenantStore, index: usize| {
        let id = ids[index % ids.len()];
        async move { assert!(tenant.prompts().activate(id).await.expect("activated").active) }
    };
    race(&home.tenant, 32, activate).await;
    let prompts = all(&home.tenant).await;
    assert_eq!((prompts.len(), prompts.iter().filter(|prompt| prompt.active).count()), (8, 1));
}

/// Bad values and references; nothing is written, the active version stays.
pub async fn bad_prompts_are_refused_by_field(home: &Home) {
    let prompts = home.tenant.prompts();
    let kept = prompts.create(active("greeting", "hello")).await.expect("created");
    for (new, wanted) in
        [(NewPrompt::new("", "x"), "name"), (NewPrompt::new("n", "x".repeat(limits::CONTENT_BYTES + 1)), "text")]
    {
        let outcome = prompts.create(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let their_agent = agent(&home.other).await;
    let outcome = prompts.create(NewPrompt { agent_id: Some(their_agent), ..active("greeting", "x") }).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "agent_id"), "{outcome:?}");
    let outcome = prompts.create(NewPrompt { id: Some(kept.id), ..active("greeting", "x") }).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    assert_eq!(all(&home.tenant).await, slice::from_ref(&kept));
    let second = prompts.create(NewPrompt::new("greeting", "x")).await.expect("created");
    assert_eq!(second.version, 2, "a version that was refused takes no number");

    prompts.delete(second.id).await.expect("deleted");
    let not_found = |outcome: Result<Prompt, Error>| matches!(outcome, Err(Error::NotFound { .. }));
    assert!(not_found(prompts.activate(second.id).await));
    assert!(not_found(prompts.deactivate(second.id).await));
    assert!(not_found(prompts.update(second.id, PromptPatch::default()).await));
    assert!(matches!(prompts.delete(second.id).await, Err(Error::NotFound { .. })));
    assert_eq!(prompts.get_active(None, "greeting").await.expect("read"), Some(kept));
}

/// The same names in two tenants.
pub async fn tenants_keep_their_prompts_apart(home: &Home) {
    let mine = home.tenant.prompts().create(active("greeting", "mine")).await.expect("created");
    let theirs = home.other.prompts().create(active("greeting", "theirs")).await.expect("created");
    assert_eq!((mine.version, theirs.version), (1, 1));
    let prompts = home.tenant.prompts();
    assert_eq!(prompts.get(theirs.id).await.expect("read"), None);
    assert!(matches!(prompts.activate(theirs.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(prompts.deactivate(theirs.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(prompts.delete(theirs.id).await, Err(Error::NotFound { .. })));
    assert_eq!(home.other.prompts().get_active(None, "greeting").await.expect("read"), Some(theirs));
    assert_eq!(all(&home.tenant).await, [mine]);
}
