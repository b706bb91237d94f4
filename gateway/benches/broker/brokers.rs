//! The two brokers as their users run them, each in a directory of its own.
//!
//! Portcullis: `portcullis init` with a plain listener besides, its device policy and profile in
//! force, a thing and a certificate for each publisher, and the stream into the outbox. mosquitto:
//! Debian's configuration with the same certificates, which it requires as Portcullis does.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;

use crate::{link::tls_config, process::Usage};

const MOSQUITTO: &str = "/usr/sbin/mosquitto";
/// A broker that does not listen by then does not.
const START: Duration = Duration::from_secs(20);
/// As many as a row may have.
const PUBLISHERS: usize = 100;
const SUBSCRIBERS: usize = 10;
/// Subscribers may have what all publishers say.
const CONSUMER: &str = r#"{
  "Version": "2012-10-17",
  "Statement": [{
    "Effect": "Allow",
    "Action": ["iot:Subscribe", "iot:Receive"],
    "Resource": ["arn:aws:iot:*:*:topicfilter/dt/#", "arn:aws:iot:*:*:topic/dt/*"]
  }]
}"#;
const CONSUMERS: &str = "\n[[group]]\nname = \"consumers\"\npolicies = [\"consumer\"]\n";

/// A broker that runs; ends when dropped.
pub(crate) struct Broker {
    process: Child,
    pub(crate) usage: Usage,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

/// What clients connect with.
pub(crate) struct Keys {
    pub(crate) publishers: Vec<Arc<ClientConfig>>,
    pub(crate) subscribers: Vec<Arc<ClientConfig>>,
}

/// The directory of both.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    pub(crate) keys: Keys,
}

impl Ground {
    /// Makes the configurations and all certificates.
    pub(crate) fn prepare() -> Result<Self> {
        let installed = Path::new(MOSQUITTO).exists();
        ensure!(
            installed,
            "{MOSQUITTO} is missing: apt-get install mosquitto"
        );
        let dir = tempfile::tempdir()?;
        let site = dir.path().join("site");
        let (plain, tls, http) = (free_port()?, free_port()?, free_port()?);
        portcullis(&[
            "init",
            path(&site)?,
            "--name",
            "bench",
            "--plain",
            &plain.to_string(),
            "--mqtt",
            &tls.to_string(),
            "--http",
            &http.to_string(),
        ])?;
        fs::write(site.join("policies/consumer.json"), CONSUMER)?;
        let registry = fs::read_to_string(site.join("registry.toml"))?;
        fs::write(site.join("registry.toml"), registry + CONSUMERS)?;
        let config = site.join("gateway.toml");
        let thing = |name: String, group: &str| -> Result<Arc<ClientConfig>> {
            let (config, out) = (path(&config)?, dir.path().join(&name));
            portcullis(&["thing", "add", &name, "--group", group, "-c", config])?;
            portcullis(&["cert", "issue", &name, "--out", path(&out)?, "-c", config])?;
            tls_config(&out)
        };
        let publishers = (0..PUBLISHERS).map(|at| thing(format!("b{at}"), "sensors"));
        let publishers = publishers.collect::<Result<_>>()?;
        let subscribers = (0..SUBSCRIBERS).map(|at| thing(format!("s{at}"), "consumers"));
        let subscribers = subscribers.collect::<Result<_>>()?;
        portcullis(&["check", "-c", path(&config)?])?;
        let keys = Keys {
            publishers,
            subscribers,
        };
        let ground = Self { dir, keys };
        fs::write(ground.path("ports"), format!("{plain} {tls}"))?;
        Ok(ground)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The gateway on its site.
    pub(crate) fn portcullis(&self) -> Result<Broker> {
        let ports = fs::read_to_string(self.path("ports"))?;
        let (plain, tls) = ports.split_once(' ').context("the ports file")?;
        let mut command = Command::new(binary());
        command.args(["run", "-c", path(&self.path("site/gateway.toml"))?]);
        let output = self.path("portcullis.log");
        Broker::start(command, &output, plain.parse()?, tls.parse()?)
    }

    /// Debian's mosquitto with Debian's settings; only listeners are added.
    pub(crate) fn mosquitto(&self) -> Result<Broker> {
        let (plain, tls) = (free_port()?, free_port()?);
        let (store, pki) = (self.path("mosquitto"), self.path("site/pki"));
        fs::create_dir_all(&store)?;
        let user = Command::new("id").arg("-un").output()?.stdout;
        let config = format!(
            "persistence true\npersistence_location {store}/\nlog_dest file {store}/mosquitto.log\n\
             user {user}\nallow_anonymous true\n\
             listener {plain_port} 127.0.0.1\n\
             listener {tls_port} 127.0.0.1\n\
             cafile {pki}/ca.pem\ncertfile {pki}/server.pem\nkeyfile {pki}/server.key\n\
             require_certificate true\n",
            store = path(&store)?,
            user = String::from_utf8(user)?.trim(),
            plain_port = plain.port(),
            tls_port = tls.port(),
            pki = path(&pki)?,
        );
        let file = self.path("mosquitto.conf");
        fs::write(&file, config)?;
        let mut command = Command::new(MOSQUITTO);
        command.args(["-c", path(&file)?]);
        Broker::start(command, &self.path("mosquitto.out"), plain, tls)
    }
}

impl Broker {
    fn start(
        mut command: Command,
        output: &Path,
        plain: SocketAddr,
        tls: SocketAddr,
    ) -> Result<Self> {
        let file = File::create(output)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .env_remove("PORTCULLIS_CONFIG")
            .env_remove("RUST_LOG")
            .spawn()?;
        let mut broker = Self {
            usage: Usage::of(process.id()),
            process,
            plain,
            tls,
        };
        let deadline = Instant::now() + START;
        while TcpStream::connect(plain).is_err() || TcpStream::connect(tls).is_err() {
            let ended = broker.process.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                bail!(
                    "{command:?} does not listen: {}",
                    fs::read_to_string(output)?
                );
            }
            sleep(Duration::from_millis(50));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the programs say of themselves.
pub(crate) fn versions() -> Result<(String, String)> {
    let own = portcullis(&["--version"])?;
    let other = Command::new(MOSQUITTO).arg("-h").output()?.stdout;
    let other = String::from_utf8(other)?;
    let first = other.lines().next().unwrap_or("mosquitto");
    Ok((own.trim().to_owned(), first.to_owned()))
}

/// The one that was built with this, unless `PORTCULLIS_BIN` names another to compare.
fn binary() -> PathBuf {
    let given = std::env::var_os("PORTCULLIS_BIN");
    given.map_or_else(|| env!("CARGO_BIN_EXE_portcullis").into(), PathBuf::from)
}

fn portcullis(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary())
        .args(arguments)
        .env_remove("PORTCULLIS_CONFIG")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "portcullis {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn free_port() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?)
}
