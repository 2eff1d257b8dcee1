//! The reading side of a connection.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use postgres_protocol::message::backend::{self, Header, NoticeResponseBody};
use tokio::io::AsyncReadExt as _;

use super::{
    super::{
        connect::Connector,
        error::{Fault, Words},
    },
    HEADER, KEPT, Message,
    dial::Reader,
};

/// Room that a read finds at least.
const ROOM: usize = 16 << 10;

pub(super) struct Receiving {
    /// Gone after the end.
    stream: Option<Reader>,
    buffer: BytesMut,
    /// The ticket of the answer that comes next.
    current: u64,
    /// What somebody else has read of that answer.
    aside: BytesMut,
    /// Whole answers that somebody else has read, until those whom they are for ask for them.
    kept: HashMap<u64, BytesMut>,
}

/// Why a connection has ended.
pub(super) enum End {
    /// The server closed it.
    Closed,
    /// The socket failed.
    Failed(io::Error),
    /// The server said why.
    Told(String),
    /// We ended it.
    Killed,
}

impl End {
    /// To tell people, for a connection on which writing `failed` before.
    pub(super) fn reason(&self, failed: Option<&io::Error>) -> String {
        match (self, failed) {
            (Self::Told(words), _) => words.clone(),
            (Self::Failed(error), _) | (Self::Closed, Some(error)) => error.to_string(),
            (Self::Closed | Self::Killed, _) => "the connection was closed".into(),
        }
    }
}

fn malformed(what: &str) -> End {
    End::Told(format!("the server sent {what}, which is not PostgreSQL's protocol"))
}

/// The messages of an answer that were whole.
enum Consumed {
    /// All of them.
    Answer,
    /// All that were there; of the next, so many bytes are missing, as far as that is known.
    Part(usize),
}

/// How an answer came to its end.
pub(super) enum Read {
    Now,
    /// Somebody else has read it.
    Before,
}

impl Receiving {
    pub(super) fn new(stream: Reader) -> Self {
        Self { stream: Some(stream), buffer: BytesMut::new(), current: 0, aside: BytesMut::new(), kept: HashMap::new() }
    }

    pub(super) fn end(&mut self) {
        self.stream = None;
    }

    /// Reads the answer of `ticket` to its end; its turn has come. What goes wrong with the statement is kept in `fault`;
    /// an error is the end of the connection.
    pub(super) fn answer(
        &mut self,
        ticket: u64,
        context: &mut Context<'_>,
        fault: &mut Option<Fault>,
        take: &mut dyn FnMut(Message<'_>) -> Result<(), Fault>,
        connector: &Connector,
    ) -> Poll<Result<Read, End>> {
        if ticket < self.current {
            let mut kept = self.kept.remove(&ticket).unwrap_or_default();
            return Poll::Ready(consume(&mut kept, fault, take, connector).map(|_| Read::Before));
        }
        if !self.aside.is_empty() {
            consume(&mut self.aside, fault, take, connector)?;
        }
        loop {
            match consume(&mut self.buffer, fault, take, connector)? {
                Consumed::Answer => {
                    self.current += 1;
                    return Poll::Ready(Ok(Read::Now));
                }
                Consumed::Part(missing) => {
                    if let Err(end) = ready!(self.read(context, missing)) {
                        // The server's last words are the statement's outcome, and the reason for everybody else.
                        return Poll::Ready(Err(match fault {
                            Some(Fault::Server { message, .. }) => End::Told(message.clone()),
                            _ => end,
                        }));
                    }
                }
            }
        }
    }

    /// Reads the answer that comes next for somebody who does not.
    pub(super) fn keep_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            match whole_message(&self.buffer)? {
                Ok(length) => {
                    let is_last = self.buffer[0] == backend::READY_FOR_QUERY_TAG;
                    self.aside.extend_from_slice(&self.buffer[..length]);
                    self.buffer.advance(length);
                    if is_last {
                        self.kept.insert(self.current, std::mem::take(&mut self.aside));
                        self.current += 1;
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(missing) => ready!(self.read(context, missing))?,
            }
        }
    }

    /// Reads what comes without a question, until the end.
    pub(super) fn unasked(&mut self, context: &mut Context<'_>, connector: &Connector) -> Poll<End> {
        loop {
            let heard = whole_message(&self.buffer).and_then(|whole| match whole {
                Ok(length) => {
                    let heard = other(&self.buffer[..length]).and_then(|message| hear(&message, connector));
                    self.buffer.advance(length);
                    heard.map(|()| None)
                }
                Err(missing) => Ok(Some(missing)),
            });
            let read = match heard {
                Ok(None) => continue,
                Ok(Some(missing)) => ready!(self.read(context, missing)),
                Err(end) => Err(end),
            };
            if let Err(end) = read {
                return Poll::Ready(end);
            }
        }
    }

    fn read(&mut self, context: &mut Context<'_>, missing: usize) -> Poll<Result<(), End>> {
        let Some(stream) = self.stream.as_mut() else { return Poll::Ready(Err(End::Killed)) };
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(missing.max(ROOM));
        Poll::Ready(match ready!(pin!(stream.read_buf(&mut self.buffer)).poll(context)) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(End::Failed(error)),
        })
    }
}

