//! The connected clients: one connection a client id, the newcomer wins (MQTT 5.0, 3.1.4).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use portcullis_core::{
    identity::{CertificateId, ClientId, ThingName},
    timestamp::Timestamp,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::codec::Version;

/// Who is connected.
#[derive(Debug, Default)]
pub struct Clients {
    live: Mutex<Live>,
    sessions: AtomicU64,
}

#[derive(Debug, Default)]
struct Live {
    clients: HashMap<ClientId, Entry>,
    /// How many of them there are with each certificate.
    of_certificate: HashMap<CertificateId, usize>,
}

/// As many clients with the same certificate are connected as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

#[derive(Debug)]
struct Entry {
    session: u64,
    about: Arc<About>,
    taken_over: CancellationToken,
    kicked: Kick,
    gone: CancellationToken,
}

/// What operators are told of a connected client.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) thing: Option<ThingName>,
    pub(super) certificate: Option<CertificateId>,
    pub(super) address: SocketAddr,
    pub(super) version: Version,
    pub(super) since: Timestamp,
}

/// A connection's place among the clients; dropping it leaves.
#[derive(Debug)]
pub(super) struct Ticket {
    clients: Arc<Clients>,
    client_id: ClientId,
    /// Number of the session, unique in this process.
    pub(super) session: u64,
    /// Cancelled when another connection takes the client id.
    pub(super) taken_over: CancellationToken,
    /// Cancelled when an operator wants it to go.
    pub(super) kicked: Kick,
    gone: CancellationToken,
}

/// That an operator wants a client to go, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Kick {
    token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

/// Whether a connection pushed another one out.
#[derive(Debug)]
pub(super) enum Entered {
    Alone,
    /// The token is cancelled once the former connection has ended, its will included.
    TookOver(CancellationToken),
}

impl Clients {
    /// Takes the client id; whoever has it is told to leave. Of each certificate there are
    /// `per_certificate_max` clients, 0 for any number; one that comes back takes its own place.
    pub(super) fn enter(
        self: &Arc<Self>,
        client_id: &ClientId,
        about: About,
        per_certificate_max: usize,
    ) -> Result<(Ticket, Entered), Crowded> {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let taken_over = CancellationToken::new();
        let kicked = Kick::default();
        let gone = CancellationToken::new();
        let entry = Entry {
            session,
            about: Arc::new(about),
            taken_over: taken_over.clone(),
            kicked: kicked.clone(),
            gone: gone.clone(),
        };
        let former = self.lock().insert(client_id, entry, per_certificate_max)?;
        let entered = match former {
            Some(former) => {
                former.taken_over.cancel();
                Entered::TookOver(former.gone)
            }
            None => Entered::Alone,
        };
        let ticket = Ticket {
            clients: Arc::clone(self),
            client_id: client_id.clone(),
            session,
            taken_over,
            kicked,
            gone,
        };
        Ok((ticket, entered))
    }

    /// Up to `max` of the connected clients in the order of their ids, from the one behind `after`
    /// on; `next` is what to ask with for more. Members are added, not renamed.
    pub fn list(&self, after: Option<&str>, max: usize) -> Value {
        let (mut found, total) = {
            let live = self.lock();
            let behind = |id: &ClientId| after.is_none_or(|after| id.as_str() > after);
            let found = live.clients.iter().filter(|(id, _)| behind(id));
            let found = found.map(|(id, entry)| (id.clone(), Arc::clone(&entry.about)));
            (found.collect::<Vec<_>>(), live.clients.len())
        };
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let is_more = found.len() > max;
        found.truncate(max);
        let last = found.last().filter(|_| is_more);
        json!({
            "clients": found.iter().map(|(id, about)| about.to_json(id)).collect::<Vec<_>>(),
            "total": total,
            "next": last.map(|(id, _)| id.as_str()),
        })
    }

    /// Tells a client to go; `false` if nobody has that client id.
    pub fn kick(&self, client_id: &str, reason: Option<&str>) -> bool {
        let live = self.lock();
        let Some(entry) = live.clients.get(client_id) else {
            return false;
        };
        if let Some(reason) = reason {
            // The first one counts.
            entry.kicked.reason.get_or_init(|| reason.to_owned());
        }
        entry.kicked.token.cancel();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// The entry that it takes the place of.
    fn insert(
        &mut self,
        client_id: &ClientId,
        entry: Entry,
        per_certificate_max: usize,
    ) -> Result<Option<Entry>, Crowded> {
        if let Some(certificate) = entry.about.certificate {
            let former = self.clients.get(client_id);
            let is_same = former.is_some_and(|f| f.about.certificate == Some(certificate));
            let count = self.of_certificate.entry(certificate).or_default();
            if per_certificate_max > 0 && !is_same && *count >= per_certificate_max {
                return Err(Crowded);
            }
            *count += 1;
        }
        let former = self.clients.insert(client_id.clone(), entry);
        if let Some(former) = &former {
            self.uncount(&former.about);
        }
        Ok(former)
    }

    fn remove(&mut self, client_id: &ClientId, session: u64) {
        let is_it = |entry: &Entry| entry.session == session;
        if self.clients.get(client_id).is_some_and(is_it)
            && let Some(entry) = self.clients.remove(client_id)
        {
            self.uncount(&entry.about);
        }
    }

    fn uncount(&mut self, about: &About) {
        if let Some(certificate) = about.certificate
            && let Some(count) = self.of_certificate.get_mut(&certificate)
        {
            *count -= 1;
            if *count == 0 {
                self.of_certificate.remove(&certificate);
            }
        }
    }
}

impl Kick {
    /// Until an operator wants it.
    pub(super) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// What the operator said.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.get().cloned()
    }
}

