//! Accepts connections. Whatever a peer does or does not do happens in its connection's own task,
//! under a time limit; the accept loop waits for nobody.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Abortable, Aborted};
use portcullis_core::limits::HANDSHAKE_TURN;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    StartError,
    census::{Place, source},
    config::Listener,
    connect::{self, Peer},
    counted::Counted,
    denials::Denial,
    newcomers::{Entered, Newcomer},
    shared::Shared,
    tls::{Shaken, Sni, Tls},
    websocket::{self, Refusal, Rules},
};
use crate::{
    clock::ticks,
    identity::{Chain, Credential, SnapshotWatch, Trust},
    supervisor::TaskResult,
};

/// Pause after a failed accept: the process is out of file descriptors, and trying at once would
/// only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that accepting fails.
const ACCEPT_COMPLAINT: Duration = Duration::from_secs(10);

/// The label of connections that had to go for others before they had said who they are.
const DISPLACED: &str = "displaced";
/// The label of connections beyond those that one address may have, CONNECT or not.
const CROWDED: &str = "connected-per-address";
/// The label of connections whose address begins too many handshakes.
const TOO_FAST: &str = "handshakes-per-address";

/// A listener with its socket.
#[derive(Debug)]
pub struct BoundListener {
    listener: Listener,
    socket: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl BoundListener {
    pub(super) async fn bind(listener: Listener, shared: Arc<Shared>) -> Result<Self, StartError> {
        let address = listener.address();
        let bind = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bind
            .await
            .map_err(|source: io::Error| StartError::Bind { address, source })?;
        Ok(Self {
            listener,
            socket,
            address,
            shared,
        })
    }

    /// Where it listens; with a configured port of 0 this is the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets every connection end in order.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let mut identity = self.shared.neighbours.identity.clone();
        let sni = if self.shared.config.check_sni {
            Sni::Checked
        } else {
            Sni::Ignored
        };
        let mut trusted = Trusted::new(&mut identity, sni)?;
        let connections = TaskTracker::new();
        let mut complained = None;
        info!(address = %self.address, kind = self.kind(), "Listening.");
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                // Without the bus no message reaches anybody: a fault, and the process starts anew.
                () = self.shared.bus.gone().cancelled() => return Err("the local bus is gone".into()),
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        self.refused("accept-failed");
                        if complained.is_none_or(|at: Instant| at.elapsed() >= ACCEPT_COMPLAINT) {
                            warn!(%error, "Accepting a connection failed.");
                            complained = Some(Instant::now());
                        }
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            trusted.refresh(&mut identity);
            let of_address = match self.let_in(peer.ip()) {
                Ok(place) => place,
                Err(reason) => {
                    self.sent_away(reason, peer.ip());
                    continue;
                }
            };
            let Entered {
                newcomer,
                registration,
                displaced,
            } = self.shared.newcomers.enter(peer.ip());
            let Some(place) = self.place(&newcomer, displaced).await else {
                self.refused("connections-max");
                debug!(%peer, "Connection refused: too many connections.");
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let listener = self.listener.clone();
            let tls = Arc::clone(&trusted.tls);
            let stop = stop.clone();
            let served = async move {
                serve(&shared, &listener, &tls, stream, peer, newcomer, stop).await;
            };
            connections.spawn(async move {
                // On the heap: the accept loop should not carry every state of a connection. One that
                // is displaced just ends; whoever displaced it has told.
                let (Ok(()) | Err(Aborted)) = Abortable::new(Box::pin(served), registration).await;
                drop((place, of_address));
            });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
        Ok(())
    }

    /// Its place among those of its address, before anything is read; or why it gets none. Plain
    /// listeners are for this machine, whose applications share one address.
    fn let_in(&self, address: IpAddr) -> Result<Option<Place<IpAddr>>, &'static str> {
        if matches!(self.listener, Listener::Plain { .. } | Listener::Ws { .. }) {
            return Ok(None);
        }
        let max = self.shared.config.limits.connections_per_address_max;
        let place = match max {
            0 => None,
            max => {
                let census = &self.shared.of_address;
                Some(census.enter(source(address), max).ok_or(CROWDED)?)
            }
        };
        if !self.shared.handshakes.may_begin(address, ticks()) {
            return Err(TOO_FAST);
        }
        Ok(place)
    }

