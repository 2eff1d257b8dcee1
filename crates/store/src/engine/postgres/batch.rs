//! Statements about many rows: their columns bound as arrays, on connections that are planned for them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::ToSql;

use super::{
    super::{BatchSql, Value, row::Rows},
    connect::{Connector, Purpose},
    encode::ColumnArray,
    error::Fault,
    lanes::Lane,
    link::{Link, Ready},
};

/// Connections for batches. Claims and completions of one process overlap on them; more did not help.
const BATCH_LANES: usize = 4;
/// Connections for rows that are appended together. Whoever finds none free takes one of the pool.
const BULK_APPEND_LANES: usize = 2;

/// Runs a batch over `rows` as one statement; what comes of it goes to `out`.
pub(super) async fn run(
    link: &Link,
    ready: &Ready,
    sql: &BatchSql,
    fixed: &[Value],
    rows: &[Vec<Value>],
    out: &mut dyn Rows,
) -> Result<(), Fault> {
    let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    let width = rows.first().map_or(0, |row| row.len());
    let columns: Vec<ColumnArray<'_>> = (0..width).map(|column| ColumnArray { rows: &rows, column }).collect();
    let fixed = fixed.iter().map(|value| value as &(dyn ToSql + Sync));
    let params: Vec<_> = fixed.chain(columns.iter().map(|column| column as &(dyn ToSql + Sync))).collect();
    link.rows(sql.postgres.postgres(), ready, &params, out).await
}

/// The connections, each used by one caller at a time: a batch may take long, and nobody should wait behind it.
pub(super) struct BatchLanes {
    lanes: Vec<Lane>,
    free: Mutex<Vec<usize>>,
    permits: Semaphore,
}

impl BatchLanes {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        Self::of(connector, Purpose::Batches, BATCH_LANES)
    }

    /// For rows that are appended together.
    pub(super) fn for_appends(connector: &Arc<Connector>) -> Self {
        Self::of(connector, Purpose::Appends, BULK_APPEND_LANES)
    }

    fn of(connector: &Arc<Connector>, purpose: Purpose, count: usize) -> Self {
        Self {
            lanes: (0..count).map(|_| Lane::new(Arc::clone(connector), purpose)).collect(),
            free: Mutex::new((0..count).rev().collect()),
            permits: Semaphore::new(count),
        }
    }

    /// A connection for the caller alone, the one used last.
    pub(super) async fn acquire(&self) -> BatchLane<'_> {
        // Nobody closes the semaphore.
        self.lend(self.permits.acquire().await.ok())
    }

    /// The same, if one is free.
    pub(super) fn try_acquire(&self) -> Option<BatchLane<'_>> {
        self.permits.try_acquire().ok().map(|permit| self.lend(Some(permit)))
    }

    fn lend<'a>(&'a self, permit: Option<SemaphorePermit<'a>>) -> BatchLane<'a> {
        let index = self.free.lock().pop().unwrap_or(0);
        BatchLane { lanes: self, index, _permit: permit }
    }

    pub(super) fn close(&self) {
        self.lanes.iter().for_each(Lane::close);
    }
}

/// A connection on loan.
pub(super) struct BatchLane<'a> {
    lanes: &'a BatchLanes,
    index: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

impl BatchLane<'_> {
    pub(super) async fn link(&self) -> Result<Arc<Link>, Fault> {
        self.lanes.lanes[self.index].link().await
    }
}

impl Drop for BatchLane<'_> {
    fn drop(&mut self) {
        self.lanes.free.lock().push(self.index);
    }
}
