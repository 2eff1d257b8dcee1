//! API keys: what they open, and for whom.

use std::time::Duration;

use agentkeep_core::{
    Access, ApiKey, ApiKeyId, ApiKeyPatch, Authentication, Error, IssuedApiKey, ListRequest, NewApiKey, Result, Scope,
    TenantId,
};
use sha2::{Digest, Sha256};

use super::{
    Home,
    fixtures::{object, race},
};
use crate::{Store, TenantStore, Value};

fn scopes() -> Vec<Scope> {
    vec![Scope::Read, Scope::of("sessions", Access::Write).expect("a scope")]
}

async fn issued(tenant: &TenantStore) -> IssuedApiKey {
    tenant.api_keys().create(NewApiKey::new("ci", scopes())).await.expect("created")
}

async fn authenticated(store: &Store, key: &str) -> Authentication {
    store.authenticate(key).await.expect("an answer")
}

async fn read(tenant: &TenantStore, id: ApiKeyId) -> ApiKey {
    tenant.api_keys().get(id).await.expect("read").expect("the key is there")
}

fn assert_invalid<T: std::fmt::Debug>(outcome: Result<T>, wanted: &str) {
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
}

/// The same key with another secret: its last character is another one.
fn forged(key: &str) -> String {
    let last = if key.ends_with('x') { "y" } else { "x" };
    format!("{}{last}", &key[..key.len() - 1])
}

/// Gives a key another prefix and text by direct SQL, and moves its end.
async fn rewrite(store: &Store, tenant: TenantId, id: ApiKeyId, prefix: &str, text: &str) {
    let hash = Sha256::digest(text.as_bytes()).to_vec();
    let params = [Value::from(tenant), Value::from(id), Value::from(prefix), Value::from(hash)];
    let sql = "UPDATE api_keys SET prefix = $3, hash = $4 WHERE tenant_id = $1 AND id = $2";
    assert_eq!(store.execute(sql, &params).await.expect("rewritten"), 1);
}

async fn end(home: &Home, id: ApiKeyId) {
    let past = home.tenant.now().minus(Duration::from_millis(1));
    let params = [Value::from(home.tenant.id()), Value::from(id), Value::from(past)];
    let sql = "UPDATE api_keys SET expires_at = $3 WHERE tenant_id = $1 AND id = $2";
    assert_eq!(home.store.execute(sql, &params).await.expect("ended"), 1);
}

