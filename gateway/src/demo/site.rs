//! The demo's site: a configuration in a temporary directory, made with the command line, and the
//! gateway that serves it.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::scrape;
use crate::cli::DemoArgs;

/// What is normal for the demo's fleet. Normal things send 150 messages in 300 seconds and are refused
/// nothing; the flood is of 800. On any machine the figures stay apart.
const PROFILE: &str = r#"{
  "securityProfileName": "demo",
  "securityProfileDescription": "What is normal for the demo's fleet.",
  "behaviors": [
    {
      "name": "flood",
      "metric": "aws:num-messages-sent",
      "criteria": { "comparisonOperator": "less-than-equals", "value": { "count": 400 }, "durationSeconds": 300 }
    },
    {
      "name": "refused",
      "metric": "aws:num-authorization-failures",
      "criteria": { "comparisonOperator": "less-than", "value": { "count": 3 }, "durationSeconds": 300 }
    },
    {
      "name": "one-holder",
      "metric": "portcullis:certificate-source-addresses",
      "criteria": { "comparisonOperator": "less-than-equals", "value": { "count": 1 }, "durationSeconds": 300 }
    },
    {
      "name": "small-messages",
      "metric": "aws:message-byte-size",
      "criteria": { "comparisonOperator": "less-than-equals", "value": { "count": 1024 } }
    }
  ],
  "targets": ["all/things"]
}
"#;

/// Time for the gateway to become ready: it compiles plugins first.
const READY_MAX: Duration = Duration::from_secs(120);
/// Time for the gateway to drain and end: its own grace and some.
const STOP_MAX: Duration = Duration::from_secs(30);

/// The directory and the running gateway.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) dir: PathBuf,
    /// Where devices connect.
    pub(super) mqtt: SocketAddr,
    /// Where metrics are.
    pub(super) http: SocketAddr,
    program: PathBuf,
    gateway: Option<Child>,
}

impl Site {
    /// Makes the configuration; nothing runs yet.
    pub(super) async fn prepare(args: &DemoArgs) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("portcullis-demo-")
            .tempdir()
            .context("failed to make a directory")?
            // Kept, so that the records can be looked at afterwards.
            .keep();
        let (listen, http) = free_ports(args.listen, args.http)?;
        let site = Self {
            program: std::env::current_exe().context("failed to find this program")?,
            mqtt: reachable(listen),
            http: reachable(http),
            dir: dir.join("site"),
            gateway: None,
        };
        let (listen, http, address) = (
            listen.to_string(),
            http.to_string(),
            site.mqtt.ip().to_string(),
        );
        let init = [
            "init",
            path(&site.dir)?,
            "--name",
            "demo",
            "--san",
            "localhost",
            "--san",
            &address,
            "--mqtt",
            &listen,
            "--http",
            &http,
        ];
        site.command(&init).await?;
        let profiles = site.dir.join("profiles");
        for entry in fs::read_dir(&profiles)? {
            fs::remove_file(entry?.path())?;
        }
        fs::write(profiles.join("demo.json"), PROFILE)?;
        Ok(site)
    }

    /// Adds a thing and issues its certificate.
    pub(super) async fn enrol(&self, thing: &str, group: &str) -> Result<Arc<ClientConfig>> {
        let config = self.dir.join("gateway.toml");
        let config = path(&config)?;
        let out = self.dir.join("devices").join(thing);
        self.command(&["thing", "add", thing, "--group", group, "--config", config])
            .await?;
        self.command(&[
            "cert",
            "issue",
            thing,
            "--out",
            path(&out)?,
            "--config",
            config,
        ])
        .await?;
        credentials(&out).with_context(|| format!("failed to use the certificate of `{thing}`"))
    }

    /// Starts the gateway and waits until it serves.
    pub(super) async fn start(&mut self) -> Result<()> {
        let log = File::create(self.log())?;
        let mut command = Command::new(&self.program);
        command
            .args(["run", "--config", path(&self.dir.join("gateway.toml"))?])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            // Ctrl-C is for the demo, which stops the gateway once it has the last alert.
            .process_group(0);
        self.gateway = Some(command.spawn().context("failed to start the gateway")?);
        let ready = async {
            while !scrape::is_ready(self.http).await {
                if let Some(status) = self.exited()? {
                    bail!("the gateway ended ({status}) before it was ready");
                }
                sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        match timeout(READY_MAX, ready).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context(self.last_words())),
            Err(_) => bail!(
                "the gateway is not ready after {READY_MAX:?}\n{}",
                self.last_words()
            ),
        }
    }

    /// The gateway's status, if it ended.
    pub(super) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.gateway {
            Some(gateway) => Ok(gateway.try_wait()?),
            None => Ok(None),
        }
    }

    /// SIGTERM, and waits for the ordered end.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let Some(mut gateway) = self.gateway.take() else {
            return Ok(());
        };
        if let Some(id) = gateway.id() {
            let signal = Command::new("sh")
                .args(["-c", "kill -TERM \"$0\"", &id.to_string()])
                .status()
                .await?;
            ensure!(signal.success(), "failed to signal the gateway");
        }
        let ended = timeout(STOP_MAX, gateway.wait()).await;
        let status = ended.context("the gateway did not stop in time")??;
        ensure!(
            status.success(),
            "the gateway ended with {status}\n{}",
            self.last_words()
        );
        Ok(())
    }

    /// Where the gateway's log goes.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("gateway.log")
    }

    /// Where records go.
    pub(super) fn outbox(&self) -> PathBuf {
        self.dir.join("data/outbox")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!("the end of {}:\n{}", self.log().display(), last.join("\n"))
    }

    async fn command(&self, args: &[&str]) -> Result<()> {
        let output = Command::new(&self.program)
            .args(args)
            .stdin(Stdio::null())
            // A configuration that the caller has in the environment is not the demo's.
            .env_remove("PORTCULLIS_CONFIG")
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "`portcullis {}` ended with {}\n{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// Mutual TLS as the device.
fn credentials(dir: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("ca.pem"))? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Gives each address whose port is 0 a free one. Both are held until both are known, or the second
/// could be given the first's.
fn free_ports(mqtt: SocketAddr, http: SocketAddr) -> Result<(SocketAddr, SocketAddr)> {
    let hold = |address: SocketAddr| -> Result<_> {
        if address.port() != 0 {
            return Ok((address, None));
        }
        let listener = TcpListener::bind(address)
            .with_context(|| format!("failed to find a free port on {}", address.ip()))?;
        Ok((listener.local_addr()?, Some(listener)))
    };
    let (mqtt, http) = (hold(mqtt)?, hold(http)?);
    Ok((mqtt.0, http.0))
}

/// How this machine reaches a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .context("the temporary directory is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_taken() {
        let profile = portcullis_core::detect::parse(Path::new("demo.json"), PROFILE).unwrap();
        assert_eq!(profile.behaviors.len(), 4);
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:8883"), "127.0.0.1:8883");
        assert_eq!(of("192.0.2.1:8883"), "192.0.2.1:8883");
    }
}
