//! The bare loop: rusqlite, a prepared statement, the same table, the same rows, the same durability.

use std::{
    path::Path,
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::Result;
use rusqlite::{Connection, params, types::Value};

use super::{
    figures::Round,
    load::{self, Chooser, MESSAGES, ROUND, SESSIONS},
};

const INSERT: &str = "INSERT INTO messages (tenant_id, session_id, seq, id, role, type, is_streaming, is_complete, \
    created_at, updated_at, content, metadata) VALUES (1, ?1, ?2, ?3, 'user', 'text', 0, 1, ?4, ?4, ?5, ?6)";
const COLUMNS: &str = "id, session_id, seq, role, type, content, parts, tool_calls, tool_name, tool_args, \
    tool_call_id, channel_payload, author_user_id, agent_id, platform_message_id, is_streaming, is_complete, usage, \
    extra, metadata, created_at, updated_at";

/// A loop that writes to a database of its own.
pub struct Loop {
    connection: Connection,
    text: String,
    metadata: String,
    seqs: Vec<i64>,
    written: u64,
}

impl Loop {
    pub fn open(path: &Path) -> Result<Self> {
        let connection = connect(path)?;
        let first = i64::try_from(MESSAGES)?;
        let seqs = vec![first; usize::try_from(SESSIONS)? + 1];
        Ok(Self { connection, text: load::text(), metadata: load::metadata(), seqs, written: 0 })
    }

    /// Inserts row after row, each committed.
    pub fn commit_each(&mut self) -> Result<Round> {
        let mut chooser = Chooser::new(1);
        let (started, mut latencies) = (Instant::now(), Vec::new());
        while started.elapsed() < ROUND {
            let begun = Instant::now();
            self.insert(&mut chooser)?;
            latencies.push(begun.elapsed());
        }
        Ok(Round { operations: latencies.len() as u64, took: started.elapsed(), latencies })
    }

    /// Inserts row after row in one transaction.
    pub fn commit_once(&mut self) -> Result<Round> {
        let mut chooser = Chooser::new(1);
        let (started, mut operations) = (Instant::now(), 0);
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        while started.elapsed() < ROUND {
            // Rows of a session in a row, as a batch has them.
            let session = chooser.next(SESSIONS);
            for _ in 0..load::BATCH {
                self.insert_into(session)?;
                operations += 1;
            }
        }
        self.connection.execute_batch("COMMIT")?;
        let took = started.elapsed();
        Ok(Round { operations, took, latencies: vec![took] })
    }

    fn insert(&mut self, chooser: &mut Chooser) -> Result<()> {
        self.insert_into(chooser.next(SESSIONS))
    }

    fn insert_into(&mut self, session: u64) -> Result<()> {
        let seq = &mut self.seqs[usize::try_from(session)?];
        *seq += 1;
        self.written += 1;
        let id = load::message_id(SESSIONS * MESSAGES + self.written).0;
        let mut insert = self.connection.prepare_cached(INSERT)?;
        let session = load::session_id(session).0;
        insert.execute(params![
            session.as_bytes(),
            *seq,
            id.as_bytes(),
            i64::try_from(self.written)?,
            self.text,
            self.metadata
        ])?;
        Ok(())
    }
}

/// Reads from `path` with one thread and one connection a client: the message of an id, or the 30 newest of a
/// session. Every column is taken out of the row as an owned value.
pub fn read(path: &Path, recent: bool, clients: usize) -> Result<Round> {
    let barrier = Barrier::new(clients);
    let rounds: Vec<Result<Round>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn({
                    let barrier = &barrier;
                    move || {
                        let connection = connect(path)?;
                        barrier.wait();
                        read_alone(&connection, recent, client as u64 + 1)
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a reader panicked"))).collect()
    });
    let mut all = Round { operations: 0, took: Duration::ZERO, latencies: Vec::new() };
    for round in rounds {
        let round = round?;
        all.operations += round.operations;
        all.took = all.took.max(round.took);
        all.latencies.extend(round.latencies);
    }
    Ok(all)
}

fn read_alone(connection: &Connection, recent: bool, seed: u64) -> Result<Round> {
    let get = format!("SELECT {COLUMNS} FROM messages WHERE tenant_id = ?1 AND id = ?2");
    let newest =
        format!("SELECT {COLUMNS} FROM messages WHERE tenant_id = ?1 AND session_id = ?2 ORDER BY seq DESC LIMIT 30");
    let mut statement = connection.prepare(if recent { &newest } else { &get })?;
    let mut chooser = Chooser::new(seed);
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < ROUND {
        let begun = Instant::now();
        let session = chooser.next(SESSIONS);
        let id =
            if recent { load::session_id(session).0 } else { load::message_id(chooser.next(SESSIONS * MESSAGES)).0 };
        let mut rows = statement.query(params![1, id.as_bytes()])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            found += 1;
            for column in 0..22 {
                std::hint::black_box(row.get::<_, Value>(column)?);
            }
        }
        anyhow::ensure!(found == if recent { 30 } else { 1 }, "the rows that were written are there");
        latencies.push(begun.elapsed());
    }
    Ok(Round { operations: latencies.len() as u64, took: started.elapsed(), latencies })
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}
