//! Keeps the broker registered at its name servers, from service threads of its own: a name server that
//! is slow or gone costs no core anything, and no other name server either.
//!
//! Registers at start, every `registerNameServerPeriod`, and at once when a topic changes; unregisters when
//! the process stops. One connection per name server is kept open, because a name server drops a broker
//! whose connection closes.
//!
//! ```text
//!  system core --Topics, Stop--> rmq-registrar --Order--> rmq-registrar-0  one thread per name server,
//!       ^                        (never waits)     `----> rmq-registrar-1  which blocks on its socket
//!       `------------- ordered topics, from whichever answers a round first ---------'
//! ```
//!
//! The thread in the middle keeps every lock away from the core: it takes each message at once and leaves it in the
//! inbox of each name server's thread, where only the latest order counts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rmq_net::body::{self, KvTable};
use rmq_net::codes::request;
use rmq_net::frame::Serialization;
use rmq_net::reply::FrameWriter;

use crate::name_server_client::{Answer, NameServerClient, Patience};

/// How long a stop waits for the name servers to take the broker out of their routes, all together. Closing the
/// connections does the same, a little later.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// Who registers, and where.
#[derive(Clone, Debug)]
pub struct Registration {
    pub cluster_name: String,
    pub broker_name: String,
    pub broker_id: i64,
    /// `ip:port` clients connect to.
    pub broker_address: String,
    /// `ip:port` of the (future) replication port; RocketMQ's listen port + 1.
    pub ha_address: String,
    pub name_servers: Vec<String>,
    pub period: Duration,
    /// For a whole registration at one name server: to connect, to be written, to be answered.
    pub answer_timeout: Duration,
}

enum Message {
    /// The JSON body of REGISTER_BROKER: every topic and the data version.
    Topics(Bytes),
    Stop,
}

/// The handle the system core keeps. Dropping it without [`stop_soon`](Self::stop_soon) leaves
/// the name servers to notice the closed connection.
pub struct Registrar {
    messages: Sender<Message>,
    ordered_topics: Receiver<Vec<String>>,
}

impl Registrar {
    pub fn start(registration: Registration) -> io::Result<(Self, RegistrarEnd)> {
        let (messages, inbox) = channel();
        let (ordered, ordered_topics) = channel();
        let coordinator = Coordinator::start(Arc::new(registration), &ordered)?;
        let thread = std::thread::Builder::new().name("rmq-registrar".into()).spawn(move || coordinator.run(&inbox))?;
        Ok((Self { messages, ordered_topics }, RegistrarEnd(thread)))
    }

    /// Registers with this body at once and from now on.
    pub fn topics_changed(&self, body: Vec<u8>) {
        // The thread ends only after `stop_soon`, so there is nobody left who could miss this.
        let _ = self.messages.send(Message::Topics(body.into()));
    }

    /// The topics the name servers know to be ordered (namespace `ORDER_TOPIC_CONFIG`), if any said so since the last
    /// call. Never waits.
    pub fn ordered_topics(&self) -> Option<Vec<String>> {
        self.ordered_topics.try_iter().last()
    }

    /// Asks the threads to unregister everywhere and to end; does not wait for them.
    pub fn stop_soon(&self) {
        let _ = self.messages.send(Message::Stop);
    }
}

/// Waits for the end of the registration; kept by whoever waits for the cores.
pub struct RegistrarEnd(JoinHandle<()>);

impl RegistrarEnd {
    /// Returns at most 3 s after [`Registrar::stop_soon`], whatever the name servers do.
    pub fn wait(self) {
        if self.0.join().is_err() {
            tracing::error!("the registration thread had panicked");
        }
    }
}

/// What a name server's thread is to do next.
#[derive(Clone)]
enum Order {
    /// `round` counts the registrations: all name servers get the same number for the same one.
    Register {
        round: u64,
        body: Bytes,
    },
    Unregister {
        deadline: Instant,
    },
    /// End without a word.
    End,
}

/// Holds the latest order for one thread; an older one that was not taken is dropped.
#[derive(Default)]
struct Inbox {
    order: Mutex<Option<Order>>,
    changed: Condvar,
}

impl Inbox {
    fn put(&self, order: Order) {
        *self.lock() = Some(order);
        self.changed.notify_one();
    }

