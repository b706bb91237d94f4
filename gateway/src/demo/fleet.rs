//! Twenty things in three groups, each with its own connection, sending what such things send.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{screen::Screen, site::Site};

/// Group, the names of its things, how many.
const GROUPS: [(&str, &str, u32); 3] = [
    ("cold-chain", "fridge", 7),
    ("factory", "machine", 7),
    ("building", "room", 6),
];
/// Normal things send a reading so often: 150 in 300 seconds.
const PERIOD: Duration = Duration::from_secs(2);
/// Time for the whole fleet to connect.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// Before a client tries again.
const RETRY: Duration = Duration::from_millis(200);

/// One simulated thing.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) group: &'static str,
    pub(super) client: AsyncClient,
    /// Its certificate and key: what a thief would steal.
    pub(super) tls: Arc<ClientConfig>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) devices: Vec<Device>,
    tasks: JoinSet<()>,
    connected: Vec<watch::Receiver<bool>>,
    stop: CancellationToken,
}

/// The certificates of the fleet.
#[derive(Debug)]
pub(super) struct Enrolled(Vec<(String, &'static str, Arc<ClientConfig>)>);

impl Enrolled {
    /// Enrols everybody.
    pub(super) async fn new(site: &Site) -> Result<Self> {
        let mut enrolled = Vec::new();
        for (group, kind, count) in GROUPS {
            for number in 1..=count {
                let name = format!("{kind}-{number}");
                let tls = site.enrol(&name, group).await?;
                enrolled.push((name, group, tls));
            }
        }
        Ok(Self(enrolled))
    }

    /// The groups and how many things each has.
    pub(super) fn describe() -> String {
        let groups = GROUPS.map(|(group, _, count)| format!("{count} in {group}"));
        groups.join(", ")
    }
}

impl Fleet {
    /// Connects everybody and waits until they are.
    pub(super) async fn connect(enrolled: Enrolled, site: &Site) -> Result<Self> {
        let mut fleet = Self {
            devices: Vec::new(),
            tasks: JoinSet::new(),
            connected: Vec::new(),
            stop: CancellationToken::new(),
        };
        for (name, group, tls) in enrolled.0 {
            fleet.add(name, group, tls, site);
        }
        let everybody = async {
            for connected in &mut fleet.connected {
                // The sender lives as long as the task.
                _ = connected.wait_for(|connected| *connected).await;
            }
        };
        if timeout(CONNECT_MAX, everybody).await.is_err() {
            bail!("the fleet is not connected after {CONNECT_MAX:?}");
        }
        Ok(fleet)
    }

    /// The thing of this name.
    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// Everybody sends DISCONNECT and goes.
    pub(super) async fn leave(&mut self, screen: &mut Screen) {
        self.stop.cancel();
        let gone = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(Duration::from_secs(5), gone).await.is_err() {
            screen.say("Some clients did not disconnect in time.");
        }
    }

    fn add(&mut self, name: String, group: &'static str, tls: Arc<ClientConfig>, site: &Site) {
        let mut options = MqttOptions::new(&name, site.mqtt.ip().to_string(), site.mqtt.port());
        options
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())))
            .set_keep_alive(Duration::from_secs(30));
        let (client, events) = AsyncClient::new(options, 256);
        let (sender, connected) = watch::channel(false);
        self.tasks
            .spawn(serve(events, client.clone(), sender, self.stop.clone()));
        let device = Device {
            name,
            group,
            client,
            tls,
        };
        self.tasks.spawn(report(device.clone(), self.stop.clone()));
        self.devices.push(device);
        self.connected.push(connected);
    }
}

impl Device {
    /// Where it sends its readings.
    pub(super) fn topic(&self) -> String {
        format!("dt/{}/reading", self.name)
    }

    /// A reading as it is every day.
    pub(super) fn reading(&self) -> String {
        let noise = fastrand::f64();
        match self.group {
            "cold-chain" => format!("{{\"t\":{:.2}}}", 3.0 + 2.0 * noise),
            "factory" => format!(
                "{{\"rpm\":{},\"vibration\":{:.3}}}",
                fastrand::u32(1480..1520),
                0.2 + 0.1 * noise
            ),
            _ => format!(
                "{{\"t\":{:.1},\"co2\":{}}}",
                21.0 + noise,
                fastrand::u32(420..700)
            ),
        }
    }
}

/// Keeps one connection going.
async fn serve(
    mut events: EventLoop,
    client: AsyncClient,
    connected: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        // `poll` is dropped at the end only.
        tokio::select! {
            event = events.poll() => match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    connected.send_replace(true);
                }
                Ok(_) => {}
                // Attacks have connections closed; whoever lost one comes back.
                Err(_) => sleep(RETRY).await,
            },
            () = stop.cancelled() => break,
        }
    }
    // A full queue or a lost connection: then there is nobody to say goodbye to.
    if client.try_disconnect().is_err() {
        return;
    }
    let goodbye = async {
        while !matches!(
            events.poll().await,
            Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)
        ) {}
    };
    _ = timeout(Duration::from_secs(2), goodbye).await;
}

/// Sends readings, each thing at its own moment.
async fn report(device: Device, stop: CancellationToken) {
    let phase = PERIOD.mul_f64(fastrand::f64());
    let mut ticks = interval_at(Instant::now() + phase, PERIOD);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let (topic, reading) = (device.topic(), device.reading());
        // While a connection is down the queue may fill; a reading more or less is no matter.
        _ = device
            .client
            .try_publish(topic, QoS::AtLeastOnce, false, reading);
    }
}
