//! Who calls: the key, its tenant, and what it may do.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep::{
    Store, TenantStore,
    core::{Access, ApiKey, Authentication, Scope, TenantId},
};
use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
};
use parking_lot::Mutex;

use crate::{
    app::App,
    error::{ApiError, Result},
    limits::Standing,
    together::{self, Asked, Together},
};

/// Who calls, and the store as they see it.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The store, as the caller's tenant sees it. For a POST with an idempotency key everything done through it is
    /// one transaction with the answer that is kept.
    pub(crate) tenant: TenantStore,
    /// The caller's key; `None` on a loopback server without keys.
    pub(crate) key: Option<Arc<ApiKey>>,
}

impl Caller {
    /// The tenant.
    pub(crate) fn tenant_id(&self) -> TenantId {
        self.tenant.id()
    }

    /// The same caller with the view of another tenant: for what is done to tenants themselves.
    ///
    /// # Errors
    /// 503 as long as the database was not reached.
    pub(crate) fn of(self, app: &App, tenant: TenantId) -> Result<Self> {
        Ok(Self { tenant: app.store()?.tenant(tenant), ..self })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        // Every resource is behind `admit`.
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthorized)
    }
}

/// For how long a look at whether there are keys at all is believed.
const KEYLESS_LOOK: Duration = Duration::from_secs(1);

/// Keys whose rows are read at once at most.
const KEYS_AT_ONCE: usize = 256;

/// The keys that callers give, and who calls without one: nobody, once there are keys.
#[derive(Default)]
pub(crate) struct Keys {
    /// Read for every request, so that a key that was revoked opens nothing from then on, whoever revoked it; and
    /// together, so that those of many requests cost little more than that of one.
    given: Arc<Together<(Store, String), Result<Authentication>>>,
    /// When it was last seen that there are none.
    keyless_at: Mutex<Option<Instant>>,
}

/// Finds out who calls and whether they may do that with this resource: GET needs to read it, anything else to write.
/// The request knows its [`Caller`] from here on. How the key stands with its limit, if it has one.
///
/// # Errors
/// 401 without a valid key, 403 without a scope, 429 beyond the limit.
pub(crate) async fn admit(app: &App, resource: &'static str, request: &mut Request) -> Result<Option<Standing>> {
    let caller = identify(app, request.headers()).await?;
    let access = match *request.method() {
        Method::GET | Method::HEAD => Access::Read,
        _ => Access::Write,
    };
    let standing = match &caller.key {
        Some(key) => app.limits.count(key)?,
        None => None,
    };
    permit(&caller, resource, access)?;
    request.extensions_mut().insert(caller);
    Ok(standing)
}

/// Who calls.
///
/// # Errors
/// 401 for a key that is not valid, or none where one is needed.
pub(crate) async fn identify(app: &App, headers: &HeaderMap) -> Result<Caller> {
    let store = app.store()?;
    let Some(key) = key_of(headers)? else {
        return keyless(app, headers).await;
    };
    match authenticate(app, store, key).await? {
        Authentication::Valid(tenant, key) => {
            app.used.note(tenant, key.id);
            Ok(Caller { tenant: store.tenant(tenant), key: Some(Arc::new(key)) })
        }
        Authentication::Expired(key) => {
            let detail = format!("the key {:?} expired; make another one", key.name);
            Err(refuse("key_expired", detail))
        }
        Authentication::Revoked(key) => Err(refuse("key_revoked", format!("the key {:?} was revoked", key.name))),
        Authentication::Unknown => Err(refuse("key_unknown", "this key is not valid".to_owned())),
    }
}

/// Whose key that is, read with those of all who call at the same time.
async fn authenticate(app: &App, store: &Store, key: &str) -> Result<Authentication> {
    match app.keys.given.ask((store.clone(), key.to_owned()), KEYS_AT_ONCE, read_keys).await {
        Some(authenticated) => authenticated,
        None => Ok(store.authenticate(key).await?),
    }
}