    fn take(&self) -> Order {
        let mut order = self.lock();
        loop {
            match order.take() {
                Some(order) => return order,
                None => order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn is_to_stop(&self) -> bool {
        matches!(*self.lock(), Some(Order::Unregister { .. } | Order::End))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        // Nothing is done under the lock that could leave half an order behind.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread in the middle. It never waits for a name server, so a change or a stop is passed on at once.
struct Coordinator {
    period: Duration,
    inboxes: Vec<Arc<Inbox>>,
    /// Disconnected when every name server's thread has ended.
    ended: Receiver<()>,
}

impl Coordinator {
    fn start(registration: Arc<Registration>, ordered: &Sender<Vec<String>>) -> io::Result<Self> {
        let (running, ended) = channel();
        let newest_answered = Arc::new(AtomicU64::new(0));
        let mut coordinator = Self { period: registration.period, inboxes: Vec::new(), ended };
        for (number, address) in registration.name_servers.iter().enumerate() {
            let inbox = Arc::new(Inbox::default());
            let worker = Worker {
                registration: registration.clone(),
                inbox: inbox.clone(),
                name_server: NameServerClient::new(address.clone()),
                is_failing: false,
                next_opaque: 0,
                newest_answered: newest_answered.clone(),
                ordered: ordered.clone(),
                _running: running.clone(),
            };
            let builder = std::thread::Builder::new().name(format!("rmq-registrar-{number}"));
            if let Err(error) = builder.spawn(move || worker.run()) {
                coordinator.order(&Order::End);
                return Err(error);
            }
            coordinator.inboxes.push(inbox);
        }
        Ok(coordinator)
    }

    fn run(self, inbox: &Receiver<Message>) {
        let mut round = 0;
        let mut body = None;
        loop {
            match inbox.recv_timeout(self.period) {
                Ok(Message::Topics(changed)) => body = Some(changed),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) => return self.unregister(),
                Err(RecvTimeoutError::Disconnected) => return self.order(&Order::End),
            }
            if let Some(body) = body.clone() {
                round += 1;
                self.order(&Order::Register { round, body });
            }
        }
    }

    fn unregister(self) {
        let deadline = Instant::now() + UNREGISTER_TIMEOUT;
        self.order(&Order::Unregister { deadline });
        let rest = deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("stopping although not every name server has confirmed that this broker is gone");
        }
    }

    fn order(&self, order: &Order) {
        self.inboxes.iter().for_each(|inbox| inbox.put(order.clone()));
    }
}

/// One name server's thread.
struct Worker {
    registration: Arc<Registration>,
    inbox: Arc<Inbox>,
    name_server: NameServerClient,
    /// Whether the last attempt failed, so that only changes are logged.
    is_failing: bool,
    next_opaque: i32,
    /// The newest round any name server has answered: as in RocketMQ, the first answer of a round is the one that
    /// says which topics are ordered.
    newest_answered: Arc<AtomicU64>,
    ordered: Sender<Vec<String>>,
    /// Dropped at the thread's end.
    _running: Sender<()>,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.inbox.take() {
                Order::Register { round, body } => self.register(round, &body),
                Order::Unregister { deadline } => {
                    self.call("unregister", request::UNREGISTER_BROKER, &[], deadline, |_| false);
                    return;
                }
                Order::End => return,
            }
        }
    }

    fn register(&mut self, round: u64, body: &[u8]) {
        let deadline = Instant::now() + self.registration.answer_timeout;
        let answer = self.call("register", request::REGISTER_BROKER, body, deadline, Inbox::is_to_stop);
        let Some(answer) = answer else { return };
        if self.newest_answered.fetch_max(round, Ordering::Relaxed) >= round || answer.is_empty() {
            return;
        }
        match body::decode::<KvTable>(&answer) {
            // The receiver is gone only when the broker stops.
            Ok(KvTable { table }) => drop(self.ordered.send(table.into_keys().collect())),
            Err(error) => {
                tracing::warn!(name_server = %self.name_server.address(), %error, "the list of ordered topics cannot be read");
            }
        }
    }

    /// The body of a successful answer; `None` otherwise, which is logged when it is news.
    fn call(
        &mut self,
        what: &str,
        code: i32,
        body: &[u8],
        deadline: Instant,
        is_given_up: fn(&Inbox) -> bool,
    ) -> Option<Vec<u8>> {
        self.next_opaque = self.next_opaque.wrapping_add(1);
        let opaque = self.next_opaque;
        let frame = self.frame(code, opaque, body);
        let inbox = &self.inbox;
        let patience = Patience { deadline, is_given_up: &|| is_given_up(inbox) };
        let outcome = match self.name_server.call(&frame, opaque, &patience) {
            Err(_) if patience.is_given_up() => return None,
            outcome => outcome.and_then(Answer::succeeded),
        };
        match &outcome {
            Err(error) if !self.is_failing => {
                tracing::warn!(name_server = %self.name_server.address(), %error, "could not {what} at the name server; will keep trying");
            }
            Ok(_) if self.is_failing => {
                tracing::info!(name_server = %self.name_server.address(), "name server is back")
            }
            _ => {}
        }
        self.is_failing = outcome.is_err();
        outcome.ok()
    }

    fn frame(&self, code: i32, opaque: i32, body: &[u8]) -> Vec<u8> {
        let me = &*self.registration;
        let mut frame = Vec::with_capacity(body.len() + 512);
        FrameWriter::request(&mut frame, Serialization::Json, code, opaque, false, body.len(), |ext| {
            if code == request::REGISTER_BROKER {
                ext.int("bodyCrc32", i64::from(crc32fast::hash(body) & 0x7fff_ffff));
            }
            ext.text("brokerAddr", &me.broker_address);
            ext.int("brokerId", me.broker_id);
            ext.text("brokerName", &me.broker_name);
            ext.text("clusterName", &me.cluster_name);
            if code == request::REGISTER_BROKER {
                ext.bool("compressed", false);
                ext.bool("enableActingMaster", false);
                ext.text("haServerAddr", &me.ha_address);
            }
        });
        frame.extend_from_slice(body);
        frame
    }
}

#[cfg(test)]
mod tests;
