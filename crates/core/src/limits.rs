//! The limits every value is held to, and the checks that name the field when one is passed.

use crate::{Error, Result};

/// Longest text of a message or other content, in bytes: 16 MiB.
pub const CONTENT_BYTES: usize = 16 * 1024 * 1024;
/// Longest name, title, e-mail, platform or chat id, in bytes.
pub const NAME_BYTES: usize = 1024;
/// Deepest nesting of a JSON value.
pub const JSON_DEPTH: usize = 128;
/// Largest page of a list.
pub const PAGE_ITEMS: u32 = 1000;
/// Page of a list when none is asked for.
pub const DEFAULT_PAGE_ITEMS: u32 = 50;

/// Refuses a required name that is empty or longer than [`NAME_BYTES`].
///
/// # Errors
/// [`Error::Invalid`] with `field`.
pub fn check_name(field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    check_bytes(field, text.len(), NAME_BYTES)
}

/// Refuses an optional name that is present and breaks [`check_name`].
///
/// # Errors
/// [`Error::Invalid`] with `field`.
pub fn check_optional_name(field: &str, text: Option<&str>) -> Result<()> {
    text.map_or(Ok(()), |text| check_name(field, text))
}

/// Refuses a content longer than [`CONTENT_BYTES`].
///
/// # Errors
/// [`Error::Invalid`] with `field`.
pub fn check_content(field: &str, text: &str) -> Result<()> {
    check_content_bytes(field, text.len())
}

/// Refuses a content whose length in bytes passes [`CONTENT_BYTES`].
///
/// # Errors
/// [`Error::Invalid`] with `field`.
pub fn check_content_bytes(field: &str, bytes: usize) -> Result<()> {
    check_bytes(field, bytes, CONTENT_BYTES)
}

fn check_bytes(field: &str, bytes: usize, limit: usize) -> Result<()> {
    if bytes > limit {
        return Err(Error::invalid(field, format!("is {bytes} bytes long; at most {limit} are allowed")));
    }
    Ok(())
}
