//! Connections that one caller has to himself: for transactions and for statements that may take long.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts},
};
use tokio::runtime::Handle;

use super::{
    super::{Config, PoolGauges},
    connect::Connector,
    error::{Fault, unavailable},
    link::Link,
};

/// How long `open` leaves the first callers to themselves before the pool is filled: a command that ends
/// after one statement opens no connections for nothing.
const FILL_AFTER: Duration = Duration::from_millis(250);

struct Manager(Arc<Connector>);

impl managed::Manager for Manager {
    type Type = Link;
    type Error = Fault;

    async fn create(&self) -> Result<Link, Fault> {
        // Boxed: every future of the store would hold the twenty kilobytes of a connection being made.
        Box::pin(self.0.connect()).await
    }

    // Nothing is asked of the server: a test before each use halves the speed of short statements. A
    // connection that dies between two uses is found by its first statement, which is repeated where that
    // is safe.
    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<Fault> {
        if link.is_usable() { Ok(()) } else { Err(RecycleError::message("the connection was closed")) }
    }
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    links: managed::Pool<Manager>,
    connector: Arc<Connector>,
    acquire_timeout: Duration,
    runtime: Handle,
}

impl Pool {
    /// # Errors
    /// [`Error::Config`] when the limits make no sense.
    pub(super) fn new(connector: Arc<Connector>, config: &Config) -> Result<Self> {
        let links = managed::Pool::builder(Manager(Arc::clone(&connector)))
            .max_size(config.pool_max.max(1))
            // The connection used last: its statements are prepared, its server process is warm.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Config(format!("connection pool: {error}")))?;
        Ok(Self { links, connector, acquire_timeout: config.acquire_timeout, runtime: Handle::current() })
    }

    /// A connection for the caller alone.
    ///
    /// # Errors
    /// [`Fault::Away`] holding [`Error::PoolTimeout`] when none becomes free in time, or what connecting says.
    pub(super) async fn acquire(&self) -> Result<Lease, Fault> {
        let started = Instant::now();
        let timeouts = Timeouts { wait: Some(self.acquire_timeout), create: None, recycle: None };
        match self.links.timeout_get(&timeouts).await {
            Ok(object) => Ok(Lease { object: Some(object), left: Left::Nothing, runtime: self.runtime.clone() }),
            Err(PoolError::Backend(fault)) => Err(fault),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(Fault::Away(self.exhausted(started.elapsed()))),
            Err(PoolError::Closed) => Err(Fault::Away(unavailable(self.connector.target(), "the store was closed"))),
            Err(error) => Err(Fault::Away(unavailable(self.connector.target(), &format!("{error:?}")))),
        }
    }

    fn exhausted(&self, waited: Duration) -> Error {
        let gauges = self.gauges();
        Error::PoolTimeout { size: gauges.size, in_use: gauges.in_use, waiting: gauges.waiting, waited }
    }

    /// Opens connections until `count` are there, one after another, in the background.
    pub(super) fn fill(&self, count: usize) {
        let pool = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(FILL_AFTER).await;
            let mut held = Vec::new();
            while held.len() < count && pool.links.status().size < count && !pool.links.is_closed() {
                match pool.acquire().await {
                    Ok(lease) => held.push(lease),
                    Err(_) => return,
                }
            }
        });
    }

    pub(super) fn gauges(&self) -> PoolGauges {
        let status = self.links.status();
        let in_use = status.size.saturating_sub(status.available);
        PoolGauges {
            size: status.max_size,
            open: status.size,
            in_use,
            idle: status.size - in_use,
            waiting: status.waiting,
            queued_writes: 0,
        }
    }

    pub(super) fn close(&self) {
        self.links.close();
    }
}

/// A connection on loan. Dropped, it goes back to the pool, cleaned first if it has to be.
pub(super) struct Lease {
    object: Option<Object<Manager>>,
    left: Left,
    runtime: Handle,
}

/// What a lease leaves behind when it is dropped now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// An open transaction, or a statement that may run to its end.
    Work,
    /// A statement that nobody wants to see the end of.
    Abandoned,
}

impl Lease {
    /// Says what has to be cleaned up if the lease is dropped from here on.
    pub(super) fn leaves(&mut self, left: Left) {
        self.left = left;
    }

    /// Takes the connection out of the pool and ends it.
    pub(super) fn discard(mut self) {
        if let Some(object) = self.object.take() {
            Object::take(object).kill();
        }
    }
}

impl Deref for Lease {
    type Target = Link;

    fn deref(&self) -> &Link {
        match &self.object {
            Some(object) => object,
            // `object` leaves only in `discard` and `drop`, which consume the lease.
            None => unreachable!("a lease holds its connection until it ends"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let left = self.left;
        let Some(object) = self.object.take().filter(|_| left != Left::Nothing) else { return };
        if !object.is_usable() {
            Object::take(object).kill();
            return;
        }
        // The caller went away. Should this task never run, the guard ends the connection and the server
        // rolls back by itself.
        let cleaning = Cleaning(Some(object));
        self.runtime.spawn(cleaning.run(left));
    }
}

struct Cleaning(Option<Object<Manager>>);

impl Cleaning {
    async fn run(mut self, left: Left) {
        let Some(object) = &self.0 else { return };
        if left == Left::Abandoned {
            // The request may arrive late: a connection that got one is not used again.
            object.cancel().await;
        } else if object.command("ROLLBACK").await.is_ok() {
            drop(self.0.take());
        }
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            Object::take(object).kill();
        }
    }
}