async fn read_keys(asked: Vec<Asked<(Store, String), Result<Authentication>>>) {
    let Some(((store, _), _)) = asked.first() else { return };
    let keys: Vec<&str> = asked.iter().map(|((_, key), _)| key.as_str()).collect();
    let read = store.authenticate_many(&keys).await;
    together::answer(asked, read);
}

/// A caller without a key: the tenant of the server, if it has no keys.
async fn keyless(app: &App, headers: &HeaderMap) -> Result<Caller> {
    if !app.is_loopback() {
        return Err(unauthorized());
    }
    // A page of anybody's, opened in a browser on this machine, can reach a loopback address by a name of its own.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local(host) {
        let detail = format!("{host:?} is not this machine: without keys only localhost is served");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", &detail).field("Host", detail));
    }
    let store = app.store()?;
    let believed = app.keys.keyless_at.lock().is_some_and(|at| at.elapsed() < KEYLESS_LOOK);
    if !believed {
        if store.any_api_keys().await? {
            *app.keys.keyless_at.lock() = None;
            return Err(unauthorized());
        }
        *app.keys.keyless_at.lock() = Some(Instant::now());
    }
    Ok(Caller { tenant: store.tenant(app.options.tenant), key: None })
}

/// Whether a `Host` header names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The key of a request: `Authorization: Bearer …`, or `X-Api-Key`.
fn key_of(headers: &HeaderMap) -> Result<Option<&str>> {
    if let Some(value) = headers.get("x-api-key") {
        return value
            .to_str()
            .map(|key| Some(key.trim()))
            .map_err(|_| refuse("key_unknown", "this key is not valid".into()));
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty() => Ok(Some(key.trim())),
        _ => Err(refuse("key_unknown", "send Authorization: Bearer KEY".to_owned())),
    }
}

/// Refuses what the key of the caller does not allow.
///
/// # Errors
/// 403 that names the scopes that would.
pub(crate) fn permit(caller: &Caller, resource: &str, access: Access) -> Result<()> {
    let Some(key) = &caller.key else { return Ok(()) };
    if Scope::allows(&key.scopes, resource, access) {
        return Ok(());
    }
    let enough: Vec<String> = Scope::sufficient(resource, access).iter().map(ToString::to_string).collect();
    let detail = format!("the key {:?} lacks a scope: {} would do", key.name, enough.join(" or "));
    Err(ApiError::new(StatusCode::FORBIDDEN, "scope_missing", detail).field("scopes", enough.join(", ")))
}

/// Refuses whoever is no operator: for what writing the resource does not allow by itself.
///
/// # Errors
/// 403 that names `admin`.
pub(crate) fn permit_admin(caller: &Caller) -> Result<()> {
    // What is no resource is for `admin`.
    permit(caller, "operations", Access::Write)
}

/// Refuses to give others what the key of the caller does not allow.
///
/// # Errors
/// 403 that names the scope.
pub(crate) fn permit_grant(caller: &Caller, scopes: &[Scope]) -> Result<()> {
    let Some(key) = &caller.key else { return Ok(()) };
    let Some(place) = scopes.iter().position(|scope| !Scope::include(&key.scopes, *scope)) else { return Ok(()) };
    let detail =
        format!("the key {:?} lacks the scope {}, so it cannot give it to another key", key.name, scopes[place]);
    Err(ApiError::new(StatusCode::FORBIDDEN, "scope_missing", &detail).field(format!("scopes[{place}]"), detail))
}

fn unauthorized() -> ApiError {
    refuse("key_missing", "send a key: Authorization: Bearer KEY; `agentkeep keys create` makes one".to_owned())
}

fn refuse(code: &'static str, detail: String) -> ApiError {
    let challenge = HeaderValue::from_static("Bearer realm=\"agentkeep\"");
    ApiError::new(StatusCode::UNAUTHORIZED, code, detail).header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "localhost:8787", "127.0.0.1:1", "127.8.8.8", "[::1]:80", "LOCALHOST"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "10.0.0.1:8787", "[::2]", "0.0.0.0"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
