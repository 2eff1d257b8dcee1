//! How far a reader of a session has been told of it.

use std::{fmt, str::FromStr};

use agentkeep_core::{Error, SessionStamp};

/// What a client has been told: the messages up to a seq, the events up to a number. It is the id of every event of a
/// stream, written `seq.number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// Of the newest message.
    pub(crate) seq: i64,
    /// Of the newest event.
    pub(crate) number: i64,
}

impl Position {
    /// Behind that message and that event; 0 stands before the first.
    pub(crate) const fn new(seq: i64, number: i64) -> Self {
        Self { seq, number }
    }

    /// Whether nothing up to `other` is untold here.
    pub(super) const fn reaches(self, other: Self) -> bool {
        self.seq >= other.seq && self.number >= other.number
    }

    /// What has been told when both have.
    pub(super) fn and(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), number: self.number.max(other.number) }
    }
}

impl From<SessionStamp> for Position {
    fn from(stamp: SessionStamp) -> Self {
        Self::new(stamp.last_seq, stamp.last_event)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq, self.number)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().ok(),
            false => None,
        };
        text.split_once('.')
            .and_then(|(seq, event)| Some(Self::new(number(seq)?, number(event)?)))
            .ok_or_else(|| Error::invalid("after", format!("{text:?} is no id of an event, such as 5.12")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Position::new(5, 12);
        assert_eq!(position.to_string(), "5.12");
        assert_eq!("5.12".parse::<Position>().expect("a position"), position);
        for text in ["", ".", "5", "5.", ".5", "-1.0", "+1.0", "1.2.3", "1.99999999999999999999", " 1.2"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
