//! A private PostgreSQL with pgvector, for tests, benches and soaks.
//!
//! [`PrivatePostgres::start`] gives a running server on 127.0.0.1 with an empty database `agentkeep`;
//! dropping it stops the server and removes its data. The same happens when this program is killed: the
//! server is looked after by a small shell script (`keeper.sh`) that waits for the end of a pipe held open
//! here. Commits are durable (fsync and synchronous_commit are on), as the benches need.
//!
//! PostgreSQL refuses to run as root, so root's server runs as the user [`NOBODY`]: its folder belongs to
//! that user, and programs that it cannot reach are copied there.

use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::binaries::{BIN_VARIABLE, Binaries, Version};

/// The folder of a private server's programs, told to those that run with it.
pub const PG_BIN_VARIABLE: &str = "AGENTKEEP_PG_BIN";

/// The unprivileged user and group of root's server.
const NOBODY: u32 = 65534;
const START_DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between asking for a free port and using it somebody else may take it.
const ATTEMPTS: u32 = 5;
/// Below the ports that systems give to outgoing connections, so that no client of a test takes ours.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A Unix socket's path has at most 107 bytes, `/.s.PGSQL.54321` included.
const SOCKET_FOLDER_LIMIT: usize = 90;

const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=300",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "lc_messages=C",
];

/// What kind of server to start.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// PostgreSQL version of the private server (AGENTKEEP_POSTGRES_BIN, if set, has its own)
    #[arg(long, value_enum, default_value_t)]
    pub version: Version,
}

/// A running server; dropping it stops it and removes its data.
#[derive(Debug)]
pub struct PrivatePostgres {
    keeper: Child,
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl PrivatePostgres {
    /// Starts a server and waits until it takes connections; fetches the programs first if need be.
    pub fn start(options: &Options) -> Result<PrivatePostgres> {
        let binaries = Binaries::find(options.version)?;
        let mut attempt = 1;
        let server = loop {
            let server = PrivatePostgres::launch(&binaries)?;
            match server.wait_until_ready() {
                Ok(()) => break server,
                Err(error) if attempt < ATTEMPTS && server.lost_its_port() => {
                    eprintln!("port {} was taken, trying another: {error}", server.port);
                    attempt += 1;
                }
                Err(error) => return Err(error.context("the private PostgreSQL does not start")),
            }
        };
        server.create_database()?;
        Ok(server)
    }

    /// As [`PrivatePostgres::start`], for benches: as a server that has worked for a while.
    ///
    /// The files of its log are made, as many as it may keep: it takes old ones again, where a new one halts all who
    /// write for each of them, until it has filled it with zeros, and whoever writes most halts most: of the second that
    /// a round takes, a quarter. And its memory is its own: the system gives a page of it at the first touch, filled with
    /// zeros too, which was a tenth of the work of a large batch.
    #[cfg(feature = "bench")]
    pub fn start_seasoned(options: &Options) -> Result<PrivatePostgres> {
        let server = Self::start(options)?;
        for statement in [
            "ALTER SYSTEM SET min_wal_size = '4GB'",
            "SELECT pg_reload_conf()",
            "DO $$ BEGIN
                 FOR file IN 1..256 LOOP
                     PERFORM pg_logical_emit_message(false, 'agentkeep', 'something to write');
                     PERFORM pg_switch_wal();
                 END LOOP;
             END $$",
            // As many pages as `shared_buffers` has.
            "CREATE UNLOGGED TABLE filler (page text STORAGE PLAIN)",
            "INSERT INTO filler SELECT repeat('x', 8000) FROM generate_series(1, 65536)",
            "DROP TABLE filler",
            "CHECKPOINT",
        ] {
            server.ask("postgres", statement)?;
        }
        Ok(server)
    }

    /// `postgres://…` of the database `agentkeep`, as a user who may do everything.
    pub fn url(&self) -> String {
        self.url_of("agentkeep")
    }

    /// `postgres://…` of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder of the programs, pgbench and psql among them.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Sets the variables that tell a program about this server.
    pub fn describe_to(&self, command: &mut Command) {
        command.env("DATABASE_URL", self.url()).env(PG_BIN_VARIABLE, self.bin());
    }

    /// An error with the end of the server's log if the server has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        let gone = self.keeper.try_wait()?.is_some();
        ensure!(!gone && !self.has_ended(), "PostgreSQL has ended. The end of its log:\n{}", self.end_of_log());
        Ok(())
    }

