//! The queues topics have on other brokers, as the name servers tell: what QUERY_ASSIGNMENT (400) deals out.
//!
//! ```text
//!  system core --topic--> rmq-routes   one thread, which blocks on a name server's socket
//!       ^                     |
//!       `--- its queues ------'
//! ```
//!
//! A topic is looked up when a client first asks for it, and again every `loadBalancePollNameServerInterval` while clients
//! go on asking (behaviour.md 12).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rmq_net::body::topic::perm;
use rmq_net::body::{self, MessageQueue, TopicRouteData};
use rmq_net::codes::{request, response};
use rmq_net::frame::Serialization;
use rmq_net::reply::FrameWriter;
use rustc_hash::FxHashMap;

use crate::name_server_client::{NameServerClient, Patience};
use crate::state::topics::QUEUES_MAX;

/// How long one name server may take to answer, as in RocketMQ.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long nobody is asked after all name servers were silent: who waits behind must not wait for each of the others, too.
const REST: Duration = Duration::from_secs(1);
/// A topic nobody has asked for so long is forgotten. Clients ask every 20 s.
const FORGET_MS: i64 = 300_000;
/// Topics kept at most: a bound for clients that ask for names they make up.
const TOPICS_MAX: usize = 65_536;

/// No topic has a longer name, with its prefix. Others are not looked up.
const NAME_BYTES_MAX: usize = 255;

/// What the name servers say about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The readable queues of the brokers other than this one.
    Elsewhere(Arc<[MessageQueue]>),
    /// They do not know the topic.
    Unknown,
    /// None of them answered.
    NotAnswered,
}

/// What looking for a topic gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Known(Route),
    /// [`Routes::take_found`] will tell.
    Pending,
}

struct Topic {
    /// None: the first answer is still to come.
    route: Option<Route>,
    is_under_way: bool,
    looked_up_ms: i64,
    asked_ms: i64,
}

/// The topics clients asked for lately. Dropping it ends the thread.
pub struct Routes {
    topics: FxHashMap<Arc<str>, Topic>,
    poll_interval_ms: i64,
    wanted: Sender<Arc<str>>,
    found: Receiver<(Arc<str>, Route)>,
    is_stopped: Arc<AtomicBool>,
}

impl Routes {
    /// `name_servers` as `host:port`, asked in this order until one answers.
    pub fn start(broker_name: &str, name_servers: &[String], poll_interval: Duration) -> io::Result<Self> {
        let (wanted, inbox) = channel::<Arc<str>>();
        let (outbox, found) = channel();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut finder = Finder {
            broker_name: broker_name.to_owned(),
            name_servers: name_servers.iter().map(|address| NameServerClient::new(address.clone())).collect(),
            current: 0,
            next_opaque: 0,
            failed: None,
            is_stopped: Arc::clone(&is_stopped),
        };
        std::thread::Builder::new().name("rmq-routes".into()).spawn(move || {
            for topic in inbox {
                let route = finder.look_up(&topic);
                if outbox.send((topic, route)).is_err() {
                    return;
                }
            }
        })?;
        let poll_interval_ms = i64::try_from(poll_interval.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { topics: FxHashMap::default(), poll_interval_ms, wanted, found, is_stopped })
    }

    /// What is known of a topic; asks for it where that is nothing.
    pub fn find(&mut self, topic: &str, now_ms: i64) -> Lookup {
        if let Some(known) = self.topics.get_mut(topic) {
            known.asked_ms = now_ms;
            return known.route.clone().map_or(Lookup::Pending, Lookup::Known);
        }
        if topic.len() > NAME_BYTES_MAX {
            return Lookup::Known(Route::Unknown);
        }
        if self.topics.len() >= TOPICS_MAX {
            return Lookup::Known(Route::NotAnswered);
        }
        let name: Arc<str> = topic.into();
        let asked = Topic { route: None, is_under_way: true, looked_up_ms: now_ms, asked_ms: now_ms };
        self.topics.insert(Arc::clone(&name), asked);
        // The thread lives as long as this value.
        let _ = self.wanted.send(name);
        Lookup::Pending
    }

