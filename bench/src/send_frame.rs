//! Send requests, written once per queue and tag, then copied and patched per message.
//!
//! Patched are the opaque, the born timestamp, UNIQ_KEY (which stock clients put on every message),
//! KEYS, `number` and TIMER_DELIVER_MS where asked for, and the stamp of the body. Everything else is
//! the same for all messages of a queue.

use crate::cluster::{AUTO_CREATE_TOPIC, Queue};
use crate::delay::{Delay, scattered};
use crate::frame::{self, FrameWriter, OPAQUE_FIRST, Serialization, request};
use crate::options::ProducerOptions;
use crate::stamp::{BodyTemplate, Stamp};

pub const UNIQUE_KEY_BYTES: usize = 32;
const KEY_BYTES: usize = 16;
/// Milliseconds since 1970, until the year 2286.
const MOMENT_DIGITS: usize = 13;
const NUMBER_DIGITS: usize = 4;
const NUMBERS: u64 = 10_000;
/// RocketMQ's sysFlag of a half message.
const PREPARED: &str = "4";
/// Stand in for values that are patched; no other property holds such runs.
const UNIQUE_KEY_PLACE: [u8; UNIQUE_KEY_BYTES] = [b'U'; UNIQUE_KEY_BYTES];
const KEY_PLACE: [u8; KEY_BYTES] = [b'K'; KEY_BYTES];
const NUMBER_PLACE: [u8; NUMBER_DIGITS] = [b'N'; NUMBER_DIGITS];
const DELIVER_PLACE: [u8; MOMENT_DIGITS] = [b'D'; MOMENT_DIGITS];
/// Item of a batch body before its message body: total size, magic, CRC, flag, body length.
const ITEM_HEAD_BYTES: usize = 20;

/// What tells one message from all others.
#[derive(Clone, Copy)]
pub struct MessageId {
    pub producer: u64,
    /// Number of the (first) message among those of this producer in this queue.
    pub sequence: u64,
    /// Number of the (first) message among all of this producer.
    pub serial: u64,
    pub sent_us: u64,
}

/// Where the properties that differ between messages stand in a piece of a frame.
#[derive(Clone, Copy, Default)]
struct PropertyPlaces {
    unique_key_at: Option<usize>,
    key_at: Option<usize>,
    number_at: Option<usize>,
    deliver_at: Option<usize>,
}

impl PropertyPlaces {
    fn find(bytes: &[u8], from: usize) -> Self {
        let find = |place: &[u8]| memchr::memmem::find(&bytes[from..], place).map(|at| at + from);
        Self {
            unique_key_at: find(&UNIQUE_KEY_PLACE),
            key_at: find(&KEY_PLACE),
            number_at: find(&NUMBER_PLACE),
            deliver_at: find(&DELIVER_PLACE),
        }
    }

    fn patch(self, out: &mut [u8], producer: u64, serial: u64, due_us: u64) {
        if let Some(at) = self.unique_key_at {
            frame::put_hex(out, at, producer);
            frame::put_hex(out, at + KEY_BYTES, serial);
        }
        if let Some(at) = self.key_at {
            frame::put_hex(out, at, producer << 32 | serial & 0xffff_ffff);
        }
        if let Some(at) = self.number_at {
            frame::put_digits(out, at, NUMBER_DIGITS, scattered(serial, NUMBERS));
        }
        if let Some(at) = self.deliver_at {
            frame::put_digits(out, at, MOMENT_DIGITS, due_us / 1_000);
        }
    }
}

struct Head {
    bytes: Vec<u8>,
    opaque_at: usize,
    born_at: usize,
    properties: PropertyPlaces,
}

/// Properties of a batch item, with their length before them.
struct ItemTail {
    bytes: Vec<u8>,
    properties: PropertyPlaces,
}

pub struct SendFrames {
    serialization: Serialization,
    body: BodyTemplate,
    delay: Delay,
    batch: u64,
    /// By queue, then by tag; a batch has one per queue.
    heads: Vec<Head>,
    heads_per_queue: usize,
    item_head: [u8; ITEM_HEAD_BYTES],
    /// By tag; batches only.
    item_tails: Vec<ItemTail>,
}

impl SendFrames {
    pub fn new(options: &ProducerOptions, queues: &[Queue]) -> Self {
        let serialization = options.common.header;
        let body = BodyTemplate::new(options.body, options.size);
        let tags: Vec<Option<&str>> = match options.tags.is_empty() {
            true => vec![None],
            false => options.tags.iter().map(|tag| Some(tag.as_str())).collect(),
        };
        let is_batch = options.batch > 1;
        let properties: Vec<_> = tags.iter().map(|tag| properties(*tag, options)).collect();
        let mut item_tails = Vec::new();
        let mut request_bytes = body.size_bytes();
        let mut item_head = [0; ITEM_HEAD_BYTES];
        if is_batch {
            item_tails = properties.iter().map(|text| item_tail(text)).collect();
            // All tails are patched in place, so their total depends on the tags alone.
            let item_bytes = |tail: &ItemTail| ITEM_HEAD_BYTES + body.size_bytes() + tail.bytes.len();
            let tails = item_tails.iter().cycle().take(options.batch as usize);
            request_bytes = tails.map(item_bytes).sum();
            frame::put(&mut item_head, 16, &(body.size_bytes() as u32).to_be_bytes());
        }
        let batch_properties = ["WAIT\u{1}true\u{2}".to_owned()];
        let head_properties: &[String] = if is_batch { &batch_properties } else { &properties };
        let heads = queues
            .iter()
            .flat_map(|queue| head_properties.iter().map(|text| head(options, queue, text, request_bytes)));
        Self {
            serialization,
            heads: heads.collect(),
            heads_per_queue: head_properties.len(),
            body,
            delay: Delay::new(options),
            batch: u64::from(options.batch),
            item_head,
            item_tails,
        }
    }

