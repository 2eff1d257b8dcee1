//! API keys. Only the prefix and the SHA-256 of a key are kept; its text is shown once, when it is created.

use std::collections::{BTreeMap, BTreeSet};

use agentkeep_core::{
    ApiKey, ApiKeyId, ApiKeyPatch, Authentication, Direction, Error, IssuedApiKey, JsonArray, ListRequest, NewApiKey,
    Page, ParsedApiKey, Result, TenantId, Timestamp,
};
use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Record, Table, delete, params, record, write_one},
};
use crate::{
    engine::{FromRow, RowRef, Sql, Value},
    store::{Store, TenantStore},
};

/// The API keys of a tenant. [`Store::authenticate`] tells whose a key is.
pub struct ApiKeys<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, prefix, scopes, metadata, expires_at, last_used_at, revoked_at, created_at, updated_at"
    };
}

record!(ApiKey, &TABLE, {
    id, name, prefix, scopes, metadata, expires_at, last_used_at, revoked_at, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "API key",
    name: "api_keys",
    from: "api_keys",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("prefix", FieldKind::Text).sortable(),
        Field::new("expires_at", FieldKind::Time),
        Field::new("last_used_at", FieldKind::Time),
        Field::new("revoked_at", FieldKind::Time),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["prefix"]],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO api_keys (tenant_id, id, name, prefix, hash, scopes, metadata, expires_at, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM api_keys WHERE tenant_id = $1 AND id = $2")).short();
static GET_WITH_HASH: Sql =
    Sql::both(concat!("SELECT hash, ", columns!(), " FROM api_keys WHERE tenant_id = $1 AND prefix = $2")).short();
static REVOKE: Sql = Sql::both(concat!(
    "UPDATE api_keys SET revoked_at = $3, updated_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
     RETURNING ",
    columns!(),
));
static TOUCH: Sql = Sql::both(
    "UPDATE api_keys SET last_used_at = $3
     WHERE tenant_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < $3)",
);
static ANY: Sql = Sql::both(
    "SELECT 1 FROM api_keys
     WHERE tenant_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2) LIMIT 1",
);
static DELETE: Sql = Sql::both("DELETE FROM api_keys WHERE tenant_id = $1 AND id = $2");
static TENANTS_AFTER: Sql = Sql::both("SELECT id FROM tenants WHERE id > $1 ORDER BY id LIMIT 1000");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &GET, &GET_WITH_HASH, &REVOKE, &TOUCH, &ANY, &DELETE, &TENANTS_AFTER]);

/// A key and the hash of its text.
struct WithHash {
    hash: Vec<u8>,
    key: ApiKey,
}

impl FromRow for WithHash {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self { hash: row.get(0)?, key: ApiKey::read(row, 1)? })
    }
}

impl ApiKeys<'_> {
    /// Creates an API key. What comes back holds its text: it is not kept, and cannot be shown again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, or an end that has passed already;
    /// [`Error::Unsupported`] when the operating system has no randomness to give.
    pub async fn create(&self, new: NewApiKey) -> Result<IssuedApiKey> {
        new.check()?;
        let (tenant, now) = (self.0.tenant, self.0.now());
        if let Some(end) = new.expires_at.filter(|end| *end <= now) {
            return Err(Error::invalid("expires_at", format!("{end} has passed: the key would open nothing")));
        }
        let id: ApiKeyId = self.0.new_id(now);
        let prefix = random_text(ParsedApiKey::PREFIX_LENGTH)?;
        let key = format!("ak_{tenant}_{prefix}_{}", random_text(ParsedApiKey::SECRET_LENGTH)?);
        let held = [("id", Value::from(id)), ("prefix", Value::from(prefix.as_str()))];
        let scopes = JsonArray::from_serialize("scopes", &new.scopes)?;
        let params =
            params![tenant, id, new.name, prefix, hash_of(&key).to_vec(), scopes, new.metadata, new.expires_at, now,];
        let api_key = write_one(&self.0.executor, &TABLE, &CREATE, &params, &held).await?;
        Ok(IssuedApiKey { api_key, key })
    }

    /// The API key with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: ApiKeyId) -> Result<Option<ApiKey>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the API keys, those that are expired or revoked among them. Filters: id, name, prefix, expires_at,
    /// last_used_at, revoked_at, created_at, updated_at, metadata.PATH. Orders: id, name, prefix, created_at (the
    /// default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<ApiKey>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes an API key; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Invalid`].
    pub async fn update(&self, id: ApiKeyId, patch: ApiKeyPatch) -> Result<ApiKey> {
        patch.check()?;
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("name", patch.name);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &[]).await
    }

    /// Revokes an API key: from here on it opens nothing. One that was revoked before stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke(&self, id: ApiKeyId) -> Result<ApiKey> {
        let params = params![self.0.tenant, id, self.0.now()];
        match self.0.executor.fetch_optional(&REVOKE, &params).await? {
            Some(revoked) => Ok(revoked),
            None => self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id)),
        }
    }

    /// Deletes an API key: from here on it opens nothing, and nothing tells that it was there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: ApiKeyId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// Notes that these keys were used at a time; a later one that is noted already stays, and so does `updated_at`.
    /// Ids of keys that are gone are passed over.
    ///
    /// # Errors
    /// What the database reports; nothing is noted then.
    pub async fn touch(&self, ids: &[ApiKeyId], at: Timestamp) -> Result<()> {
        // Always in the same order: two that do this at once would else wait for each other.
        let ids: BTreeSet<ApiKeyId> = ids.iter().copied().collect();
        let rows: Vec<Vec<Value>> = ids.into_iter().map(|id| params![self.0.tenant, id, at].into()).collect();
        if !rows.is_empty() {
            self.0.executor.execute_batch(&TOUCH, rows).await?;
        }
        Ok(())
    }

    /// Whether the tenant has a key that opens something: one that is neither revoked nor expired.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn any(&self) -> Result<bool> {
        let params = params![self.0.tenant, self.0.now()];
        Ok(self.0.executor.fetch_optional::<(i64,)>(&ANY, &params).await?.is_some())
    }
}