    /// The topics whose first answer has come since the last call. Never waits.
    pub fn take_found(&mut self) -> Vec<(Arc<str>, Route)> {
        let mut first = Vec::new();
        for (name, route) in self.found.try_iter() {
            let Some(topic) = self.topics.get_mut(&name) else { continue };
            topic.is_under_way = false;
            let is_first = topic.route.is_none();
            // What was known is better than nothing. What is not known, the next client asks for again.
            if route != Route::NotAnswered && route != Route::Unknown {
                topic.route = Some(route.clone());
            } else if is_first || route == Route::Unknown {
                self.topics.remove(&name);
            }
            if is_first {
                first.push((name, route));
            }
        }
        first
    }

    /// Looks up again what clients still ask for. Called about once a second.
    pub fn tick(&mut self, now_ms: i64) {
        self.topics.retain(|_, topic| topic.is_under_way || now_ms - topic.asked_ms < FORGET_MS);
        for (name, topic) in &mut self.topics {
            // Also after the clock was set back.
            let is_fresh = (0..self.poll_interval_ms).contains(&(now_ms - topic.looked_up_ms));
            if !topic.is_under_way && !is_fresh {
                (topic.is_under_way, topic.looked_up_ms) = (true, now_ms);
                let _ = self.wanted.send(Arc::clone(name));
            }
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// What the thread keeps.
struct Finder {
    broker_name: String,
    name_servers: Vec<NameServerClient>,
    /// The one that answered last.
    current: usize,
    next_opaque: i32,
    /// When the last lookup failed, if it did: only changes are logged.
    failed: Option<Instant>,
    is_stopped: Arc<AtomicBool>,
}

impl Finder {
    fn look_up(&mut self, topic: &str) -> Route {
        if self.failed.is_some_and(|failed| failed.elapsed() < REST) {
            return Route::NotAnswered;
        }
        let (first, count) = (self.current, self.name_servers.len());
        for index in (first..first + count).map(|index| index % count) {
            match self.ask(index, topic) {
                Ok(route) => {
                    (self.current, self.failed) = (index, None);
                    return route;
                }
                Err(error) if self.failed.is_none() && !self.is_stopped.load(Ordering::Relaxed) => {
                    let name_server = self.name_servers[index].address();
                    tracing::warn!(name_server, topic, %error, "could not look up which brokers have a topic");
                }
                Err(_) => {}
            }
        }
        self.failed = Some(Instant::now());
        Route::NotAnswered
    }

    fn ask(&mut self, index: usize, topic: &str) -> io::Result<Route> {
        self.next_opaque = self.next_opaque.wrapping_add(1);
        let opaque = self.next_opaque;
        let mut frame = Vec::new();
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        FrameWriter::request(&mut frame, Serialization::Json, code, opaque, false, 0, |ext| ext.text("topic", topic));
        let is_given_up = || self.is_stopped.load(Ordering::Relaxed);
        let patience = Patience { deadline: Instant::now() + ANSWER_TIMEOUT, is_given_up: &is_given_up };
        let answer = self.name_servers[index].call(&frame, opaque, &patience)?;
        if answer.code == response::TOPIC_NOT_EXIST {
            return Ok(Route::Unknown);
        }
        let route: TopicRouteData = body::decode(&answer.succeeded()?).map_err(io::Error::other)?;
        Ok(Route::Elsewhere(self.queues(topic, &route)))
    }

    fn queues(&self, topic: &str, route: &TopicRouteData) -> Arc<[MessageQueue]> {
        let elsewhere = route.queue_datas.iter().filter(|data| data.broker_name != self.broker_name);
        let readable = elsewhere.filter(|data| data.perm & perm::READ != 0);
        let queues = readable.flat_map(|data| {
            (0..data.read_queue_nums.min(QUEUES_MAX)).map(|queue_id| MessageQueue {
                broker_name: data.broker_name.clone(),
                queue_id,
                topic: topic.to_owned(),
            })
        });
        queues.collect()
    }
}

#[cfg(test)]
mod tests;
