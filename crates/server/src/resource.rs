//! What the resources share: their ids, their versions, and how they are answered.

use std::hash::{DefaultHasher, Hash, Hasher};

use agentkeep::{Lockable, TenantStore};
use agentkeep_core as core;
use axum::{
    extract::{FromRequestParts, Path, RawPathParams, path::ErrorKind, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    app::{API, App},
    auth::Caller,
    body,
    error::{ApiError, Result},
};

/// Room for the headers that an answer has by the time it is sent.
const HEADERS: usize = 12;

/// Something that has an address of its own.
pub(crate) trait Resource: Serialize {
    /// The entity, in the singular, for messages to people.
    const ENTITY: &'static str;
    /// Where they are: the folder of the resource.
    const FOLDER: &'static str;

    /// What names it in its folder.
    fn id(&self) -> String;

    /// A number that every change moves; `None` when it never changes.
    fn version(&self) -> Option<i64>;

    /// Where it is.
    fn address(&self) -> String {
        [API, "/", Self::FOLDER, "/", &self.id()].concat()
    }

    /// What differs whenever the answer does: the version, and behind a dot whatever moves without it.
    fn tag(&self) -> Option<String> {
        self.version().map(|version| version.to_string())
    }
}

macro_rules! resources {
    ($($entity:ident: $name:literal in $folder:literal, $($version:ident)?;)*) => {$(
        impl Resource for core::$entity {
            const ENTITY: &'static str = $name;
            const FOLDER: &'static str = $folder;

            fn id(&self) -> String {
                self.id.to_string()
            }

            fn version(&self) -> Option<i64> {
                resources!(@version self $($version)?)
            }
        }
    )*};
    (@version $this:ident) => { None };
    (@version $this:ident updated_at) => { Some($this.updated_at.as_micros()) };
}

resources! {
    Tenant: "tenant" in "tenants", updated_at;
    User: "user" in "users", updated_at;
    Agent: "agent" in "agents", updated_at;
    Team: "team" in "teams", updated_at;
    McpServer: "MCP server" in "mcp-servers", updated_at;
    Message: "message" in "messages", updated_at;
    Artifact: "artifact" in "artifacts", updated_at;
    Memory: "memory" in "memories", updated_at;
    Prompt: "prompt" in "prompts", updated_at;
    Preference: "preference" in "preferences", updated_at;
    Metric: "metric" in "metrics", ;
    RoutingDecision: "routing decision" in "routing-decisions", ;
    Checkpoint: "checkpoint" in "checkpoints", ;
    ClaimedJob: "job" in "jobs", ;
    JobSchedule: "schedule" in "job-schedules", updated_at;
    Approval: "approval" in "approvals", updated_at;
    Price: "price" in "prices", updated_at;
    LedgerEntry: "ledger entry" in "ledger", ;
    Budget: "budget" in "budgets", updated_at;
    Reservation: "reservation" in "reservations", updated_at;
    Deployment: "deployment" in "deployments", updated_at;
    Run: "run" in "runs", updated_at;
    ApiKey: "key" in "keys", updated_at;
}

impl Resource for core::IssuedApiKey {
    const ENTITY: &'static str = core::ApiKey::ENTITY;
    const FOLDER: &'static str = core::ApiKey::FOLDER;

    fn id(&self) -> String {
        Resource::id(&self.api_key)
    }

    fn version(&self) -> Option<i64> {
        self.api_key.version()
    }
}

/// A version is named by its agent and its number.
impl Resource for core::AgentVersion {
    const ENTITY: &'static str = "agent version";
    const FOLDER: &'static str = "agents";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn version(&self) -> Option<i64> {
        None
    }

    fn address(&self) -> String {
        format!("{API}/{}/{}/versions/{}", Self::FOLDER, self.agent_id, self.number)
    }
}

/// A member is named by its team and its agent.
impl Resource for core::TeamMember {
    const ENTITY: &'static str = "team member";
    const FOLDER: &'static str = "teams";

    fn id(&self) -> String {
        format!("{}/{}", self.team_id, self.agent_id)
    }

    fn version(&self) -> Option<i64> {
        None
    }

    fn address(&self) -> String {
        format!("{API}/{}/{}/members/{}", Self::FOLDER, self.team_id, self.agent_id)
    }
}

/// A link is named by its agent and its server.
impl Resource for core::AgentMcpServer {
    const ENTITY: &'static str = "MCP server of an agent";
    const FOLDER: &'static str = "agents";

    fn id(&self) -> String {
        format!("{}/{}", self.agent_id, self.mcp_server_id)
    }

    fn version(&self) -> Option<i64> {
        Some(self.updated_at.as_micros())
    }

    fn address(&self) -> String {
        format!("{API}/{}/{}/mcp-servers/{}", Self::FOLDER, self.agent_id, self.mcp_server_id)
    }
}

impl Resource for core::AssignedMcpServer {
    const ENTITY: &'static str = core::AgentMcpServer::ENTITY;
    const FOLDER: &'static str = core::AgentMcpServer::FOLDER;

    fn id(&self) -> String {
        self.link.id()
    }

    fn version(&self) -> Option<i64> {
        self.link.version()
    }

    fn address(&self) -> String {
        self.link.address()
    }
}

impl Resource for core::Job {
    const ENTITY: &'static str = "job";
    const FOLDER: &'static str = "jobs";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn version(&self) -> Option<i64> {
        Some(self.updated_at.as_micros())
    }

    fn tag(&self) -> Option<String> {
        // What it waits for changes without a change of the job itself.
        let mut waits = DefaultHasher::new();
        self.waits.hash(&mut waits);
        Some(format!("{}.{:x}", self.updated_at.as_micros(), waits.finish()))
    }
}

