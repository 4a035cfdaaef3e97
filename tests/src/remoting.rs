//! A small remoting client for tests that must say what no stock client says. Written without the project's codec, so
//! that a mistake there does not hide itself.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value};

/// No answer of a server under test takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);
const FLAG_RESPONSE: i64 = 1;
const FLAG_ONEWAY: i64 = 2;

/// Request codes of RocketMQ.
pub mod code {
    pub const SEND_MESSAGE: i32 = 10;
    pub const PULL_MESSAGE: i32 = 11;
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub const GET_MAX_OFFSET: i32 = 30;
    pub const HEART_BEAT: i32 = 34;
    pub const REGISTER_BROKER: i32 = 103;
    pub const UNREGISTER_BROKER: i32 = 104;
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    pub const SEND_MESSAGE_V2: i32 = 310;
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    pub const GET_TOPIC_CONFIG: i32 = 351;
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    pub const POP_MESSAGE: i32 = 200_050;
    pub const ACK_MESSAGE: i32 = 200_051;
}

/// A request with a JSON header.
#[derive(Clone, Debug)]
pub struct Request {
    code: i32,
    flag: i64,
    ext: Map<String, Value>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(code: i32) -> Self {
        Self { code, flag: 0, ext: Map::new(), body: Vec::new() }
    }

    /// A message of the group `tests` to one queue; the topic is made with `queue_count` queues if it is missing.
    pub fn send(topic: &str, queue_id: i32, properties: &str, body: &[u8]) -> Self {
        Self::new(code::SEND_MESSAGE_V2)
            .ext("a", "tests")
            .ext("b", topic)
            .ext("c", "TBW102")
            .ext("d", "4")
            .ext("e", &queue_id.to_string())
            .ext("f", "0")
            .ext("g", "1700000000000")
            .ext("h", "0")
            .ext("i", properties)
            .ext("j", "0")
            .ext("k", "false")
            .ext("m", "false")
            .body(body)
    }

    /// A batch (RocketMQ: request 320) whose body is `items`.
    pub fn batch(topic: &str, queue_id: i32, items: &[u8]) -> Self {
        let mut request = Self::send(topic, queue_id, "", items).ext("m", "true");
        request.code = code::SEND_BATCH_MESSAGE;
        request
    }

    /// The same with the header's long names (RocketMQ: request 10).
    pub fn send_v1(topic: &str, queue_id: i32, properties: &str, body: &[u8]) -> Self {
        const NAMES: [(&str, &str); 12] = [
            ("a", "producerGroup"),
            ("b", "topic"),
            ("c", "defaultTopic"),
            ("d", "defaultTopicQueueNums"),
            ("e", "queueId"),
            ("f", "sysFlag"),
            ("g", "bornTimestamp"),
            ("h", "flag"),
            ("i", "properties"),
            ("j", "reconsumeTimes"),
            ("k", "unitMode"),
            ("m", "batch"),
        ];
        let mut request = Self::send(topic, queue_id, properties, body);
        request.code = code::SEND_MESSAGE;
        for (short, long) in NAMES {
            let value = request.ext.remove(short).expect("a field of every send");
            request.ext.insert(long.to_owned(), value);
        }
        request
    }

    /// A pull of at most 32 messages, answered at once, that subscribes to all tags.
    pub fn pull(topic: &str, queue_id: i32, offset: i64) -> Self {
        Self::new(code::PULL_MESSAGE)
            .ext("consumerGroup", "tests")
            .ext("topic", topic)
            .ext("queueId", &queue_id.to_string())
            .ext("queueOffset", &offset.to_string())
            .ext("maxMsgNums", "32")
            .ext("sysFlag", "4")
            .ext("commitOffset", "0")
            .ext("suspendTimeoutMillis", "0")
            .ext("subscription", "*")
            .ext("subVersion", "0")
            .ext("expressionType", "TAG")
    }

    /// The same fields with another request code.
    pub fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Sets a header field.
    pub fn ext(mut self, key: &str, value: &str) -> Self {
        self.ext.insert(key.to_owned(), value.into());
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.ext.remove(key);
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub fn oneway(mut self) -> Self {
        self.flag = FLAG_ONEWAY;
        self
    }

    /// The header's JSON.
    pub fn header(&self, opaque: i32) -> String {
        serde_json::json!({
            "code": self.code, "flag": self.flag, "language": "JAVA", "opaque": opaque, "version": 513,
            "serializeTypeCurrentRPC": "JSON", "extFields": self.ext,
        })
        .to_string()
    }

    pub fn frame(&self, opaque: i32) -> Vec<u8> {
        frame(&self.header(opaque), &self.body)
    }
}

/// A frame with this JSON header, whatever it holds.
pub fn frame(header: &str, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + header.len() + body.len()).expect("a frame below 4 GiB");
    let header_length = u32::try_from(header.len()).expect("a header below 4 GiB");
    // The header length's top byte 0 means JSON.
    assert!(header_length < 1 << 24, "a header has 24 bits for its length");
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&header_length.to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    frame
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: i32,
    pub opaque: i32,
    pub remark: String,
    pub ext: Map<String, Value>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A number among the header fields, which carry numbers as text.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.ext.get(key)?.as_str()?.parse().ok()
    }
}

