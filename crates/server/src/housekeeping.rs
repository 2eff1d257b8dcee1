//! What has to be done now and then, whoever calls: jobs whose time has come, answers and events that nobody will ask
//! for again, when keys were last used.

use std::{collections::HashSet, time::Duration};

use agentkeep::{
    Store, TenantStore,
    core::{ApiKeyId, ListRequest, Result, TenantId, limits},
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::app::App;

/// Between two looks at the jobs.
const TEND: Duration = Duration::from_secs(1);
/// Between two rounds of clearing away.
const CLEAR: Duration = Duration::from_secs(60);
/// For how long a repeated request gets its first answer.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// For how long the events of streamed messages can be asked for again; the messages stay.
const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The keys that were used since it was last written down.
#[derive(Default)]
pub(crate) struct Used(Mutex<HashSet<(TenantId, ApiKeyId)>>);

impl Used {
    pub(crate) fn note(&self, tenant: TenantId, key: ApiKeyId) {
        self.0.lock().insert((tenant, key));
    }
}

/// Goes on until the server stops. What fails is tried again in the next round.
pub(crate) async fn run(app: App) {
    let mut cleared: Option<Instant> = None;
    loop {
        tokio::select! {
            () = sleep(TEND) => {}
            () = app.stopped() => break,
        }
        app.metrics.sum_up();
        let Ok(store) = app.store() else { continue };
        let clear = cleared.is_none_or(|at| at.elapsed() >= CLEAR);
        if clear {
            cleared = Some(Instant::now());
        }
        told("keys", note_used(&app, store).await);
        told("housekeeping", round(store, clear).await);
    }
    if let Ok(store) = app.store() {
        told("keys", note_used(&app, store).await);
    }
}

fn told(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(target: "agentkeep::http", "{what}: {error}; trying again");
    }
}

/// One round through the tenants. What fails for one does not keep the others waiting.
async fn round(store: &Store, clear: bool) -> Result<()> {
    let mut last = Ok(());
    let mut request = ListRequest::new().limit(limits::PAGE_ITEMS);
    loop {
        let page = store.tenants().list(&request).await?;
        for tenant in page.items {
            let outcome = look_after(&store.tenant(tenant.id), clear).await;
            last = outcome.and(last);
        }
        match page.next {
            Some(next) => request = request.after(next),
            None => return last,
        }
    }
}

async fn look_after(tenant: &TenantStore, clear: bool) -> Result<()> {
    tenant.jobs().tend().await?;
    if clear {
        let now = tenant.now();
        tenant.idempotency_keys().prune(now.minus(ANSWERS_KEPT)).await?;
        tenant.session_events().prune(now.minus(EVENTS_KEPT)).await?;
    }
    Ok(())
}

/// Writes down when the keys were last used.
async fn note_used(app: &App, store: &Store) -> Result<()> {
    let used = std::mem::take(&mut *app.used.0.lock());
    let tenants: HashSet<TenantId> = used.iter().map(|(tenant, _)| *tenant).collect();
    for tenant in tenants {
        let keys: Vec<ApiKeyId> = used.iter().filter(|(of, _)| *of == tenant).map(|(_, key)| *key).collect();
        let tenant = store.tenant(tenant);
        tenant.api_keys().touch(&keys, tenant.now()).await?;
    }
    Ok(())
}
