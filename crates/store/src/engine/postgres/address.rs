//! The address of a PostgreSQL: hosts, login, and how the connection is protected.
//!
//! `tokio-postgres` reads the address; what it does not know (two of the five TLS modes, certificate files,
//! whether statements are prepared) is read and taken out of it here.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use agentkeep_core::{Error, Result};
use tokio_postgres::config::{Host, LoadBalanceHosts};

use super::wire::Endpoint;

/// How far the server's certificate is trusted, named as libpq does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; anything goes.
    Prefer,
    /// Encrypted; the certificate is checked only against a root that was given.
    Require,
    /// Encrypted, the certificate comes from a trusted authority.
    VerifyCa,
    /// As before, and it is made out to the host.
    VerifyFull,
}

/// The TLS parameters of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ssl {
    pub(super) mode: SslMode,
    /// PEM file with the authorities that are trusted, in place of the public ones.
    pub(super) root: Option<PathBuf>,
    /// PEM files with a certificate and its key that prove who we are.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// One of the servers of an address.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: Option<Host>,
    pub(super) hostaddr: Option<IpAddr>,
    pub(super) port: u16,
}

impl Server {
    /// Host and port, to show to people.
    pub(super) fn name(&self) -> String {
        match (&self.host, &self.hostaddr) {
            (Some(Host::Tcp(host)), _) if host.contains(':') => format!("[{host}]:{}", self.port),
            (Some(Host::Tcp(host)), _) => format!("{host}:{}", self.port),
            (Some(Host::Unix(path)), _) => format!("{}:{}", path.display(), self.port),
            (None, Some(address)) => format!("{address}:{}", self.port),
            (None, None) => format!("localhost:{}", self.port),
        }
    }

    /// Where it may listen, in the order in which to try.
    ///
    /// # Errors
    /// When its name cannot be resolved.
    pub(super) async fn endpoints(&self) -> std::io::Result<Vec<Endpoint>> {
        match (&self.hostaddr, &self.host) {
            (_, Some(Host::Unix(path))) => Ok(vec![Endpoint::of_directory(path, self.port)]),
            (Some(address), _) => Ok(vec![Endpoint::of_address(*address, self.port)]),
            (None, Some(Host::Tcp(name))) => Endpoint::of_name(name, self.port).await,
            (None, None) => Endpoint::of_name("localhost", self.port).await,
        }
    }

    /// What its certificate has to be made out to.
    pub(super) fn tls_name(&self) -> String {
        match (&self.host, &self.hostaddr) {
            (Some(Host::Tcp(host)), _) => host.clone(),
            (_, Some(address)) => address.to_string(),
            _ => "localhost".into(),
        }
    }

    pub(super) fn is_socket_file(&self) -> bool {
        matches!(self.host, Some(Host::Unix(_)))
    }
}

/// A PostgreSQL address, read.
pub(super) struct Address {
    /// Everything but hosts and TLS mode.
    pub(super) login: tokio_postgres::Config,
    pub(super) servers: Vec<Server>,
    pub(super) shuffle: bool,
    pub(super) ssl: Ssl,
    /// Whether the address allows statements to be prepared on the server.
    pub(super) prepared_statements: bool,
}

impl Address {
    /// Reads `postgres://user:password@host:port,host:port/database?parameter=value`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the part or parameter; never with the password.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (url, own) = take_own_parameters(url)?;
        let mut config: tokio_postgres::Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let cause = super::error::root_cause(&error).replace("option", "parameter");
            Error::Config(format!("the database address cannot be read: {cause}"))
        })?;
        let servers = servers(&config)?;
        if config.get_application_name().is_none() {
            config.application_name("agentkeep");
        }
        if config.get_tcp_user_timeout().is_none() {
            // A server that vanishes without a word is noticed within half a minute, not after hours.
            config.tcp_user_timeout(Duration::from_secs(30));
            config.keepalives_idle(Duration::from_secs(30));
        }
        Ok(Self {
            shuffle: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            login: without_hosts(&config),
            servers,
            ssl: own.ssl()?,
            prepared_statements: own.prepared_statements()?,
        })
    }

    /// Host and port of every server, to show to people.
    pub(super) fn target(&self) -> String {
        self.servers.iter().map(Server::name).collect::<Vec<_>>().join(", ")
    }
}

