//! The engine against a real server. Each test has a database of its own; without DATABASE_URL they fail.

#![allow(clippy::disallowed_methods, reason = "a test needs names of its own, not the ids of a store")]

mod basics;
mod failures;
mod pooler;
mod support;
mod tls;
mod wire;