    /// Its place among all connections: one that is free, or that of the oldest newcomer, unless
    /// `displaced` leaves one already. `None` if clients have them all.
    async fn place(
        &self,
        newcomer: &Newcomer,
        displaced: Option<IpAddr>,
    ) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.shared.connections);
        let place = Arc::clone(&free).try_acquire_owned().ok();
        let displaced = match &place {
            Some(_) => displaced,
            None => displaced.or_else(|| self.shared.newcomers.displace_for(newcomer)),
        };
        let Some(gone) = displaced else {
            return place;
        };
        self.sent_away(DISPLACED, gone);
        match place {
            Some(place) => Some(place),
            // It leaves as soon as its task is polled, which waits for nobody.
            None => free.acquire_owned().await.ok(),
        }
    }

    /// Counts a connection that ends before it has said who it is, and logs it at its pace.
    fn sent_away(&self, reason: &'static str, address: IpAddr) {
        self.refused(reason);
        let denial = Denial::new("handshake", reason, address.to_canonical());
        self.shared.neighbours.denials.note(denial);
    }

    fn refused(&self, reason: &'static str) {
        let refused = &self.shared.metrics.refused;
        refused.with_label_values(&[reason]).inc();
    }

    fn kind(&self) -> &'static str {
        match self.listener {
            Listener::Tls { .. } => "tls",
            Listener::Plain { .. } => "plain",
            Listener::Wss { .. } => "wss",
            Listener::Ws { .. } => "ws",
        }
    }
}

/// The TLS settings that fit the present snapshot.
struct Trusted {
    trust: Arc<Trust>,
    tls: Arc<Tls>,
    sni: Sni,
}

impl Trusted {
    fn new(identity: &mut SnapshotWatch, sni: Sni) -> Result<Self, super::tls::TlsError> {
        let trust = Arc::clone(identity.borrow_and_update().trust());
        let tls = Arc::new(Tls::new(&trust, sni)?);
        Ok(Self { trust, tls, sni })
    }

    /// New CA or server certificates serve from the next connection on; the present ones go on.
    fn refresh(&mut self, identity: &mut SnapshotWatch) {
        if !identity.has_changed().unwrap_or(false) {
            return;
        }
        let trust = Arc::clone(identity.borrow_and_update().trust());
        // Most reloads are about things and policies.
        if Arc::ptr_eq(&trust, &self.trust) || trust.serves_like(&self.trust) {
            return;
        }
        match Tls::new(&trust, self.sni) {
            Ok(tls) => {
                self.tls = Arc::new(tls);
                info!("New certificates serve.");
            }
            Err(error) => warn!(
                error = crate::chain::chain(&error),
                "New certificates were refused."
            ),
        }
        self.trust = trust;
    }
}

async fn serve(
    shared: &Arc<Shared>,
    listener: &Listener,
    tls: &Tls,
    stream: TcpStream,
    address: SocketAddr,
    newcomer: Newcomer,
    stop: CancellationToken,
) {
    // Small packets both ways; a failure here costs latency only.
    drop(stream.set_nodelay(true));
    match listener {
        Listener::Tls { .. } | Listener::Wss { .. } => {
            let shaken = tokio::select! {
                () = stop.cancelled() => return,
                // On the heap, and gone with its end: a connection lives for much longer.
                shaken = Box::pin(handshake(shared, tls, stream, address)) => shaken,
            };
            if let Some(Shaken {
                stream,
                certificate,
                chain,
                domain,
            }) = shaken
            {
                let chain = Chain::new(chain);
                let peer = Peer {
                    address,
                    chain: chain.ders(),
                    credential: Credential::Certificate {
                        certificate: &certificate,
                        domain: domain.as_ref(),
                        chain: Some(&chain),
                    },
                };
                let stream = Counted::new(stream, &shared.metrics);
                enter(shared, listener, stream, &peer, newcomer, stop).await;
            }
        }
        Listener::Plain { identity, .. } | Listener::Ws { identity, .. } => {
            let credential = Credential::Plain {
                thing: identity.thing.as_ref(),
                unknown_policy: match &identity.unknown {
                    super::PlainUnknown::Refuse => None,
                    super::PlainUnknown::Allow { policy } => Some(policy),
                },
            };
            let peer = Peer {
                address,
                chain: &[],
                credential,
            };
            let stream = Counted::new(stream, &shared.metrics);
            enter(shared, listener, stream, &peer, newcomer, stop).await;
        }
    }
}

