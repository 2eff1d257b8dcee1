//! What comes next in a session: its messages by seq and its events by number, read from the database and put into one
//! order.
//!
//! Both sequences are without gaps and can be read only once they are committed, so that who reads each of them in its
//! order misses nothing and is told nothing twice. A message that was streamed in is in both: it is told by its events.

use agentkeep::TenantStore;
use agentkeep_core::{FilterOperator, ListRequest, Message, Result, SessionEvent, SessionId};

use super::{Position, item::Item};

/// What should be read at once, in bytes.
const BYTES: usize = 256 * 1024;

/// How many rows a reader takes at once: few while they are large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(u32);

impl Default for Pace {
    fn default() -> Self {
        Self(4)
    }
}

impl Pace {
    const MOST: u32 = 256;

    fn rows(self) -> usize {
        self.0 as usize
    }

    /// Takes more or less from now on, after so many bytes.
    fn adapt(&mut self, bytes: usize) {
        self.0 = if bytes > BYTES { (self.0 / 4).max(1) } else { (self.0 * 2).min(Self::MOST) };
    }
}

/// What comes behind a position.
#[derive(Debug)]
pub(super) enum Read {
    /// Items, in order; none when there is nothing new.
    Round(Round),
    /// Events are missing.
    Gap,
}

/// Some of what comes behind a position.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) items: Vec<Item>,
    /// Where a reader stands behind them.
    pub(super) end: Position,
    /// Whether there may be more already.
    pub(super) more: bool,
}

/// Reads what comes behind a position.
///
/// # Errors
/// *Not found* when there is no such session, else what the database reports.
pub(super) async fn read(tenant: &TenantStore, session: SessionId, from: Position, pace: &mut Pace) -> Result<Read> {
    // The events first: whatever they are about is there when the messages are read, and whether a message was
    // streamed is known from the moment when it can be read.
    let page = tenant.session_events().after(session, from.number, pace.0).await?;
    if page.gap {
        return Ok(Read::Gap);
    }
    let (mut messages, mut streamed) = (Vec::new(), Vec::new());
    if page.last_seq > from.seq {
        let request = ListRequest::new().filter("session_id", session);
        let request = request.filter_by("seq", FilterOperator::Greater, from.seq).limit(pace.0);
        messages = tenant.messages().list(&request).await?.items;
    }
    if let (Some(first), Some(last)) = (messages.first(), messages.last()) {
        streamed = tenant.session_events().streamed(session, first.seq, last.seq).await?;
    }
    let full = Full { events: page.events.len() >= pace.rows(), messages: messages.len() >= pace.rows() };
    let mut round = merge(from, &page.events, &messages, &streamed, full)?;
    pace.adapt(round.items.iter().map(Item::size).sum());
    if !round.more {
        // Messages that were deleted are passed as well: all that there were then have been read.
        round.end.seq = round.end.seq.max(page.last_seq);
    }
    Ok(Read::Round(round))
}

/// Which of the pages may not be all that there is.
#[derive(Debug, Clone, Copy, Default)]
struct Full {
    events: bool,
    messages: bool,
}

/// Puts messages and events into one order: a message comes before the events that are about it or came later.
fn merge(from: Position, events: &[SessionEvent], messages: &[Message], streamed: &[i64], full: Full) -> Result<Round> {
    let mut merger = Merger { at: from, items: Vec::new(), messages, streamed };
    // Of messages behind the page nothing is known yet.
    let reach = if full.messages { messages.last().map_or(from.seq, |last| last.seq) } else { i64::MAX };
    let known = events.iter().take_while(|event| event.seq <= reach).count();
    for event in &events[..known] {
        merger.pass(event.seq)?;
        merger.at.number = event.number;
        merger.items.push(Item::event(event, merger.at)?);
    }
    let cut = known < events.len();
    // Events behind the page may be about earlier messages than those that are left.
    let rest = match events.last() {
        Some(last) if full.events && !cut => last.seq,
        _ => i64::MAX,
    };
    merger.pass(rest)?;
    Ok(Round { items: merger.items, end: merger.at, more: cut || full.events || full.messages })
}

struct Merger<'a> {
    at: Position,
    items: Vec<Item>,
    messages: &'a [Message],
    streamed: &'a [i64],
}