    pub fn messages_per_request(&self) -> u64 {
        self.batch
    }

    pub fn body_bytes_per_request(&self) -> u64 {
        self.batch * self.body.size_bytes() as u64
    }

    /// Appends one request for queue number `queue`.
    pub fn append_to(&self, out: &mut Vec<u8>, queue: usize, opaque: i32, id: MessageId) {
        let tag = id.serial as usize % self.heads_per_queue;
        let head = &self.heads[queue * self.heads_per_queue + tag];
        let start = out.len();
        out.extend_from_slice(&head.bytes);
        let frame = &mut out[start..];
        frame::put_opaque(frame, head.opaque_at, self.serialization, opaque);
        frame::put_digits(frame, head.born_at, MOMENT_DIGITS, id.sent_us / 1_000);
        let due_us = self.delay.due_us(id.sent_us, id.serial);
        head.properties.patch(frame, id.producer, id.serial, due_us);
        if self.batch > 1 {
            self.append_items(out, id, due_us);
        } else {
            self.body.append_to(out, Stamp { producer: id.producer, sequence: id.sequence, due_us });
        }
    }

    fn append_items(&self, out: &mut Vec<u8>, id: MessageId, due_us: u64) {
        let tails = self.item_tails.iter().cycle();
        for (index, tail) in (0..self.batch).zip(tails) {
            let size = ITEM_HEAD_BYTES + self.body.size_bytes() + tail.bytes.len();
            let item_at = out.len();
            out.extend_from_slice(&self.item_head);
            frame::put(out, item_at, &(size as u32).to_be_bytes());
            self.body.append_to(out, Stamp { producer: id.producer, sequence: id.sequence + index, due_us });
            let tail_at = out.len();
            out.extend_from_slice(&tail.bytes);
            tail.properties.patch(&mut out[tail_at..], id.producer, id.serial + index, due_us);
        }
    }
}

fn properties(tag: Option<&str>, options: &ProducerOptions) -> String {
    let mut text = String::new();
    let mut push = |key: &str, value: &str| {
        text.push_str(key);
        text.push('\u{1}');
        text.push_str(value);
        text.push('\u{2}');
    };
    push("UNIQ_KEY", &String::from_utf8_lossy(&UNIQUE_KEY_PLACE));
    if options.keys {
        push("KEYS", &String::from_utf8_lossy(&KEY_PLACE));
    }
    if options.number {
        push("number", &String::from_utf8_lossy(&NUMBER_PLACE));
    }
    match Delay::new(options) {
        Delay::None => {}
        Delay::Level(level) => push("DELAY", &level.to_string()),
        Delay::Timer(_) => push("TIMER_DELIVER_MS", &String::from_utf8_lossy(&DELIVER_PLACE)),
    }
    push("WAIT", "true");
    if options.transaction {
        push("TRAN_MSG", "true");
        push("PGROUP", &options.group);
    }
    if let Some(tag) = tag {
        push("TAGS", tag);
    }
    text
}

