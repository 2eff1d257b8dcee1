//! What a worker has: jobs that wait to be run, jobs that run, and ends that wait to be written.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::{ClaimedJob, Completion, JobId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Time over which the pace is measured.
const PACE_OVER: Duration = Duration::from_millis(200);

/// Nothing more is claimed while so many times as many wait to be written as may be held.
const UNWRITTEN: usize = 2;

/// Everything that a worker has claimed and not ended.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
}

/// Tells a handler to stop, at the latest when it is dropped: then nobody waits for the handler any more.
struct Teller(StopSignal);

impl Teller {
    fn tell(&self) {
        self.0.0.close();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What a handler hears of it. A semaphore that has no permits and is closed is the lightest thing that many may wait
/// for: each job has one.
#[derive(Clone)]
pub(super) struct StopSignal(Arc<Semaphore>);

impl Default for StopSignal {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl StopSignal {
    pub(super) fn is_told(&self) -> bool {
        self.0.is_closed()
    }

    pub(super) async fn told(&self) {
        // There is no permit: this ends with an error, when it is closed.
        let _ = self.0.acquire().await;
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<ClaimedJob>,
    /// Running, or ended and not yet written: the attempt, and how to tell it to stop.
    begun: HashMap<JobId, (i32, Teller)>,
    done: Vec<Completion>,
    /// How many are being written.
    writing: usize,
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
    pub(super) fn begin(&self) -> Option<(ClaimedJob, StopSignal)> {
        let mut state = self.state.lock();
        let job = state.waiting.pop_front()?;
        let stop = StopSignal::default();
        state.begun.insert(job.id, (job.attempt, Teller(stop.clone())));
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
        let most = most.min(state.done.len());
        state.writing += most;
        state.done.drain(..most).collect()
    }

    /// What was taken to be written is written, or never will be.
    pub(super) fn written(&self, attempts: Vec<(JobId, i32)>) {
        self.state.lock().writing -= attempts.len();
        self.end(attempts);
    }

    /// Nothing more is to be done about these attempts. Another one of the same job goes on: an attempt whose lease was
    /// over may end after this worker has claimed the job once more.
    pub(super) fn end(&self, attempts: impl IntoIterator<Item = (JobId, i32)>) {
        let mut state = self.state.lock();
        for (job, attempt) in attempts {
            if state.begun.get(&job).is_some_and(|(begun, _)| *begun == attempt) {
                state.begun.remove(&job);
            }
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
    /// half of that is there. What ended and is not yet written does not count, so that jobs are claimed while others
    /// are written; but it may not pile up either.
    pub(super) fn wanted(&self, concurrency: usize, prefetch: usize) -> usize {
        let state = self.state.lock();
        // At the beginning of a fast queue the pace is what has ended so far.
        let ahead = state.pace.max(state.ended).min(prefetch);
        let room = concurrency + ahead;
        let unwritten = state.done.len() + state.writing;
        let have = state.waiting.len() + state.begun.len().saturating_sub(unwritten);
        let missing = room.saturating_sub(have);
        let idle = state.waiting.is_empty() && have < concurrency;
        if unwritten < UNWRITTEN * room && (idle || missing * 2 >= room) { missing } else { 0 }
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
            tell.tell();
            return None;
        }
        let index = state.waiting.iter().position(|waiting| waiting.id == job)?;
        state.waiting.remove(index)
    }

    /// Tells all that run to stop.
    pub(super) fn stop_all(&self) {
        for (_, tell) in self.state.lock().begun.values() {
            tell.tell();
        }
    }

    /// Takes out everything that was not begun.
    pub(super) fn take_waiting(&self) -> Vec<ClaimedJob> {
        self.state.lock().waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use agentkeep_core::{JobMode, Json, JsonObject, Timestamp};
    use uuid::Uuid;

    use super::*;

    const CONCURRENCY: usize = 4;
    const PREFETCH: usize = 20;

    fn wanted(held: &Held) -> usize {
        held.wanted(CONCURRENCY, PREFETCH)
    }

    fn job(number: u128) -> ClaimedJob {
        ClaimedJob {
            id: JobId(Uuid::from_u128(number)),
            attempt: 1,
            max_attempts: 1,
            priority: 0,
            mode: JobMode::Execute,
            payload: Json::parse("payload", "{}".to_owned()).expect("JSON"),
            checkpoint: None,
            session_id: None,
            trigger_message_id: None,
            agent_id: None,
            estimated_cost: None,
            model: None,
            metadata: JsonObject::default(),
            created_at: Timestamp::from_micros(0).expect("a time"),
        }
    }

    /// Claims and handles so many jobs; their ends wait to be written.
    fn handle(held: &Held, count: usize) {
        held.add((0..count as u128).map(job).collect());
        for _ in 0..count {
            let (job, _stop) = held.begin().expect("a job waits");
            held.done(job.done(None));
        }
    }

    /// Writes what waits to be written.
    fn write(held: &Held) {
        let written = held.take_done(usize::MAX).iter().map(|done| (done.job, done.attempt)).collect();
        held.written(written);
    }

    #[test]
    fn as_much_is_claimed_ahead_as_ended_lately() {
        let held = Held::default();
        assert_eq!(wanted(&held), CONCURRENCY);
        handle(&held, 10);
        write(&held);
        assert_eq!(wanted(&held), CONCURRENCY + 10);
        handle(&held, 100);
        write(&held);
        assert_eq!(wanted(&held), CONCURRENCY + PREFETCH);
        held.add((0..12).map(job).collect());
        assert_eq!(wanted(&held), PREFETCH + CONCURRENCY - 12);
        held.add(vec![job(12)]);
        assert_eq!(wanted(&held), 0, "more than half is there");
    }

    #[test]
    fn jobs_are_claimed_while_what_others_did_is_written() {
        let held = Held::default();
        handle(&held, PREFETCH);
        write(&held);
        handle(&held, CONCURRENCY + PREFETCH);
        assert_eq!(wanted(&held), CONCURRENCY + PREFETCH, "what waits to be written holds nobody up");
        let writing = held.take_done(usize::MAX);
        assert_eq!(wanted(&held), CONCURRENCY + PREFETCH, "nor does what is being written");
        handle(&held, CONCURRENCY + PREFETCH);
        assert_eq!(wanted(&held), 0, "but twice as much does");
        held.written(writing.iter().map(|done| (done.job, done.attempt)).collect());
        assert_eq!(wanted(&held), CONCURRENCY + PREFETCH);
    }

    #[test]
    fn the_end_of_an_attempt_does_not_end_the_next() {
        let held = Held::default();
        held.add(vec![job(1), ClaimedJob { attempt: 2, ..job(1) }]);
        let (first, first_stop) = held.begin().expect("a job waits");
        let (_, second_stop) = held.begin().expect("it was claimed again");
        assert!(first_stop.is_told(), "it is somebody else's now");
        held.done(first.done(None));
        write(&held);
        assert_eq!(held.attempts(), [(JobId(Uuid::from_u128(1)), 2)]);
        assert!(!second_stop.is_told());
    }
}
