//! The closed lists of words of `core`, as text columns hold them.

use crate::engine::from_column_words;
use agentkeep_core::{MessageRole, MessageType, SessionKind, SessionStatus};

from_column_words!(MessageRole, MessageType, SessionKind, SessionStatus);
