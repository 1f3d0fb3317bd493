//! Whom to trust.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
};
use rustls_platform_verifier::Verifier;
use tokenkeep_core::ports::Clock;
use url::Host;

/// The extra certificates cannot be used: the operator must mend the file or its name in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct ExtraCaError {
    path: PathBuf,
    problem: String,
}

/// TLS towards providers; without trusted certificates, the reason why there is none.
pub(super) struct Tls(Result<Arc<ClientConfig>, String>);

impl Tls {
    pub(super) fn new(clock: Arc<dyn Clock>, extra_ca_file: Option<&Path>) -> Result<Self, ExtraCaError> {
        let extra = extra_ca_file.map(read_certificates).transpose()?.unwrap_or_default();
        // A provider of our own making instead of the process's default: a library must not depend on what some
        // other part of the process installed, nor install anything for it.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))
            .and_then(|verifier| client_config(provider, clock, verifier))
            .map_err(|error| format!("TLS is not available: {error}"));
        Ok(Self(config))
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.0.clone()
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    verifier: Verifier,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock(clock)))
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls's word for any verifier that is not its own; this one is stricter, if anything
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a certificate must be issued to.
pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string()),
        Host::Ipv4(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Ipv6(address) => Ok(ServerName::IpAddress((*address).into())),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ExtraCaError> {
    let error = |problem: String| ExtraCaError { path: path.to_owned(), problem };
    let pem = std::fs::read(path).map_err(|e| error(e.to_string()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| error(e.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|e| error(e.to_string()))?;
    }
    if certificates.is_empty() { Err(error("holds no certificate in PEM".to_owned())) } else { Ok(certificates) }
}

/// Certificates expire by our clock, like everything else.
#[derive(Debug)]
struct WallClock(Arc<dyn Clock>);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().wall.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
