//! Runs of processes: this one says that it lives, and closes the runs of those that do not.

use std::time::Duration;

use agentkeep::{Store, TenantStore};
use agentkeep_core::{Error, Finish, ListRequest, Result, Run, RunOutcome, StreamError};

use super::{Answers, LEASE, running::Stop};
use crate::app::App;

/// How often this process says that it lives, and looks for those that do not.
const BEAT: Duration = Duration::from_secs(5);
/// Runs that one statement is about.
const AT_ONCE: usize = 1000;
/// Runs that are taken over at once: each is closed before its new lease is over.
const TAKEN_AT_ONCE: u32 = 100;

/// Keeps the leases of this process and closes what others left, until it is aborted.
pub(crate) async fn tend(app: App) {
    let store = loop {
        match app.store() {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let answers = &app.answers;
    tokio::join!(answers.instances.follow(store), answers.keep_leases(store), answers.close_abandoned(store));
}

impl Answers {
    async fn keep_leases(&self, store: &Store) {
        loop {
            tokio::time::sleep(BEAT).await;
            for (tenant, runs) in self.running.by_tenant() {
                let tenant = store.tenant(tenant);
                for runs in runs.chunks(AT_ONCE) {
                    match tenant.runs().heartbeat(&self.owner, runs, tenant.now().plus(LEASE)).await {
                        Ok(kept) => runs.iter().filter(|run| !kept.contains(run)).for_each(|run| {
                            // A run that has just ended is not kept either, and does not hear this.
                            self.running.stop(*run, Stop::Lost);
                        }),
                        Err(error) => tracing::warn!(target: "agentkeep::answers", "leases were not extended: {error}"),
                    }
                }
            }
        }
    }

    async fn close_abandoned(&self, store: &Store) {
        loop {
            if let Err(error) = self.close_all(store).await {
                tracing::warn!(target: "agentkeep::answers", "abandoned runs were not closed: {error}");
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn close_all(&self, store: &Store) -> Result<()> {
        let mut request = ListRequest::new().limit(1000);
        loop {
            let page = store.tenants().list(&request).await?;
            for tenant in page.items {
                let tenant = store.tenant(tenant.id);
                loop {
                    let taken = tenant.runs().take_expired(&self.owner, LEASE, TAKEN_AT_ONCE).await?;
                    for run in &taken {
                        self.close(&tenant, run).await?;
                    }
                    if taken.len() < TAKEN_AT_ONCE as usize {
                        break;
                    }
                }
            }
            match page.next {
                Some(cursor) => request = ListRequest::new().limit(1000).after(cursor),
                None => return Ok(()),
            }
        }
    }

    /// Ends what a run left, and the run.
    async fn close(&self, tenant: &TenantStore, run: &Run) -> Result<()> {
        // It was this process's own, which did not come to extend the lease: it may not write any more.
        self.running.stop(run.id, Stop::Lost);
        let (code, text) = ("server_stopped", "the server ended before the answer was complete");
        for message in tenant.messages().streaming_of_run(run).await? {
            unless_over(tenant.messages().finish(run.session_id, message, Finish::failed(code, text)).await)?;
        }
        let error = StreamError { code: code.to_owned(), message: text.to_owned() };
        unless_over(tenant.runs().finish(run.id, &self.owner, RunOutcome::Failed(error), None).await)?;
        tracing::warn!(target: "agentkeep::answers", run = %run.id, "closed a run whose server is gone");
        Ok(())
    }
}

/// Somebody else may have ended or deleted it meanwhile.
fn unless_over<T>(outcome: Result<T>) -> Result<()> {
    match outcome {
        Ok(_) | Err(Error::IllegalTransition { .. } | Error::NotFound { .. } | Error::RunFenced { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
