//! A connection that its callers drive themselves.
//!
//! Whoever asks writes to the socket and reads the answer from it, in the task that waits for it: no task of the
//! connection's own is woken for each answer, and rows are decoded where they were received. Questions are pipelined;
//! answers come in their order, so it is the first in the queue who reads, and who wakes the next when done. Should that
//! one not come to read (a future that is kept and not polled), whoever waits behind reads for him after a moment; a caller
//! who goes away leaves a task that reads the rest.
//!
//! The protocol is PostgreSQL's, version 3 (<https://www.postgresql.org/docs/current/protocol.html>).

mod dial;
mod receive;
mod row;
mod send;
mod statement;

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tokio_postgres::types::Type;

use super::{connect::Connector, error::Fault};

pub(super) use dial::{Endpoint, Refused, Socket, dial, login, tls_for};
use receive::{End, Read, Receiving};
pub(crate) use row::Row;
pub(super) use row::{Column, RowReader};
use send::Sending;
pub(super) use statement::{Statement, columns, prepare, run_text};

/// Bytes of the type and the length of a message.
const HEADER: usize = 5;
/// Room that is kept in a buffer which has held a large message.
const KEPT: usize = 1 << 20;
/// With more questions than this under way a new one waits for the next answer to be sent: the server is busy, and several
/// are written at once.
const SENT_AT_ONCE: usize = 2;
/// Longer than an answer takes whose caller comes for it.
const PATIENCE: Duration = Duration::from_millis(20);

/// A connection to the server, behind the login.
///
/// `sending` is locked before `receiving`, or alone.
pub(super) struct Wire {
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    connector: Arc<Connector>,
    /// Types that not every server has, by their numbers.
    types: Mutex<HashMap<u32, Type>>,
    /// How long a caller waits for the one in front of him before he reads that answer himself.
    patience: Duration,
    runtime: Handle,
}

/// A part of an answer.
pub(super) enum Message<'a> {
    /// The body of a row.
    Row(&'a [u8]),
    /// The end of a statement that changed or gave so many rows.
    Complete(u64),
    /// What a statement takes or gives.
    Description(postgres_protocol::message::backend::Message),
}

impl Wire {
    pub(super) fn new(stream: dial::Halves, connector: Arc<Connector>) -> Arc<Self> {
        Arc::new(Self {
            sending: Mutex::new(Sending::new(stream.writer)),
            receiving: Mutex::new(Receiving::new(stream.reader)),
            connector,
            types: Mutex::default(),
            patience: PATIENCE,
            runtime: Handle::current(),
        })
    }

