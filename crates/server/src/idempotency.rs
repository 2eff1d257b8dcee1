//! POSTs that may be repeated: with an `Idempotency-Key` the answer is kept in the same transaction as what was
//! written, and given again, byte for byte, whenever the request is repeated.
//!
//! Only answers of success are kept. After any other nothing was written, so that the same key may try again.

use std::{collections::HashSet, sync::Arc};

use agentkeep::{
    TenantStore,
    core::{IDEMPOTENCY_KEY_BYTES, IdempotencyClaim, StoredAnswer, TenantId},
};
use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    response::Response,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{
    app::App,
    auth::Caller,
    body,
    error::{ApiError, Result},
};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The largest answer that is kept.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Headers that belong to the answer and not to its delivery.
const KEPT: [&str; 3] = ["content-type", "etag", "location"];

/// Marks an answer that must not be kept, since it holds a secret: whoever sent a key is refused, and what was done is
/// undone.
#[derive(Clone, Copy)]
pub(crate) struct NotKept;

/// The requests with a key that this process works on.
#[derive(Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<(TenantId, String)>>>);

/// A request that is worked on, until this is dropped.
struct Guard(Arc<Mutex<HashSet<(TenantId, String)>>>, (TenantId, String));

impl Running {
    fn begin(&self, tenant: TenantId, key: &str) -> Option<Guard> {
        let name = (tenant, key.to_owned());
        self.0.lock().insert(name.clone()).then(|| Guard(Arc::clone(&self.0), name))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Gives a repeated POST its first answer, and keeps the answer of a new one, which `answer` gives.
///
/// # Errors
/// 409 while the same is being worked on, 422 for a key of another request, and what the database reports.
pub(crate) async fn once<Answering>(
    app: &App,
    key: String,
    request: Request,
    answer: impl FnOnce(Request) -> Answering,
) -> Result<Response>
where
    Answering: Future<Output = Response>,
{
    let Some(caller) = request.extensions().get::<Caller>().cloned() else { return Ok(answer(request).await) };
    let Some(_guard) = app.running.begin(caller.tenant_id(), &key) else { return Err(in_use(&key)) };
    let (parts, content) = request.into_parts();
    let bytes = body::read(Request::from_parts(parts.clone(), content)).await?;
    let fingerprint = fingerprint(&parts.method, parts.uri.path_and_query().map_or("", |it| it.as_str()), &bytes);

    let store = app.store()?;
    let tx = store.begin().await?;
    let tenant = store.tenant_in(&tx, caller.tenant_id());
    let claim = Claim { key, fingerprint };
    if let Some(answer) = claim.take(&tenant).await? {
        return Ok(again(answer));
    }
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request.extensions_mut().insert(Caller { tenant: tenant.clone(), ..caller });
    let response = answer(request).await;
    if !response.status().is_success() {
        // Dropped, the transaction is undone.
        return Ok(response);
    }
    if response.extensions().get::<NotKept>().is_some() {
        return Err(not_supported());
    }
    let (parts, content) = response.into_parts();
    let bytes = to_bytes(content, ANSWER_BYTES).await.map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "answer_too_large",
            format!("the answer cannot be kept: {error}"),
        )
    })?;
    let headers = KEPT.iter().filter_map(|name| {
        let value = parts.headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    let answer = StoredAnswer { status: parts.status.as_u16(), headers: headers.collect(), body: bytes.to_vec() };
    claim.keep(&tenant, &answer).await?;
    drop(tenant);
    tx.commit().await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// The key of a repeatable request.
///
/// # Errors
/// 400 for one that cannot be kept.
pub(crate) fn key_of(request: &Request) -> Result<Option<String>> {
    let Some(key) = request.headers().get(&IDEMPOTENCY_KEY).filter(|_| *request.method() == Method::POST) else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES => Ok(Some(key.trim().to_owned())),
        _ => {
            let reason = format!("must be 1 to {IDEMPOTENCY_KEY_BYTES} visible ASCII characters");
            Err(ApiError::invalid("Idempotency-Key", reason))
        }
    }
}

/// A JSON body, and the key that makes the request repeatable: for routes that answer with a stream, which the layer
/// cannot keep. They claim the key themselves and keep what they need to stream the same again.
pub(crate) struct Keyed<T> {
    pub(crate) body: T,
    pub(crate) claim: Option<Claim>,
}

/// The key of a request that is not claimed yet.
pub(crate) struct Claim {
    key: String,
    fingerprint: [u8; 32],
}

impl Claim {
    /// Claims the key in a transaction; what was kept under it when the request was done before.
    ///
    /// # Errors
    /// 422 when the key was used for another request.
    pub(crate) async fn take(&self, tenant: &TenantStore) -> Result<Option<StoredAnswer>> {
        match tenant.idempotency_keys().claim(&self.key, self.fingerprint).await? {
            IdempotencyClaim::New => Ok(None),
            IdempotencyClaim::Repeated(answer) => Ok(Some(answer)),
            IdempotencyClaim::Different => Err(reused(&self.key)),
        }
    }

    /// Keeps the answer in the transaction that the key was claimed in.
    pub(crate) async fn keep(&self, tenant: &TenantStore, answer: &StoredAnswer) -> Result<()> {
        Ok(tenant.idempotency_keys().answer(&self.key, answer).await?)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Keyed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self> {
        body::check_content_type(request.headers())?;
        let key = key_of(&request)?;
        let (parts, content) = request.into_parts();
        let bytes = body::read(Request::from_parts(parts.clone(), content)).await?;
        let target = parts.uri.path_and_query().map_or("", |it| it.as_str());
        let claim = key.map(|key| Claim { key, fingerprint: fingerprint(&parts.method, target, &bytes) });
        Ok(Self { body: body::parse(&bytes)?, claim })
    }
}

/// What the same request always has: the method, where it goes, and its body.
fn fingerprint(method: &Method, target: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), target.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first answer once more.
fn again(answer: StoredAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    response
}

fn in_use(key: &str) -> ApiError {
    let detail = format!("a request with the key {key:?} is being worked on; repeat it later for its answer");
    let refusal = ApiError::new(StatusCode::CONFLICT, "idempotency_key_in_use", &detail);
    refusal.field("Idempotency-Key", detail).retry_after(std::time::Duration::from_secs(1))
}

fn not_supported() -> ApiError {
    let detail = "the answer holds a secret, which is not kept: send this request without an Idempotency-Key";
    ApiError::new(StatusCode::BAD_REQUEST, "idempotency_not_supported", detail).field("Idempotency-Key", detail)
}

fn reused(key: &str) -> ApiError {
    let detail = format!("the key {key:?} was used for another request; take a new one");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", &detail).field("Idempotency-Key", detail)
}
