//! Who waits for jobs, and who wakes them.
//!
//! Those of the same process are woken as soon as what was enqueued is committed, those of others through the
//! database, by one task that says at most once in a while what happened. All of it is a hint: who waits also looks by
//! himself once a second.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentkeep_core::TenantId;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

use crate::engine::Engine;

/// What happens in this time is said together.
const SAY_TOGETHER: Duration = Duration::from_millis(10);

/// A queue of a tenant.
type Key = (TenantId, String);

/// Those of this process that wait for jobs, and what others are still to be told.
pub(crate) struct Wakes {
    engine: Engine,
    waiting: Mutex<HashMap<Key, Vec<Weak<Notify>>>>,
    untold: Mutex<Untold>,
    listening: AtomicBool,
}

#[derive(Default)]
struct Untold {
    queues: BTreeSet<Key>,
    /// A task is about to tell them.
    telling: bool,
}

impl Wakes {
    pub(crate) fn new(engine: Engine) -> Arc<Self> {
        Arc::new(Self {
            engine,
            waiting: Mutex::default(),
            untold: Mutex::default(),
            listening: AtomicBool::new(false),
        })
    }

    /// Wakes whoever waits for one of these queues, here and in other processes.
    pub(crate) fn wake(self: &Arc<Self>, tenant: TenantId, queues: &BTreeSet<String>) {
        let mut start = false;
        for queue in queues {
            let key = (tenant, queue.clone());
            self.wake_here(&key);
            let mut untold = self.untold.lock();
            untold.queues.insert(key);
            start |= !std::mem::replace(&mut untold.telling, true);
        }
        // Without a runtime nobody of this process waits, and others look by themselves.
        if start && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).tell());
        }
    }

    async fn tell(self: Arc<Self>) {
        loop {
            let queues = {
                let mut untold = self.untold.lock();
                untold.telling = !untold.queues.is_empty();
                std::mem::take(&mut untold.queues)
            };
            if queues.is_empty() {
                return;
            }
            for (tenant, queue) in queues {
                if let Err(error) = self.engine.tell(&format!("{tenant}:{queue}")).await {
                    tracing::debug!(target: "agentkeep::jobs", "nobody was told of new jobs: {error}");
                }
            }
            tokio::time::sleep(SAY_TOGETHER).await;
        }
    }

    fn wake_here(&self, key: &Key) {
        if let Some(waiting) = self.waiting.lock().get(key) {
            waiting.iter().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
        }
    }

    /// Something was said, or something may have changed. Whether anybody waits.
    fn heard(&self, words: &str) -> bool {
        let key = words.split_once(':').and_then(|(tenant, queue)| Some((tenant.parse().ok()?, queue.to_owned())));
        if let Some(key) = key {
            self.wake_here(&key);
            return true;
        }
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, waiting| {
            waiting.retain(|notify| notify.strong_count() > 0);
            waiting.iter().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
            !waiting.is_empty()
        });
        if waiting.is_empty() {
            self.listening.store(false, Ordering::Release);
        }
        !waiting.is_empty()
    }

    /// What is notified when there may be jobs in a queue, for as long as it is kept.
    pub(crate) fn waiter(self: &Arc<Self>, tenant: TenantId, queue: &str) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        waiting.entry((tenant, queue.to_owned())).or_default().push(Arc::downgrade(&notify));
        if !self.listening.swap(true, Ordering::AcqRel) {
            let wakes = Arc::downgrade(self);
            let heard = move |words: &str| wakes.upgrade().is_some_and(|wakes| wakes.heard(words));
            self.engine.listen(Arc::new(heard));
        }
        notify
    }
}
