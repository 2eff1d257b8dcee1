//! Memories.

use std::time::Duration;

use agentkeep_core::{
    AgentId, Error, FilterOperator, ListRequest, Memory, MemoryPatch, NewMemory, SessionId, UserId, limits,
};

use super::{
    Home,
    fixtures::{agent, object, race, session, user},
};
use crate::TenantStore;

fn about(user: UserId, name: &str) -> NewMemory {
    NewMemory { user_id: Some(user), ..NewMemory::new(name, "something") }
}

async fn all(tenant: &TenantStore) -> Vec<Memory> {
    tenant.memories().list_with_expired(&ListRequest::new()).await.expect("listed").items
}

/// The life of a memory.
pub async fn a_memory_is_created_read_changed_and_deleted(home: &Home) {
    let memories = home.tenant.memories();
    let (ann, bot) = (user(&home.tenant).await, agent(&home.tenant).await);
    let new = NewMemory {
        agent_id: Some(bot),
        user_id: Some(ann),
        session_id: Some(session(&home.tenant, Some(ann)).await),
        content: "likes\0tea".into(),
        read_mode: Some("system_prompt".into()),
        access: Some("read".into()),
        metadata: object(r#"{"confidence":0.90}"#),
        ..NewMemory::new("taste", "")
    };
    let created = memories.create(new).await.expect("created");
    assert_eq!((created.content.as_str(), created.agent_id, created.user_id), ("likes\0tea", Some(bot), Some(ann)));
    assert_eq!(memories.get(created.id).await.expect("read"), Some(created.clone()));
    let found = memories.get_by_name(Some(bot), Some(ann), "taste").await.expect("read");
    assert_eq!(found, Some(created.clone()));
    assert_eq!(memories.get_by_name(Some(bot), None, "taste").await.expect("read"), None);

    let patch = MemoryPatch {
        user_id: Some(None),
        session_id: Some(None),
        content: Some("likes coffee".into()),
        access: Some(None),
        metadata: Some(object(r#"{"confidence":null,"n":1}"#)),
        ..MemoryPatch::default()
    };
    let changed = memories.update(created.id, patch).await.expect("changed");
    assert_eq!((changed.user_id, changed.content.as_str(), &changed.access), (None, "likes coffee", &None));
    assert_eq!((changed.read_mode.as_deref(), &changed.metadata), (Some("system_prompt"), &object(r#"{"n":1}"#)));
    assert!(changed.updated_at > created.updated_at);
    assert_eq!(memories.get_by_name(Some(bot), None, "taste").await.expect("read"), Some(changed));

    memories.delete(created.id).await.expect("deleted");
    assert_eq!(memories.get(created.id).await.expect("read"), None);
    assert!(matches!(memories.delete(created.id).await, Err(Error::NotFound { .. })));
    for patch in [MemoryPatch::default(), MemoryPatch { name: Some("x".into()), ..MemoryPatch::default() }] {
        assert!(matches!(memories.update(created.id, patch).await, Err(Error::NotFound { .. })));
    }
}

/// A duplicate on create and on update.
pub async fn a_taken_name_is_told_and_nothing_changes(home: &Home) {
    let memories = home.tenant.memories();
    let ann = user(&home.tenant).await;
    memories.create(about(ann, "taste")).await.expect("created");
    let other = memories.create(about(ann, "work")).await.expect("created");
    let rename = MemoryPatch { name: Some("taste".into()), ..MemoryPatch::default() };
    for outcome in [memories.create(about(ann, "taste")).await, memories.update(other.id, rename).await] {
        match outcome {
            Err(Error::AlreadyExists { entity: "memory", field, value }) => {
                assert_eq!((field, value), ("agent_id, user_id, name".into(), format!("none, {ann}, \"taste\"")));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    let same_id = NewMemory { id: Some(other.id), ..NewMemory::new("new", "") };
    let outcome = memories.create(same_id).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    assert_eq!(memories.get(other.id).await.expect("read"), Some(other));
    assert_eq!(all(&home.tenant).await.len(), 2);
}

/// Nulls are equal for the unique key.
pub async fn memories_without_agent_or_user_share_one_place(home: &Home) {
    let memories = home.tenant.memories();
    let (ann, bot) = (user(&home.tenant).await, agent(&home.tenant).await);
    let owners = [(None, None), (Some(bot), None), (None, Some(ann)), (Some(bot), Some(ann))];
    let mut first = Vec::new();
    for (agent_id, user_id) in owners {
        let new = NewMemory { agent_id, user_id, ..NewMemory::new("taste", "one") };
        first.push(memories.upsert(new.clone()).await.expect("created"));
        assert!(matches!(memories.create(new).await, Err(Error::AlreadyExists { .. })));
    }
    for ((agent_id, user_id), first) in owners.into_iter().zip(&first) {
        let new = NewMemory { agent_id, user_id, ..NewMemory::new("taste", "two") };
        let second = memories.upsert(new).await.expect("changed");
        assert_eq!((second.id, second.created_at, second.content.as_str()), (first.id, first.created_at, "two"));
        assert_eq!(memories.get_by_name(agent_id, user_id, "taste").await.expect("read"), Some(second));
    }
    assert_eq!(all(&home.tenant).await.len(), 4);
}

/// Upsert under contention.
pub async fn racing_upserts_of_one_memory_make_one(home: &Home) {
    let upsert = |tenant: TenantStore, index: usize| async move {
        tenant.memories().upsert(NewMemory::new("taste", format!("{index}"))).await.expect("upserted").id
    };
    let mut ids = race(&home.tenant, 32, upsert).await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(all(&home.tenant).await.len(), 1);
}

/// System A's `list_memories`.
pub async fn memories_are_listed_by_owner_mode_and_pattern(home: &Home) {
    let memories = home.tenant.memories();
    let (ann, bot) = (user(&home.tenant).await, agent(&home.tenant).await);
    let talk = session(&home.tenant, Some(ann)).await;
    for name in ["user_name", "user_taste", "system"] {
        for user_id in [None, Some(ann)] {
            let session_id = (name == "system").then_some(talk);
            let read_mode = user_id.map(|_| "tool".to_owned());
            let new = NewMemory { agent_id: Some(bot), user_id, session_id, read_mode, ..NewMemory::new(name, "") };
            memories.create(new).await.expect("created");
        }
    }
    let count = async |request: ListRequest| {
        let page = memories.list(&request.with_total()).await.expect("listed");
        assert_eq!(page.total, Some(page.items.len() as u64));
        page.items.len()
    };
    let of_bot = || ListRequest::new().filter("agent_id", bot);
    assert_eq!(count(of_bot()).await, 6);
    assert_eq!(count(of_bot().filter("user_id", ann)).await, 3);
    assert_eq!(count(of_bot().filter("user_id", None::<UserId>)).await, 3);
    assert_eq!(count(of_bot().filter("session_id", talk)).await, 2);
    assert_eq!(count(of_bot().filter("read_mode", "tool")).await, 3);
    assert_eq!(count(of_bot().filter_by("name", FilterOperator::Like, "user_%")).await, 4);
    assert_eq!(count(of_bot().filter("user_id", ann).filter_by("name", FilterOperator::Like, "%t_ste")).await, 1);
    assert_eq!(count(ListRequest::new().filter("agent_id", AgentId(2))).await, 0);
}

/// `expires_at`.
pub async fn expired_memories_are_hidden_replaced_and_removed(home: &Home) {
    let memories = home.tenant.memories();
    let now = home.tenant.now();
    let (hour, past) = (Duration::from_secs(3600), Some(now.minus(Duration::from_secs(1))));
    let lasting = NewMemory { expires_at: Some(now.plus(hour)), ..NewMemory::new("lasting", "") };
    let lasting = memories.create(lasting).await.expect("created");
    let expiring = |name: &str| NewMemory { expires_at: past, ..NewMemory::new(name, "old") };
    let replaced = memories.create(expiring("replaced")).await.expect("created");
    for index in 0..5 {
        memories.create(expiring(&format!("expired {index}"))).await.expect("created");
    }

    let page = memories.list(&ListRequest::new().with_total()).await.expect("listed");
    assert_eq!((page.items, page.total), (vec![lasting.clone()], Some(1)));
    assert_eq!(all(&home.tenant).await.len(), 7);
    let expired = ListRequest::new().filter_by("expires_at", FilterOperator::LessOrEqual, now);
    assert_eq!(memories.list(&expired).await.expect("listed").items.len(), 6, "asked for by the filter");
    let first = memories.list_with_expired(&ListRequest::new().limit(3)).await.expect("listed");
    assert_eq!((first.items.len(), first.next.is_some()), (3, true));
    assert_eq!(memories.get_by_name(None, None, "replaced").await.expect("read"), None);
    let found = memories.get_by_name_with_expired(None, None, "replaced").await.expect("read");
    assert_eq!(found.as_ref(), Some(&replaced));
    assert_eq!(memories.get(replaced.id).await.expect("read"), Some(replaced.clone()));

    // Another error than the taken name leaves the expired one where it is.
    let bad = NewMemory { session_id: Some(SessionId(replaced.id.0)), ..NewMemory::new("replaced", "new") };
    assert!(memories.create(bad).await.is_err());
    assert_eq!(memories.get(replaced.id).await.expect("read"), Some(replaced.clone()));
    let new = memories.create(NewMemory::new("replaced", "new")).await.expect("created");
    assert_ne!(new.id, replaced.id);
    assert!(matches!(memories.create(NewMemory::new("replaced", "")).await, Err(Error::AlreadyExists { .. })));

    assert_eq!(memories.delete_expired(now).await.expect("deleted"), 5);
    assert_eq!(memories.delete_expired(now).await.expect("deleted"), 0);
    assert_eq!(all(&home.tenant).await, [lasting, new]);
}

/// Bad values and references, told by field; nothing is written.
pub async fn bad_memories_are_refused_by_field(home: &Home) {
    let memories = home.tenant.memories();
    let kept = memories.create(NewMemory::new("kept", "")).await.expect("created");
    let too_long = "x".repeat(limits::CONTENT_BYTES + 1);
    let invalid = [
        (NewMemory::new(" ", ""), "name"),
        (NewMemory::new("x".repeat(limits::NAME_BYTES + 1), ""), "name"),
        (NewMemory::new("n", too_long), "content"),
        (NewMemory { read_mode: Some(String::new()), ..NewMemory::new("n", "") }, "read_mode"),
    ];
    for (new, wanted) in invalid {
        let outcome = memories.upsert(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let (stranger, their_session) = (user(&home.other).await, session(&home.other, None).await);
    let their_agent = agent(&home.other).await;
    let missing = [
        (about(stranger, "n"), "user_id"),
        (NewMemory { session_id: Some(their_session), ..NewMemory::new("n", "") }, "session_id"),
        (NewMemory { agent_id: Some(their_agent), ..NewMemory::new("n", "") }, "agent_id"),
    ];
    for (new, wanted) in missing {
        let outcome = memories.create(new).await;
        let told = matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == wanted);
        assert!(told, "{wanted}: {outcome:?}");
    }
    let patch = MemoryPatch { user_id: Some(Some(stranger)), ..MemoryPatch::default() };
    let outcome = memories.update(kept.id, patch).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "user_id"), "{outcome:?}");
    assert_eq!(all(&home.tenant).await, [kept]);
}

/// Cascades.
pub async fn memories_go_with_their_user_agent_and_session(home: &Home) {
    let memories = home.tenant.memories();
    let (ann, bot) = (user(&home.tenant).await, agent(&home.tenant).await);
    let talk = session(&home.tenant, None).await;
    memories.create(about(ann, "of the user")).await.expect("created");
    memories.create(NewMemory { agent_id: Some(bot), ..NewMemory::new("of the agent", "") }).await.expect("created");
    let new = NewMemory { session_id: Some(talk), ..NewMemory::new("of the session", "") };
    memories.create(new).await.expect("created");
    let kept = memories.create(NewMemory::new("of nobody", "")).await.expect("created");

    home.tenant.users().delete(ann).await.expect("deleted");
    assert_eq!(all(&home.tenant).await.len(), 3);
    home.tenant.sessions().delete(talk).await.expect("deleted");
    assert_eq!(all(&home.tenant).await.len(), 2);
    home.tenant.agents().delete(bot).await.expect("deleted");
    assert_eq!(all(&home.tenant).await, [kept]);
}

/// The same names in two tenants.
pub async fn tenants_keep_their_memories_apart(home: &Home) {
    let mine = home.tenant.memories().create(NewMemory::new("taste", "mine")).await.expect("created");
    let expired = Some(home.other.now().minus(Duration::from_secs(1)));
    let theirs = NewMemory { expires_at: expired, ..NewMemory::new("taste", "theirs") };
    let theirs = home.other.memories().create(theirs).await.expect("created");
    let memories = home.tenant.memories();
    assert_eq!(memories.get(theirs.id).await.expect("read"), None);
    assert!(matches!(memories.delete(theirs.id).await, Err(Error::NotFound { .. })));
    let patch = MemoryPatch { content: Some("taken over".into()), ..MemoryPatch::default() };
    assert!(matches!(memories.update(theirs.id, patch).await, Err(Error::NotFound { .. })));
    assert_eq!(memories.delete_expired(home.tenant.now()).await.expect("deleted"), 0);
    assert_eq!(all(&home.tenant).await, [mine]);
    assert_eq!(all(&home.other).await, [theirs]);
}
