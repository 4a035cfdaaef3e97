//! Steps of a script and what is observed at each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rmq_tests::remoting::{Connection, Record, Reply, Request, ServerRequest, code, delivered};
use serde_json::Value;

/// What was observed, by step and field.
pub type Observations = BTreeMap<(String, String), String>;

/// Request codes only this script needs.
pub mod request {
    pub const QUERY_MESSAGE: i32 = 12;
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub const GET_MIN_OFFSET: i32 = 31;
    pub const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    pub const VIEW_MESSAGE_BY_ID: i32 = 33;
    pub const UNREGISTER_CLIENT: i32 = 35;
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    pub const END_TRANSACTION: i32 = 37;
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    pub const LOCK_BATCH_MQ: i32 = 41;
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
    pub const PUT_KV_CONFIG: i32 = 100;
    pub const GET_KV_CONFIG: i32 = 101;
    pub const DELETE_KV_CONFIG: i32 = 102;
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
    pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
    pub const GET_KVLIST_BY_NAMESPACE: i32 = 219;
    pub const UPDATE_AND_GET_GROUP_FORBIDDEN: i32 = 353;
    pub const LITE_PULL_MESSAGE: i32 = 361;
    pub const RECALL_MESSAGE: i32 = 370;
    pub const POP_MESSAGE: i32 = 200_050;
    pub const ACK_MESSAGE: i32 = 200_051;
    pub const PEEK_MESSAGE: i32 = 200_052;
    pub const CHANGE_MESSAGE_INVISIBLETIME: i32 = 200_053;
    pub const NOTIFICATION: i32 = 200_054;
    pub const POLLING_INFO: i32 = 200_055;
    pub const BATCH_ACK_MESSAGE: i32 = 200_151;
}

/// Milliseconds of year 2001 and of year 2286, between which any time of a clock lies.
const CLOCK_MS: std::ops::Range<i64> = 1_000_000_000_000..10_000_000_000_000;
/// What requests of this script say as a time; it is no time of a clock.
const BORN_MS: i64 = 1_700_000_000_000;
/// Fields whose values tell where in a log something lies, or which of several equal queues was taken.
const PLACES: [&str; 6] =
    ["reviveQid", "indexLastUpdatePhyoffset", "version", "counter", "recallHandle", "commitLogOffset"];
/// Sections whose sends end up in internal topics, which all sections share.
const INTERNAL: [&str; 2] = ["delays", "timers"];

/// How long a message may take to come. One that never does is observed as missing, and holds up the test for so long.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEM_BUSY: i32 = 2;

pub struct Script {
    section: &'static str,
    broker: String,
    connection: Connection,
    namesrv: Connection,
    observed: Observations,
}

impl Script {
    pub fn new(section: &'static str, broker: &str, namesrv: &str) -> Self {
        Self {
            section,
            broker: broker.to_owned(),
            connection: Connection::open(broker),
            namesrv: Connection::open(namesrv),
            observed: Observations::new(),
        }
    }

