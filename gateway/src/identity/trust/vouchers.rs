//! Who vouches for certificates here, as commands see it: CAs and revocation lists as far as they can
//! be read, whatever is wrong with the certificate of the server.

use std::{
    cell::OnceCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{certificate::Certificate, registry::RegisteredCa};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{Expiry, Reader, TrustedCa, ca, chains, crl, unrevoked};
use crate::identity::Config;

/// See the module.
#[derive(Debug)]
pub(in crate::identity) struct Vouchers {
    /// All CAs that settings and registry name, those that a list revokes as well.
    pub(in crate::identity) named: Vec<TrustedCa>,
    /// Those that no list revokes.
    pub(in crate::identity) in_force: Vec<TrustedCa>,
    /// Whether all files of CAs could be read.
    pub(in crate::identity) is_whole: bool,
    /// What stands in files of CAs and is not revoked: intermediates that a device may send.
    above: Vec<CertificateDer<'static>>,
    revoked: Arc<crl::Revoked>,
    lists: Vec<PathBuf>,
    /// In which file a certificate is revoked; read when somebody asks.
    files: OnceCell<HashMap<crl::Serial, PathBuf>>,
}

impl Vouchers {
    pub(in crate::identity) fn read(config: &Config, registered: &[RegisteredCa]) -> Self {
        let mut reader = Reader {
            expiry: Expiry::Warning,
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        let named = reader.authorities(config, registered);
        let lists = crl::read(
            (&config.crls, &[]),
            (&named, &[]),
            chains(config, registered),
            &mut Vec::new(),
            &mut Vec::new(),
        );
        let mut files: Vec<&Path> = named.iter().map(|ca| &*ca.file).collect();
        files.dedup();
        let is_revoked = |der: &CertificateDer<'_>| {
            Certificate::parse(der).is_ok_and(|above| lists.revoked.contains(&above))
        };
        let certificates = files
            .into_iter()
            .filter_map(|file| CertificateDer::pem_file_iter(file).ok())
            .flat_map(|certificates| certificates.filter_map(Result::ok))
            .filter(|der| !is_revoked(der));
        Self {
            above: certificates.collect(),
            in_force: unrevoked(named.clone(), &lists.revoked).0,
            named,
            is_whole: reader.problems.is_empty(),
            revoked: lists.revoked,
            lists: config.crls.clone(),
            files: OnceCell::new(),
        }
    }

    /// The file of the list that names `certificate`; `None` if none does.
    pub(in crate::identity) fn list_with(&self, certificate: &Certificate) -> Option<&Path> {
        if !self.revoked.contains(certificate) {
            return None;
        }
        let files = self.files.get_or_init(|| crl::entries(&self.lists));
        let file = crl::serial(certificate).and_then(|serial| files.get(&serial));
        Some(file.map_or(Path::new("a revocation list"), PathBuf::as_path))
    }

    /// The CA among `cas` that signed the first of `chain`, perhaps through others of it or through
    /// what is known here.
    pub(in crate::identity) fn ca_of<'c>(
        &self,
        cas: &'c [TrustedCa],
        chain: &[CertificateDer<'static>],
    ) -> Result<&'c TrustedCa, webpki::Error> {
        let Some((leaf, sent)) = chain.split_first() else {
            return Err(webpki::Error::UnknownIssuer);
        };
        let intermediates: Vec<_> = sent.iter().chain(&self.above).cloned().collect();
        ca::find(cas, leaf, &intermediates)
    }
}
