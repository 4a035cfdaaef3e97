//! Orders that found nothing and wait, and who is told when there is something.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rmq_engine::TagFilter;
use rmq_net::codes::response;
use rmq_net::connection::ConnectionId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{PopLetter, PopOrder, Purpose, answer_nothing, look, retry_topics, send};
use crate::broker::Broker;

/// What an order waits for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WaitKey {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    /// `None`: any.
    pub queue_id: Option<u32>,
    pub is_in_order: bool,
    /// A notification's tags: messages with others do not end its wait. `None`: every message does.
    pub tags: Option<Arc<[i32]>>,
}

#[derive(Default)]
struct Waiting {
    /// Numbers of the orders, the first to come first.
    orders: VecDeque<u64>,
    /// Cores that have been asked to watch and have not said anything yet.
    asked: FxHashSet<usize>,
}

/// What a core knows of pops that are under way.
#[derive(Default)]
pub struct Pops {
    letters: VecDeque<(usize, PopLetter)>,
    /// Orders the log had no room for.
    stalled: Vec<PopOrder>,
    orders: FxHashMap<u64, PopOrder>,
    by_key: FxHashMap<Arc<WaitKey>, Waiting>,
    by_deadline: BTreeSet<(i64, u64)>,
    by_connection: BTreeSet<(ConnectionId, u64)>,
    /// Connections of this core that have popped.
    popping: FxHashSet<ConnectionId>,
    next_order: u64,
    /// Cores to tell when there is something to pop here.
    watchers: FxHashMap<Arc<WaitKey>, usize>,
    /// The same by the topics messages arrive in.
    watched: FxHashMap<Box<str>, Vec<Arc<WaitKey>>>,
    /// How many messages are being read to be stored again.
    pub reviving: usize,
    pub next_revive_queue: u32,
}

impl Pops {
    pub fn take_letter(&mut self, from: usize, letter: PopLetter) {
        self.letters.push_back((from, letter));
    }

    pub fn next_letter(&mut self) -> Option<(usize, PopLetter)> {
        self.letters.pop_front()
    }

    pub fn letters_waiting(&self) -> usize {
        self.letters.len()
    }

    /// Tries the order again in a later turn: the log has no room now.
    pub fn stall(&mut self, order: PopOrder) {
        self.stalled.push(order);
    }

    /// Whether orders wait for room in the log.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Held requests of a group for a queue, or for any.
    pub fn held(&self, group: &str, topic: &str, queue_id: Option<u32>) -> usize {
        let is_meant = |key: &WaitKey| *key.group == *group && *key.topic == *topic && key.queue_id == queue_id;
        self.by_key.iter().filter(|(key, _)| is_meant(key)).map(|(_, of)| of.orders.len()).sum()
    }

    fn park(&mut self, key: &Arc<WaitKey>, order: PopOrder) {
        let number = self.next_order;
        self.next_order += 1;
        self.by_deadline.insert((order.hold_until_ms, number));
        self.by_connection.insert((order.to.connection, number));
        self.orders.insert(number, order);
        self.by_key.entry(Arc::clone(key)).or_default().orders.push_back(number);
    }

    fn unpark(&mut self, key: &WaitKey) -> Option<PopOrder> {
        let number = self.by_key.get_mut(key)?.orders.pop_front()?;
        self.take_order(number)
    }

    fn take_order(&mut self, number: u64) -> Option<PopOrder> {
        let order = self.orders.remove(&number)?;
        self.by_deadline.remove(&(order.hold_until_ms, number));
        self.by_connection.remove(&(order.to.connection, number));
        Some(order)
    }

    /// Takes an order out from wherever it stands in its line.
    fn take_from_line(&mut self, number: u64) -> Option<PopOrder> {
        let order = self.take_order(number)?;
        let key = key_of(&order);
        if let Some(waiting) = self.by_key.get_mut(&key) {
            waiting.orders.retain(|waiting| *waiting != number);
            self.forget_if_empty(&key);
        }
        Some(order)
    }

    fn expire(&mut self, now_ms: i64) -> Option<PopOrder> {
        let (_, number) = *self.by_deadline.first().filter(|(deadline_ms, _)| *deadline_ms <= now_ms)?;
        self.take_from_line(number)
    }

    /// A key nobody waits under is forgotten once no core watches for it any more.
    fn forget_if_empty(&mut self, key: &WaitKey) {
        if self.by_key.get(key).is_some_and(|of| of.orders.is_empty() && of.asked.is_empty()) {
            self.by_key.remove(key);
        }
    }

    fn unwatch(&mut self, key: &WaitKey, topics: impl Iterator<Item = String>) -> Option<usize> {
        let home = self.watchers.remove(key)?;
        for topic in topics.chain([key.topic.to_string()]) {
            if let Some(keys) = self.watched.get_mut(&*topic) {
                keys.retain(|watched| **watched != *key);
                if keys.is_empty() {
                    self.watched.remove(&*topic);
                }
            }
        }
        Some(home)
    }
}

/// Where orders for a queue, or for any queue of the topic, wait.
pub fn home(broker: &Broker, topic: &str, queue_id: Option<u32>) -> usize {
    broker.owner(topic, queue_id.unwrap_or(0))
}

pub fn key_of(order: &PopOrder) -> WaitKey {
    WaitKey {
        group: Arc::clone(&order.group),
        topic: Arc::clone(&order.topic),
        queue_id: order.queue_id,
        is_in_order: order.attempt.is_some(),
        tags: match (&order.purpose, &order.filter) {
            (Purpose::Notify, TagFilter::Codes(codes)) => Some(Arc::clone(codes)),
            _ => None,
        },
    }
}

