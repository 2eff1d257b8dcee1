//! What many callers ask at the same time, read together.
//!
//! Whoever asks while a read is under way waits for the next one: what he is told was read after he asked, so that it is
//! as true as if he had read it himself.

use std::sync::Arc;

use agentkeep_core::{self as core, Error};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{ApiError, Result};

/// A question, and where its answer is waited for. Dropped without one, whoever asked reads for himself.
pub(crate) type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// Questions of one kind.
pub(crate) struct Together<Q, A>(Mutex<Waiting<Q, A>>);

struct Waiting<Q, A> {
    asked: Vec<Asked<Q, A>>,
    /// A task reads what was asked for.
    reading: bool,
}

impl<Q, A> Default for Waiting<Q, A> {
    fn default() -> Self {
        Self { asked: Vec::new(), reading: false }
    }
}

impl<Q, A> Default for Together<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    /// Asks with all others; `read` answers so many questions at most at once. `None` when it did not answer this one,
    /// or came to an unexpected end.
    pub(crate) async fn ask<Work>(
        self: &Arc<Self>,
        question: Q,
        at_once: usize,
        read: fn(Vec<Asked<Q, A>>) -> Work,
    ) -> Option<A>
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut waiting = self.0.lock();
            waiting.asked.push((question, answer));
            !std::mem::replace(&mut waiting.reading, true)
        };
        if start {
            tokio::spawn(Arc::clone(self).read(at_once, read));
        }
        answered.await.ok()
    }

    /// Reads until nobody waits.
    async fn read<Work: Future<Output = ()>>(self: Arc<Self>, at_once: usize, read: fn(Vec<Asked<Q, A>>) -> Work) {
        let reading = Reading(&self);
        loop {
            // Those who are ready to ask as well come along.
            tokio::task::yield_now().await;
            let asked = {
                let mut waiting = self.0.lock();
                if waiting.asked.is_empty() {
                    waiting.reading = false;
                    std::mem::forget(reading);
                    return;
                }
                let first = waiting.asked.len().min(at_once);
                waiting.asked.drain(..first).collect()
            };
            read(asked).await;
        }
    }
}

/// Tells each his part of what was read. When the database is away, all of them are told: each would else wait for it once
/// more. Anything else may be wrong with the question of one alone, so that each reads for himself.
pub(crate) fn answer<Q, A>(asked: Vec<Asked<Q, Result<A>>>, read: core::Result<Vec<A>>) {
    // Whoever went away needs none.
    match read {
        Ok(answers) => asked.into_iter().zip(answers).for_each(|((_, place), answer)| drop(place.send(Ok(answer)))),
        Err(error @ (Error::Unavailable { .. } | Error::Timeout { .. })) => {
            let error = ApiError::from(error);
            asked.into_iter().for_each(|(_, place)| drop(place.send(Err(error.clone()))));
        }
        Err(_) => {}
    }
}

/// Lets those who wait go, to read for themselves, should the reader come to an unexpected end.
struct Reading<'a, Q, A>(&'a Together<Q, A>);

impl<Q, A> Drop for Reading<'_, Q, A> {
    fn drop(&mut self) {
        *self.0.0.lock() = Waiting::default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::{future::join_all, poll};
    use tokio::sync::Notify;

    use super::*;

    static TRUTH: AtomicUsize = AtomicUsize::new(0);
    static HAS_READ: Notify = Notify::const_new();
    static TELLS: Notify = Notify::const_new();

    async fn look(asked: Vec<Asked<(), usize>>) {
        let seen = TRUTH.load(Ordering::Relaxed);
        HAS_READ.notify_one();
        TELLS.notified().await;
        for ((), answer) in asked {
            let _ = answer.send(seen);
        }
    }

    #[tokio::test]
    async fn nobody_is_told_what_was_read_before_he_asked() {
        let together = Arc::new(Together::default());
        let mut first = pin!(together.ask((), 50, look));
        assert!(poll!(first.as_mut()).is_pending());
        HAS_READ.notified().await;
        TRUTH.store(1, Ordering::Relaxed);
        let mut second = pin!(together.ask((), 50, look));
        assert!(poll!(second.as_mut()).is_pending());
        TELLS.notify_one();
        assert_eq!(first.await, Some(0));
        HAS_READ.notified().await;
        TELLS.notify_one();
        assert_eq!(second.await, Some(1));
    }

    static READS: AtomicUsize = AtomicUsize::new(0);

    async fn double(asked: Vec<Asked<usize, usize>>) {
        assert!(asked.len() <= 50);
        READS.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
        for (number, answer) in asked {
            // Of thirteens nobody knows.
            assert!(number != 666, "at the wrong moment");
            if number % 13 != 0 {
                let _ = answer.send(2 * number);
            }
        }
    }

    #[tokio::test]
    async fn that_the_database_is_away_is_told_to_all_and_other_faults_are_for_each_to_find() {
        async fn fail(asked: Vec<Asked<bool, Result<()>>>) {
            let away = asked.iter().all(|(away, _)| *away);
            let away = away.then(|| Error::Unavailable { target: "here".into(), reason: "no disk".into() });
            answer(asked, Err(away.unwrap_or_else(|| Error::database("a row cannot be read"))));
        }
        let together = Arc::new(Together::default());
        for told in join_all((0..20).map(|_| together.ask(true, 50, fail))).await {
            let told = format!("{:?}", told.expect("an answer").expect_err("a reason"));
            assert!(told.contains("no disk"), "{told}");
        }
        let told = join_all((0..20).map(|_| together.ask(false, 50, fail))).await;
        assert!(told.iter().all(Option::is_none));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_is_answered_in_few_reads_also_after_one_that_panics() {
        let together = Arc::new(Together::default());
        for round in 0..5 {
            let asking = (1..=200).map(|number| together.ask(number, 50, double));
            for (number, answer) in (1..=200).zip(join_all(asking).await) {
                assert_eq!(answer, (number % 13 != 0).then_some(2 * number), "{number} in round {round}");
            }
            assert_eq!(together.ask(666, 50, double).await, None);
            // Who asks while that one comes to its end is let go as well.
            while together.ask(1, 50, double).await.is_none() {}
        }
        let reads = READS.load(Ordering::Relaxed);
        assert!(reads <= 100, "{reads} reads for 1,010 questions");
    }
}
