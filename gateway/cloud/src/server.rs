//! Accepting connections and serving what comes over them, a thread each.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{
    clock::http_date,
    fault::{After, Before},
    http::{Connection, Reply},
    refusal::Refusal,
    service::{self, Call},
    state::Shared,
};

/// Further ones are closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// How long a port may be busy that was ours a moment ago.
const BIND_WITHIN: Duration = Duration::from_secs(5);

/// A service that answers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    open: Arc<Open>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Connections that are open, to end them from outside.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<u64, TcpStream>>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        for stream in self.lock().values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Server {
    pub(crate) fn start(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = bind(address)?;
        let address = listener.local_addr()?;
        let (open, stop) = (Arc::new(Open::default()), Arc::new(AtomicBool::new(false)));
        let accepting = {
            let (shared, open, stop) = (shared.clone(), open.clone(), stop.clone());
            move || accept(&listener, &shared, &open, &stop)
        };
        let thread = thread::Builder::new()
            .name("cloud".to_owned())
            .spawn(accepting)?;
        Ok(Self {
            address,
            shared,
            open,
            stop,
            thread,
        })
    }

    /// Refuses connections from now on. Requests on the way that have not taken effect never will.
    pub(crate) fn stop(self) {
        let open = self.open.clone();
        self.shared.lock().epoch += 1;
        self.stop.store(true, Ordering::Release);
        let mut wake = self.address;
        if wake.ip().is_unspecified() {
            wake.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        // It ends with the next connection, and the port with it.
        drop(TcpStream::connect_timeout(&wake, Duration::from_secs(1)));
        drop(self.thread.join());
        open.close_all();
    }

    /// Ends what is open; new connections are served.
    pub(crate) fn close_connections(&self) {
        self.open.close_all();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() != 0
                    && started.elapsed() < BIND_WITHIN =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, open: &Arc<Open>, stop: &AtomicBool) {
    let epoch = shared.lock().epoch;
    for (id, stream) in (0_u64..).zip(listener.incoming()) {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: others are about to be closed.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(other_end) = stream.try_clone() else {
            continue;
        };
        {
            let mut open = open.lock();
            if open.len() >= CONNECTIONS_MAX {
                continue;
            }
            open.insert(id, other_end);
        }
        shared.lock().counters.connections += 1;
        let (shared, own) = (shared.clone(), open.clone());
        let serving = move || {
            let mut connection = Connection::new(stream);
            let end = serve(&mut connection, &shared, epoch);
            if let Ok(End::Reset) = end {
                let socket = SockRef::from(&connection.stream);
                drop(socket.set_linger(Some(Duration::ZERO)));
                own.lock().remove(&id);
                return;
            }
            drop(connection.stream.shutdown(Shutdown::Write));
            own.lock().remove(&id);
        };
        let started = thread::Builder::new()
            .name(format!("cloud-{id}"))
            .spawn(serving);
        if started.is_err() {
            open.lock().remove(&id);
        }
    }
}

/// How a connection ends.
enum End {
    Close,
    Reset,
}

fn serve(connection: &mut Connection, shared: &Shared, epoch: u64) -> io::Result<End> {
    connection.stream.set_nodelay(true)?;
    let mut body = Vec::new();
    while let Some(head) = connection.head()? {
        let keeps_alive = head.keeps_alive();
        let Some(call) = Call::of(&head) else {
            if !connection.body(&head, &mut body)? {
                return Ok(End::Close);
            }
            let reply = match &*head.method {
                "GET" | "HEAD" => status(shared),
                _ => service::refuse_in_json(&Refusal::new(404, "UnknownOperationException", "")),
            };
            send(connection, shared, 0, &reply)?;
            continue;
        };
        let mut begun = shared.lock().begin(&call, &head);
        shared.ring();
        thread::sleep(begun.course.delay);
        let is_slow = match (begun.course.stall_above, head.body_bytes()) {
            (Some(most), Some(bytes)) => bytes > most,
            _ => false,
        };
        let before = if is_slow {
            Before::Stall
        } else {
            begun.course.before
        };
        if before != Before::Go {
            service::cut(shared, &call, &begun, before == Before::Stall);
        }
        match before {
            Before::Go => {}
            Before::Close => return Ok(End::Close),
            Before::Reset => return Ok(End::Reset),
            Before::Stall => return until_client_gives_up(connection),
        }
        let reply = if connection.body(&head, &mut body)? {
            service::answer(shared, epoch, &call, &head, &body, &mut begun)
        } else {
            let refusal = Refusal::new(413, "RequestEntityTooLargeException", "");
            send(connection, shared, begun.number, &call.refuse(&refusal))?;
            return Ok(End::Close);
        };
        let Some(reply) = reply else {
            return Ok(End::Reset);
        };
        thread::sleep(begun.course.delay_reply);
        match begun.course.after {
            After::Send => send(connection, shared, begun.number, &reply)?,
            After::Close => return Ok(End::Close),
            After::Reset => return Ok(End::Reset),
            After::Stall => return until_client_gives_up(connection),
            After::Cut(bytes) => {
                let whole = written(shared, begun.number, &reply);
                let part = &whole[..bytes.min(whole.len())];
                connection.stream.write_all(part)?;
                return Ok(End::Close);
            }
        }
        if !keeps_alive {
            break;
        }
    }
    Ok(End::Close)
}

fn send(
    connection: &mut Connection,
    shared: &Shared,
    request: u64,
    reply: &Reply,
) -> io::Result<()> {
    let whole = written(shared, request, reply);
    connection.stream.write_all(&whole)
}

fn written(shared: &Shared, request: u64, reply: &Reply) -> Vec<u8> {
    let (now_micros, ahead_secs) = {
        let settings = &shared.lock().settings;
        (settings.clock.now_micros(), settings.signatures.ahead_secs)
    };
    let secs = i64::try_from(now_micros / 1_000_000).unwrap_or(i64::MAX);
    reply.to_bytes(request, &http_date(secs.saturating_add(ahead_secs)))
}

fn until_client_gives_up(connection: &mut Connection) -> io::Result<End> {
    io::copy(&mut connection.stream, &mut io::sink())?;
    Ok(End::Close)
}

/// For people with curl.
fn status(shared: &Shared) -> Reply {
    let document = shared.lock().counters.to_json();
    Reply::new(200, "application/json", format!("{document:#}\n"))
}