/// The parameters that are ours, by name.
#[derive(Default)]
struct Own(Vec<(&'static str, String)>);

const OWN: [&str; 6] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "prepared_statements", "pgbouncer"];

impl Own {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn ssl(&self) -> Result<Ssl> {
        let mode = match self.get("sslmode") {
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => {
                return Err(Error::Config(format!(
                    "sslmode is {other:?}; write disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        let identity = match (self.get("sslcert"), self.get("sslkey")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (Some(_), None) => return Err(Error::Config("sslcert needs sslkey, the file with its private key".into())),
            (None, Some(_)) => return Err(Error::Config("sslkey needs sslcert, the file with the certificate".into())),
        };
        Ok(Ssl { mode, root: self.get("sslrootcert").map(PathBuf::from), identity })
    }

    fn prepared_statements(&self) -> Result<bool> {
        Ok(self.truth("prepared_statements")?.unwrap_or(true) && !self.truth("pgbouncer")?.unwrap_or(false))
    }

    fn truth(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(other) => Err(Error::Config(format!("{name} is {other:?}; write true or false"))),
        }
    }
}

/// The address without our parameters, and those.
fn take_own_parameters(url: &str) -> Result<(String, Own)> {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let before_path = after_scheme.find(['/', '?']).map_or(after_scheme, |end| &after_scheme[..end]);
    if before_path.matches('@').count() > 1 {
        return Err(Error::Config("user name or password in the database address hold an @: write it as %40".into()));
    }
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), Own::default())) };
    let (mut kept, mut own) = (Vec::new(), Own::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match OWN.iter().find(|own| **own == name) {
            Some(name) => own.0.push((name, percent_decode(name, value)?)),
            None => kept.push(pair),
        }
    }
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((url, own))
}

fn percent_decode(name: &str, value: &str) -> Result<String> {
    let malformed = || Error::Config(format!("{name} is not percent-encoded text"));
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(malformed)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| malformed())?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn servers(config: &tokio_postgres::Config) -> Result<Vec<Server>> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(Error::Config(
            "the database address names no host; write postgres://user@host:port/database".into(),
        ));
    }
    if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
        return Err(Error::Config(format!("hostaddr lists {} addresses for {} hosts", addresses.len(), hosts.len())));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::Config(format!("port lists {} ports for {count} hosts", ports.len())));
    }
    Ok((0..count)
        .map(|index| Server {
            host: hosts.get(index).cloned(),
            hostaddr: addresses.get(index).copied(),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
        })
        .collect())
}

/// The driver's configuration cannot forget hosts: a new one with everything else.
fn without_hosts(config: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut login = tokio_postgres::Config::new();
    if let Some(user) = config.get_user() {
        login.user(user);
    }
    if let Some(password) = config.get_password() {
        login.password(password);
    }
    if let Some(name) = config.get_dbname() {
        login.dbname(name);
    }
    if let Some(options) = config.get_options() {
        login.options(options);
    }
    if let Some(name) = config.get_application_name() {
        login.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        login.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        login.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        login.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        login.keepalives_retries(retries);
    }
    login
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_negotiation(config.get_ssl_negotiation())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    login
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        Address::parse(url).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_address_is_read_with_all_its_hosts_and_decoded() {
        let address = Address::parse(
            "postgresql://me:p%40ss@one:1,[::1]:2,three/data%20base?target_session_attrs=read-write&sslmode=verify-full&sslrootcert=%2Ftmp%2Fa%20b.pem",
        )
        .expect("an address");
        assert_eq!(address.target(), "one:1, [::1]:2, three:5432");
        assert_eq!(address.login.get_password(), Some(b"p@ss".as_slice()));
        assert_eq!(address.login.get_dbname(), Some("data base"));
        assert_eq!(address.ssl.mode, SslMode::VerifyFull);
        assert_eq!(address.ssl.root.as_deref(), Some(std::path::Path::new("/tmp/a b.pem")));
        assert!(address.prepared_statements);
    }

    #[test]
    fn both_names_for_unprepared_statements_are_understood() {
        for url in ["postgres://h/d?prepared_statements=false", "postgres://h/d?sslmode=disable&pgbouncer=true"] {
            assert!(!Address::parse(url).expect(url).prepared_statements, "{url}");
        }
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named() {
        assert!(error("postgres://h/d?sslmode=strict").contains("sslmode is \"strict\""));
        assert!(error("postgres://h/d?pgbouncer=perhaps").contains("pgbouncer"));
        assert!(error("postgres://h/d?sslcert=/a").contains("sslkey"));
        assert!(error("postgres://h/d?frobnicate=1").contains("frobnicate"));
        assert!(error("postgres://h:99999/d").contains("port"));
        assert!(error("postgres:///d").contains("host"));
    }

    #[test]
    fn a_password_with_an_at_sign_is_refused_without_repeating_it() {
        let error = error("postgres://me:hun@ter2@h/d");
        assert!(error.contains("%40") && !error.contains("ter2"), "{error}");
    }
}
