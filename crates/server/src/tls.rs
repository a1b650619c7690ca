//! TLS of both ports from PEM files, and who a certificate names.
//!
//! Deliberately absent: any cipher or version choice beyond rustls' defaults, and reloading (a later issue).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::Principal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::TlsFiles;

/// Why TLS could not be set up. Correct the named file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read as PEM.
    #[error("read {what} `{}`", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds nothing of the kind.
    #[error("read {what} `{}`: the file holds none", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
    },
    /// The pieces do not fit together.
    #[error("use certificate `{}`", path.display())]
    Config {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The authority cannot be used.
    #[error("use authority `{}`: {why}", path.display())]
    Authority {
        /// The authority's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

type Chain = Vec<CertificateDer<'static>>;

fn chain(path: &Path, what: &'static str) -> Result<Chain, TlsError> {
    let pem = |source| TlsError::Pem {
        what,
        path: path.to_owned(),
        source,
    };
    let certificates: Chain = CertificateDer::pem_file_iter(path)
        .map_err(pem)?
        .collect::<Result<_, _>>()
        .map_err(pem)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

fn identity(files: &TlsFiles) -> Result<(Chain, PrivateKeyDer<'static>), TlsError> {
    let certificates = chain(&files.cert, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Pem {
        what: "private key",
        path: files.key.clone(),
        source,
    })?;
    Ok((certificates, key))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, "authority")? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority {
                path: path.to_owned(),
                why: error.to_string(),
            })?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The accepting side. With an authority, the other side must show a certificate that it signed.
///
/// # Errors
/// [`TlsError`]: correct the named file.
pub(crate) fn server_config(
    files: &TlsFiles,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificates, key) = identity(files)?;
    let config = |source| TlsError::Config {
        path: files.cert.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(config)?;
    let builder = match &files.ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider())
                .build()
                .map_err(|error| TlsError::Authority {
                    path: ca.clone(),
                    why: error.to_string(),
                })?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut built = builder
        .with_single_cert(certificates, key)
        .map_err(config)?;
    built.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(built))
}

/// The dialling side between servers: always mutual.
///
/// # Errors
/// [`TlsError`]: correct the named file.
pub(crate) fn peer_client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let (certificates, key) = identity(files)?;
    let config = |source| TlsError::Config {
        path: files.cert.clone(),
        source,
    };
    let ca = files
        .ca
        .as_ref()
        .expect("ServerConfig::check refuses peer TLS without an authority");
    let built = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(config)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates, key)
        .map_err(config)?;
    Ok(Arc::new(built))
}

/// The principal of a connection that shows no certificate.
pub(crate) fn anonymous() -> Principal {
    Principal::new("anonymous").expect("the name is well formed")
}

/// Who a verified certificate names: the common name of its subject.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Principal {
    let name = common_name(certificate).and_then(|name| Principal::new(&name).ok());
    // A certificate without a usable name is verified but nameless; it gets no more than one that was not shown.
    name.unwrap_or_else(anonymous)
}

/// Splits one DER element off: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Reads the subject's common name (RFC 5280, section 4.1) of a certificate that rustls has verified.
fn common_name(certificate: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2; // the explicit version
    }
    for _ in 0..4 {
        fields = element(fields)?.2; // serial number, signature, issuer, validity
    }
    let (_, mut subject, _) = element(fields)?;
    let mut found = None;
    while !subject.is_empty() {
        let (_, mut set, rest) = element(subject)?;
        subject = rest;
        while !set.is_empty() {
            let (_, attribute, rest) = element(set)?;
            set = rest;
            let (_, oid, value) = element(attribute)?;
            if oid == COMMON_NAME {
                let (tag, text, _) = element(value)?;
                // UTF8String, PrintableString, IA5String; the most specific (last) name counts.
                if matches!(tag, 0x0c | 0x13 | 0x16) {
                    found = Some(std::str::from_utf8(text).ok()?.to_owned());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_principal_is_the_common_name_and_garbage_names_nobody() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "Orders");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "node-7");
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(principal(certificate.der()).as_str(), "node-7");
        let der = certificate.der();
        for end in 0..der.len() {
            let _ = common_name(&der[..end]); // no panic on any prefix
        }
        assert_eq!(
            principal(&CertificateDer::from(vec![0x30, 0x84, 1, 1, 1, 1])).as_str(),
            "anonymous"
        );
    }
}
