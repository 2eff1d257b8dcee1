//! Preferences.

use agentkeep_core::{Error, JsonObject, ListRequest, NewPreference, Preference, PreferencePatch, UserId};

use super::{
    Home,
    fixtures::{object, race, user},
};
use crate::TenantStore;

fn ui(user: UserId, preferences: &str) -> NewPreference {
    NewPreference::new(user, "ui", object(preferences))
}

async fn all(tenant: &TenantStore) -> Vec<Preference> {
    tenant.preferences().list(&ListRequest::new()).await.expect("listed").items
}

/// The life of preferences.
pub async fn preferences_are_upserted_read_patched_and_deleted(home: &Home) {
    let preferences = home.tenant.preferences();
    let ann = user(&home.tenant).await;
    assert_eq!(preferences.get(ann, "ui").await.expect("read"), None);
    let first = preferences.upsert(ui(ann, r#"{"theme":"dark","size":1.10}"#)).await.expect("created");
    let second = preferences.upsert(ui(ann, r#"{"theme":"light"}"#)).await.expect("changed");
    assert_eq!((second.id, second.created_at), (first.id, first.created_at));
    assert_eq!(second.preferences, object(r#"{"theme":"light"}"#));
    assert_eq!(preferences.get(ann, "ui").await.expect("read"), Some(second.clone()));
    assert_eq!(preferences.get_by_id(first.id).await.expect("read"), Some(second.clone()));

    let patch = object(r#"{"theme":null,"notify":{"email":true,"nul":"a\u0000b"}}"#);
    let patched = preferences.patch(ann, "ui", patch).await.expect("patched");
    assert_eq!(patched.preferences, object(r#"{"notify":{"email":true,"nul":"a\u0000b"}}"#));
    assert!(patched.updated_at > second.updated_at);
    let patch = PreferencePatch {
        category: Some("look".into()),
        preferences: Some(object(r#"{"notify":{"email":null}}"#)),
        metadata: Some(object(r#"{"by":"Ann"}"#)),
    };
    let changed = preferences.update(first.id, patch).await.expect("changed");
    assert_eq!(changed.preferences, object(r#"{"notify":{"nul":"a\u0000b"}}"#));
    assert_eq!((changed.category.as_str(), &changed.metadata), ("look", &object(r#"{"by":"Ann"}"#)));
    assert_eq!(preferences.get(ann, "ui").await.expect("read"), None);

    preferences.delete(ann, "look").await.expect("deleted");
    assert!(matches!(preferences.delete(ann, "look").await, Err(Error::NotFound { .. })));
    assert!(matches!(preferences.delete_by_id(first.id).await, Err(Error::NotFound { .. })));
    let outcome = preferences.patch(ann, "look", JsonObject::default()).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
    let outcome = preferences.update(first.id, PreferencePatch::default()).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
}

/// A duplicate on create and on update, and other bad values.
pub async fn bad_preferences_are_refused_by_field(home: &Home) {
    let preferences = home.tenant.preferences();
    let ann = user(&home.tenant).await;
    preferences.create(ui(ann, "{}")).await.expect("created");
    let other = preferences.create(NewPreference::new(ann, "work", object("{}"))).await.expect("created");
    let rename = PreferencePatch { category: Some("ui".into()), ..PreferencePatch::default() };
    for outcome in [preferences.create(ui(ann, "{}")).await, preferences.update(other.id, rename).await] {
        match outcome {
            Err(Error::AlreadyExists { entity: "preference", field, value }) => {
                assert_eq!((field, value), ("user_id, category".into(), format!("{ann}, \"ui\"")));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    let outcome = preferences.upsert(NewPreference::new(ann, " ", object("{}"))).await;
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "category"), "{outcome:?}");
    let stranger = user(&home.other).await;
    for outcome in [preferences.upsert(ui(stranger, "{}")).await, preferences.create(ui(stranger, "{}")).await] {
        assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "user_id"), "{outcome:?}");
    }
    assert_eq!(all(&home.tenant).await.len(), 2);
}

/// Which users like it dark.
pub async fn preferences_are_found_by_json_path(home: &Home) {
    let preferences = home.tenant.preferences();
    let mut dark = Vec::new();
    for index in 0..6 {
        let user = user(&home.tenant).await;
        let theme = if index % 3 == 0 { "dark" } else { "light" };
        let json = format!(r#"{{"theme":"{theme}","notify":{{"email":{},"hour":{index}}}}}"#, index < 2);
        preferences.upsert(ui(user, &json)).await.expect("created");
        if theme == "dark" {
            dark.push(user);
        }
    }
    let found = async |request: ListRequest| -> Vec<UserId> {
        preferences.list(&request).await.expect("listed").items.into_iter().map(|item| item.user_id).collect()
    };
    let by = |path: &str| format!("preferences.{path}");
    assert_eq!(found(ListRequest::new().filter(by("theme"), "dark")).await, dark);
    assert_eq!(found(ListRequest::new().filter(by("notify.email"), true)).await.len(), 2);
    assert_eq!(found(ListRequest::new().filter(by("notify.hour"), 3)).await, dark[1..]);
    assert_eq!(found(ListRequest::new().filter(by("notify.hour"), "3")).await, []);
    assert_eq!(found(ListRequest::new().filter(by("nothing"), "dark")).await, []);
    assert_eq!(found(ListRequest::new().filter("user_id", dark[0]).filter("category", "ui")).await, dark[..1]);
}

/// Upserts and patches under contention.
pub async fn racing_patches_lose_nothing(home: &Home) {
    let ann = user(&home.tenant).await;
    let change = |tenant: TenantStore, index: usize| async move {
        let preferences = tenant.preferences();
        let id = preferences.upsert(ui(ann, "{}")).await.expect("upserted").id;
        (id, index)
    };
    let mut ids: Vec<_> = race(&home.tenant, 32, change).await.into_iter().map(|(id, _)| id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let patch = |tenant: TenantStore, index: usize| async move {
        let patch = object(&format!(r#"{{"key {index}":{index}}}"#));
        tenant.preferences().patch(ann, "ui", patch).await.expect("patched");
    };
    race(&home.tenant, 32, patch).await;
    let preferences = all(&home.tenant).await;
    assert_eq!(preferences.len(), 1);
    assert_eq!(preferences[0].preferences.to_value().as_object().map(serde_json::Map::len), Some(32));
}

/// Cascade and tenants.
pub async fn preferences_go_with_their_user_and_stay_in_their_tenant(home: &Home) {
    let (ann, bob) = (user(&home.tenant).await, user(&home.other).await);
    home.tenant.preferences().upsert(ui(ann, "{}")).await.expect("created");
    let theirs = home.other.preferences().upsert(ui(bob, r#"{"theme":"dark"}"#)).await.expect("created");
    let preferences = home.tenant.preferences();
    assert_eq!(preferences.get(bob, "ui").await.expect("read"), None);
    assert_eq!(preferences.get_by_id(theirs.id).await.expect("read"), None);
    let dark = ListRequest::new().filter("preferences.theme", "dark");
    assert!(preferences.list(&dark).await.expect("listed").items.is_empty());
    assert!(matches!(preferences.patch(bob, "ui", object("{}")).await, Err(Error::NotFound { .. })));
    assert!(matches!(preferences.delete(bob, "ui").await, Err(Error::NotFound { .. })));
    assert!(matches!(preferences.delete_by_id(theirs.id).await, Err(Error::NotFound { .. })));
    home.tenant.users().delete(ann).await.expect("deleted");
    assert!(all(&home.tenant).await.is_empty());
    assert_eq!(all(&home.other).await, [theirs]);
}