    fn launch(binaries: &Binaries) -> Result<PrivatePostgres> {
        let folder = make_folder()?;
        let path = folder.path();
        let bin = if can_run(binaries, path)? {
            binaries.bin()
        } else {
            let copy = binaries.copy_to(&path.join("programs"), server_user().unwrap_or(NOBODY))?;
            ensure!(
                can_run(&copy, path)?,
                "PostgreSQL does not run from {}: does that place allow programs? Set TMPDIR to one \
                 that does",
                path.display()
            );
            copy.bin()
        };
        let port = free_port()?;
        let sockets = path.display().to_string();
        let sockets = if sockets.len() > SOCKET_FOLDER_LIMIT { "" } else { &sockets };
        let locale = if cfg!(target_os = "macos") { "C" } else { "C.UTF-8" };

        let mut keeper = as_server_user("sh", path);
        keeper
            .args(["-c", include_str!("keeper.sh"), "keeper.sh"])
            .arg(&bin)
            .arg(path)
            .arg(locale)
            .arg(format!("-cport={port}"))
            .arg(format!("-cunix_socket_directories={sockets}"))
            .args(SETTINGS.iter().map(|setting| format!("-c{setting}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for this program, which then stops the server in order.
            .process_group(0);
        let keeper = keeper.spawn().context("cannot start `sh`")?;
        Ok(PrivatePostgres {
            keeper,
            // From here on the keeper removes it.
            folder: folder.keep(),
            bin,
            port,
        })
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.has_ended() {
                bail!("it ended at once. The end of its log:\n{}", self.end_of_log());
            }
            // The eighth line of this file is the server's state.
            let state = fs::read_to_string(self.folder.join("data/postmaster.pid"));
            let state = state.unwrap_or_default();
            if state.lines().nth(7).map(str::trim_end) == Some("ready") {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("it was not ready within {START_DEADLINE:?}. The end of its log:\n{}", self.end_of_log())
    }

    fn create_database(&self) -> Result<()> {
        self.ask("postgres", "CREATE DATABASE agentkeep")?;
        let vector = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'";
        let vector = self.ask("postgres", vector)?;
        let version = self.ask("postgres", "SHOW server_version")?;
        ensure!(
            !vector.is_empty(),
            "the PostgreSQL {version} of {} has no pgvector: install it there, or unset {BIN_VARIABLE} \
             to use one that has it",
            self.bin.display()
        );
        eprintln!("PostgreSQL {version} with pgvector {vector} on port {}", self.port);
        Ok(())
    }

    /// psql on a database of this server: it prints bare values and ends with the first error.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        forget_postgres_variables(&mut command);
        command
            .args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-d", database])
            .args(["-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::null());
        command
    }

    /// Runs one statement by psql on a database and returns what it prints.
    pub fn ask(&self, database: &str, statement: &str) -> Result<String> {
        let output = self
            .psql(database)
            .args(["-c", statement])
            .output()
            .with_context(|| format!("cannot run {}", self.bin.join("psql").display()))?;
        ensure!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn has_ended(&self) -> bool {
        self.folder.join("ended").exists()
    }

    fn lost_its_port(&self) -> bool {
        self.end_of_log().contains("could not bind")
    }

    fn end_of_log(&self) -> String {
        const LINES: usize = 15;
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nobody is left to hear of an error here.
        let _ = self.keeper.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The user whom the server must run as, when it cannot be the one who runs this program.
fn server_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

/// A command for the server's user, in a folder that this user can enter, free of libpq's variables.
fn as_server_user(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    forget_postgres_variables(&mut command);
    command.current_dir(folder);
    if let Some(user) = server_user() {
        // This drops root's other groups as well.
        command.uid(user).gid(user);
    }
    command
}

/// PGHOST, PGOPTIONS and their like are meant for another server.
fn forget_postgres_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// Makes the server's own folder where its user can work: the folder for temporary files, or another.
fn make_folder() -> Result<TempDir> {
    let first = std::env::temp_dir();
    let others = ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from);
    for parent in std::iter::once(&first).chain(&others) {
        let made = tempfile::Builder::new()
            .prefix("agentkeep-postgres-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent);
        let Ok(folder) = made else { continue };
        if let Some(user) = server_user() {
            chown(folder.path(), Some(user), Some(user))
                .with_context(|| format!("cannot give {} away", folder.path().display()))?;
        }
        let mut touch = as_server_user("sh", folder.path());
        touch.args(["-c", ": >\"$0/probe\""]).arg(folder.path());
        match quietly(&mut touch) {
            Ok(true) => return Ok(folder),
            Ok(false) => {}
            // The folder cannot be entered, or this root may not become anybody else.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error).context("cannot start `sh`"),
        }
    }
    let user = server_user().map_or_else(String::new, |user| format!(" as user {user}"));
    bail!("found no folder where PostgreSQL can work{user}: set TMPDIR to one")
}

/// Whether the server's user can run these programs.
fn can_run(binaries: &Binaries, folder: &Path) -> Result<bool> {
    let program = binaries.bin().join("postgres");
    match quietly(as_server_user(&program, folder).arg("--version")) {
        Ok(runs) => {
            ensure!(
                runs || server_user().is_some(),
                "{} --version fails: this machine lacks something it needs. Install PostgreSQL with \
                 pgvector and set {BIN_VARIABLE} to its bin folder",
                program.display()
            );
            Ok(runs)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot run {}", program.display())),
    }
}

/// Runs a command unheard; returns whether it succeeded.
fn quietly(command: &mut Command) -> std::io::Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(|status| status.success())
}

/// A port of 127.0.0.1 that nobody uses now; the search begins at a place that differs from run to run.
fn free_port() -> Result<u16> {
    let mut hasher = DefaultHasher::new();
    (std::process::id(), Instant::now()).hash(&mut hasher);
    let begin = hasher.finish() as usize % PORTS.len();
    first_free(PORTS.cycle().skip(begin).take(PORTS.len()))
        .with_context(|| format!("no port of 127.0.0.1 in {PORTS:?} is free"))
}

fn first_free(mut ports: impl Iterator<Item = u16>) -> Option<u16> {
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_free() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(first_free(std::iter::once(port)), None);
    }

    #[test]
    fn a_free_port_lies_below_those_of_outgoing_connections() {
        assert!(PORTS.contains(&free_port().unwrap()));
    }
}