/// Gives away the messages of an answer.
fn consume(
    buffer: &mut BytesMut,
    fault: &mut Option<Fault>,
    take: &mut dyn FnMut(Message<'_>) -> Result<(), Fault>,
    connector: &Connector,
) -> Result<Consumed, End> {
    loop {
        let length = match whole_message(buffer)? {
            Ok(length) => length,
            Err(missing) => return Ok(Consumed::Part(missing)),
        };
        let body = &buffer[HEADER..length];
        let given = match buffer[0] {
            backend::DATA_ROW_TAG if fault.is_none() => take(Message::Row(body)),
            backend::COMMAND_COMPLETE_TAG if fault.is_none() => take(Message::Complete(rows_of(body))),
            backend::READY_FOR_QUERY_TAG => {
                buffer.advance(length);
                return Ok(Consumed::Answer);
            }
            backend::DATA_ROW_TAG
            | backend::COMMAND_COMPLETE_TAG
            | backend::PARSE_COMPLETE_TAG
            | backend::BIND_COMPLETE_TAG
            | backend::CLOSE_COMPLETE_TAG
            | backend::NO_DATA_TAG
            | backend::EMPTY_QUERY_RESPONSE_TAG
            | backend::PORTAL_SUSPENDED_TAG => Ok(()),
            _ => match other(&buffer[..length])? {
                backend::Message::ErrorResponse(body) => Err(Fault::from_server(&body)),
                message @ (backend::Message::RowDescription(_) | backend::Message::ParameterDescription(_)) => {
                    take(Message::Description(message))
                }
                message => {
                    hear(&message, connector)?;
                    Ok(())
                }
            },
        };
        buffer.advance(length);
        if let Err(error) = given {
            fault.get_or_insert(error);
        }
    }
}

/// The length of the message in front, header and all; or how many bytes are missing, as far as that is known.
fn whole_message(buffer: &[u8]) -> Result<Result<usize, usize>, End> {
    let length = match Header::parse(buffer) {
        Ok(Some(header)) => usize::try_from(header.len()).map_or(0, |length| length + 1),
        Ok(None) => return Ok(Err(HEADER - buffer.len())),
        Err(error) => return Err(malformed(&error.to_string())),
    };
    Ok(if buffer.len() < length { Err(length - buffer.len()) } else { Ok(length) })
}

/// A message that is rare enough to be copied.
fn other(message: &[u8]) -> Result<backend::Message, End> {
    match backend::Message::parse(&mut BytesMut::from(message)) {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(malformed("half a message")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

/// What may come at any time.
fn hear(message: &backend::Message, connector: &Connector) -> Result<(), End> {
    match message {
        backend::Message::NoticeResponse(notice) => tell(notice),
        backend::Message::NotificationResponse(news) => {
            connector.notified(news.message().map_err(|error| malformed(&error.to_string()))?);
        }
        backend::Message::ParameterStatus(_) => {}
        backend::Message::ErrorResponse(body) => {
            return Err(End::Told(match Fault::from_server(body) {
                Fault::Server { message, .. } => message,
                _ => "the connection was closed".into(),
            }));
        }
        _ => return Err(malformed("a message that nothing asked for")),
    }
    Ok(())
}

fn tell(notice: &NoticeResponseBody) {
    let Words { severity, message, .. } = Words::read(notice.fields());
    tracing::debug!(target: "agentkeep::postgres", "{severity}: {message}");
}

/// How many rows a statement gave or changed: the last word of its tag, `INSERT 0 3`; 0 when it tells none.
fn rows_of(tag: &[u8]) -> u64 {
    let tag = std::str::from_utf8(tag).unwrap_or_default().trim_end_matches('\0');
    tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}
