//! The names that the server's certificate has, and those that it had before.
//!
//! A device verifies the name under which it reaches the gateway, so a name that a new certificate
//! lacks shuts devices out. The gateway keeps the names that it serves under in the data directory,
//! for `check` as well. They are kept at start, and at a change by which none is lost: who lost some
//! is told until the next start.

use std::{collections::BTreeSet, fs, net::IpAddr, path::PathBuf};

use portcullis_core::problem::Problem;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Trust, problem};
use crate::identity::{Config, files};

/// Where the names are kept, one a line.
fn file(config: &Config) -> PathBuf {
    config.journal.with_file_name("server-names")
}

/// Host names and addresses.
fn names(server: &CertificateDer<'_>) -> BTreeSet<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(server) else {
        return BTreeSet::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| v6()).ok().map(|address| address.to_string())
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect()
}

/// The names that were kept and that the certificate lacks.
fn lost(config: &Config, trust: &Trust) -> Vec<String> {
    let kept = fs::read_to_string(file(config)).unwrap_or_default();
    let present = trust.server_chain.first().map(names).unwrap_or_default();
    let kept = kept.lines().map(str::trim);
    kept.filter(|name| !name.is_empty() && !present.contains(*name))
        .map(str::to_owned)
        .collect()
}

/// A warning if the certificate lacks names that the gateway served under.
pub(in crate::identity) fn warning(config: &Config, trust: &Trust) -> Option<Problem> {
    let lost = lost(config, trust);
    let message = format!(
        "the server's certificate lacks names that the former one had: {}",
        lost.join(", ")
    );
    let remedy = "devices that use them refuse the gateway: issue it for these names as well, unless \
                  nobody needs them any more";
    (!lost.is_empty()).then(|| problem(&config.server_certificate, message, remedy))
}

/// Keeps the names; unless `at_start`, not if some are lost.
pub(in crate::identity) fn keep(config: &Config, trust: &Trust, at_start: bool) {
    if !at_start && !lost(config, trust).is_empty() {
        return;
    }
    let present = trust.server_chain.first().map(names).unwrap_or_default();
    let text: String = present.into_iter().map(|name| name + "\n").collect();
    if fs::read_to_string(file(config)).is_ok_and(|kept| kept == text) {
        return;
    }
    if let Err(error) = files::write(&file(config), text.as_bytes()) {
        tracing::warn!(%error, "The names of the server's certificate cannot be kept.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{authority::Authority, inspect, load, testing::Bench};

    #[test]
    fn names_that_a_new_server_certificate_lacks_are_told_until_the_next_start() {
        let bench = Bench::new();
        let authority = Authority::open(&bench.config.ca_certificates[0]).unwrap();
        let install = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = authority.issue_server(&names).unwrap();
            bench.write("pki/server.pem", &made.certificate_pem);
            bench.write("pki/server.key", &made.key_pem.unwrap());
            load(&bench.config, &[]).unwrap().trust().clone()
        };
        let told = || {
            let warnings = inspect(&bench.config, &[]).warnings;
            let mut texts = warnings.iter().map(ToString::to_string);
            texts.find(|text| text.contains("lacks names"))
        };
        let first = install(&["gate.site", "gate", "10.0.0.1"]);
        assert_eq!(told(), None, "nothing is known of a former one");
        keep(&bench.config, &first, true);
        assert_eq!(told(), None);
        let second = install(&["gate", "fd00::1"]);
        let text = told().unwrap();
        assert!(text.contains("had: 10.0.0.1, gate.site;"), "{text}");
        keep(&bench.config, &second, false);
        assert!(told().is_some(), "a change does not hide it");
        let third = install(&["gate.site", "gate", "10.0.0.1", "more"]);
        assert_eq!(told(), None);
        keep(&bench.config, &third, false);
        let fourth = install(&["gate"]);
        assert!(told().unwrap().contains("had: 10.0.0.1, gate.site, more;"));
        keep(&bench.config, &fourth, true);
        assert_eq!(told(), None);
    }
}
