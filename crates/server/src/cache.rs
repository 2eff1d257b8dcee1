//! What was read of sessions lately, in memory and as it is sent: the session, its newest messages.
//!
//! What is kept is right as long as its stamp is, and the stamp is read for every answer: so a copy is never stale,
//! whoever wrote, and a notification that got lost costs nothing. Stamps are narrow and those of all who ask at the
//! same time are read in one statement, so that a hit costs a fraction of reading the rows.

use std::sync::Arc;

use agentkeep::{
    TenantStore,
    core::{SessionId, SessionStamp, TenantId},
};
use axum::{
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use moka::sync::Cache;
use serde::Serialize;

use crate::{
    body,
    error::{ApiError, Result},
    resource::{Resource, etag, with_tag},
    together::{self, Asked, Together},
};

/// Bytes that are kept.
pub(crate) const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Sessions whose stamps one statement reads at most.
const STAMPS_AT_ONCE: usize = 256;
/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 320;

/// What is read of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// The session itself.
    Session,
    /// Its newest messages, so many of them at most, valid for a provider or as they are.
    Context { limit: u32, valid: bool },
    /// System D's conversation, with so many of the newest messages.
    Conversation { limit: u32 },
}

type Key = (TenantId, SessionId, View);

/// Whose stamp is asked for.
type Of = (TenantStore, SessionId);

/// The answers that are kept.
pub(crate) struct Sessions {
    kept: Cache<Key, Arc<Kept>>,
    stamps: Arc<Together<Of, Result<Option<SessionStamp>>>>,
}

/// An answer, and the stamp of its session when it was made.
struct Kept {
    stamp: SessionStamp,
    sent: Sent,
}

/// An answer as it is sent.
#[derive(Clone)]
pub(crate) struct Sent {
    json: Bytes,
    tag: Option<HeaderValue>,
}

impl Sent {
    /// An answer with a version.
    pub(crate) fn resource(resource: &impl Resource) -> Result<Self> {
        Ok(Self { tag: etag(resource), ..Self::value(resource)? })
    }

    /// An answer without one.
    pub(crate) fn value(value: &impl Serialize) -> Result<Self> {
        // It may be kept for long: in no more memory than it needs.
        Ok(Self { json: Bytes::copy_from_slice(&body::json(value)?), tag: None })
    }
}

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        body::written(StatusCode::OK, with_tag(self.tag), self.json)
    }
}

impl Sessions {
    pub(crate) fn new(bytes: u64) -> Self {
        let weigh = |_: &Key, kept: &Arc<Kept>| u32::try_from(kept.sent.json.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
        Self { kept: Cache::builder().max_capacity(bytes).weigher(weigh).build(), stamps: Arc::default() }
    }

    /// What is kept of a session, if that is still right; else what `load` reads, which is kept from then on.
    ///
    /// # Errors
    /// 404 when there is no such session, and what `load` and the database report.
    pub(crate) async fn get<Work>(
        &self,
        tenant: &TenantStore,
        id: SessionId,
        view: View,
        load: impl FnOnce() -> Work,
    ) -> Result<Sent>
    where
        Work: Future<Output = Result<Sent>>,
    {
        let key = (tenant.id(), id, view);
        let Some(stamp) = self.stamp(tenant, id).await? else {
            self.kept.invalidate(&key);
            return Err(ApiError::not_found("session", id));
        };
        if let Some(kept) = self.kept.get(&key).filter(|kept| kept.stamp == stamp) {
            return Ok(kept.sent.clone());
        }
        // The stamp is older than what is read now, if they differ: the next look finds that out.
        let sent = load().await?;
        self.kept.insert(key, Arc::new(Kept { stamp, sent: sent.clone() }));
        Ok(sent)
    }

    async fn stamp(&self, tenant: &TenantStore, id: SessionId) -> Result<Option<SessionStamp>> {
        match self.stamps.ask((tenant.clone(), id), STAMPS_AT_ONCE, read_stamps).await {
            Some(read) => read,
            None => Ok(tenant.sessions().stamps(&[id]).await?.into_iter().next().flatten()),
        }
    }

    /// How many answers are kept, and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.kept.entry_count(), self.kept.weighted_size())
    }
}

/// Reads the stamps of sessions of any tenants; a session that is not there has none.
async fn read_stamps(mut asked: Vec<Asked<Of, Result<Option<SessionStamp>>>>) {
    asked.sort_by_key(|((tenant, _), _)| tenant.id());
    while let Some(((tenant, _), _)) = asked.last() {
        let tenant = tenant.clone();
        let first = asked.partition_point(|((of, _), _)| of.id() < tenant.id());
        let of_tenant = asked.split_off(first);
        let ids: Vec<SessionId> = of_tenant.iter().map(|((_, id), _)| *id).collect();
        let read = tenant.sessions().stamps(&ids).await;
        together::answer(of_tenant, read);
    }
}
