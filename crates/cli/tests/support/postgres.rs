//! A PostgreSQL of a test's own, which it may stop and start.

use std::{
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Place;

/// Who PostgreSQL runs as when root tests: it refuses root itself.
const NOBODY: u32 = 65534;

/// A server with a folder of its own; stopped when it is dropped.
pub struct OwnPostgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl OwnPostgres {
    /// Makes one from the programs of `cargo xtask test`, and starts it.
    pub fn start() -> Self {
        let bin = std::env::var_os("AGENTKEEP_PG_BIN").map(PathBuf::from);
        let bin = bin.expect("this test needs PostgreSQL's programs: run `cargo xtask test`, or set AGENTKEEP_PG_BIN");
        let folder = tempfile::Builder::new().prefix("agentkeep-pg-").tempdir_in("/tmp").expect("a folder");
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let server = Self { bin, folder, port };
        server.run("initdb", &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        server.go();
        server
    }

    /// A working folder with a database on it.
    pub fn place(&self) -> Place {
        let place = super::with_url(format!("postgres://postgres@127.0.0.1:{}/agentkeep", self.port));
        place.succeed(&["db", "init"]);
        place
    }

    /// Starts it and waits until it takes connections.
    pub fn go(&self) {
        let sockets = self.folder.path().display();
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={sockets}", self.port);
        self.run("pg_ctl", &["start", "--wait", "--silent", "--log=log", "-o", &options]);
    }

    /// Stops it: `fast` as an operator does, `immediate` as a crash does.
    pub fn stop(&self, mode: &str) {
        self.run("pg_ctl", &["stop", "--wait", "--silent", "--mode", mode]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(&self.bin.join(program), arguments).status().expect("it runs");
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{program} {arguments:?}: {status}\n{}", log());
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-D").arg(self.folder.path().join("data")).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.command(&self.bin.join("pg_ctl"), &["stop", "--silent", "--mode=immediate"]).status();
    }
}