impl Resource for core::Reserved {
    const ENTITY: &'static str = core::Reservation::ENTITY;
    const FOLDER: &'static str = core::Reservation::FOLDER;

    fn id(&self) -> String {
        Resource::id(&self.reservation)
    }

    fn version(&self) -> Option<i64> {
        self.reservation.version()
    }
}

impl Resource for core::Session {
    const ENTITY: &'static str = "session";
    const FOLDER: &'static str = "sessions";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn version(&self) -> Option<i64> {
        Some(self.revision)
    }

    fn tag(&self) -> Option<String> {
        // Its messages are counted without a change of the session itself.
        Some(format!("{}.{}.{}", self.revision, self.last_seq, self.message_count))
    }
}

/// 200, with the version in `ETag`.
pub(crate) struct Found<T>(pub(crate) T);

impl<T: Resource> Found<T> {
    /// What was looked for, or 404.
    pub(crate) fn or_not(found: Option<T>, key: impl ToString) -> Result<Self> {
        found.map(Self).ok_or_else(|| ApiError::not_found(T::ENTITY, key))
    }
}

impl<T: Resource> IntoResponse for Found<T> {
    fn into_response(self) -> Response {
        body::answer(StatusCode::OK, with_tag(etag(&self.0)), &self.0)
    }
}

/// 201, with the address in `Location` and the version in `ETag`.
pub(crate) struct Created<T>(pub(crate) T);

impl<T: Resource> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut headers = with_tag(etag(&self.0));
        if let Ok(location) = HeaderValue::try_from(self.0.address()) {
            headers.insert(header::LOCATION, location);
        }
        body::answer(StatusCode::CREATED, headers, &self.0)
    }
}

/// 204: it is gone.
pub(crate) struct Gone;

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// How much was deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    /// How many it were.
    pub(crate) deleted: u64,
}

/// Headers of an answer with this version.
pub(crate) fn with_tag(tag: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
    }
    headers
}

/// The version as `ETag` tells it.
pub(crate) fn etag(resource: &impl Resource) -> Option<HeaderValue> {
    HeaderValue::try_from(["\"", &resource.tag()?, "\""].concat()).ok()
}

/// An id in the path.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(error) => {
                let names = RawPathParams::from_request_parts(parts, app).await;
                let names: Vec<&str> = names.iter().flatten().map(|(name, _)| name).collect();
                Err(refuse(error, &names))
            }
        }
    }
}

/// Tells which parameter of a path is wrong, of those with these names, and why.
fn refuse(error: PathRejection, names: &[&str]) -> ApiError {
    let whole = error.body_text();
    let PathRejection::FailedToDeserializePathParams(error) = error else { return ApiError::invalid("path", whole) };
    match (error.into_kind(), names) {
        (ErrorKind::DeserializeError { key, value, message }, _) => {
            ApiError::invalid(key, format!("{value:?} is not valid: {message}"))
        }
        (ErrorKind::ParseErrorAtKey { key, value, .. }, _) => ApiError::invalid(key, format!("{value:?} is not valid")),
        (ErrorKind::ParseErrorAtIndex { index, value, .. }, names) if index < names.len() => {
            ApiError::invalid(names[index], format!("{value:?} is not valid"))
        }
        (ErrorKind::ParseError { value, .. }, [name]) => ApiError::invalid(*name, format!("{value:?} is not valid")),
        (ErrorKind::Message(message), [name]) => ApiError::invalid(*name, message),
        (ErrorKind::InvalidUtf8InPathParam { key }, _) => ApiError::invalid(key, "is no UTF-8"),
        _ => ApiError::invalid("path", whole),
    }
}

/// `If-Match`: do it only if the resource still has this version.
#[derive(Clone, Copy)]
pub(crate) struct IfMatch(pub(crate) Option<i64>);

impl IfMatch {
    /// Does `work` if the resource still has the version that was named, with its row locked meanwhile; always when
    /// none was.
    ///
    /// # Errors
    /// 412 with the version that it has, and what `work` tells.
    pub(crate) async fn then<T, F, Work>(self, caller: &Caller, row: Lockable, work: F) -> Result<T>
    where
        F: Fn(TenantStore) -> Work,
        Work: Future<Output = core::Result<T>>,
    {
        let Some(expected) = self.0 else { return Ok(work(caller.tenant.clone()).await?) };
        let work = &work;
        let guarded = |tenant: TenantStore| async move {
            let current = match (tenant.lock_updated_at(row).await?, row) {
                // Sessions count their changes.
                (Some(_), Lockable::Session(id)) => tenant.sessions().get(id).await?.map(|session| session.revision),
                (found, _) => found.map(|updated_at| updated_at.as_micros()),
            };
            match current {
                Some(current) if current != expected => {
                    let key = format!("{row:?}");
                    Err(core::Error::StaleRevision { entity: "resource", key, expected, current })
                }
                // What is not there is told by the work itself.
                _ => work(tenant).await,
            }
        };
        caller.tenant.transaction(guarded).await.map_err(|error| ApiError::from(error).as_precondition())
    }
}

impl FromRequestParts<App> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let version = tag.and_then(|tag| tag.split('.').next()).and_then(|version| version.parse().ok());
        match version {
            Some(version) => Ok(Self(Some(version))),
            None => Err(ApiError::invalid("If-Match", format!("{text:?} is no ETag that was given out"))),
        }
    }
}
