//! TLS by one explicitly chosen provider.

use std::path::Path;
use std::sync::Arc;

use longshore_core::{Error, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::config::Config;
use crate::error::BACKEND;

/// The client's TLS settings. The provider is named, because a program that links two would panic
/// at the first handshake.
///
/// # Errors
/// `Config` where a file cannot be read, or is no certificate or key.
pub(crate) fn client_config(config: &Config) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(ca) => {
            for certificate in certificates("ca", ca)? {
                roots.add(certificate).map_err(|error| wrong("ca", ca).with_source(error))?;
            }
        }
        // What the system's store holds and cannot be read is no reason to trust nothing.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots);
    let Some((cert, key)) = &config.cert else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("key", key).with_source(error))?;
    let made = builder.with_client_auth_cert(certificates("cert", cert)?, private);
    made.map(Arc::new).map_err(|error| wrong("cert", cert).with_source(error))
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let list = read.map_err(|error| wrong(option, path).with_source(error))?;
    if list.is_empty() { Err(wrong(option, path)) } else { Ok(list) }
}

fn wrong(option: &'static str, path: &Path) -> Error {
    Error::config(format!("option `{option}`: cannot use {}", path.display())).with_backend(BACKEND)
}