/// Serves MQTT on a stream that is as secure as the listener asks for, within a WebSocket if it is
/// one for that.
async fn enter<S>(
    shared: &Arc<Shared>,
    listener: &Listener,
    stream: S,
    peer: &Peer<'_>,
    newcomer: Newcomer,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(origins) = listener.origins() else {
        return connect::serve(shared, stream, peer, newcomer, stop).await;
    };
    let rules = Rules {
        origins,
        is_local: matches!(listener, Listener::Ws { .. }),
        packet_bytes_max: shared.config.packet_bytes_max,
    };
    let accepting = Box::pin(websocket::accept(stream, rules));
    let accepted = tokio::select! {
        () = stop.cancelled() => return,
        accepted = timeout(shared.config.connect_timeout, accepting) => accepted,
    };
    let refused = |reason: &'static str| shared.metrics.refused.with_label_values(&[reason]).inc();
    let refusal = match accepted {
        Ok(Ok(stream)) => {
            return Box::pin(connect::serve(shared, stream, peer, newcomer, stop)).await;
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            refused("websocket-timeout");
            debug!(peer = %peer.address, "The handshake of a WebSocket timed out.");
            return;
        }
    };
    let reason = match refusal {
        Refusal::Path => "websocket-path",
        Refusal::Subprotocol => "websocket-subprotocol",
        Refusal::Origin(_) => "websocket-origin",
        Refusal::Handshake(error) => {
            refused("websocket-handshake");
            debug!(peer = %peer.address, %error, "The handshake of a WebSocket failed.");
            return;
        }
    };
    refused(reason);
    shared.neighbours.denials.note(Denial {
        detail: Some(refusal.to_string()),
        ..Denial::new("handshake", reason, peer.address.ip().to_canonical())
    });
}

async fn handshake(
    shared: &Shared,
    tls: &Tls,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Shaken> {
    let limited = async {
        // Who says nothing takes no buffer; an error shows in the handshake.
        drop(stream.readable().await);
        let greeted = Tls::greet(stream).await?;
        let turn = shared.handshakes.turn(peer.ip()).await;
        let mut shaking = pin!(tls.accept(greeted));
        if let Ok(shaken) = timeout(HANDSHAKE_TURN, &mut shaking).await {
            return shaken;
        }
        // Whoever takes its time keeps nobody waiting.
        drop(turn);
        shaking.await
    };
    let refused = |reason: &'static str| shared.metrics.refused.with_label_values(&[reason]).inc();
    match timeout(shared.config.handshake_timeout, limited).await {
        Ok(Ok(shaken)) => Some(shaken),
        Ok(Err(refusal)) => {
            refused(refusal.reason);
            // A peer that speaks no TLS, or leaves, has tried nothing; there are many.
            if refusal.shown.is_none()
                && matches!(refusal.reason, "tls-protocol" | "tls-connection")
            {
                debug!(%peer, reason = refusal.reason, error = %refusal.error, "Handshake failed.");
                return None;
            }
            shared.neighbours.denials.note(Denial {
                detail: Some(refusal.error.to_string()),
                certificate: refusal.shown.as_ref().map(|shown| shown.id.to_string()),
                names: refusal.shown.map(|shown| (shown.subject, shown.issuer)),
                ..Denial::new("handshake", refusal.reason, peer.ip().to_canonical())
            });
            None
        }
        Err(_) => {
            refused("tls-timeout");
            debug!(%peer, "Handshake timed out.");
            None
        }
    }
}