impl About {
    fn to_json(&self, client_id: &ClientId) -> Value {
        json!({
            "clientId": client_id.as_str(),
            "thingName": self.thing.as_ref().map(ThingName::as_str),
            "certificateId": self.certificate.map(|id| id.to_string()),
            "address": self.address.to_string(),
            "protocol": match self.version {
                Version::V311 => "3.1.1",
                Version::V5 => "5",
            },
            "since": self.since.to_string(),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.cancel();
        self.clients.lock().remove(&self.client_id, self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            thing: Some(ThingName::parse("t").unwrap()),
            certificate: None,
            address: "192.0.2.1:5".parse().unwrap(),
            version: Version::V5,
            since: Timestamp::from_millis(0),
        }
    }

    fn enter(clients: &Arc<Clients>, id: &str) -> (Ticket, Entered) {
        clients
            .enter(&ClientId::parse(id).unwrap(), about(), 0)
            .unwrap()
    }

    #[test]
    fn of_a_certificate_there_are_so_many_and_who_comes_back_takes_its_own_place() {
        let clients = Arc::new(Clients::default());
        let enter = |id: &str, certificate: &[u8]| {
            let about = About {
                certificate: Some(CertificateId::of_der(certificate)),
                ..about()
            };
            clients.enter(&ClientId::parse(id).unwrap(), about, 2)
        };
        let a = enter("a", b"1").unwrap();
        let _b = enter("b", b"1").unwrap();
        assert_eq!(enter("c", b"1").err(), Some(Crowded));
        let _other = enter("c", b"2").unwrap();
        let again = enter("a", b"1").unwrap();
        assert!(matches!(again.1, Entered::TookOver(_)));
        drop(a);
        // The former one of `a` has gone, the present one has not.
        assert_eq!(enter("d", b"1").err(), Some(Crowded));
        drop(again);
        let _d = enter("d", b"1").unwrap();
        // Another certificate takes a client id over: the place of the former one is free.
        let _taken = enter("d", b"2").unwrap();
        let _e = enter("e", b"1").unwrap();
    }

    #[test]
    fn who_left_leaves_no_trace() {
        let clients = Arc::new(Clients::default());
        let about = About {
            certificate: Some(CertificateId::of_der(b"1")),
            ..about()
        };
        let id = ClientId::parse("a").unwrap();
        let first = clients.enter(&id, about.clone(), 1).unwrap();
        let second = clients.enter(&id, about, 1).unwrap();
        drop((first, second));
        assert!(clients.lock().clients.is_empty());
        assert!(clients.lock().of_certificate.is_empty());
    }

    #[test]
    fn the_newcomer_wins_and_the_former_does_not_remove_it() {
        let clients = Arc::new(Clients::default());
        let (first, entered) = enter(&clients, "a");
        assert!(matches!(entered, Entered::Alone));
        let (second, entered) = enter(&clients, "a");
        let Entered::TookOver(gone) = entered else {
            panic!("{entered:?}")
        };
        assert!(!gone.is_cancelled());
        assert!(first.taken_over.is_cancelled());
        drop(first);
        assert!(gone.is_cancelled());
        assert!(!second.taken_over.is_cancelled());
        assert!(matches!(enter(&clients, "a").1, Entered::TookOver(_)));
    }

    #[test]
    fn only_the_client_that_is_meant_is_kicked_and_the_first_reason_counts() {
        let clients = Arc::new(Clients::default());
        let (a, b) = (enter(&clients, "a").0, enter(&clients, "b").0);
        assert!(!clients.kick("c", None));
        assert!(clients.kick("a", Some("noisy")));
        assert!(clients.kick("a", Some("again")));
        assert!(a.kicked.token.is_cancelled() && !b.kicked.token.is_cancelled());
        assert_eq!(a.kicked.reason().as_deref(), Some("noisy"));
        drop(a);
        assert!(!clients.kick("a", None), "it is gone");
        // Who comes again is not kicked by what was said to its former connection.
        assert!(!enter(&clients, "a").0.kicked.token.is_cancelled());
    }

    #[test]
    fn the_list_comes_in_pages_in_the_order_of_the_ids() {
        let clients = Arc::new(Clients::default());
        let _tickets = ["b", "d", "a", "c"].map(|id| enter(&clients, id));
        let ids = |page: &Value| -> Vec<String> {
            let clients = page["clients"].as_array().unwrap().iter();
            clients
                .map(|client| client["clientId"].as_str().unwrap().to_owned())
                .collect()
        };
        let first = clients.list(None, 3);
        assert_eq!(ids(&first), ["a", "b", "c"]);
        assert_eq!((&first["total"], &first["next"]), (&json!(4), &json!("c")));
        let second = clients.list(Some("c"), 3);
        assert_eq!(ids(&second), ["d"]);
        assert_eq!(second["next"], Value::Null);
        let expected = json!({
            "clientId": "d",
            "thingName": "t",
            "certificateId": null,
            "address": "192.0.2.1:5",
            "protocol": "5",
            "since": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!(second["clients"][0], expected);
    }
}