    /// Another connection to the broker: another client.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.broker)
    }

    pub fn observations(self) -> Observations {
        self.observed
    }

    /// A request whose whole answer is observed.
    pub fn step(&mut self, name: &str, request: &Request) -> Reply {
        let reply = self.ask(request);
        self.observe_reply(name, &reply);
        reply
    }

    /// A request to the name server whose whole answer is observed.
    pub fn namesrv_step(&mut self, name: &str, request: &Request) {
        let reply = self.namesrv.call(request);
        self.observe_reply(name, &reply);
    }

    /// Observes an answer that was waited for.
    pub fn observe_reply(&mut self, name: &str, reply: &Reply) {
        self.observe(name, "code", reply.code.to_string());
        self.observe(name, "remark", kind_of_remark(&reply.remark));
        for (key, value) in &reply.ext {
            let is_shared = key == "queueOffset" && INTERNAL.contains(&self.section);
            let value = if is_shared { "PLACE".to_owned() } else { masked(key, value.as_str().unwrap_or("no text")) };
            self.observe(name, &format!("ext {key}"), value);
        }
        self.observe_body(name, &reply.body);
    }

    /// Observes a request of the server.
    pub fn observe_request(&mut self, name: &str, request: &ServerRequest) {
        let ServerRequest { code, ext, body } = request.clone();
        self.observe_reply(name, &Reply { code, opaque: 0, remark: String::new(), ext, body });
    }

    /// A request that only prepares something.
    pub fn prepare(&mut self, request: &Request) -> Reply {
        let reply = self.ask(request);
        assert_eq!(reply.code, 0, "{request:?}: {}", reply.remark);
        reply
    }

    /// A request that is not observed. One that Apache's broker is too busy for is sent again: that is the machine's doing.
    pub fn ask(&mut self, request: &Request) -> Reply {
        let mut reply = self.connection.call(request);
        self.await_condition(|script| {
            let is_busy = reply.code == SYSTEM_BUSY;
            if is_busy {
                reply = script.connection.call(request);
            }
            !is_busy
        });
        reply
    }

    pub fn oneway(&mut self, request: Request) {
        self.connection.start(&request.oneway());
    }

    pub fn create_topic(&mut self, topic: &str, queues: u32, perm: u32) {
        self.prepare(&create_topic(topic, queues, perm));
    }

    /// Sends messages with these properties to queue 0 and waits until consumers can read them; their bodies are `0`, `1`, ...
    pub fn fill(&mut self, topic: &str, properties: &[&str]) {
        for (index, properties) in properties.iter().enumerate() {
            self.prepare(&Request::send(topic, 0, properties, index.to_string().as_bytes()));
        }
        self.await_messages(topic, 0, properties.len());
    }

    /// Waits until a queue holds so many messages, and returns them. Apache's broker has acknowledged ones a little later.
    pub fn await_messages(&mut self, topic: &str, queue_id: i32, count: usize) -> Vec<Record> {
        let mut found = Vec::new();
        self.await_condition(|script| {
            let offset = found.len() as i64;
            let reply = script.ask(&Request::pull(topic, queue_id, offset));
            found.extend(delivered(&reply.body));
            count <= found.len()
        });
        found
    }

    /// Looks again and again until `holds`, or until patience ends: what is observed next says so.
    pub fn await_condition(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Like [`Self::await_messages`], and observes them.
    pub fn messages(&mut self, name: &str, topic: &str, queue_id: i32, count: usize) -> Vec<Record> {
        let found = self.await_messages(topic, queue_id, count);
        self.observe_records(name, &found);
        found
    }

    pub fn observe(&mut self, name: &str, field: &str, value: String) {
        let step = format!("{}/{name}", self.section);
        let earlier = self.observed.insert((step, field.to_owned()), value);
        assert!(earlier.is_none(), "two steps are called {name}, or a field came twice: {field}");
    }

    fn observe_body(&mut self, name: &str, body: &[u8]) {
        let is_records = body.get(4..7) == Some(&[0xda, 0xa3, 0x20]);
        if is_records {
            self.observe_records(name, &delivered(body));
        } else if let Ok(mut json) = serde_json::from_slice::<Value>(body) {
            normalize(&mut json);
            self.observe(name, "body", json.to_string());
        } else {
            self.observe(name, "body", format!("{} bytes", body.len()));
        }
    }

    fn observe_records(&mut self, name: &str, records: &[Record]) {
        self.observe(name, "count", records.len().to_string());
        for (index, record) in records.iter().enumerate() {
            let mut observe = |field: &str, value: String| self.observe(name, &format!("{index} {field}"), value);
            observe("topic", record.topic.clone());
            observe("queueId", record.queue_id.to_string());
            observe("flag", record.flag.to_string());
            observe("queueOffset", record.queue_offset.to_string());
            observe("sysFlag", record.sys_flag.to_string());
            observe("bornTimestamp", masked("", &record.born_ms.to_string()));
            observe("reconsumeTimes", record.reconsume_times.to_string());
            observe("preparedTransactionOffset", (record.prepared_offset != 0).to_string());
            let body = String::from_utf8_lossy(&record.body);
            observe("body", if body.len() < 100 { body.into_owned() } else { format!("{} bytes", body.len()) });
            let mut properties: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for pair in record.properties.split('\u{2}').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('\u{1}').unwrap_or((pair, "nothing"));
                properties.entry(key).or_default().push(masked(key, value));
            }
            for (key, values) in properties {
                observe(&format!("property {key}"), values.join(" and "));
            }
        }
    }
}

pub fn create_topic(topic: &str, queues: u32, perm: u32) -> Request {
    let queues = queues.to_string();
    Request::new(code::UPDATE_AND_CREATE_TOPIC)
        .ext("topic", topic)
        .ext("defaultTopic", "TBW102")
        .ext("readQueueNums", &queues)
        .ext("writeQueueNums", &queues)
        .ext("perm", &perm.to_string())
        .ext("topicFilterType", "SINGLE_TAG")
        .ext("topicSysFlag", "0")
        .ext("order", "false")
}

/// A property as it stands among others.
pub fn property(key: &str, value: &str) -> String {
    format!("{key}\u{1}{value}\u{2}")
}

/// The name of an internal status, such as FOUND; of other remarks only whether there is one.
fn kind_of_remark(remark: &str) -> String {
    let is_status = !remark.is_empty() && remark.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    match (remark.is_empty(), is_status) {
        (true, _) => "none".to_owned(),
        (_, true) => remark.to_owned(),
        _ => "text".to_owned(),
    }
}

/// Times of the clock, identifiers the broker makes, addresses and places in the log become words that say so. Lists are
/// masked item by item.
fn masked(key: &str, value: &str) -> String {
    if key == "POP_CK" {
        // The fourth part is the number of a revive queue, which Apache's broker draws.
        let parts = value.split(' ').enumerate();
        return parts
            .map(|(at, part)| masked(if at == 3 { PLACES[0] } else { "" }, part))
            .collect::<Vec<_>>()
            .join(" ");
    }
    for separator in [' ', ',', ';', '@'] {
        if value.contains(separator) {
            let items: Vec<_> = value.split(separator).map(|item| masked(key, item)).collect();
            return items.join(&separator.to_string());
        }
    }
    // Ids hold an address, of IPv4 or of IPv6.
    let is_hex = matches!(value.len(), 32 | 56)
        && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F'));
    match value.parse::<i64>() {
        _ if PLACES.contains(&key) => "PLACE".to_owned(),
        Ok(number) if number != BORN_MS && CLOCK_MS.contains(&number) => "TIME".to_owned(),
        _ if is_hex => "ID".to_owned(),
        _ if value.contains("127.0.0.1:") => "ADDRESS".to_owned(),
        _ => value.to_owned(),
    }
}

/// Masks a JSON body and puts lists in an order.
fn normalize(json: &mut Value) {
    fn walk(key: &str, json: &mut Value) {
        match json {
            Value::Object(members) => members.iter_mut().for_each(|(key, value)| walk(key, value)),
            Value::Array(items) => {
                items.iter_mut().for_each(|item| walk(key, item));
                items.sort_by_key(Value::to_string);
            }
            Value::String(text) => *text = masked(key, text),
            Value::Number(number) => {
                let text = masked(key, &number.to_string());
                if text != number.to_string() {
                    *json = Value::String(text);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
    walk("", json);
}
