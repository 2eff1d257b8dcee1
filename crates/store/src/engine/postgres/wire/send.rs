//! The writing side of a connection, and the queue of those who wait for answers.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWrite as _;

use super::{super::error::Fault, KEPT, dial::Writer, receive::End};

pub(super) struct Sending {
    /// Gone after the end.
    stream: Option<Writer>,
    out: BytesMut,
    /// Something was written that may not have left yet.
    unflushed: bool,
    /// Why nothing can be written any more; the answers that are there already can still be read.
    failed: Option<io::Error>,
    ended: Option<String>,
    /// Those who wait for an answer, in the order of their questions.
    waiting: VecDeque<Option<Waker>>,
    /// The ticket of the first in the queue.
    first: u64,
    /// Prepared statements that nobody uses any more.
    closing: Vec<String>,
    names: u64,
}

impl Sending {
    pub(super) fn new(stream: Writer) -> Self {
        Self {
            stream: Some(stream),
            out: BytesMut::new(),
            unflushed: false,
            failed: None,
            ended: None,
            waiting: VecDeque::new(),
            first: 0,
            closing: Vec::new(),
            names: 0,
        }
    }

    /// Why the connection ended, if it did.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Whether nothing can be written any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    pub(super) fn close_statement(&mut self, name: &str) {
        if self.ended.is_none() {
            self.closing.push(name.to_owned());
        }
    }

    /// Puts a question behind the others; the ticket for its answer.
    pub(super) fn enqueue(&mut self, encode: impl FnOnce(&mut BytesMut) -> Result<(), Fault>) -> Result<u64, Fault> {
        if self.ended.is_some() || self.failed.is_some() {
            return Err(Fault::Closed);
        }
        let before = self.out.len();
        let encoded = close_all(&self.closing, &mut self.out).and_then(|()| encode(&mut self.out));
        if let Err(fault) = encoded {
            self.out.truncate(before);
            return Err(fault);
        }
        self.closing.clear();
        self.waiting.push_back(None);
        Ok(self.first + self.waiting.len() as u64 - 1)
    }

    /// Whether the answer of `ticket` is there or comes next. Whoever waits for it is woken when somebody else finds that
    /// it does.
    pub(super) fn has_turn(&mut self, ticket: u64, context: &Context<'_>) -> bool {
        // One whose answer was read by somebody else is not waiting any more.
        let Some(place) = ticket.checked_sub(self.first) else { return true };
        let waiting = usize::try_from(place).ok().and_then(|place| self.waiting.get_mut(place));
        match waiting {
            Some(Some(waker)) => waker.clone_from(context.waker()),
            Some(place) => *place = Some(context.waker().clone()),
            None => {}
        }
        place == 0
    }

    /// Whether the answer of `ticket` has been read, by whomever.
    pub(super) fn is_answered(&self, ticket: u64) -> bool {
        ticket < self.first
    }

    /// The first answer was read: who waited for it, and who is next.
    pub(super) fn answered(&mut self, context: &mut Context<'_>) -> (Option<Waker>, Option<Waker>) {
        let first = self.waiting.pop_front().flatten();
        self.first += 1;
        self.flush(context);
        (first, self.waiting.front_mut().and_then(Option::take))
    }

    /// Writes as much as the socket takes. What is left is written by whoever is polled next.
    pub(super) fn flush(&mut self, context: &mut Context<'_>) {
        let Some(stream) = self.stream.as_mut() else { return };
        while !self.out.is_empty() && self.failed.is_none() {
            match Pin::new(&mut *stream).poll_write(context, &self.out) {
                Poll::Ready(Ok(0)) => self.failed = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => self.failed = Some(error),
                Poll::Pending => return,
            }
        }
        if self.unflushed && self.failed.is_none() {
            match Pin::new(stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.failed = Some(error),
                Poll::Pending => {}
            }
        }
        if self.out.capacity() > KEPT || self.failed.is_some() {
            self.out = BytesMut::new();
        }
    }

    /// Ends it: the reason, which is the first one given, and those who wait.
    pub(super) fn end(&mut self, end: End) -> (String, Vec<Waker>) {
        let reason = match &self.ended {
            Some(reason) => reason.clone(),
            None => end.reason(self.failed.as_ref()),
        };
        self.ended = Some(reason.clone());
        self.stream = None;
        self.out = BytesMut::new();
        (reason, std::mem::take(&mut self.waiting).into_iter().flatten().collect())
    }

    pub(super) fn say_goodbye(&mut self) {
        if self.waiting.is_empty() && self.failed.is_none() {
            frontend::terminate(&mut self.out);
            self.flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn close_all(names: &[String], out: &mut BytesMut) -> Result<(), Fault> {
    for name in names {
        frontend::close(b'S', name, out).map_err(|error| Fault::unsendable(&error))?;
    }
    Ok(())
}
