//! Binds and wires: the only file that names every module.
//!
//! [`App::build`] does everything that can fail (load, recover, compile, bind) before anything
//! runs; [`App::run`] hands the tasks to the supervisor and waits for the end.

use std::{future::Future, net::SocketAddr, sync::Arc};

use portcullis_core::limits;
use prometheus::Registry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    task::spawn_blocking,
};
use tracing::{info, warn};

use crate::{
    admin::{self, Admin},
    broker::{self, BoundListener, Broker},
    buffer::{self, Buffer},
    config::{Config, Loaded},
    defend::{self, Defend},
    descriptors,
    identity::{self, Fleet, Journal, Provisioner, Snapshot, SnapshotWatch, Watcher},
    pipeline::{self, Chain, Pipeline},
    plugin,
    supervisor::{Outcome, Stage, Supervisor, TaskResult},
    telemetry::{self, Readiness},
    traffic::{self, Traffic},
    uplink, wal,
};

mod source;
mod upstream;

/// Chains run on blocking threads for as long as the gateway does; the rest is for files.
const BLOCKING_THREADS_MAX: usize =
    limits::COMBINATIONS_MAX * limits::SHARDS_PER_CHAIN as usize + 128;
/// Violations on their way to the buffer; then defend waits.
const VIOLATION_QUEUE: usize = 256;

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("failed to open the buffer")]
    Buffer(#[source] buffer::OpenError),
    #[error("failed to load a plugin")]
    Plugin(#[source] plugin::LoadError),
    #[error("failed to prepare a chain")]
    Chain(#[source] pipeline::ChainError),
    #[error("failed to start the broker")]
    Broker(#[source] broker::StartError),
    #[error("failed to start the admin listener")]
    Admin(#[source] admin::BindError),
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("a start-up thread panicked")]
    Thread(#[source] tokio::task::JoinError),
}

/// Serves a configuration until a signal or a fault; `Ok` after an ordered stop.
///
/// # Errors
/// What could not be built, or which task faulted or did not stop in time.
pub fn run(loaded: Loaded) -> TaskResult {
    telemetry::init_logging(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(BuildError::Runtime)?;
    let outcome = runtime.block_on(async { App::build(loaded).await?.run_until_signal().await });
    // A thread that does not end (a plugin, a disk that hangs) does not keep the process.
    runtime.shutdown_timeout(limits::THREADS_GRACE);
    let outcome = outcome?;
    match outcome {
        Outcome::Drained => Ok(()),
        Outcome::DeadlineExceeded(late) => {
            Err(format!("not stopped in time: {}", late.join(", ")).into())
        }
        Outcome::Faulted(task) => Err(format!("the task `{task}` ended by itself").into()),
    }
}

/// The whole gateway, built and bound, not running yet.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    reload: Arc<Notify>,
    /// Where devices connect.
    pub mqtt: Vec<SocketAddr>,
    /// `/metrics`, `/livez`, `/readyz`.
    pub http: SocketAddr,
}

impl App {
    /// Builds everything and binds every socket.
    ///
    /// # Errors
    /// The first thing that cannot be had; nothing runs then.
    pub async fn build(loaded: Loaded) -> Result<Self, BuildError> {
        let Loaded {
            mut config,
            snapshot,
            profiles,
            warnings,
        } = loaded;
        for warning in &warnings {
            warn!(%warning, "The configuration needs a look.");
        }
        config.broker.connections_max = descriptors::connections(config.broker.connections_max);
        let registry = Registry::new();
        let readiness = Readiness::default();
        let [broker_ready, buffer_ready, plugins_ready] =
            ["broker", "buffer", "plugins"].map(|name| readiness.latch(name));
        let mut supervisor = Supervisor::default();

        let broker_metrics = broker::Metrics::register(&registry);
        let denials = broker::Denials::new(&broker_metrics);
        let clients = Arc::new(broker::Clients::default());
        let Known {
            identity,
            fleet,
            provisioner,
            reload,
        } = Known::start(
            &config.identity,
            snapshot,
            readiness.clone(),
            &registry,
            &mut supervisor,
        );

        let uplink_metrics = uplink::Metrics::register(&registry);
        // Answers from the start, so that a long recovery shows as "not ready" and not as "down".
        let admin = Admin::bind(
            &config.admin,
            registry.clone(),
            readiness,
            shown(&denials, &uplink_metrics),
            for_operators(&clients),
            fleet.clone(),
        )
        .await
        .map_err(BuildError::Admin)?;
        let http = admin.address();
        supervisor.spawn(Stage::Admin, "admin", |stop| admin.run(stop));

        let (buffer, writer) = upstream::open_buffer(&config, &registry).await?;
        supervisor.spawn(Stage::Pipeline, "buffer", |stop| async move {
            spawn_blocking(move || writer.run(&stop)).await??;
            Ok(())
        });
        drop(buffer_ready);

        upstream::ship(&config, &buffer, uplink_metrics, &registry, &mut supervisor);

        let (violations, drafts) = mpsc::channel(VIOLATION_QUEUE);
        let (defend, observer) = Defend::new(profiles, violations, &registry);
        let defend = defend.telling(alarms_of(fleet.clone()));
        supervisor.spawn(Stage::Pipeline, "defend", |stop| defend.run(stop));
        let routing = upstream::Routing::new(&config, identity.clone());
        supervisor.spawn(Stage::Pipeline, "violations", |_| {
            upstream::append_violations(drafts, buffer.clone(), routing)
        });

        let recorder = record_traffic(&config, &registry, &mut supervisor);

        let handle = process(&config, buffer, &registry, &mut supervisor).await?;
        drop(plugins_ready);

        let log = denials.clone();
        supervisor.spawn(Stage::Admin, "denials", |stop| log.run(stop));
        let neighbours = broker::Neighbours {
            identity,
            fleet,
            provisioner,
            pipeline: handle,
            observer,
            recorder,
            denials,
            clients,
        };
        let mqtt = open_to_devices(
            config,
            neighbours,
            (broker_metrics, wal::Metrics::register(&registry)),
            &mut supervisor,
        )
        .await?;
        drop(broker_ready);
        Ok(Self {
            supervisor,
            reload,
            mqtt,
            http,
        })
    }

    /// Serves until `stop_requested` or a fault, then drains.
    pub async fn run(self, stop_requested: impl Future<Output = ()>) -> Outcome {
        info!(mqtt = ?self.mqtt, http = %self.http, "Portcullis serves.");
        self.supervisor
            .run(stop_requested, limits::SHUTDOWN_GRACE)
            .await
    }

    /// Runs until SIGTERM or SIGINT; SIGHUP reloads the registry.
    ///
    /// # Errors
    /// [`BuildError::Signals`] if the system refuses the handlers.
    pub async fn run_until_signal(self) -> Result<Outcome, BuildError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(BuildError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(BuildError::Signals)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(BuildError::Signals)?;
        let reload = Arc::clone(&self.reload);
        let stop = async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break info!("SIGTERM: stopping."),
                    _ = interrupt.recv() => break info!("SIGINT: stopping."),
                    _ = hang_up.recv() => {
                        info!("SIGHUP: reloading.");
                        reload.notify_one();
                    }
                }
            }
        };
        Ok(self.run(stop).await)
    }
}

/// Who may connect as what, and what makes it new.
struct Known {
    identity: SnapshotWatch,
    fleet: Fleet,
    provisioner: Provisioner,
    reload: Arc<Notify>,
}

impl Known {
    /// Watches the files from `snapshot` on.
    fn start(
        config: &identity::Config,
        snapshot: Snapshot,
        readiness: Readiness,
        registry: &Registry,
        supervisor: &mut Supervisor,
    ) -> Self {
        let metrics = identity::Metrics::register(registry);
        let (watcher, identity) = Watcher::new(config.clone(), snapshot, metrics);
        let watcher = watcher.noting(readiness);
        let reload = Arc::new(Notify::new());
        let asked = Arc::clone(&reload);
        supervisor.spawn(Stage::Admin, "registry", |stop| watcher.run(asked, stop));
        let provisioner = Provisioner::new(
            config.clone(),
            config.rules.arn.account.clone(),
            identity.clone(),
            Journal::open(&config.journal),
            Arc::clone(&reload),
            identity::provision::Metrics::register(registry),
        );
        Self {
            fleet: Fleet::new(identity.clone()),
            identity,
            provisioner,
            reload,
        }
    }
}

/// Tells the fleet which alarms open and close: detection and identity do not know each other.
fn alarms_of(fleet: Fleet) -> defend::Listener {
    defend::Listener::new(move |device, profile, behavior, active| {
        fleet.alarm(device, profile, behavior, active);
    })
}

/// What the status shows and is no metric, as the admin listener wants it.
fn shown(denials: &broker::Denials, uplink: &uplink::Metrics) -> admin::Sources {
    let (kept, board) = (denials.clone(), uplink.board());
    admin::Sources {
        denials: admin::Source::new(move || kept.last()),
        sinks: admin::Source::new(move || board.document()),
    }
}

/// The connected clients as the admin listener wants them: the two do not know each other.
fn for_operators(clients: &Arc<broker::Clients>) -> admin::Clients {
    let (listed, kicked) = (Arc::clone(clients), Arc::clone(clients));
    admin::Clients::new(
        move |after, max| listed.list(after, max),
        move |client_id, reason| kicked.kick(client_id, reason),
    )
}

/// Runs every event through the chain of its device's groups.
async fn process(
    config: &Config,
    buffer: Buffer,
    registry: &Registry,
    supervisor: &mut Supervisor,
) -> Result<pipeline::Handle, BuildError> {
    let chains = build_chains(config, plugin::Metrics::register(registry)).await?;
    let metrics = pipeline::Metrics::register(registry);
    let routes = Arc::new(config.uplink.routes());
    let shards = limits::SHARDS_PER_CHAIN;
    let (pipeline, handle) = Pipeline::new(chains, shards, buffer, routes, metrics);
    supervisor.spawn(Stage::Pipeline, "pipeline", |_| pipeline.run());
    Ok(handle)
}

/// Reads sessions back and binds the listeners; where devices connect.
async fn open_to_devices(
    config: Config,
    neighbours: broker::Neighbours,
    (metrics, log_metrics): (broker::Metrics, wal::Metrics),
    supervisor: &mut Supervisor,
) -> Result<Vec<SocketAddr>, BuildError> {
    let sessions = config.data_dir.join("sessions");
    let Broker {
        listeners,
        keeper,
        sys,
        log,
    } = broker::bind(config.broker, neighbours, &sessions, metrics, log_metrics)
        .await
        .map_err(BuildError::Broker)?;
    supervisor.spawn(Stage::Pipeline, "session log", |stop| async move {
        spawn_blocking(move || log.run(&stop)).await??;
        Ok(())
    });
    supervisor.spawn(Stage::Ingress, "sessions", |stop| keeper.run(stop));
    if let Some(sys) = sys {
        supervisor.spawn(Stage::Ingress, "$SYS", |stop| sys.run(stop));
    }
    let addresses = listeners.iter().map(BoundListener::address).collect();
    for listener in listeners {
        supervisor.spawn(Stage::Ingress, "listener", |stop| listener.run(stop));
    }
    Ok(addresses)
}

/// Keeps what is allowed, so that policies can be learned from it.
fn record_traffic(
    config: &Config,
    registry: &Registry,
    supervisor: &mut Supervisor,
) -> traffic::Recorder {
    let dir = config.data_dir.join("traffic");
    let (traffic, recorder) = Traffic::new(dir, traffic::Metrics::register(registry));
    supervisor.spawn(Stage::Pipeline, "traffic", |stop| traffic.run(stop));
    recorder
}

/// Compiles the plugins that chains use and starts each step once.
async fn build_chains(config: &Config, metrics: plugin::Metrics) -> Result<Vec<Chain>, BuildError> {
    let (plugins, chains) = (config.plugins.clone(), config.chains.clone());
    let build = move || {
        let host = plugin::Host::new(metrics).map_err(BuildError::Plugin)?;
        let used = plugins.iter().filter(|plugin| {
            chains
                .iter()
                .any(|chain| chain.steps.iter().any(|step| step.plugin == plugin.name))
        });
        let loaded = used
            .map(|plugin| host.load(plugin))
            .collect::<Result<Vec<_>, _>>()
            .map_err(BuildError::Plugin)?;
        chains
            .iter()
            .map(|chain| Chain::new(chain, &loaded).map_err(BuildError::Chain))
            .collect()
    };
    spawn_blocking(build).await.map_err(BuildError::Thread)?
}