/// The life of an API key.
pub async fn an_api_key_is_created_read_changed_revoked_and_deleted(home: &Home) {
    let keys = home.tenant.api_keys();
    let expires_at = Some(home.tenant.now().plus(Duration::from_secs(60)));
    let metadata = object(r#"{"owner":"ann","nul":"a\u0000b"}"#);
    let new = NewApiKey { expires_at, metadata: metadata.clone(), ..NewApiKey::new("ci\0", scopes()) };
    let IssuedApiKey { api_key: created, key } = keys.create(new).await.expect("created");
    assert_eq!((created.name.as_str(), &created.scopes, &created.metadata), ("ci\0", &scopes(), &metadata));
    assert_eq!((created.expires_at, created.last_used_at, created.revoked_at), (expires_at, None, None));
    assert!(key.starts_with(&format!("ak_{}_{}_", home.tenant.id(), created.prefix)), "{}", created.prefix);
    assert_eq!(keys.get(created.id).await.expect("read"), Some(created.clone()));
    let named = ListRequest::new().filter("name", "ci\0").filter("prefix", created.prefix.as_str()).with_total();
    assert_eq!(keys.list(&named).await.expect("listed").items, std::slice::from_ref(&created));

    let patch = ApiKeyPatch { name: Some("deploy".into()), metadata: Some(object(r#"{"nul":null}"#)) };
    let changed = keys.update(created.id, patch).await.expect("changed");
    assert_eq!((changed.name.as_str(), &changed.metadata), ("deploy", &object(r#"{"owner":"ann"}"#)));
    assert!(changed.updated_at > created.updated_at && changed.scopes == created.scopes);
    assert_eq!(keys.update(created.id, ApiKeyPatch::default()).await.expect("nothing to do"), changed);

    let revoked = keys.revoke(created.id).await.expect("revoked");
    assert_eq!(revoked.revoked_at, Some(revoked.updated_at));
    assert_eq!(keys.revoke(created.id).await.expect("revoked before"), revoked);
    let unrevoked = ListRequest::new().filter("revoked_at", None::<&str>);
    assert!(keys.list(&unrevoked).await.expect("listed").items.is_empty());

    keys.delete(created.id).await.expect("deleted");
    assert_eq!(keys.get(created.id).await.expect("read"), None);
    assert_eq!(authenticated(&home.store, &key).await, Authentication::Unknown);
    assert!(matches!(keys.delete(created.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(keys.revoke(created.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(keys.update(created.id, ApiKeyPatch::default()).await, Err(Error::NotFound { .. })));
}

/// What breaks a rule.
pub async fn bad_api_keys_are_refused_by_field(home: &Home) {
    let keys = home.tenant.api_keys();
    let new = NewApiKey::new("ci", scopes());
    let now = Some(home.tenant.now());
    for (wanted, new) in [
        ("name", NewApiKey { name: " ".into(), ..new.clone() }),
        ("scopes", NewApiKey { scopes: vec![], ..new.clone() }),
        ("scopes[1]", NewApiKey { scopes: vec![Scope::Read, Scope::Read], ..new.clone() }),
        ("expires_at", NewApiKey { expires_at: now, ..new.clone() }),
    ] {
        assert_invalid(keys.create(new).await, wanted);
    }
    let made = issued(&home.tenant).await.api_key;
    let patch = ApiKeyPatch { name: Some(String::new()), ..ApiKeyPatch::default() };
    assert_invalid(keys.update(made.id, patch).await, "name");
    assert_invalid(keys.list(&ListRequest::new().filter("hash", "x")).await, "filter");
    assert_eq!(keys.list(&ListRequest::new()).await.expect("listed").items, [made]);
    let nobody = home.store.tenant(TenantId(i32::MAX));
    assert!(matches!(nobody.api_keys().create(new).await, Err(Error::MissingReference { .. })));
}

/// A key, its near misses, and what is no key at all.
pub async fn a_key_opens_its_tenant_and_a_wrong_one_nothing(home: &Home) {
    let IssuedApiKey { api_key, key } = issued(&home.tenant).await;
    let valid = Authentication::Valid(home.tenant.id(), api_key.clone());
    assert_eq!(authenticated(&home.store, &key).await, valid);
    let secret = key.rsplit('_').next().expect("a secret");
    let (own, other) = (home.tenant.id(), home.other.id());
    for text in [
        forged(&key),
        key.to_uppercase(),
        format!("ak_{other}_{}_{secret}", api_key.prefix),
        format!("ak_{}_{}_{secret}", i32::MAX, api_key.prefix),
        format!("ak_0{own}_{}_{secret}", api_key.prefix),
        format!("ak_{own}_000000000000_{secret}"),
        format!("ak_{own}_{}_", api_key.prefix),
        format!("ak_{own}_{}", api_key.prefix),
        format!("{key} "),
        format!("ak_{own}_' OR '1'='1_{secret}"),
        "\0".to_owned(),
        String::new(),
    ] {
        assert_eq!(authenticated(&home.store, &text).await, Authentication::Unknown, "{text:?}");
    }
    assert_eq!(authenticated(&home.store, &key).await, valid);
}

/// The same prefix in two tenants.
pub async fn a_prefix_that_two_tenants_have_opens_to_each_its_own(home: &Home) {
    let mine = issued(&home.tenant).await;
    let theirs = issued(&home.other).await.api_key;
    let secret = "s".repeat(43);
    let text = format!("ak_{}_{}_{secret}", home.other.id(), mine.api_key.prefix);
    rewrite(&home.store, home.other.id(), theirs.id, &mine.api_key.prefix, &text).await;
    let theirs = read(&home.other, theirs.id).await;
    assert_eq!(authenticated(&home.store, &text).await, Authentication::Valid(home.other.id(), theirs));
    let valid = Authentication::Valid(home.tenant.id(), mine.api_key.clone());
    assert_eq!(authenticated(&home.store, &mine.key).await, valid);
    let my_secret = mine.key.rsplit('_').next().expect("a secret");
    for (tenant, secret) in [(home.tenant.id(), secret.as_str()), (home.other.id(), my_secret)] {
        let crossed = format!("ak_{tenant}_{}_{secret}", mine.api_key.prefix);
        assert_eq!(authenticated(&home.store, &crossed).await, Authentication::Unknown);
    }
}

/// Expiry and revocation are told to who has the secret, and to nobody else.
pub async fn an_expired_or_revoked_key_opens_nothing_and_says_why(home: &Home) {
    let IssuedApiKey { api_key, key } = issued(&home.tenant).await;
    end(home, api_key.id).await;
    let expired = read(&home.tenant, api_key.id).await;
    assert_eq!(authenticated(&home.store, &key).await, Authentication::Expired(expired));
    assert_eq!(authenticated(&home.store, &forged(&key)).await, Authentication::Unknown);

    // Who revoked it has the last word.
    let revoked = home.tenant.api_keys().revoke(api_key.id).await.expect("revoked");
    assert_eq!(authenticated(&home.store, &key).await, Authentication::Revoked(revoked));
    assert_eq!(authenticated(&home.store, &forged(&key)).await, Authentication::Unknown);
}

/// Keys of several tenants, good and bad, and the same one twice: each is answered as if it was asked alone.
pub async fn many_keys_at_once_are_answered_as_each_by_itself(home: &Home) {
    let mine = issued(&home.tenant).await;
    let theirs = issued(&home.other).await;
    let (over, gone) = (issued(&home.tenant).await, issued(&home.tenant).await);
    end(home, over.api_key.id).await;
    home.tenant.api_keys().revoke(gone.api_key.id).await.expect("revoked");
    let wrong = forged(&mine.key);
    let keys = [&mine.key, &wrong, &theirs.key, &over.key, "nonsense", &mine.key, &gone.key, &theirs.key];
    let together = home.store.authenticate_many(&keys).await.expect("answers");
    let mut alone = Vec::new();
    for key in keys {
        alone.push(authenticated(&home.store, key).await);
    }
    assert_eq!(together, alone);
    let valid = |answer: &Authentication| matches!(answer, Authentication::Valid(..));
    assert_eq!(together.iter().map(valid).collect::<Vec<_>>(), [true, false, true, false, false, true, false, true]);
    assert_eq!(home.store.authenticate_many(&[]).await.expect("none"), []);
}

/// Of many who revoke a key one does.
pub async fn racing_revocations_of_one_key_leave_one_time(home: &Home) {
    let IssuedApiKey { api_key, key } = issued(&home.tenant).await;
    let id = api_key.id;
    let revoke = |tenant: TenantStore, _| async move { tenant.api_keys().revoke(id).await.expect("revoked") };
    let revoked = race(&home.tenant, 16, revoke).await;
    assert!(revoked.iter().all(|key| *key == revoked[0]), "{revoked:?}");
    assert_eq!(authenticated(&home.store, &key).await, Authentication::Revoked(revoked[0].clone()));
}

/// To be used is no change of a key.
pub async fn the_use_of_a_key_is_noted_and_is_no_change(home: &Home) {
    let keys = home.tenant.api_keys();
    let (first, second) = (issued(&home.tenant).await.api_key, issued(&home.tenant).await.api_key);
    let theirs = issued(&home.other).await.api_key;
    let at = home.tenant.now();
    let gone: ApiKeyId = home.tenant.new_id(at);
    keys.touch(&[], at).await.expect("nothing to note");
    keys.touch(&[second.id, gone, first.id, theirs.id, first.id], at).await.expect("noted");
    keys.touch(&[first.id], at.minus(Duration::from_secs(1))).await.expect("noted");
    let later = at.plus(Duration::from_secs(1));
    keys.touch(&[second.id], later).await.expect("noted");
    assert_eq!(read(&home.tenant, first.id).await, ApiKey { last_used_at: Some(at), ..first });
    assert_eq!(read(&home.tenant, second.id).await, ApiKey { last_used_at: Some(later), ..second.clone() });
    assert_eq!(read(&home.other, theirs.id).await, theirs);
    // Direct SQL that changes something and does not say when is stamped.
    let sql = "UPDATE api_keys SET name = 'renamed' WHERE tenant_id = $1 AND id = $2";
    home.store.execute(sql, &[home.tenant.id().into(), second.id.into()]).await.expect("renamed");
    assert!(read(&home.tenant, second.id).await.updated_at >= second.updated_at);
}

/// Racing notes of the same keys in any order.
pub async fn racing_uses_of_the_same_keys_all_end(home: &Home) {
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(issued(&home.tenant).await.api_key.id);
    }
    let start = home.tenant.now();
    let given = ids.clone();
    let touch = move |tenant: TenantStore, index: usize| {
        let mut ids = given.clone();
        ids.rotate_left(index % 8);
        async move { tenant.api_keys().touch(&ids, start.plus(Duration::from_millis(index as u64))).await }
    };
    for outcome in race(&home.tenant, 16, touch).await {
        outcome.expect("noted");
    }
    for id in ids {
        assert_eq!(read(&home.tenant, id).await.last_used_at, Some(start.plus(Duration::from_millis(15))));
    }
}

/// Whether there is a key at all.
pub async fn only_keys_that_open_something_count_as_any(home: &Home) {
    let keys = home.tenant.api_keys();
    assert!(!keys.any().await.expect("an answer"));
    let (first, second) = (issued(&home.tenant).await.api_key, issued(&home.tenant).await.api_key);
    assert!(keys.any().await.expect("an answer") && home.store.any_api_keys().await.expect("an answer"));
    assert!(!home.other.api_keys().any().await.expect("an answer"));
    end(home, first.id).await;
    assert!(keys.any().await.expect("an answer"));
    keys.revoke(second.id).await.expect("revoked");
    assert!(!keys.any().await.expect("an answer"));
}

/// Nothing but the issued key itself shows its secret.
pub async fn the_secret_of_a_key_is_shown_once_and_not_kept(home: &Home) {
    let issued = issued(&home.tenant).await;
    let secret = issued.key.rsplit('_').next().expect("a secret");
    let authenticated = authenticated(&home.store, &issued.key).await;
    let kept = read(&home.tenant, issued.api_key.id).await;
    let sql = "SELECT * FROM api_keys WHERE tenant_id = $1";
    let row = home.store.fetch_one(sql, &[home.tenant.id().into()]).await.expect("read").expect("a row");
    let stored = row.values().iter().flat_map(|value| match value {
        Value::Text(text) => text.clone().into_bytes(),
        Value::Json(json) => json.as_str().as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.clone(),
        _ => Vec::new(),
    });
    let stored: Vec<u8> = stored.collect();
    assert!(!stored.windows(secret.len()).any(|part| part == secret.as_bytes()));
    assert_eq!(row.get("hash"), Some(&Value::Bytes(Sha256::digest(issued.key.as_bytes()).to_vec())));
    let json = serde_json::to_string(&kept).expect("json");
    assert!(!json.contains("hash"), "{json}");
    for shown in [format!("{issued:?}"), format!("{authenticated:?}"), format!("{kept:?}"), json] {
        assert!(!shown.contains(secret) && shown.contains(&kept.prefix), "{shown}");
    }
}

/// Keys of one tenant are none of another's.
pub async fn api_keys_of_two_tenants_do_not_meet(home: &Home) {
    let mine = issued(&home.tenant).await.api_key;
    let theirs = issued(&home.other).await;
    let keys = home.tenant.api_keys();
    assert_eq!(keys.list(&ListRequest::new()).await.expect("listed").items, [mine]);
    let id = theirs.api_key.id;
    assert_eq!(keys.get(id).await.expect("read"), None);
    assert!(matches!(keys.revoke(id).await, Err(Error::NotFound { .. })));
    assert!(matches!(keys.delete(id).await, Err(Error::NotFound { .. })));
    let patch = ApiKeyPatch { name: Some("taken over".into()), ..ApiKeyPatch::default() };
    assert!(matches!(keys.update(id, patch).await, Err(Error::NotFound { .. })));
    let valid = Authentication::Valid(home.other.id(), theirs.api_key);
    assert_eq!(authenticated(&home.store, &theirs.key).await, valid);
    home.store.tenants().delete(home.other.id()).await.expect("deleted");
    assert_eq!(authenticated(&home.store, &theirs.key).await, Authentication::Unknown);
}
