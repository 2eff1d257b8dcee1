//! Recorded conversations in and out: logs of chat messages in the format of OpenAI's API.
//!
//! [`import`] reads a log item by item and writes each as a session with its messages; running it again adds
//! exactly what is missing. [`export`] writes sessions as JSON lines. The messages that come out are equal as
//! JSON to those that went in.

mod export;
mod import;
mod openai;
mod scan;

pub use export::{ExportError, ExportReport, export};
pub use import::{ImportOptions, ImportReport, PLATFORM, Unreadable, import};
pub use openai::{Columns, Conversation, new_message, openai_message};
pub use scan::{Items, RawItem};