/// A request a server sends to its client.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    pub code: i32,
    pub ext: Map<String, Value>,
    pub body: Vec<u8>,
}

/// What one message of a pull's answer holds of what these tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub sys_flag: i32,
    pub born_ms: i64,
    pub reconsume_times: i32,
    /// Where the half message of a committed one is; else 0.
    pub prepared_offset: i64,
    pub body: Vec<u8>,
    pub properties: String,
}

/// The messages of a pull's body, as RocketMQ stores them.
pub fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let size_bytes = usize::try_from(int(bytes, 0)).expect("a record's size");
        let (record, rest) = bytes.split_at(size_bytes);
        // A host of an IPv6 address has 20 bytes instead of 8; the system flag says which.
        let sys_flag = int(record, 36);
        let hosts = [0x10, 0x20].map(|bit| if sys_flag & bit == 0 { 8 } else { 20 });
        let body_at = 48 + hosts[0] + 8 + hosts[1] + 4 + 8;
        let (body, after) = prefixed(&record[body_at + 4..], int(record, body_at));
        // Magic ..AB: two bytes for the topic's length instead of one.
        let (topic_length, after) = match record[7] {
            0xAB => (i32::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            _ => (i32::from(after[0]), &after[1..]),
        };
        let (topic, after) = prefixed(after, topic_length);
        let (properties, _) = prefixed(&after[2..], i32::from(u16::from_be_bytes([after[0], after[1]])));
        let reconsume_times_at = body_at - 12;
        records.push(Record {
            topic: String::from_utf8_lossy(topic).into_owned(),
            queue_id: int(record, 12),
            flag: int(record, 16),
            queue_offset: long(record, 20),
            physical_offset: long(record, 28),
            sys_flag,
            born_ms: long(record, 40),
            reconsume_times: int(record, reconsume_times_at),
            prepared_offset: long(record, reconsume_times_at + 4),
            body: body.to_vec(),
            properties: String::from_utf8_lossy(properties).into_owned(),
        });
        bytes = rest;
    }
    records
}

/// The two bits of a system flag that say: the body is a batch, and the client is to take it apart.
const INNER_BATCH: i32 = 0xC0;

/// The messages a client makes of a pull's body: a record that is an inner batch becomes the messages in it.
pub fn delivered(bytes: &[u8]) -> Vec<Record> {
    records(bytes).into_iter().flat_map(unwrapped).collect()
}

/// As `MessageDecoder.decodeMessage` of the Java client does it.
fn unwrapped(record: Record) -> Vec<Record> {
    if record.sys_flag & INNER_BATCH != INNER_BATCH {
        return vec![record];
    }
    let (mut rest, mut offset, mut messages) = (&record.body[..], record.queue_offset, Vec::new());
    while !rest.is_empty() {
        // Size, magic and checksum; then what counts.
        let (body, after) = prefixed(&rest[20..], int(rest, 16));
        let (properties, after) = prefixed(&after[2..], i32::from(u16::from_be_bytes([after[0], after[1]])));
        messages.push(Record {
            flag: int(rest, 12),
            queue_offset: offset,
            reconsume_times: 0,
            prepared_offset: 0,
            body: body.to_vec(),
            properties: String::from_utf8_lossy(properties).into_owned(),
            ..record.clone()
        });
        (rest, offset) = (after, offset + 1);
    }
    messages
}

fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn prefixed(bytes: &[u8], length: i32) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(length).expect("a length"))
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    opaque: i32,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(TIMEOUT)).expect("a read timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a write timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, opaque: 0 }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are. The server may have closed the connection already.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request without waiting for an answer; returns its opaque.
    pub fn start(&mut self, request: &Request) -> i32 {
        self.try_start(request).expect("the request is written")
    }

    /// Like [`Self::start`] for a server that may be killed meanwhile.
    pub fn try_start(&mut self, request: &Request) -> io::Result<i32> {
        self.opaque += 1;
        self.write(&request.frame(self.opaque))?;
        Ok(self.opaque)
    }

    /// Sends a request and returns its answer.
    pub fn call(&mut self, request: &Request) -> Reply {
        let opaque = self.start(request);
        let reply = self.reply().expect("an answer, not the end of the connection");
        assert_eq!(reply.opaque, opaque, "the answer of another request: {reply:?}");
        reply
    }

    /// The next answer; requests the server sends by itself are passed over. `None`: the server closed the connection.
    pub fn reply(&mut self) -> Option<Reply> {
        self.next_reply().expect("a whole frame")
    }

    /// Like [`Self::reply`] for a server that may be killed meanwhile: the end of the connection may also come within an
    /// answer.
    pub fn reply_before_crash(&mut self) -> Option<Reply> {
        self.next_reply().unwrap_or_else(|error| {
            assert!(is_close(&error), "waiting for an answer: {error}");
            None
        })
    }

    /// The next request the server sends by itself; answers are passed over.
    pub fn request_of_server(&mut self) -> ServerRequest {
        loop {
            let frame = read_frame(&mut self.stream).expect("a whole frame");
            let (header, body) = frame.expect("a request, not the end of the connection");
            if header["flag"].as_i64().is_some_and(|flag| flag & FLAG_RESPONSE == 0) {
                let ext = header["extFields"].as_object().cloned().unwrap_or_default();
                return ServerRequest { code: number(&header, "code"), ext, body };
            }
        }
    }

    fn next_reply(&mut self) -> io::Result<Option<Reply>> {
        while let Some((header, body)) = read_frame(&mut self.stream)? {
            if header["flag"].as_i64().is_some_and(|flag| flag & FLAG_RESPONSE != 0) {
                return Ok(Some(Reply {
                    code: number(&header, "code"),
                    opaque: number(&header, "opaque"),
                    remark: header["remark"].as_str().unwrap_or_default().to_owned(),
                    ext: header["extFields"].as_object().cloned().unwrap_or_default(),
                    body,
                }));
            }
        }
        Ok(None)
    }

    /// Reads, and drops, whatever comes until the server closes the connection. False: it did not within `patience`.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("a read timeout");
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if is_close(&error) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// The server's side of a connection: it reads requests with JSON headers.
#[derive(Debug)]
pub struct Answering {
    stream: TcpStream,
}

impl Answering {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Code and opaque of the next request. `None`: the client closed the connection.
    pub fn request(&mut self) -> Option<(i32, i32)> {
        let (header, _) = read_frame(&mut self.stream).expect("a whole frame")?;
        Some((number(&header, "code"), number(&header, "opaque")))
    }

    /// Answers code 0 and nothing else.
    pub fn answer_success(&mut self, opaque: i32) {
        let header = serde_json::json!({
            "code": 0, "flag": FLAG_RESPONSE, "language": "JAVA", "opaque": opaque, "version": 513,
            "serializeTypeCurrentRPC": "JSON",
        });
        // The client may be gone already.
        let _ = self.stream.write_all(&frame(&header.to_string(), b""));
    }
}

/// Header and body of the next frame. `None`: the other side closed the connection before it.
fn read_frame(stream: &mut TcpStream) -> io::Result<Option<(Value, Vec<u8>)>> {
    let mut lengths = [0; 8];
    if let Err(error) = stream.read_exact(&mut lengths) {
        assert!(is_close(&error), "waiting for a frame: {error}");
        return Ok(None);
    }
    let header_length = int(&lengths, 4) & 0x00FF_FFFF;
    let body_length = int(&lengths, 0) - 4 - header_length;
    let mut header = vec![0; usize::try_from(header_length).expect("a header length")];
    let mut body = vec![0; usize::try_from(body_length).expect("a body length")];
    stream.read_exact(&mut header)?;
    stream.read_exact(&mut body)?;
    // The header length's top byte is the header's form.
    let header = match lengths[4] {
        0 => serde_json::from_slice(&header).expect("a JSON header"),
        1 => binary_header(&header),
        kind => panic!("a frame of serialisation {kind}"),
    };
    Ok(Some((header, body)))
}

/// What a binary header says, without its fields.
fn binary_header(header: &[u8]) -> Value {
    let code = i16::from_be_bytes([header[0], header[1]]);
    let (remark, _) = prefixed(&header[17..], int(header, 13));
    let remark = String::from_utf8_lossy(remark);
    serde_json::json!({ "code": code, "opaque": int(header, 5), "flag": int(header, 9), "remark": remark })
}

fn number(header: &Value, key: &str) -> i32 {
    let number = header[key].as_i64().and_then(|number| i32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no {key} in {header}"))
}

/// A server may end a connection with or without having read all of it.
fn is_close(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