impl Merger<'_> {
    /// Tells the messages up to a seq, those that were streamed excepted.
    fn pass(&mut self, seq: i64) -> Result<()> {
        while let Some((message, rest)) = self.messages.split_first().filter(|(message, _)| message.seq <= seq) {
            self.at.seq = message.seq;
            if self.streamed.binary_search(&message.seq).is_err() {
                self.items.push(Item::message(message, self.at)?);
            }
            self.messages = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agentkeep_core::{Json, MessageId, SessionEventKind, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::{history::tests::empty, stream::item::What};

    fn message(seq: i64) -> Message {
        Message { id: MessageId(Uuid::from_u128(1)), seq, ..empty() }
    }

    fn event(number: i64, seq: i64) -> SessionEvent {
        SessionEvent {
            number,
            seq,
            kind: SessionEventKind::MessageDelta,
            message_id: None,
            run_id: None,
            data: Json::from_stored("{}"),
            created_at: Timestamp::MIN,
        }
    }

    /// What is told of a session with these events (their seqs in order) and messages, in pages of this size; each item
    /// with its id.
    fn told(from: Position, about: &[i64], seqs: &[i64], streamed: &[i64], size: usize) -> Vec<(char, i64, String)> {
        let (mut at, mut told) = (from, Vec::new());
        loop {
            let events = (1..).zip(about).filter(|(number, _)| *number > at.number);
            let events: Vec<SessionEvent> = events.map(|(number, seq)| event(number, *seq)).take(size).collect();
            let messages: Vec<Message> =
                seqs.iter().filter(|seq| **seq > at.seq).map(|seq| message(*seq)).take(size).collect();
            let full = Full { events: events.len() == size, messages: messages.len() == size };
            let round = merge(at, &events, &messages, streamed, full).expect("merged");
            assert!(!round.more || round.end != at, "every round gets on");
            for item in &round.items {
                assert!(item.is_new_to(at), "{item:?} at {at}");
                at = item.after;
                let (kind, place) = match item.what {
                    What::Message(seq) => ('m', seq),
                    What::Event(number) => ('e', number),
                };
                told.push((kind, place, at.to_string()));
            }
            at = round.end;
            if !round.more {
                return told;
            }
        }
    }

    #[test]
    fn a_message_comes_before_what_is_about_it_or_later() {
        // Messages 1 and 4 are whole, 2 and 3 are streamed; 5 is deleted, 6 is whole.
        let told = told(Position::default(), &[1, 2, 2, 3, 2, 4, 3, 6], &[1, 2, 3, 4, 6], &[2, 3], 100);
        let order: Vec<(char, i64)> = told.iter().map(|(kind, place, _)| (*kind, *place)).collect();
        let wanted = "m1 e1 e2 e3 e4 e5 m4 e6 e7 m6 e8";
        assert_eq!(order.iter().map(|(kind, place)| format!("{kind}{place}")).collect::<Vec<_>>().join(" "), wanted);
        let ids: Vec<&str> = told.iter().map(|(_, _, id)| id.as_str()).collect();
        assert_eq!(ids, ["1.0", "1.1", "2.2", "2.3", "3.4", "3.5", "4.5", "4.6", "4.7", "6.7", "6.8"]);
    }

    #[test]
    fn whatever_the_pages_and_wherever_it_goes_on_each_is_told_once() {
        let about = [1, 2, 2, 3, 2, 4, 3, 6, 6, 9, 9, 2];
        let (seqs, streamed) = ([1, 2, 3, 4, 6, 7, 8, 9, 10], [2, 3, 9]);
        let whole = told(Position::default(), &about, &seqs, &streamed, 100);
        assert_eq!(whole.len(), about.len() + seqs.len() - streamed.len());
        let sorted = |told: &[(char, i64, String)]| {
            let mut places: Vec<(char, i64)> = told.iter().map(|(kind, place, _)| (*kind, *place)).collect();
            places.sort_unstable();
            places
        };
        for size in 1..=12 {
            let paged = told(Position::default(), &about, &seqs, &streamed, size);
            assert_eq!(sorted(&paged), sorted(&whole), "pages of {size}");
            for (count, (_, _, id)) in (1..).zip(&paged) {
                let mut joined = paged[..count].to_vec();
                joined.extend(told(id.parse().expect("an id"), &about, &seqs, &streamed, 5));
                assert_eq!(sorted(&joined), sorted(&whole), "pages of {size}, from {id}");
            }
        }
    }
}