impl Store {
    /// Whose a key is, and whether it opens anything now. It is looked up by its tenant and prefix, which are no
    /// secrets; the hash of the whole text is compared in a time that does not depend on where it differs.
    ///
    /// # Errors
    /// What the database reports. A key that is a wrong one is no error: [`Authentication::Unknown`].
    pub async fn authenticate(&self, key: &str) -> Result<Authentication> {
        let authentications = self.authenticate_many(&[key]).await?;
        Ok(authentications.into_iter().next().unwrap_or(Authentication::Unknown))
    }

    /// As [`Store::authenticate`], for many keys at once, in their order: what is kept of a key is read once, however
    /// often it is given.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn authenticate_many(&self, keys: &[&str]) -> Result<Vec<Authentication>> {
        let parsed: Vec<Option<ParsedApiKey>> = keys.iter().map(|key| ParsedApiKey::parse(key)).collect();
        let places = || parsed.iter().map(|key| key.as_ref().map(|key| (key.tenant, key.prefix.as_str())));
        let wanted: BTreeSet<(TenantId, &str)> = places().flatten().collect();
        let executor = &self.default_tenant().executor;
        let reads = wanted.into_iter().map(async |(tenant, prefix)| {
            let found: Option<WithHash> = executor.fetch_optional(&GET_WITH_HASH, &params![tenant, prefix]).await?;
            Ok(((tenant, prefix), found))
        });
        let found: BTreeMap<_, _> = try_join_all(reads).await?.into_iter().collect();
        let now = self.default_tenant().now();
        let authentications = keys.iter().zip(places()).map(|(key, place)| {
            let found = place.and_then(|place| Some((place.0, found.get(&place)?.as_ref()?)));
            // Where there is no key the same is done with the hash of none.
            const NONE: [u8; 32] = [0; 32];
            let kept = found.map_or(&NONE[..], |(_, row)| &row.hash);
            let same = bool::from(hash_of(key).ct_eq(kept));
            match found.filter(|_| same).map(|(tenant, row)| (tenant, row.key.clone())) {
                None => Authentication::Unknown,
                Some((_, key @ ApiKey { revoked_at: Some(_), .. })) => Authentication::Revoked(key),
                Some((_, key @ ApiKey { expires_at: Some(end), .. })) if end <= now => Authentication::Expired(key),
                Some((tenant, key)) => Authentication::Valid(tenant, key),
            }
        });
        Ok(authentications.collect())
    }

    /// Whether any tenant has a key that opens something. Asks one tenant after another until one has.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn any_api_keys(&self) -> Result<bool> {
        let mut last = TenantId(0);
        loop {
            let tenants: Vec<(TenantId,)> =
                self.default_tenant().executor.fetch_all(&TENANTS_AFTER, &params![last]).await?;
            let Some((newest,)) = tenants.last().copied() else { return Ok(false) };
            last = newest;
            for (tenant,) in tenants {
                if self.tenant(tenant).api_keys().any().await? {
                    return Ok(true);
                }
            }
        }
    }
}

/// What is kept of the text of a key.
fn hash_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Letters and digits from the operating system's randomness, each as likely as any other.
///
/// # Errors
/// [`Error::Unsupported`] when there is no randomness.
fn random_text(length: usize) -> Result<String> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::Unsupported(format!("the operating system gives no randomness: {error}")))?;
        // 248 is four times 62: the bytes above it would make the first digits likelier than the others.
        let digits = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(DIGITS[usize::from(byte % 62)]));
        text.extend(digits.take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use agentkeep_core::{NewTenant, Scope};

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn a_key_of_any_tenant_is_found_and_none_where_there_is_none() {
        let store = Store::open_with(Config::new("sqlite::memory:")).await.expect("opens");
        assert!(!store.any_api_keys().await.expect("an answer"));
        let tenant = store.tenants().create(NewTenant::new("second")).await.expect("a tenant");
        assert!(!store.any_api_keys().await.expect("an answer"));
        let keys = store.tenant(tenant.id);
        let made = keys.api_keys().create(NewApiKey::new("ci", [Scope::Read])).await.expect("a key").api_key;
        assert!(store.any_api_keys().await.expect("an answer"));
        keys.api_keys().revoke(made.id).await.expect("revoked");
        assert!(!store.any_api_keys().await.expect("an answer"));
        store.close().await;
    }

    #[test]
    fn random_texts_differ_and_use_every_digit() {
        let texts: Vec<String> = (0..200).map(|_| random_text(ParsedApiKey::SECRET_LENGTH).expect("a text")).collect();
        assert!(texts.iter().all(|text| text.len() == ParsedApiKey::SECRET_LENGTH));
        assert!(texts.iter().enumerate().all(|(index, text)| !texts[..index].contains(text)));
        let all = texts.concat();
        assert!(DIGITS.iter().all(|digit| all.contains(char::from(*digit))));
    }
}