/// Lets an order wait here, its home.
pub fn wait(broker: &mut Broker, order: PopOrder) {
    let key = Arc::new(key_of(&order));
    let held = broker.pops.by_key.get(&*key).map_or(0, |of| of.orders.len());
    let is_full = held >= broker.config.pop_polling_size as usize
        || broker.pops.orders.len() >= broker.config.max_pop_polling_size as usize;
    if is_full {
        return answer_nothing(broker, &order, response::POLLING_FULL);
    }
    broker.pops.park(&key, order);
    // The messages of one queue, and what is stored again of them, are all on its core.
    let cores = if key.queue_id.is_some() { broker.core..broker.core + 1 } else { 0..broker.core_count };
    for core in cores {
        ask_to_watch(broker, &key, core);
    }
}

fn ask_to_watch(broker: &mut Broker, key: &Arc<WaitKey>, core: usize) {
    let is_new = broker.pops.by_key.get_mut(&**key).is_some_and(|of| of.asked.insert(core));
    if is_new {
        send(broker, core, PopLetter::Watch(Arc::clone(key)));
    }
}

/// Tells `home` once when there is something to pop here.
pub fn watch(broker: &mut Broker, home: usize, key: Arc<WaitKey>) {
    if look::has_something(broker, &key) {
        return send(broker, home, PopLetter::Arrived(key));
    }
    let retries: Vec<_> = retry_topics(broker, &key.group, &key.topic).collect();
    let queues = match key.queue_id {
        Some(queue_id) => vec![queue_id],
        None => look::own_queues(broker, &key.topic),
    };
    queues.into_iter().for_each(|queue_id| broker.shard.watch(&key.topic, queue_id));
    for retry in &retries {
        look::own_queues(broker, retry).into_iter().for_each(|queue_id| broker.shard.watch(retry, queue_id));
    }
    if broker.pops.watchers.insert(Arc::clone(&key), home).is_none() {
        for topic in retries.into_iter().chain([key.topic.to_string()]) {
            broker.pops.watched.entry(topic.into()).or_default().push(Arc::clone(&key));
        }
    }
}

/// A queue of this core grew, or messages of it may be popped again.
pub fn on_arrival(broker: &mut Broker, topic: &str, queue_id: u32) {
    let Some(keys) = broker.pops.watched.get(topic) else { return };
    let is_meant = |key: &&Arc<WaitKey>| key.queue_id.is_none_or(|of| of == queue_id) || *key.topic != *topic;
    let keys: Vec<_> = keys.iter().filter(is_meant).cloned().collect();
    keys.iter().for_each(|key| tell(broker, key));
}

/// Something of a group has changed without a message having come.
pub fn stir(broker: &mut Broker, group: &str, topic: &str) {
    let Some(keys) = broker.pops.watched.get(topic) else { return };
    let keys: Vec<_> = keys.iter().filter(|key| *key.group == *group).cloned().collect();
    for key in keys {
        if look::has_something(broker, &key) {
            tell(broker, &key);
        }
    }
}

fn tell(broker: &mut Broker, key: &Arc<WaitKey>) {
    let retries: Vec<_> = retry_topics(broker, &key.group, &key.topic).collect();
    if let Some(home) = broker.pops.unwatch(key, retries.into_iter()) {
        send(broker, home, PopLetter::Arrived(Arc::clone(key)));
    }
}

/// A core has something: sends it the first who waits.
pub fn on_arrived(broker: &mut Broker, core: usize, key: &Arc<WaitKey>) {
    let Some(waiting) = broker.pops.by_key.get_mut(&**key) else { return };
    waiting.asked.remove(&core);
    if let Some(order) = broker.pops.unpark(key) {
        send(broker, core, PopLetter::Look(PopOrder { cores_left: 0, ..order }));
    }
    if broker.pops.by_key.get(&**key).is_some_and(|of| !of.orders.is_empty()) {
        ask_to_watch(broker, key, core);
    }
    broker.pops.forget_if_empty(key);
}

/// A connection of this core pops: other cores may have to hear when it closes.
pub fn note_popping(broker: &mut Broker, connection: ConnectionId) {
    if usize::from(connection.core) == broker.core {
        broker.pops.popping.insert(connection);
    }
}

/// A connection of this core is closed: what it waits for must not be taken for it.
pub fn on_connection_closed(broker: &mut Broker, connection: ConnectionId) {
    if broker.pops.popping.remove(&connection) {
        for core in 0..broker.core_count {
            send(broker, core, PopLetter::Gone(connection));
        }
    }
}

/// Forgets the orders of a closed connection.
pub fn on_gone(broker: &mut Broker, connection: ConnectionId) {
    let numbers = broker.pops.by_connection.range((connection, 0)..=(connection, u64::MAX));
    let numbers: Vec<_> = numbers.map(|(_, number)| *number).collect();
    for number in numbers {
        broker.pops.take_from_line(number);
    }
}

/// Tries stalled orders again, and answers those whose time is over.
pub fn turn(broker: &mut Broker) {
    for order in std::mem::take(&mut broker.pops.stalled) {
        look::look(broker, order);
    }
    while let Some(order) = broker.pops.expire(broker.now_ms) {
        answer_nothing(broker, &order, response::POLLING_TIMEOUT);
    }
}

/// Answers every held request at once, before the process stops.
pub fn release(broker: &mut Broker) {
    while let Some(order) = broker.pops.expire(i64::MAX) {
        answer_nothing(broker, &order, response::POLLING_TIMEOUT);
    }
}
