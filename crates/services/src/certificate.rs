//! Certificates for servers that speak TLS.

use std::{fs, path::PathBuf, process::Command};

use crate::{Error, server::Folder};

/// A certificate for `localhost` and 127.0.0.1, its key, and the authority that signed it.
pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) authority_file: PathBuf,
    /// The authority's certificate, as PEM.
    pub(crate) authority: String,
}

/// Makes an authority and has it sign a certificate. (One certificate that is both would be refused by rustls.)
pub(crate) fn issue(folder: &Folder) -> Result<Certificate, Error> {
    let authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=tokenkeep's tests"];
    request(folder, &authority)?;
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let server = ["-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=localhost", "-addext", names];
    let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    request(folder, &[server.as_slice(), &signed].concat())?;
    let authority_file = folder.join("ca.crt");
    let authority = fs::read_to_string(&authority_file).map_err(Error::because("the certificate is not there"))?;
    Ok(Certificate { file: folder.join("server.crt"), key_file: folder.join("server.key"), authority_file, authority })
}

fn request(folder: &Folder, arguments: &[&str]) -> Result<(), Error> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30"]);
    folder.run(openssl.args(arguments))
}
