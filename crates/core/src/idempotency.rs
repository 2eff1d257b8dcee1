//! Requests that are repeated: each has a key of its sender's, is done once, and gets the same answer every time.

use std::fmt;

use crate::{Error, Result};

/// Longest key of a request, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Refuses a key of a request that is empty or longer than [`IDEMPOTENCY_KEY_BYTES`].
///
/// # Errors
/// [`Error::Invalid`] with the field `Idempotency-Key`.
pub fn check_idempotency_key(key: &str) -> Result<()> {
    if (1..=IDEMPOTENCY_KEY_BYTES).contains(&key.len()) {
        return Ok(());
    }
    let reason = format!("is {} bytes long; 1 to {IDEMPOTENCY_KEY_BYTES} are allowed", key.len());
    Err(Error::invalid("Idempotency-Key", reason))
}

/// The answer to a request, kept for when it is repeated. Its `Debug` tells lengths only: answers hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that belong to the answer, in order.
    pub headers: Vec<(String, String)>,
    /// The body, byte by byte.
    pub body: Vec<u8>,
}

impl fmt::Debug for StoredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredAnswer({}, {} headers, {} bytes)", self.status, self.headers.len(), self.body.len())
    }
}

/// What came of claiming the key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyClaim {
    /// Nobody has done it: it is to be done, and its answer to be kept, in this transaction.
    New,
    /// It was done: this was the answer.
    Repeated(StoredAnswer),
    /// The key was used for another request.
    Different,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_255_bytes() {
        assert!(check_idempotency_key("k").is_ok() && check_idempotency_key(&"k".repeat(255)).is_ok());
        for key in [String::new(), "k".repeat(256), "ä".repeat(128)] {
            let outcome = check_idempotency_key(&key);
            assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "Idempotency-Key"), "{outcome:?}");
        }
    }

    #[test]
    fn what_an_answer_says_is_not_in_its_debug_text() {
        let headers = vec![("set-cookie".to_owned(), "hunter2".to_owned())];
        let answer = StoredAnswer { status: 201, headers, body: b"hunter2".to_vec() };
        assert_eq!(format!("{answer:?}"), "StoredAnswer(201, 1 headers, 7 bytes)");
    }
}