fn item_tail(properties: &str) -> ItemTail {
    let mut bytes = (properties.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(properties.as_bytes());
    ItemTail { properties: PropertyPlaces::find(&bytes, 0), bytes }
}

fn head(options: &ProducerOptions, queue: &Queue, properties: &str, body_bytes: usize) -> Head {
    let is_batch = options.batch > 1;
    let code = match is_batch {
        true => request::SEND_BATCH_MESSAGE,
        false => request::SEND_MESSAGE_V2,
    };
    let mut bytes = Vec::new();
    let serialization = options.common.header;
    let mut writer = FrameWriter::begin(&mut bytes, serialization, code, OPAQUE_FIRST);
    writer.text("a", &options.group);
    writer.text("b", &queue.topic);
    writer.text("c", AUTO_CREATE_TOPIC);
    writer.int("d", i64::from(options.common.queues.unwrap_or(4)));
    writer.int("e", i64::from(queue.queue_id));
    writer.text("f", if options.transaction { PREPARED } else { "0" });
    let born_at = writer.text("g", "1700000000000");
    writer.text("h", "0");
    let properties_at = writer.text("i", properties);
    writer.text("j", "0");
    writer.text("k", "false");
    writer.text("m", if is_batch { "true" } else { "false" });
    if let Some(name) = &queue.broker_name {
        writer.text("n", name);
    }
    let opaque_at = writer.finish(body_bytes);
    Head { opaque_at, born_at, properties: PropertyPlaces::find(&bytes, properties_at), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::frame_size;
    use crate::options::{Options, Work};
    use crate::stamp;
    use clap::Parser;

    fn frames(arguments: &str) -> SendFrames {
        let arguments = format!("rmq-bench producer --topic T {arguments}");
        let Work::Producer(options) = Options::parse_from(arguments.split_whitespace()).work else {
            panic!("not a producer");
        };
        let queue = |queue_id| Queue {
            broker: ([127, 0, 0, 1], 10911).into(),
            broker_name: Some("broker-a".to_owned()),
            topic: "T".to_owned(),
            queue_id,
        };
        SendFrames::new(&options, &[queue(0), queue(1)])
    }

    const ID: MessageId = MessageId { producer: 7 << 32 | 1, sequence: 40, serial: 83, sent_us: 1_712_345_678_901_234 };

    fn header_and_body(frame: &[u8]) -> (serde_json::Value, &[u8]) {
        assert_eq!(frame_size(frame).unwrap(), Some(frame.len()));
        let header_bytes = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        let (header, body) = frame[8..].split_at(header_bytes);
        (serde_json::from_slice(header).unwrap(), body)
    }

    #[test]
    fn single_send_is_patched_everywhere() {
        let frames = frames("--size 100 --keys --tags A,B");
        let mut out = Vec::new();
        frames.append_to(&mut out, 1, OPAQUE_FIRST + 9, ID);
        let (header, body) = header_and_body(&out);
        assert_eq!(header["code"], 310);
        assert_eq!(header["opaque"], OPAQUE_FIRST + 9);
        let ext = &header["extFields"];
        assert_eq!(ext["e"], "1");
        assert_eq!(ext["g"], "1712345678901");
        assert_eq!(ext["m"], "false");
        assert_eq!(
            ext["i"],
            "UNIQ_KEY\u{1}00000007000000010000000000000053\u{2}KEYS\u{1}0000000100000053\u{2}WAIT\u{1}true\u{2}TAGS\u{1}B\u{2}"
        );
        assert_eq!(stamp::check(body).unwrap().sequence, 40);
        assert_eq!(body.len(), 100);
    }

    #[test]
    fn delays_transactions_and_numbers_are_properties() {
        let properties = |arguments: &str| {
            let mut out = Vec::new();
            frames(arguments).append_to(&mut out, 0, OPAQUE_FIRST, ID);
            let (header, body) = header_and_body(&out);
            let due_us = stamp::check(body).unwrap().due_us;
            (header["extFields"]["i"].as_str().unwrap().to_owned(), header["extFields"]["f"].clone(), due_us)
        };
        let (text, _, due_us) = properties("--delay-level 2 --number");
        assert!(text.contains("number\u{1}7277\u{2}DELAY\u{1}2\u{2}"), "{text}");
        assert_eq!(due_us, ID.sent_us + 5_000_000);
        let (text, _, due_us) = properties("--timer-ms 6000");
        assert!(text.contains(&format!("TIMER_DELIVER_MS\u{1}{}\u{2}", due_us / 1_000)), "{text}");
        assert!(ID.sent_us + 2_000_000 < due_us);
        let (text, sys_flag, _) = properties("--transaction --group pg");
        assert!(text.ends_with("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}"), "{text}");
        assert_eq!(sys_flag, "4");
    }

    #[test]
    fn batch_items_carry_their_own_stamps_and_keys() {
        let frames = frames("--size 64 --batch 3 --tags A,BB");
        let mut out = Vec::new();
        frames.append_to(&mut out, 0, OPAQUE_FIRST, ID);
        let (header, mut body) = header_and_body(&out);
        assert_eq!(header["code"], 320);
        assert_eq!(header["extFields"]["m"], "true");
        for index in 0..3 {
            let size = u32::from_be_bytes(body[..4].try_into().unwrap()) as usize;
            assert_eq!(body[16..20], 64u32.to_be_bytes());
            let stamp = stamp::check(&body[20..84]).unwrap();
            assert_eq!(stamp.sequence, 40 + index);
            let properties = u16::from_be_bytes(body[84..86].try_into().unwrap()) as usize;
            assert_eq!(size, 86 + properties);
            body = &body[size..];
        }
        assert!(body.is_empty());
    }

    #[test]
    fn binary_headers_are_patched_too() {
        let frames = frames("--size 32 --header binary");
        let mut out = Vec::new();
        frames.append_to(&mut out, 0, OPAQUE_FIRST + 1, ID);
        assert_eq!(frame_size(&out).unwrap(), Some(out.len()));
        let reply = crate::frame::Reply::scan(&out).unwrap();
        assert_eq!((reply.code, reply.opaque), (310, OPAQUE_FIRST + 1));
        assert_eq!(reply.ext_int("g"), Some(1_712_345_678_901));
    }
}
