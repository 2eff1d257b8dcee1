//! The engine against a real server. Each test has a database of its own; without DATABASE_URL they fail.

mod basics;
mod failures;
mod pooler;
mod support;
mod tls;
