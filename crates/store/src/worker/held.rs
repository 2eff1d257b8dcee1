//! What a worker has: jobs that wait to be run, jobs that run, and ends that wait to be written.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use agentkeep_core::{ClaimedJob, Completion, JobId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Time over which the pace is measured.
const PACE_OVER: Duration = Duration::from_millis(200);

/// Everything that a worker has claimed and not ended.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<ClaimedJob>,
    /// Running, or ended and not yet written: the attempt, and how to tell it to stop.
    begun: HashMap<JobId, (i32, watch::Sender<bool>)>,
    done: Vec<Completion>,
    /// How many ended since `since`, and how many did in a stretch of time before it.
    ended: usize,
    since: Option<Instant>,
    pace: usize,
}

impl Held {
    pub(super) fn add(&self, jobs: Vec<ClaimedJob>) {
        self.state.lock().waiting.extend(jobs);
    }

    /// The next job to run.
    pub(super) fn begin(&self) -> Option<(ClaimedJob, watch::Receiver<bool>)> {
        let mut state = self.state.lock();
        let job = state.waiting.pop_front()?;
        let (tell, stop) = watch::channel(false);
        state.begun.insert(job.id, (job.attempt, tell));
        Some((job, stop))
    }

    /// A job was done; how many wait to be written so.
    pub(super) fn done(&self, completion: Completion) -> usize {
        let mut state = self.state.lock();
        state.done.push(completion);
        state.done.len()
    }

    /// What waits to be written.
    pub(super) fn take_done(&self, most: usize) -> Vec<Completion> {
        let mut state = self.state.lock();
        if state.done.len() <= most {
            return std::mem::take(&mut state.done);
        }
        state.done.drain(..most).collect()
    }

    /// Nothing more is to be done about these.
    pub(super) fn end(&self, jobs: impl IntoIterator<Item = JobId>) {
        let mut state = self.state.lock();
        for job in jobs {
            state.begun.remove(&job);
            state.ended += 1;
        }
        let now = Instant::now();
        let since = *state.since.get_or_insert(now);
        if now - since >= PACE_OVER {
            let stretches = (now - since).as_secs_f64() / PACE_OVER.as_secs_f64();
            state.pace = (state.ended as f64 / stretches) as usize;
            state.ended = 0;
            state.since = Some(now);
        }
    }

    /// How many more to claim: enough for every handler, and for the time that the pace foresees. 0 while more than
    /// half of that is there.
    pub(super) fn wanted(&self, concurrency: usize, prefetch: usize) -> usize {
        let state = self.state.lock();
        // At the beginning of a fast queue the pace is what has ended so far.
        let ahead = state.pace.max(state.ended).min(prefetch);
        let room = concurrency + ahead;
        let have = state.waiting.len() + state.begun.len() - state.done.len().min(state.begun.len());
        let missing = room.saturating_sub(have);
        let idle = state.waiting.is_empty() && have < concurrency;
        if idle || missing * 2 >= room { missing } else { 0 }
    }

    /// Every job with its attempt.
    pub(super) fn attempts(&self) -> Vec<(JobId, i32)> {
        let state = self.state.lock();
        let waiting = state.waiting.iter().map(|job| (job.id, job.attempt));
        waiting.chain(state.begun.iter().map(|(job, (attempt, _))| (*job, *attempt))).collect()
    }

    /// Takes a job out that was not begun; one that runs is told to stop.
    pub(super) fn stop(&self, job: JobId) -> Option<ClaimedJob> {
        let mut state = self.state.lock();
        if let Some((_, tell)) = state.begun.get(&job) {
            tell.send_replace(true);
            return None;
        }
        let index = state.waiting.iter().position(|waiting| waiting.id == job)?;
        state.waiting.remove(index)
    }

    /// Tells all that run to stop.
    pub(super) fn stop_all(&self) {
        for (_, tell) in self.state.lock().begun.values() {
            tell.send_replace(true);
        }
    }

    /// Takes out everything that was not begun.
    pub(super) fn take_waiting(&self) -> Vec<ClaimedJob> {
        self.state.lock().waiting.drain(..).collect()
    }
}
