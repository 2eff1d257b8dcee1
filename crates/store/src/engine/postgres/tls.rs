//! TLS as libpq's five modes mean it, on rustls.
//!
//! `require` encrypts without asking who answers, unless a root certificate was given; `verify-ca` checks
//! the chain, `verify-full` also the name. Without `sslrootcert` the public authorities serve.

use std::{path::Path, sync::Arc};

use agentkeep_core::{Error, Result};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Ssl, SslMode};

/// The TLS side of connections to a server; `None` when they are never encrypted.
///
/// # Errors
/// [`Error::Config`] naming the parameter whose file cannot be used.
pub(super) fn connector(ssl: &Ssl) -> Result<Option<MakeRustlsConnect>> {
    if ssl.mode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier { trust: trust(ssl)?, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &ssl.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates("sslcert", certificate)?, private_key(key)?)
            .map_err(|error| Error::Config(format!("sslcert and sslkey do not fit together: {error}")))?,
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: &dyn std::fmt::Display| Error::Config(format!("{parameter} {}: {error}", path.display()));
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"the file holds no certificate in PEM form")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| Error::Config(format!("sslkey {}: {error}", path.display())))
}

/// Whose certificates are accepted.
#[derive(Debug)]
enum Trust {
    Anybody,
    Roots {
        store: RootCertStore,
        /// The given certificates themselves: a self-signed server certificate is its own authority.
        given: Vec<CertificateDer<'static>>,
        check_name: bool,
    },
}

fn trust(ssl: &Ssl) -> Result<Trust> {
    let check_name = ssl.mode == SslMode::VerifyFull;
    let verify = check_name || ssl.mode == SslMode::VerifyCa;
    let Some(path) = ssl.root.as_deref().filter(|_| verify || ssl.mode == SslMode::Require) else {
        if !verify {
            return Ok(Trust::Anybody);
        }
        let store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        return Ok(Trust::Roots { store, given: Vec::new(), check_name });
    };
    let given = certificates("sslrootcert", path)?;
    let mut store = RootCertStore::empty();
    for certificate in &given {
        store
            .add(certificate.clone())
            .map_err(|error| Error::Config(format!("sslrootcert {}: {error}", path.display())))?;
    }
    Ok(Trust::Roots { store, given, check_name })
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Roots { store, given, check_name } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&certificate, store, intermediates, now, algorithms) {
            Ok(()) => {}
            // webpki refuses an authority as a server (after it has checked the dates), which is what
            // `openssl req -x509` makes; libpq takes the very certificate that was given.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if given.contains(end_entity) => {}
            Err(error) => return Err(error),
        }
        if *check_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
