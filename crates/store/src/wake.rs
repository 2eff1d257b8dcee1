//! Who waits for jobs, and who wakes them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use agentkeep_core::TenantId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Those of this process that wait for jobs, by tenant and queue.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    waiting: Mutex<HashMap<(TenantId, String), Arc<Notify>>>,
}

impl Wakes {
    /// Wakes whoever waits for one of these queues.
    pub(crate) fn wake(&self, tenant: TenantId, queues: &BTreeSet<String>) {
        let waiting = self.waiting.lock();
        for queue in queues {
            if let Some(notify) = waiting.get(&(tenant, queue.clone())) {
                notify.notify_one();
            }
        }
    }
}
