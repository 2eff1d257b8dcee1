//! A folder and a database of its own for each test, and the binary run in them.

#![allow(dead_code)] // each test program uses a part of it

pub mod postgres;
pub mod proxy;
#[path = "../../../server/tests/support/sse.rs"]
pub mod sse;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

/// Runs each of the functions as a test on a SQLite file and on PostgreSQL.
macro_rules! on_both_engines {
    ($($name:ident)+) => {
        mod on_sqlite {
            $(#[test] fn $name() { super::$name(&crate::support::sqlite()); })+
        }
        mod on_postgres {
            $(#[test] fn $name() { super::$name(&crate::support::postgres()); })+
        }
    };
}

/// A working folder, and the address of an empty database.
pub struct Place {
    pub folder: tempfile::TempDir,
    url: String,
}

/// What a command that ended left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The object on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// A place with a SQLite file.
pub fn sqlite() -> Place {
    let mut place = with_url(String::new());
    place.url = format!("sqlite://{}", place.folder.path().join("test.db").display());
    place
}

/// A place with this database.
pub fn with_url(url: String) -> Place {
    Place { folder: tempfile::tempdir().expect("a folder"), url }
}

/// A place with a database on the server of DATABASE_URL.
pub fn postgres() -> Place {
    let server = std::env::var("DATABASE_URL").ok().filter(|url| url.starts_with("postgres"));
    let server = server.expect("these tests need PostgreSQL: run `cargo xtask test`, or set DATABASE_URL=postgres://…");
    let folder = tempfile::tempdir().expect("a folder");
    let random: String = folder.path().to_string_lossy().chars().filter(char::is_ascii_alphanumeric).collect();
    // Names of tempfile differ by case; those of databases may, too, but not in everybody's hands.
    let random: String = random.bytes().rev().take(6).map(|byte| format!("{byte:02x}")).collect();
    let (address, parameters) = server.split_once('?').map_or((server.as_str(), None), |(a, b)| (a, Some(b)));
    let authority = address.rfind('/').filter(|at| *at > "postgres://".len()).map_or(address, |at| &address[..at]);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    let url = format!("{authority}/agentkeep_cli_{}_{random}{parameters}", std::process::id());
    let place = Place { folder, url };
    place.succeed(&["db", "init"]);
    place
}

impl Place {
    /// Where its PostgreSQL listens.
    pub fn postgres_address(&self) -> std::net::SocketAddr {
        let (_, host) = self.authority();
        let host = host.replace("localhost", "127.0.0.1");
        host.parse().unwrap_or_else(|_| format!("{host}:5432").parse().expect("host and port"))
    }

    /// Its database, reached by way of another address.
    pub fn url_through(&self, address: std::net::SocketAddr) -> String {
        let (login, host) = self.authority();
        self.url.replacen(&format!("{login}{host}"), &format!("{login}{address}"), 1)
    }

    /// User and password with their `@`, and host and port.
    fn authority(&self) -> (&str, &str) {
        let (_, rest) = self.url.split_once("://").expect("an address");
        let authority = rest.split(['/', '?']).next().expect("an authority");
        authority.split_at(authority.rfind('@').map_or(0, |at| at + 1))
    }

    /// The binary in this folder, without any setting from outside.
    pub fn bare_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentkeep"));
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["POSTGRES_", "AGENTKEEP_", "AM_", "DATABASE_URL", "RUST_LOG"]
                .iter()
                .any(|part| name_text.starts_with(part))
            {
                command.env_remove(&name);
            }
        }
        command.args(arguments).current_dir(self.folder.path()).env("XDG_CONFIG_HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The binary in this folder, on this database.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command(arguments);
        command.env("DATABASE_URL", &self.url);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(&mut self.command(arguments))
    }

    pub fn succeed(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran
    }

    /// Writes a file into the folder; its path.
    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    /// Runs a command that succeeds: the lines it printed, and the most memory it held, in KiB.
    pub fn measure(&self, arguments: &[&str]) -> (usize, u64) {
        let path = self.folder.path().join("output");
        let output = File::create(&path).expect("a file");
        let mut child = self.command(arguments).stdout(output).stderr(Stdio::null()).spawn().expect("starts");
        let mut peak = 0;
        let status = loop {
            peak = peak.max(high_water(child.id()).unwrap_or(0));
            match child.try_wait().expect("a status") {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        assert!(status.success(), "{arguments:?}");
        (BufReader::new(File::open(&path).expect("the output")).lines().count(), peak)
    }
}

/// The most memory a process has held until now, in KiB.
fn high_water(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Ran {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The values of JSON lines.
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What is exported.
pub fn exported(place: &Place, arguments: &[&str]) -> Vec<Value> {
    lines(&place.succeed(&[&["export", "--format", "openai-chat"], arguments].concat()).stdout)
}
