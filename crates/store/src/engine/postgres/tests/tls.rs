//! The five TLS modes, against a small proxy that speaks TLS in front of the server, which has none.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::support::*;
use crate::engine::{Sql, postgres::Postgres};

/// What the proxy answers to the question for TLS.
#[derive(Clone)]
enum Answer {
    Tls(TlsAcceptor),
    /// "No": plain connections pass.
    Refuses,
    /// "Yes", and then nothing: the handshake fails.
    Breaks,
}

/// A proxy in front of the test server; its port.
async fn proxy(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = server_address().await;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, server, answer.clone()));
        }
    });
    port
}

async fn serve(mut client: TcpStream, server: SocketAddr, answer: Answer) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let mut first = [0; 8];
    client.read_exact(&mut first).await?;
    if first[4..] != 80_877_103_u32.to_be_bytes() {
        server.write_all(&first).await?;
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    match answer {
        Answer::Tls(acceptor) => {
            client.write_all(b"S").await?;
            let mut client = acceptor.accept(client).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Answer::Refuses => {
            client.write_all(b"N").await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Answer::Breaks => client.write_all(b"S").await,
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The proxy's side, with a certificate for `localhost`.
    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        acceptor(certificate.der().clone(), &key)
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    TlsAcceptor::from(Arc::new(config))
}

/// Connects through the proxy and asks something; the error as text.
async fn ask(host: &str, port: u16, mode: &str, root: Option<&Path>) -> Result<(), String> {
    let root = root.map(|path| format!("&sslrootcert={}", path.display())).unwrap_or_default();
    let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}{root}");
    let engine = Postgres::open(Arc::new(config(url))).await.map_err(|error| error.to_string())?;
    let one =
        engine.fetch_all::<(i64,)>(&Sql::both("SELECT 1").short(), &[]).await.map_err(|error| error.to_string())?;
    assert_eq!(one, [(1,)]);
    engine.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_checks_what_it_promises() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let (good, bad) = (folder.path().join("good.pem"), folder.path().join("bad.pem"));
    std::fs::write(&good, &trusted.pem).expect("a file");
    std::fs::write(&bad, &other.pem).expect("a file");
    let port = proxy(Answer::Tls(trusted.acceptor())).await;
    for mode in ["disable", "prefer", "require"] {
        ask("localhost", port, mode, None).await.expect(mode);
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        ask("localhost", port, mode, Some(&good)).await.expect(mode);
        let error = ask("localhost", port, mode, Some(&bad)).await.expect_err(mode);
        assert!(error.contains("invalid peer certificate") && error.contains(&port.to_string()), "{mode}: {error}");
    }
    ask("127.0.0.1", port, "verify-ca", Some(&good)).await.expect("verify-ca leaves the name alone");
    let error = ask("127.0.0.1", port, "verify-full", Some(&good)).await.expect_err("another name");
    assert!(error.contains("not valid for name"), "{error}");
    let error = ask("localhost", port, "verify-full", None).await.expect_err("no public authority signed it");
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = ask("localhost", port, "verify-ca", Some(&folder.path().join("none.pem"))).await.expect_err("no file");
    assert!(error.contains("sslrootcert") && error.contains("none.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_prefer_goes_on_without_tls() {
    for answer in [Answer::Refuses, Answer::Breaks] {
        let port = proxy(answer).await;
        ask("localhost", port, "prefer", None).await.expect("plain");
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = ask("localhost", port, mode, None).await.expect_err(mode);
            assert!(error.contains("TLS"), "{mode}: {error}");
        }
    }
    // A name that no certificate can have; the address says where the server is.
    let server = server_address().await;
    let url = |mode: &str| {
        format!("postgres://postgres@-no-name-:{}/postgres?hostaddr={}&sslmode={mode}", server.port(), server.ip())
    };
    open(&url("prefer")).await;
    let error = Postgres::open(Arc::new(config(url("require")))).await.err().expect("no TLS").to_string();
    assert!(error.contains("-no-name-"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_server_certificate_serves_as_its_own_root() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    std::fs::write(&root, certificate.pem()).expect("a file");
    let port = proxy(Answer::Tls(acceptor(certificate.der().clone(), &key))).await;
    ask("localhost", port, "verify-full", Some(&root)).await.expect("the very certificate");
    ask("127.0.0.1", port, "verify-full", Some(&root)).await.expect_err("another name");
}