    /// Sends what `encode` writes, which ends with a Sync or is a simple query, and gives each message of the answer to
    /// `take`, up to its end. What `encode` wrote before it failed is not sent.
    ///
    /// # Errors
    /// The first of: what `encode` says, what the server says, what `take` says; [`Fault::Closed`] when the connection had
    /// ended before, [`Fault::Lost`] when it ends meanwhile.
    pub(super) async fn ask(
        self: &Arc<Self>,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), Fault>,
        mut take: impl FnMut(Message<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let ticket = self.sending.lock().enqueue(encode)?;
        let mut call = Call { wire: self, ticket, progress: Progress::default() };
        let (mut patience, mut helps) = (pin!(None), false);
        poll_fn(|context| {
            loop {
                let answer = self.poll_answer(ticket, &mut call.progress, context, &mut take);
                if answer.is_ready() || !call.progress.is_behind {
                    return answer;
                }
                if patience.is_none() {
                    patience.set(Some(sleep(self.patience)));
                }
                if let Some(mut patience) = patience.as_mut().as_pin_mut()
                    && patience.as_mut().poll(context).is_ready()
                {
                    helps = true;
                    patience.reset(Instant::now() + self.patience);
                } else if !helps || self.poll_for_another(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn poll_answer(
        &self,
        ticket: u64,
        progress: &mut Progress,
        context: &mut Context<'_>,
        take: &mut dyn FnMut(Message<'_>) -> Result<(), Fault>,
    ) -> Poll<Result<(), Fault>> {
        {
            let mut sending = self.sending.lock();
            if let Some(reason) = sending.ended().filter(|_| !sending.is_answered(ticket)) {
                progress.answered = true;
                return Poll::Ready(Err(progress.fault.take().unwrap_or_else(|| Fault::Lost(reason.to_owned()))));
            }
            if std::mem::replace(&mut progress.polled, true) || sending.waiting() <= SENT_AT_ONCE {
                sending.flush(context);
            }
            progress.is_behind = !sending.has_turn(ticket, context);
            if progress.is_behind {
                return Poll::Pending;
            }
        }
        let mut receiving = self.receiving.lock();
        let read = ready!(receiving.answer(ticket, context, &mut progress.fault, take, &self.connector));
        drop(receiving);
        progress.answered = true;
        match read {
            Ok(Read::Now) => {
                let (_, next) = self.sending.lock().answered(context);
                next.into_iter().for_each(Waker::wake);
            }
            Ok(Read::Before) => {}
            Err(end) => {
                let reason = self.end(end);
                return Poll::Ready(Err(progress.fault.take().unwrap_or(Fault::Lost(reason))));
            }
        }
        Poll::Ready(progress.fault.take().map_or(Ok(()), Err))
    }

    /// Reads the next answer for a caller who has not come for it: he may be kept and not polled, or busy with something
    /// else. Ready when that one is done.
    fn poll_for_another(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut receiving = self.receiving.lock();
        let kept = ready!(receiving.keep_answer(context));
        drop(receiving);
        match kept {
            Ok(()) => {
                let (first, next) = self.sending.lock().answered(context);
                first.into_iter().chain(next).for_each(Waker::wake);
            }
            Err(end) => drop(self.end(end)),
        }
        Poll::Ready(())
    }

    #[cfg(test)]
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether another question can be asked. Looks at what the server has said unasked.
    pub(super) fn is_open(&self) -> bool {
        self.poll_unasked(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads what the server says unasked, on a connection on which nobody asks meanwhile. Returns when it has ended.
    pub(super) async fn attend(&self) {
        poll_fn(|context| self.poll_unasked(context)).await;
    }

    fn poll_unasked(&self, context: &mut Context<'_>) -> Poll<()> {
        let end = {
            let sending = self.sending.lock();
            match sending.waiting() {
                _ if sending.ended().is_some() => return Poll::Ready(()),
                0 if sending.has_failed() => End::Closed,
                0 => ready!(self.receiving.lock().unasked(context, &self.connector)),
                // Whoever waits for an answer reads this as well.
                _ => return Poll::Pending,
            }
        };
        self.end(end);
        Poll::Ready(())
    }

    /// Ends it at once, whatever it is doing.
    pub(super) fn kill(&self) {
        self.end(End::Killed);
    }

    /// The name for another prepared statement.
    fn next_name(&self) -> String {
        self.sending.lock().next_name()
    }

    /// Lets the server forget a prepared statement, with the next question.
    fn close_statement(&self, name: &str) {
        self.sending.lock().close_statement(name);
    }

    /// Ends it, for the reason given unless it has ended before; the reason for which it did.
    fn end(&self, end: End) -> String {
        let (reason, waiting) = self.sending.lock().end(end);
        self.receiving.lock().end();
        waiting.into_iter().for_each(Waker::wake);
        reason
    }
}

impl Drop for Wire {
    /// Says goodbye, as the protocol wants it, if that needs no waiting.
    fn drop(&mut self) {
        self.sending.get_mut().say_goodbye();
    }
}

/// A question and the place of its answer.
struct Call<'a> {
    wire: &'a Arc<Wire>,
    ticket: u64,
    progress: Progress,
}

/// How far an answer was read.
#[derive(Default)]
struct Progress {
    polled: bool,
    /// Another answer comes first.
    is_behind: bool,
    answered: bool,
    /// The first thing that went wrong; the rest of the answer is passed over.
    fault: Option<Fault>,
}

impl Drop for Call<'_> {
    /// Whoever asked went away: a task takes the place, so that those behind get their answers.
    fn drop(&mut self) {
        if !self.progress.answered && self.wire.sending.lock().ended().is_none() {
            let rest = Rest { wire: Arc::clone(self.wire), ticket: self.ticket, progress: Progress::default() };
            self.wire.runtime.spawn(rest.read());
        }
    }
}

/// An answer that nobody wants.
struct Rest {
    wire: Arc<Wire>,
    ticket: u64,
    progress: Progress,
}

impl Rest {
    async fn read(mut self) {
        let Self { wire, ticket, progress } = &mut self;
        // Whatever it is, nobody wants to know.
        let _ = poll_fn(|context| wire.poll_answer(*ticket, progress, context, &mut |_| Ok(()))).await;
    }
}

impl Drop for Rest {
    /// Dropped half way there is no runtime any more on which the rest could be read.
    fn drop(&mut self) {
        if !self.progress.answered {
            self.wire.kill();
        }
    }
}
