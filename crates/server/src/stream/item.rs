//! What a stream tells, as it is sent: events of a text/event-stream.

use std::fmt::Write;

use agentkeep_core::{Error, Message, Result, RunId, SessionEvent, SessionEventKind, SessionId};
use bytes::Bytes;
use serde::Serialize;

use super::Position;

/// Sent when there is nothing to tell, so that nobody takes the connection for dead.
pub(super) const HEARTBEAT: Bytes = Bytes::from_static(b": hb\n\n");

/// An item up to this size goes out in one piece with its id; what is larger is shared by all clients.
const SMALL: usize = 4096;

/// What is told once to every reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The message with this seq, appended whole.
    Message(i64),
    /// The event with this number.
    Event(i64),
}

/// A message or an event, ready to be sent to any number of clients.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) what: What,
    /// Where a reader stands who was told of everything up to it.
    pub(super) after: Position,
    /// The run that lets go with it.
    pub(super) ends: Option<RunId>,
    /// Without its id, which differs between clients.
    bytes: Bytes,
}

impl Item {
    pub(super) fn message(message: &Message, after: Position) -> Result<Self> {
        let bytes = event("message.created", message)?.into();
        Ok(Self { what: What::Message(message.seq), after, ends: None, bytes })
    }

    pub(super) fn event(told: &SessionEvent, after: Position) -> Result<Self> {
        use SessionEventKind::{RunCompleted, RunFailed, ToolCallsRequested};
        let ends = told.run_id.filter(|_| matches!(told.kind, RunCompleted | RunFailed | ToolCallsRequested));
        let bytes = event(told.kind.as_str(), told)?.into();
        Ok(Self { what: What::Event(told.number), after, ends, bytes })
    }

    /// Whether a reader at this position was not told of it yet.
    pub(super) const fn is_new_to(&self, position: Position) -> bool {
        match self.what {
            What::Message(seq) => seq > position.seq,
            What::Event(number) => number > position.number,
        }
    }

    /// What it takes in memory.
    pub(super) const fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    /// With the id of one client, in one piece or two.
    pub(super) fn frames(&self, position: Position) -> (Bytes, Option<Bytes>) {
        let mut id = format!("id: {position}\n");
        if self.bytes.len() > SMALL {
            return (id.into(), Some(self.bytes.clone()));
        }
        id.push_str(std::str::from_utf8(&self.bytes).unwrap_or_default());
        (id.into(), None)
    }
}

/// Sent first: who loses the connection before anything happened can go on from there.
pub(super) fn beginning(position: Position) -> Bytes {
    format!("id: {position}\n\n").into()
}

/// The session is gone.
pub(super) fn deleted(session: SessionId) -> Bytes {
    #[derive(Serialize)]
    struct Deleted {
        session_id: SessionId,
    }
    event("session.deleted", &Deleted { session_id: session }).unwrap_or_default().into()
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// What comes next is not there any more, or never was.
    Gap,
    /// The client did not take what it was sent.
    Slow,
}

/// The stream ends because it cannot go on. With a position, whoever comes back goes on from there.
pub(super) fn reset(reason: Reason, position: Option<Position>) -> Bytes {
    #[derive(Serialize)]
    struct Reset {
        reason: Reason,
        detail: &'static str,
    }
    let detail = match reason {
        Reason::Gap => {
            "what came behind the event that was named is not kept any more, or never was: read the session again"
        }
        Reason::Slow => "nothing was taken for too long: read the session again, or go on from the last event",
    };
    let mut text = event("reset", &Reset { reason, detail }).unwrap_or_default();
    if let Some(position) = position {
        text.insert_str(0, &format!("id: {position}\n"));
    }
    text.into()
}

/// One event, without an id.
fn event(name: &str, data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data).map_err(|error| Error::database(format!("cannot be told: {error}")))?;
    let mut text = String::with_capacity(json.len() + name.len() + 16);
    // Writing to a text does not fail.
    let _ = write!(text, "event: {name}\ndata: ");
    // JSON is kept as it came: between its values there may be line breaks, which would end the line here.
    match json.contains(['\n', '\r']) {
        true => text.extend(json.chars().map(|it| if matches!(it, '\n' | '\r') { ' ' } else { it })),
        false => text.push_str(&json),
    }
    text.push_str("\n\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use agentkeep_core::Json;

    use super::*;

    #[test]
    fn an_event_has_one_line_of_data() {
        let data = Json::parse("data", "{\n \"a\":\r\n \"x\\ny\"}").expect("json");
        assert_eq!(event("x", &data).expect("text"), "event: x\ndata: {  \"a\":   \"x\\ny\"}\n\n");
    }
}
