//! The few questions asked before the load starts: where a topic lives, how long its queues are.
//! Blocking, one request at a time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;

use crate::error::BenchError;
use crate::frame::{self, FrameWriter, OPAQUE_FIRST, Reply, Serialization, request, response};
use crate::options::CommonOptions;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Topic whose settings a broker uses for topics it creates on the first message.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
const QUEUES_DEFAULT: u32 = 4;
const PERMISSION_READ: u32 = 4;
const PERMISSION_WRITE: u32 = 2;

/// One queue that can be sent to or pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub broker: SocketAddr,
    /// Absent when the broker was given by address.
    pub broker_name: Option<String>,
    pub topic: String,
    pub queue_id: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Send,
    Pull,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Route {
    broker_datas: Vec<BrokerData>,
    queue_datas: Vec<QueueData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BrokerData {
    broker_name: String,
    broker_addrs: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueueData {
    broker_name: String,
    perm: u32,
    read_queue_nums: u32,
    write_queue_nums: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClusterInfo {
    broker_addr_table: BTreeMap<String, BrokerData>,
}

pub fn resolve(address: &str) -> Result<SocketAddr, BenchError> {
    address
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| BenchError::Address(address.to_owned()))
}

/// The queues of the topics named by `options`, sorted by topic, broker and queue.
pub fn queues(options: &CommonOptions, purpose: Purpose) -> Result<Vec<Queue>, BenchError> {
    let wanted = options.queues.unwrap_or(u32::MAX);
    let mut queues = Vec::new();
    if let Some(broker) = &options.broker {
        let broker = resolve(broker)?;
        for topic in options.topic_names() {
            let count = options.queues.unwrap_or(QUEUES_DEFAULT);
            push_queues(&mut queues, broker, None, &topic, count);
        }
        return Ok(queues);
    }
    let mut name_server = name_server(&options.namesrv)?;
    for topic in options.topic_names() {
        let (route, count_max) = match route(&mut name_server, &topic)? {
            Some(route) => (route, wanted),
            None if purpose == Purpose::Send => {
                let route =
                    route(&mut name_server, AUTO_CREATE_TOPIC)?.ok_or_else(|| BenchError::NoRoute(topic.clone()))?;
                (route, options.queues.unwrap_or(QUEUES_DEFAULT))
            }
            None => return Err(BenchError::NoRoute(topic)),
        };
        for data in &route.queue_datas {
            let (permission, count) = match purpose {
                Purpose::Send => (PERMISSION_WRITE, data.write_queue_nums),
                Purpose::Pull => (PERMISSION_READ, data.read_queue_nums),
            };
            let master = route
                .broker_datas
                .iter()
                .find(|broker| broker.broker_name == data.broker_name)
                .and_then(|broker| broker.broker_addrs.get("0"));
            if let (Some(master), true) = (master, data.perm & permission != 0) {
                let (name, broker) = (data.broker_name.clone(), resolve(master)?);
                push_queues(&mut queues, broker, Some(name), &topic, count.min(count_max));
            }
        }
    }
    if queues.is_empty() {
        return Err(BenchError::NoRoute(options.topic.clone()));
    }
    Ok(queues)
}

fn push_queues(queues: &mut Vec<Queue>, broker: SocketAddr, broker_name: Option<String>, topic: &str, count: u32) {
    queues.extend((0..count).map(|queue_id| Queue {
        broker,
        broker_name: broker_name.clone(),
        topic: topic.to_owned(),
        queue_id,
    }));
}

/// Creates the topics on every master and returns their queues.
pub fn create_topics(options: &CommonOptions) -> Result<Vec<Queue>, BenchError> {
    let masters: Vec<(SocketAddr, Option<String>)> = match &options.broker {
        Some(broker) => vec![(resolve(broker)?, None)],
        None => masters(&mut name_server(&options.namesrv)?)?,
    };
    let count = options.queues.unwrap_or(QUEUES_DEFAULT);
    let mut queues = Vec::new();
    for (broker, name) in masters {
        let mut admin = AdminConnection::open(broker)?;
        for topic in options.topic_names() {
            admin.create_topic(&topic, count)?;
            push_queues(&mut queues, broker, name.clone(), &topic, count);
        }
    }
    Ok(queues)
}

fn name_server(list: &str) -> Result<AdminConnection, BenchError> {
    let mut failure = BenchError::Address(list.to_owned());
    for address in list.split([';', ',']).map(str::trim).filter(|text| !text.is_empty()) {
        match resolve(address).and_then(AdminConnection::open) {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn route(name_server: &mut AdminConnection, topic: &str) -> Result<Option<Route>, BenchError> {
    let ext = [("topic", topic), ("acceptStandardJsonOnly", "true")];
    let answer = name_server.call(request::GET_ROUTE, &ext)?;
    match answer.code {
        response::SUCCESS => parse(&answer.body, "the route request").map(Some),
        response::TOPIC_NOT_EXIST => Ok(None),
        _ => Err(answer.refused("the route request")),
    }
}

fn masters(name_server: &mut AdminConnection) -> Result<Vec<(SocketAddr, Option<String>)>, BenchError> {
    let answer = name_server.call(request::GET_CLUSTER_INFO, &[])?;
    if answer.code != response::SUCCESS {
        return Err(answer.refused("the cluster request"));
    }
    let cluster: ClusterInfo = parse(&answer.body, "the cluster request")?;
    let masters = cluster.broker_addr_table.into_iter().filter_map(|(name, data)| {
        let address = data.broker_addrs.get("0")?;
        Some(resolve(address).map(|address| (address, Some(name))))
    });
    let masters = masters.collect::<Result<Vec<_>, _>>()?;
    if masters.is_empty() {
        return Err(BenchError::Answer { what: "the cluster request", reason: "no broker is registered".to_owned() });
    }
    Ok(masters)
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8], what: &'static str) -> Result<T, BenchError> {
    serde_json::from_str(&quote_keys(&String::from_utf8_lossy(body)))
        .map_err(|error| BenchError::Answer { what, reason: error.to_string() })
}

/// RocketMQ writes integer keys of maps without quotes (`{0:"127.0.0.1:10911"}`).
fn quote_keys(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    let (mut is_inside_text, mut is_escaped, mut may_start_key) = (false, false, false);
    let mut rest = json.chars().peekable();
    while let Some(character) = rest.next() {
        if !is_inside_text && may_start_key && character.is_ascii_digit() {
            let mut digits = character.to_string();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            if rest.peek() == Some(&':') {
                digits = format!("\"{digits}\"");
            }
            out.push_str(&digits);
        } else {
            if character == '"' && !is_escaped {
                is_inside_text = !is_inside_text;
            }
            is_escaped = is_inside_text && character == '\\' && !is_escaped;
            out.push(character);
        }
        may_start_key = matches!(character, '{' | ',');
    }
    out
}

/// A reply that owns its bytes.
pub struct Answer {
    pub code: i32,
    pub remark: String,
    pub offset: Option<i64>,
    pub body: Vec<u8>,
}

impl Answer {
    fn refused(self, what: &'static str) -> BenchError {
        BenchError::Refused { what, code: self.code, remark: self.remark }
    }
}

pub struct AdminConnection {
    socket: TcpStream,
    opaque: i32,
}

impl AdminConnection {
    pub fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let open = || {
            let socket = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
            socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| BenchError::Connect { address, source })?;
        Ok(Self { socket, opaque: OPAQUE_FIRST })
    }

    pub fn call(&mut self, code: i32, ext: &[(&str, &str)]) -> Result<Answer, BenchError> {
        self.opaque += 1;
        let mut out = Vec::new();
        let mut writer = FrameWriter::begin(&mut out, Serialization::Json, code, self.opaque);
        for (key, value) in ext {
            writer.text(key, value);
        }
        writer.finish(0);
        self.socket.write_all(&out)?;
        loop {
            let mut frame = vec![0; 4];
            self.socket.read_exact(&mut frame)?;
            let size = frame::frame_size(&frame)?.unwrap_or(frame.len());
            frame.resize(size, 0);
            self.socket.read_exact(&mut frame[4..])?;
            let reply = Reply::scan(&frame)?;
            if reply.opaque == self.opaque {
                return Ok(Answer {
                    code: reply.code,
                    remark: reply.remark(),
                    offset: reply.ext_int("offset"),
                    body: reply.body.to_vec(),
                });
            }
        }
    }

    fn create_topic(&mut self, topic: &str, queues: u32) -> Result<(), BenchError> {
        let queues = queues.to_string();
        let ext = [
            ("topic", topic),
            ("defaultTopic", AUTO_CREATE_TOPIC),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        let answer = self.call(request::UPDATE_AND_CREATE_TOPIC, &ext)?;
        match answer.code {
            response::SUCCESS => Ok(()),
            _ => Err(answer.refused("creating the topic")),
        }
    }

    /// First offset of a queue, or one past its last.
    pub fn bound(&mut self, queue: &Queue, code: i32) -> Result<i64, BenchError> {
        let queue_id = queue.queue_id.to_string();
        let mut ext = vec![("topic", queue.topic.as_str()), ("queueId", &queue_id)];
        if code == request::GET_MAX_OFFSET {
            ext.push(("committed", "true"));
        }
        let answer = self.call(code, &ext)?;
        match (answer.code, answer.offset) {
            (response::SUCCESS, Some(offset)) => Ok(offset),
            (response::SUCCESS, None) => {
                Err(BenchError::Answer { what: "asking for a queue's bounds", reason: "no offset in it".to_owned() })
            }
            _ => Err(answer.refused("asking for a queue's bounds")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_integer_keys_are_quoted_and_texts_left_alone() {
        assert_eq!(
            quote_keys(r#"{"a":{0:"x,1:\"{2:",12:"y"},"b":[1,2],"c":3}"#),
            r#"{"a":{"0":"x,1:\"{2:","12":"y"},"b":[1,2],"c":3}"#
        );
    }

    #[test]
    fn cluster_of_the_reference_name_server_is_read() {
        let body = br#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#;
        let cluster: ClusterInfo = parse(body, "test").unwrap();
        assert_eq!(cluster.broker_addr_table["broker-a"].broker_addrs["0"], "127.0.0.1:10911");
    }
}
