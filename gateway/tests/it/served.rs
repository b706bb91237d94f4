//! A site whose gateway runs as a process of its own, to be killed, stopped and looked at.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    site::Site,
    stream::{REGION, STREAM},
};

/// Long enough for a busy machine; no test asserts a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Served {
    pub(crate) site: Site,
    pub(crate) mqtt: SocketAddr,
    pub(crate) plain: SocketAddr,
    pub(crate) http: SocketAddr,
    gateway: Option<Child>,
}

/// What `cert issue` wrote for a thing.
pub(crate) struct Credentials {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Served {
    /// `portcullis init` with free loopback ports.
    pub(crate) fn new() -> Self {
        let [mqtt, plain, http] = free_addresses();
        let addresses = [mqtt, plain, http].map(|address| address.to_string());
        let [mqtt_text, plain_text, http_text] = &addresses;
        let site = Site::init(&[
            "--mqtt", mqtt_text, "--http", http_text, "--plain", plain_text,
        ]);
        Self {
            site,
            mqtt,
            plain,
            http,
            gateway: None,
        }
    }

    /// Names the stream of the emulator at `endpoint` as the sink.
    pub(crate) fn ship_to(&self, endpoint: &str) {
        self.site.append(
            "gateway.toml",
            &format!(
                "\n[uplink.kinesis]\nstream = \"{STREAM}\"\nregion = \"{REGION}\"\nendpoint = \"{endpoint}\"\nretry-max-secs = 5\n"
            ),
        );
    }

    /// As [`Self::ship_to`], in the order of each key whatever the stream refuses, and soon again.
    pub(crate) fn ship_in_order_to(&self, endpoint: &str) {
        self.ship_to(endpoint);
        let patient = "retry-max-secs = 5\n";
        let strict = "retry-max-secs = 1\nordering = \"strict\"\n";
        self.site.replace_last("gateway.toml", patient, strict);
    }

    /// What became of everything that was for each sink, as `buffer stats` says: by sink, and each
    /// balances.
    pub(crate) fn accounts(&self) -> Vec<Value> {
        let stats = self.site.done(&["buffer", "stats", "--json"]);
        let stats: Value = serde_json::from_str(&stats).unwrap();
        let accounts = stats["sinks"].as_array().unwrap().clone();
        for account in &accounts {
            let count = |name: &str| account[name].as_u64().unwrap();
            let dropped = account["dropped"].as_object().unwrap().values();
            let dropped: u64 = dropped.map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(
                count("received"),
                count("delivered") + count("filtered") + count("kept") + dropped,
                "{stats}"
            );
        }
        accounts
    }

    /// `thing add` and `cert issue`.
    pub(crate) fn enrol(&self, thing: &str, group: &str) -> Credentials {
        self.site.done(&["thing", "add", thing, "--group", group]);
        self.issue(thing)
    }

    /// `cert issue` into a directory of the thing's name.
    pub(crate) fn issue(&self, thing: &str) -> Credentials {
        self.issue_into(thing, "issued")
    }

    /// The same, into another directory: `DIR-THING`.
    pub(crate) fn issue_into(&self, thing: &str, dir: &str) -> Credentials {
        let out = self.site.path(&format!("{dir}-{thing}"));
        self.site
            .done(&["cert", "issue", thing, "--out", out.to_str().unwrap()]);
        Credentials {
            ca: out.join("ca.pem"),
            certificate: out.join("cert.pem"),
            key: out.join("key.pem"),
        }
    }

    /// `portcullis run`, until `/readyz` answers; its log goes on in the same file after a restart.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same under limits that a shell's `ulimit` with these arguments sets.
    pub(crate) fn start_limited(&mut self, ulimit: &str) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit {ulimit} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_portcullis"));
        self.start_as(shell);
    }

    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) {
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        gateway.envs(environment.iter().copied());
        self.start_as(gateway);
    }

    fn start_as(&mut self, mut gateway: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = gateway
            .args(["run", "--config"])
            .arg(self.site.path("gateway.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.gateway = Some(child);
        eventually("the gateway is ready", || {
            let exited = self.gateway.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "the gateway ended: {}", self.log());
            get(self.http, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.gateway.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the gateway must end with success.
    pub(crate) fn stop(&mut self) {
        let mut child = self.gateway.take().unwrap();
        let sent = Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// A file of the running gateway under `/proc`.
    pub(crate) fn proc(&self, name: &str) -> String {
        let id = self.gateway.as_ref().unwrap().id();
        fs::read_to_string(format!("/proc/{id}/{name}")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.site.path("gateway.log")
    }

    /// The sum of a metric over the series whose line contains every one of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = get(self.http, "/metrics").unwrap_or_default();
        page.lines()
            .filter(|line| {
                line.starts_with(name) && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// What devices sent and what was found, as it is in the outbox, in order.
    pub(crate) fn outbox(&self) -> Vec<Value> {
        let mut records = self.stream();
        records.retain(|record| !is_lifecycle(record));
        records
    }

    /// The lifecycle events in the outbox, in order.
    pub(crate) fn lifecycle(&self) -> Vec<Value> {
        let mut records = self.stream();
        records.retain(is_lifecycle);
        records
    }

    /// Every record in the outbox, in order.
    pub(crate) fn stream(&self) -> Vec<Value> {
        let mut files: Vec<_> = match fs::read_dir(self.site.path("data/outbox")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        files
            .iter()
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "ndjson")
            })
            .flat_map(|path| records(path))
            .collect()
    }
}

/// Whether the gateway told by it what became of a connection.
pub(crate) fn is_lifecycle(record: &Value) -> bool {
    record["topic"]
        .as_str()
        .is_some_and(|topic| topic.starts_with("$aws/events/"))
}

/// The whole lines of a file that may be written to at this moment.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap());
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.gateway.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}

/// Waits until `condition` holds; panics with `what` after [`PATIENCE`].
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Loopback addresses that nobody listens on.
pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let sockets: [TcpListener; N] = std::array::from_fn(|_| {
        loop {
            // Below the ports that the system gives to connections, one of which could take the
            // place of a gateway that is killed and started again.
            let port = fastrand::u16(10_000..32_000);
            if let Ok(socket) = TcpListener::bind(("127.0.0.1", port)) {
                break socket;
            }
        }
    });
    sockets.map(|socket| socket.local_addr().unwrap())
}

/// The whole answer to a GET; `None` if nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
