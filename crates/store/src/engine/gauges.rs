//! What the connection pool is doing right now.

use serde::Serialize;

/// A reading of the connection pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PoolGauges {
    /// Connections the pool may open.
    pub size: usize,
    /// Connections that are open.
    pub open: usize,
    /// Connections that run a statement or a transaction.
    pub in_use: usize,
    /// Connections that are open and free.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// Writes that wait to be committed together.
    pub queued_writes: usize,
}
