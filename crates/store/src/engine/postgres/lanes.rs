//! A few connections that many callers share: short reads are pipelined on them, so none waits for a
//! connection and the server works on the next statement while an answer travels.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;

use super::{
    connect::{Connector, Purpose},
    error::Fault,
    link::Link,
};

/// Connections for short reads. With 8 callers on two processors three answer as many as four on average, but in some
/// runs the system leaves all of them to one processor, and one read in a hundred takes 2 ms instead of 1; two answer a
/// tenth fewer, and so do eight.
const READ_LANES: usize = 4;

/// A connection that is made when it is first needed and again when it has ended.
pub(super) struct Lane {
    connector: Arc<Connector>,
    purpose: Purpose,
    link: RwLock<Option<Arc<Link>>>,
    /// Held while connecting, so that callers that find the lane dead together connect once.
    connecting: tokio::sync::Mutex<()>,
    users: AtomicUsize,
}

impl Lane {
    pub(super) fn new(connector: Arc<Connector>, purpose: Purpose) -> Self {
        Self {
            connector,
            purpose,
            link: RwLock::default(),
            connecting: tokio::sync::Mutex::new(()),
            users: AtomicUsize::new(0),
        }
    }

    /// The lane's connection, made now if there is none.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Fault> {
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        let link = Arc::new(Box::pin(self.connector.connect_for(self.purpose)).await?);
        *self.link.write() = Some(Arc::clone(&link));
        Ok(link)
    }

    fn usable(&self) -> Option<Arc<Link>> {
        self.link.read().as_ref().filter(|link| link.is_usable()).cloned()
    }

    /// Gives up the connection; what is under way on it still comes to its end.
    pub(super) fn close(&self) {
        self.link.write().take();
    }
}

/// The lanes of short reads.
pub(super) struct ReadLanes(Vec<Lane>);

impl ReadLanes {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        Self((0..READ_LANES).map(|_| Lane::new(Arc::clone(connector), Purpose::Reads)).collect())
    }

    /// The lane with the fewest statements under way; a lone caller always gets the first.
    pub(super) fn pick(&self) -> LaneUse<'_> {
        let lane = self.0.iter().min_by_key(|lane| lane.users.load(Ordering::Relaxed)).unwrap_or(&self.0[0]);
        lane.users.fetch_add(1, Ordering::Relaxed);
        LaneUse(lane)
    }

    pub(super) fn close(&self) {
        self.0.iter().for_each(Lane::close);
    }
}

/// A statement under way on a lane.
pub(super) struct LaneUse<'a>(&'a Lane);

impl LaneUse<'_> {
    pub(super) async fn link(&self) -> Result<Arc<Link>, Fault> {
        self.0.link().await
    }
}

impl Drop for LaneUse<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}
