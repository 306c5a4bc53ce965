//! TLS settings for rustls. The cryptography provider is set for these connections alone; no
//! process-wide default is set or needed. The provider is aws-lc, the default of rustls and
//! reqwest. A crate that turned on another provider beside it would make rustls' choice of a
//! default ambiguous, and unrelated code of the same program that relies on the default would
//! panic.

use crate::file::Stamp;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind};

/// TLS settings beyond those of the system. Files are read when a location is made, and again when
/// they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// PEM file with the certificate authorities to trust, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// PEM file with the client's certificate chain, and with its key unless `key` names another
    /// file.
    pub certificate: Option<PathBuf>,
    /// PEM file with the client's key.
    pub key: Option<PathBuf>,
    /// Accept any certificate of the server.
    pub insecure: bool,
}

impl Tls {
    /// Reads every file once, so that a wrong one is reported when a location is made.
    ///
    /// # Errors
    /// `InvalidConfig` naming the file.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(file) = &self.authorities {
            authorities(file)?;
        }
        client_identity(self)?;
        Ok(())
    }

    /// The current state of the files.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let files = [&self.authorities, &self.certificate, &self.key];
        files.into_iter().flatten().map(|f| Stamp::of(f)).collect()
    }

    /// The settings for connections to `https` addresses. For `http` they are not used.
    pub(crate) fn config(&self, https: bool) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let failed = |e: rustls::Error| {
            invalid("TLS cannot be set up")
                .mend("check the certificate files and the system's certificates")
                .caused_by(e)
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = if !https {
            builder.with_root_certificates(RootCertStore::empty())
        } else if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(
                    provider.signature_verification_algorithms,
                )))
        } else if let Some(file) = &self.authorities {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Listed::new(file, provider)?))
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(system(provider).map_err(failed)?)
        };
        match client_identity(self)? {
            Some((chain, key)) if https => {
                builder.with_client_auth_cert(chain, key).map_err(failed)
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}

fn system(provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    Ok(Arc::new(rustls_platform_verifier::Verifier::new(provider)?))
}

fn authorities(file: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| {
            unusable(file, "a certificate that cannot be used as an authority").caused_by(e)
        })?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let list = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unusable(file, "no PEM certificates").caused_by(e))?;
    match list.is_empty() {
        true => Err(unusable(file, "no PEM certificates")),
        false => Ok(list),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_identity(tls: &Tls) -> Result<Option<Identity>, Error> {
    let Some(file) = &tls.certificate else {
        return match &tls.key {
            None => Ok(None),
            Some(key) => Err(unusable(key, "a key without a certificate")
                .mend("name the client certificate too")),
        };
    };
    let key_file = tls.key.as_ref().unwrap_or(file);
    let chain = certificates(file)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|e| unusable(key_file, "no PEM private key").caused_by(e))?;
    Ok(Some((chain, key)))
}

fn invalid(cause: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, "set up TLS", cause.into())
}

fn unusable(file: &Path, found: &str) -> Error {
    invalid(format!(
        "`{}` cannot be used: it holds {found}, or cannot be read",
        file.display()
    ))
    .mend("name a readable PEM file")
}

/// Takes certificates of the authorities in a file, and those that are in the file themselves: one
/// that signed itself is often marked as an authority (`openssl req -x509` does so), which no server's
/// certificate may be. curl takes it too.
#[derive(Debug)]
struct Listed {
    listed: Vec<CertificateDer<'static>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Listed {
    fn new(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let roots = Arc::new(authorities(file)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Self {
            listed: certificates(file)?,
            verifier: verifier
                .map_err(|e| unusable(file, "certificates that cannot be used").caused_by(e))?,
        })
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Its dates are looked at before its kind, its name after that.
            Err(rustls::Error::InvalidCertificate(why))
                if self.listed.iter().any(|listed| listed == end_entity)
                    && format!("{why:?}").contains("CaUsedAsEndEntity") =>
            {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts any certificate, but verifies the server's signature with it.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
