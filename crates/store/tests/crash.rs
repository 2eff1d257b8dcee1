//! What survives a `kill -9`: everything that was acknowledged, and nothing by halves.
//!
//! The writer is this test program itself, started again as a process of its own. It appends from 8 tasks and
//! says on its standard output what was acknowledged, a line at a time; the test kills it in the middle of that.

#[macro_use]
mod support;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use agentkeep::{
    Config, Store, TenantStore, Value,
    conformance::support::{new_name, said},
    core::{MessageId, NewSession, NewTenant, SessionId, TenantId},
};
use support::postgres_config;
use tempfile::TempDir;

/// The address of the writer's database, its tenant, its sessions, and how it acknowledges.
const URL: &str = "AGENTKEEP_TEST_WRITER_URL";
const TENANT: &str = "AGENTKEEP_TEST_WRITER_TENANT";
const SESSIONS: &str = "AGENTKEEP_TEST_WRITER_SESSIONS";
const MANNER: &str = "AGENTKEEP_TEST_WRITER_MANNER";

const KILLS: u32 = 20;
const TASKS: usize = 8;

/// When a writer says that a message is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// When the store says so.
    Acknowledged,
    /// As soon as it was written into a transaction that is committed later: the control.
    BeforeTheCommit,
}

/// Not a test by itself: the process that the tests below start and kill. Without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let Ok(url) = env::var(URL) else { return };
    let set = |name: &str| env::var(name).expect(name);
    let sessions: Vec<SessionId> = set(SESSIONS).split(',').map(|id| id.parse().expect("a session id")).collect();
    let store = Store::open_with(postgres_config(&url)).await.expect("the database opens");
    let tenant = store.tenant(TenantId(set(TENANT).parse().expect("a number")));
    say("ready");
    let writers = (0..TASKS).map(|task| {
        let (store, tenant, sessions) = (store.clone(), tenant.clone(), sessions.clone());
        let early = set(MANNER) == "early";
        tokio::spawn(async move {
            for step in task.. {
                if early {
                    write_early(&store, &tenant, sessions[0]).await
                } else {
                    write(&tenant, &sessions, step).await
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
}

async fn write(tenant: &TenantStore, sessions: &[SessionId], step: usize) {
    let session = sessions[step % sessions.len()];
    if step % 11 == 10 {
        let batch = vec![said("first of two"), said("second of two")];
        for message in tenant.messages().append_many(session, batch).await.expect("appended") {
            acknowledge(session, message.seq, message.id);
        }
        return;
    }
    let message = tenant.messages().append(session, said("x".repeat(200))).await.expect("appended");
    acknowledge(session, message.seq, message.id);
}

async fn write_early(store: &Store, tenant: &TenantStore, session: SessionId) {
    let tx = store.begin().await.expect("begun");
    for _ in 0..20 {
        let inside = store.tenant_in(&tx, tenant.id());
        let message = inside.messages().append(session, said("x")).await.expect("appended");
        acknowledge(session, message.seq, message.id);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tx.commit().await.expect("committed");
}

fn acknowledge(session: SessionId, seq: i64, id: MessageId) {
    say(&format!("ack {session} {seq} {id}"));
}

/// One line, out at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).expect("written");
    out.flush().expect("flushed");
}

/// A message that the writer was told is there.
struct Acknowledged {
    session: SessionId,
    seq: i64,
    id: MessageId,
}

/// Where the writer writes.
struct Ground {
    url: String,
    _folder: Option<TempDir>,
}

impl Ground {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("crash.db").display());
        Self { url, _folder: Some(folder) }
    }

    async fn postgres() -> Self {
        Self { url: support::new_postgres_database("crash").await, _folder: None }
    }

    fn config(&self) -> Config {
        postgres_config(&self.url)
    }

    async fn open(&self) -> Store {
        Store::open_with(self.config()).await.expect("the database opens")
    }

    /// A new tenant with a few sessions.
    async fn prepare(&self) -> (TenantId, Vec<SessionId>) {
        let store = self.open().await;
        let tenant = store.tenants().create(NewTenant::new(new_name("crash"))).await.expect("a tenant").id;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let session = store.tenant(tenant).sessions().create(NewSession::default()).await;
            sessions.push(session.expect("a session").id);
        }
        store.close().await;
        (tenant, sessions)
    }

    /// Starts a writer, kills it after `pause`, and gives what it had acknowledged.
    fn write_and_kill(
        &self,
        tenant: TenantId,
        sessions: &[SessionId],
        manner: Manner,
        pause: Duration,
    ) -> Vec<Acknowledged> {
        let ids: Vec<String> = sessions.iter().map(ToString::to_string).collect();
        let mut writer = Command::new(env::current_exe().expect("this program"))
            .args(["writer_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(URL, &self.url)
            .env(TENANT, tenant.to_string())
            .env(SESSIONS, ids.join(","))
            .env(MANNER, if manner == Manner::BeforeTheCommit { "early" } else { "" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the writer starts");
        let out = writer.stdout.take().expect("its output");
        let (ready, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
                let line = line.expect("text");
                if line == "ready" {
                    ready.send(()).expect("the test waits");
                } else if let Some(message) = line.strip_prefix("ack ") {
                    acknowledged.push(read(message));
                }
            }
            acknowledged
        });
        told.recv_timeout(Duration::from_secs(30)).expect("the writer gets ready");
        std::thread::sleep(pause);
        // On Unix this is SIGKILL: the process has no say.
        writer.kill().expect("killed");
        assert!(!writer.wait().expect("ended").success(), "the writer was killed, it did not end");
        reader.join().expect("no panic")
    }

    /// What is wrong with the database after a kill.
    async fn faults(&self, tenant: TenantId, sessions: &[SessionId], acknowledged: &[Acknowledged]) -> Vec<String> {
        let store = self.open().await;
        let tenant = store.tenant(tenant);
        let mut faults = Vec::new();
        for Acknowledged { session, seq, id } in acknowledged {
            match tenant.messages().get(*id).await.expect("read") {
                None => faults.push(format!("message {seq} of session {session} is lost")),
                Some(message) if (message.session_id, message.seq) != (*session, *seq) => {
                    faults.push(format!("message {seq} of session {session} is now {} there", message.seq));
                }
                Some(_) => {}
            }
        }
        for session in sessions {
            // One statement: on PostgreSQL the last one of the killed writer may still be under way.
            let sql = "SELECT h.message_count, h.last_seq,
                           (SELECT count(*) FROM messages WHERE tenant_id = $1 AND session_id = $2),
                           (SELECT count(DISTINCT seq) FROM messages WHERE tenant_id = $1 AND session_id = $2),
                           (SELECT COALESCE(MAX(seq), 0) FROM messages WHERE tenant_id = $1 AND session_id = $2)
                       FROM session_heads h WHERE h.tenant_id = $1 AND h.session_id = $2";
            let params = [Value::from(tenant.id()), Value::from(*session)];
            let row = store.fetch_one(sql, &params).await.expect("read").expect("the session is there");
            if row.values().windows(2).any(|pair| pair[0] != pair[1]) {
                faults.push(format!("counts of session {session} differ"));
            }
        }
        store.close().await;
        faults
    }
}

fn read(line: &str) -> Acknowledged {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [session, seq, id] => Acknowledged {
            session: session.parse().expect("a session id"),
            seq: seq.parse().expect("a number"),
            id: id.parse().expect("a message id"),
        },
        _ => panic!("{line:?}"),
    }
}

/// 50 to 400 milliseconds.
fn random_pause() -> Duration {
    Duration::from_millis(50 + RandomState::new().hash_one(0) % 350)
}

async fn nothing_acknowledged_is_lost(ground: Ground) {
    let mut total = 0;
    for kill in 1..=KILLS {
        let (tenant, sessions) = ground.prepare().await;
        let pause = random_pause();
        let acknowledged = ground.write_and_kill(tenant, &sessions, Manner::Acknowledged, pause);
        let faults = ground.faults(tenant, &sessions, &acknowledged).await;
        assert!(faults.is_empty(), "kill {kill} after {pause:?}, {} acknowledged: {faults:#?}", acknowledged.len());
        total += acknowledged.len();
    }
    assert!(total > KILLS as usize, "the writers wrote: {total} messages");
}

/// Control: the same kills and the same check. One kill may come just after a commit; one of them all does not.
async fn what_is_acknowledged_before_the_commit_is_lost(ground: Ground) {
    for _ in 1..=KILLS {
        let (tenant, sessions) = ground.prepare().await;
        let acknowledged = ground.write_and_kill(tenant, &sessions, Manner::BeforeTheCommit, random_pause());
        let faults = ground.faults(tenant, &sessions, &acknowledged).await;
        if faults.iter().any(|fault| fault.ends_with("is lost")) {
            return;
        }
    }
    panic!("the check did not notice one lost message in {KILLS} kills");
}

#[tokio::test]
async fn twenty_kills_lose_no_acknowledged_message_on_sqlite() {
    nothing_acknowledged_is_lost(Ground::sqlite()).await;
}

#[tokio::test]
async fn twenty_kills_lose_no_acknowledged_message_on_postgres() {
    nothing_acknowledged_is_lost(Ground::postgres().await).await;
}

#[tokio::test]
async fn a_message_acknowledged_before_its_commit_is_lost_on_sqlite() {
    what_is_acknowledged_before_the_commit_is_lost(Ground::sqlite()).await;
}

#[tokio::test]
async fn a_message_acknowledged_before_its_commit_is_lost_on_postgres() {
    what_is_acknowledged_before_the_commit_is_lost(Ground::postgres().await).await;
}
