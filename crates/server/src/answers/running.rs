//! The runs that this process is at.

use std::{collections::HashMap, sync::Arc, time::Duration};

use agentkeep_core::{RunId, StreamError, TenantId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Why a run has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The server ends.
    ServerStopping,
    /// Somebody wants it to end.
    Cancelled,
    /// It is somebody else's, or over: nothing of it may be written any more.
    Lost,
}

impl Stop {
    /// What is written of it.
    pub(super) fn error(self) -> StreamError {
        let (code, message) = match self {
            Self::ServerStopping => ("server_stopping", "the server was ended before the answer was complete"),
            Self::Cancelled => ("cancelled", "the run was cancelled"),
            Self::Lost => ("lease_lost", "another server has taken the run over"),
        };
        StreamError { code: code.to_owned(), message: message.to_owned() }
    }
}

#[derive(Default)]
pub(super) struct Running(Arc<Shared>);

#[derive(Default)]
struct Shared {
    runs: Mutex<HashMap<RunId, Entry>>,
    ended: Notify,
}

struct Entry {
    tenant: TenantId,
    stop: watch::Sender<Option<Stop>>,
}

/// A run that this process is at, until this is dropped.
pub(super) struct Guard {
    shared: Arc<Shared>,
    run: RunId,
    stop: watch::Receiver<Option<Stop>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.runs.lock().remove(&self.run);
        self.shared.ended.notify_waiters();
    }
}

impl Guard {
    /// Waits until the run has to end.
    pub(super) async fn stopped(&self) -> Stop {
        let mut stop = self.stop.clone();
        let found = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        match found {
            Some(stop) => stop,
            // The entry lives as long as this.
            None => std::future::pending().await,
        }
    }
}

impl Running {
    pub(super) fn add(&self, tenant: TenantId, run: RunId) -> Guard {
        let (stop, told) = watch::channel(None);
        self.0.runs.lock().insert(run, Entry { tenant, stop });
        Guard { shared: Arc::clone(&self.0), run, stop: told }
    }

    /// Tells a run to end; whether this process is at it.
    pub(super) fn stop(&self, run: RunId, why: Stop) -> bool {
        let runs = self.0.runs.lock();
        let Some(entry) = runs.get(&run) else { return false };
        entry.stop.send_if_modified(|stop| stop.is_none() && stop.replace(why).is_none());
        true
    }

    pub(super) fn stop_all(&self, why: Stop) {
        let runs: Vec<RunId> = self.0.runs.lock().keys().copied().collect();
        for run in runs {
            self.stop(run, why);
        }
    }

    /// The runs by tenant.
    pub(super) fn by_tenant(&self) -> HashMap<TenantId, Vec<RunId>> {
        let mut runs: HashMap<TenantId, Vec<RunId>> = HashMap::new();
        for (run, entry) in self.0.runs.lock().iter() {
            runs.entry(entry.tenant).or_default().push(*run);
        }
        runs
    }

    /// Waits until a run, or every run, has ended, at most so long; whether it has.
    pub(super) async fn ended(&self, run: Option<RunId>, patience: Duration) -> bool {
        let is_over = || {
            let runs = self.0.runs.lock();
            run.map_or(runs.is_empty(), |run| !runs.contains_key(&run))
        };
        let wait = async {
            loop {
                let ended = self.0.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if is_over() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }
}
