//! Protections that a test may turn off in one store, to see that it fails without them.

use std::sync::atomic::{AtomicBool, Ordering};

/// The switches of a store; all protections are on.
#[derive(Debug, Default)]
pub struct Controls {
    no_row_lock: AtomicBool,
    no_fence: AtomicBool,
    no_budget_gate: AtomicBool,
    no_stream_fence: AtomicBool,
    no_late_starts: AtomicBool,
    no_uncut_runs: AtomicBool,
}

impl Controls {
    /// From here on jobs are changed without locking their rows.
    pub fn without_row_lock(&self) {
        self.no_row_lock.store(true, Ordering::Relaxed);
    }

    /// From here on jobs are completed whatever attempt says so.
    pub fn without_fence(&self) {
        self.no_fence.store(true, Ordering::Relaxed);
    }

    /// From here on jobs are claimed whatever they may cost.
    pub fn without_budget_gate(&self) {
        self.no_budget_gate.store(true, Ordering::Relaxed);
    }

    /// From here on a streamed message grows if it was streaming a moment before.
    pub fn without_stream_fence(&self) {
        self.no_stream_fence.store(true, Ordering::Relaxed);
    }

    /// From here on a claim leaves a job alone whose row is written while it looks at it.
    pub fn without_late_starts(&self) {
        self.no_late_starts.store(true, Ordering::Relaxed);
    }

    /// From here on claims go on behind the last job that was taken, wherever its run begins.
    pub fn without_uncut_runs(&self) {
        self.no_uncut_runs.store(true, Ordering::Relaxed);
    }

    pub(crate) fn uncut_runs_are_off(&self) -> bool {
        self.no_uncut_runs.load(Ordering::Relaxed)
    }

    pub(crate) fn late_starts_are_off(&self) -> bool {
        self.no_late_starts.load(Ordering::Relaxed)
    }

    pub(crate) fn stream_fence_is_off(&self) -> bool {
        self.no_stream_fence.load(Ordering::Relaxed)
    }

    pub(crate) fn row_lock_is_off(&self) -> bool {
        self.no_row_lock.load(Ordering::Relaxed)
    }

    pub(crate) fn fence_is_off(&self) -> bool {
        self.no_fence.load(Ordering::Relaxed)
    }

    pub(crate) fn budget_gate_is_off(&self) -> bool {
        self.no_budget_gate.load(Ordering::Relaxed)
    }
}
