//! A broker of several cores in one thread, for tests of request handlers: letters are carried by hand,
//! storage is memory, the clock is a number. The same run every time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rmq_engine::memory::MemoryStorage;
use rmq_engine::{CommandKind, Durability, Geometry, ShardConfig, StorageCommand, StorageError};
use rmq_net::codes::request as code;
use rmq_net::connection::{ConnectionId, ListenerRole, Peer, Verdict};
use rmq_net::frame::{Frame, Serialization};
use rmq_net::reply::FrameWriter;

use crate::broker::{Broker, BrokerParts};
use crate::config::{BrokerConfig, FlushDiskType, Machine, Origin, Settings};
use crate::letter::{Letter, ReplyParcel};
use crate::start::{stored_settings, tables};
use crate::state::clients::ClientRegistry;
use crate::state::stats::BrokerStats;
use crate::system::System;

/// More rounds than any exchange of letters needs; beyond it the cores would talk for ever.
const ROUNDS_MAX: usize = 200;

/// How a core's storage treats what it is told to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Works,
    /// Writes start and do not end until the disk works again.
    Stuck,
    /// Writes fail, which ends the log for good.
    Broken,
}

/// A frame that left the broker.
#[derive(Clone, Debug)]
pub struct Sent {
    pub is_request: bool,
    pub opaque: i32,
    pub code: i32,
    pub remark: String,
    pub ext: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn ext(&self, key: &str) -> &str {
        self.ext.get(key).map_or("", String::as_str)
    }
}

struct CoreOfTest {
    broker: Broker,
    storage: MemoryStorage,
    disk: Disk,
    stuck: VecDeque<StorageCommand>,
}

pub struct Cores {
    cores: Vec<CoreOfTest>,
    letters: VecDeque<(usize, usize, Letter)>,
    sent: Vec<Sent>,
    next_opaque: i32,
    config: Arc<BrokerConfig>,
    /// How often the cores were started.
    starts: u64,
    pub now_ms: i64,
}

fn configured(properties: &[(&str, &str)]) -> BrokerConfig {
    let machine = Machine {
        host_name: "broker-a".into(),
        address: "127.0.0.1".into(),
        home: "/nowhere".into(),
        cores: 2,
        rocketmq_home: String::new(),
    };
    let mut settings = Settings::broker(&machine);
    for (name, value) in properties {
        settings.set(name, value, Origin::Default).expect("a property's value");
    }
    BrokerConfig::from_settings(settings).expect("a configuration")
}

/// A pull of up to 32 messages tagged A of the topic T, without waiting.
pub fn pull_fields<'a>(queue_id: &'a str, offset: &'a str) -> [(&'static str, &'a str); 11] {
    [
        ("commitOffset", "0"),
        ("consumerGroup", "g"),
        ("expressionType", "TAG"),
        ("maxMsgNums", "32"),
        ("queueId", queue_id),
        ("queueOffset", offset),
        ("subVersion", "0"),
        ("subscription", "A"),
        ("suspendTimeoutMillis", "0"),
        ("sysFlag", "4"),
        ("topic", "T"),
    ]
}

/// The one client connected to a core.
pub fn client_of(core: usize) -> Peer {
    Peer {
        id: ConnectionId::from_key((core as u64) << 56 | 1),
        address: "127.0.0.1:40000".parse().expect("an address"),
        role: ListenerRole::Broker,
    }
}

impl Cores {
    pub fn new(count: usize) -> Self {
        Self::with_config(count, &[])
    }

    pub fn with_config(count: usize, properties: &[(&str, &str)]) -> Self {
        let mut cores = Self {
            cores: Vec::new(),
            letters: VecDeque::new(),
            sent: Vec::new(),
            next_opaque: 1,
            config: Arc::new(configured(properties)),
            starts: 0,
            now_ms: 1_700_000_000_000,
        };
        cores.start((0..count).map(|_| MemoryStorage::new()).collect());
        cores
    }

    /// The process is killed and started again: what its storage has is all that is left.
    pub fn restart(&mut self) {
        let storages = self.cores.drain(..).map(|core| core.storage).collect();
        self.letters.clear();
        self.start(storages);
    }

    /// As [`restart`](Self::restart), and the first `commands` of each stuck disk were carried out before.
    pub fn crash(&mut self, commands: usize) {
        for CoreOfTest { broker, storage, stuck, .. } in &mut self.cores {
            for command in stuck.drain(..commands.min(stuck.len())) {
                storage.carry_out(&mut broker.shard, command);
            }
        }
        self.restart();
    }

    fn start(&mut self, storages: Vec<MemoryStorage>) {
        let (config, now_ms, count) = (self.config.clone(), self.now_ms, storages.len());
        self.starts += 1;
        let durability = match config.flush_disk_type {
            FlushDiskType::Async => Durability::Async,
            FlushDiskType::Sync => Durability::Sync,
        };
        let mut stored = None;
        for (core, mut storage) in storages.into_iter().enumerate() {
            let geometry = Geometry { segment_bytes: 16 << 20, chunk_bytes: 1 << 16 };
            let indexes_keys = config.message_index_enable;
            let shard_config =
                ShardConfig { geometry, durability, indexes_keys, ..ShardConfig::new(core as u16, self.starts) };
            let shard = storage.open(shard_config).expect("a shard");
            let settings = stored.get_or_insert_with(|| stored_settings(&shard));
            let (topics, groups) = tables(&config, settings, now_ms).expect("settings to read");
            let system = (core == 0).then(|| {
                let clients = ClientRegistry::new(config.reject_pull_consumer_enable, config.channel_expired_timeout);
                System::new(clients, None, None, BrokerStats::new("DefaultCluster", 0, now_ms), now_ms)
            });
            let store_host = "127.0.0.1:10911".parse().expect("an address");
            let config = config.clone();
            let scrub_state = Arc::default();
            let parts =
                BrokerParts { config, core_count: count, store_host, shard, topics, groups, system, scrub_state };
            let broker = Broker::new(core, parts, now_ms);
            self.cores.push(CoreOfTest { broker, storage, disk: Disk::Works, stuck: VecDeque::new() });
        }
    }

    pub fn count(&self) -> usize {
        self.cores.len()
    }

    pub fn broker(&mut self, core: usize) -> &mut Broker {
        &mut self.cores[core].broker
    }

    pub fn set_disk(&mut self, core: usize, disk: Disk) {
        self.cores[core].disk = disk;
    }

    /// A queue of the topic that the core owns.
    pub fn queue_on(&mut self, core: usize, topic: &str) -> u32 {
        (0..64).find(|queue_id| self.cores[0].broker.owner(topic, *queue_id) == core).expect("cores share queues")
    }

    /// Sends a request from a client connected to `core` and carries it through, answer or not.
    pub fn post(&mut self, core: usize, code: i32, ext: &[(&'static str, &str)], body: &[u8]) -> i32 {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut bytes = Vec::new();
        FrameWriter::request(&mut bytes, Serialization::Json, code, opaque, false, body.len(), |writer| {
            ext.iter().for_each(|(key, value)| writer.text(key, value));
        });
        bytes.extend_from_slice(body);
        let peer = client_of(core);
        self.cores[core].broker.now_ms = self.now_ms;
        let verdict = self.cores[core].broker.on_frame(&peer, &bytes);
        assert_eq!(verdict, Verdict::Later, "a request is taken");
        self.run();
        opaque
    }

    /// As [`post`](Self::post), and returns the one answer.
    pub fn call(&mut self, core: usize, code: i32, ext: &[(&'static str, &str)], body: &[u8]) -> Sent {
        let opaque = self.post(core, code, ext, body);
        let mut answers = self.answers_to(opaque);
        assert_eq!(answers.len(), 1, "request {code} of core {core} gets one answer: {answers:?}");
        answers.remove(0)
    }

    /// Takes what has been answered to a request so far.
    pub fn answers_to(&mut self, opaque: i32) -> Vec<Sent> {
        self.sent.extract_if(.., |sent| !sent.is_request && sent.opaque == opaque).collect()
    }

    /// Takes what the broker has asked of clients so far.
    pub fn requests_to_clients(&mut self) -> Vec<Sent> {
        self.sent.extract_if(.., |sent| sent.is_request).collect()
    }

    /// An answer from the client connected to `core`, to a request of the broker's.
    pub fn answer_as_client(&mut self, core: usize, opaque: i32, code: i32) {
        self.answer_as_client_with(core, opaque, code, b"");
    }

    pub fn answer_as_client_with(&mut self, core: usize, opaque: i32, code: i32, body: &[u8]) {
        let mut bytes = Vec::new();
        FrameWriter::response(&mut bytes, Serialization::Json, code, opaque, None, body.len(), |_| ());
        bytes.extend_from_slice(body);
        let verdict = self.cores[core].broker.on_frame(&client_of(core), &bytes);
        assert_eq!(verdict, Verdict::Done, "an answer is taken");
        self.run();
    }

    /// The client connected to `core` is gone.
    pub fn close_client(&mut self, core: usize) {
        crate::system::on_connection_closed(&mut self.cores[core].broker, client_of(core).id);
        self.run();
    }

    /// SEND_MESSAGE_V2 with properties as `(key, value)`.
    pub fn send(&mut self, core: usize, topic: &str, queue_id: u32, properties: &[(&str, &str)]) -> Sent {
        self.send_with(core, topic, queue_id, properties, &[], b"body")
    }

    /// As [`send`](Self::send), with ext fields of one letter that replace the usual ones.
    pub fn send_with(
        &mut self,
        core: usize,
        topic: &str,
        queue_id: u32,
        properties: &[(&str, &str)],
        other: &[(&'static str, &str)],
        body: &[u8],
    ) -> Sent {
        let opaque = self.post_send(core, topic, queue_id, properties, other, body);
        let mut answers = self.answers_to(opaque);
        assert_eq!(answers.len(), 1, "a send gets one answer: {answers:?}");
        answers.remove(0)
    }

    pub fn post_send(
        &mut self,
        core: usize,
        topic: &str,
        queue_id: u32,
        properties: &[(&str, &str)],
        other: &[(&'static str, &str)],
        body: &[u8],
    ) -> i32 {
        let text: String = properties.iter().map(|(key, value)| format!("{key}\u{1}{value}\u{2}")).collect();
        let queue_id = queue_id.to_string();
        let mut ext: BTreeMap<&'static str, &str> = BTreeMap::from([
            ("a", "producers"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "8"),
            ("e", queue_id.as_str()),
            ("f", "0"),
            ("g", "1699999999000"),
            ("h", "0"),
            ("i", text.as_str()),
        ]);
        ext.extend(other.iter().copied());
        let ext: Vec<_> = ext.into_iter().collect();
        self.post(core, code::SEND_MESSAGE_V2, &ext, body)
    }

    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP with the members of the JSON object given.
    pub fn create_group(&mut self, json: &str) {
        let answer = self.call(0, code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], json.as_bytes());
        assert_eq!(answer.code, 0, "{}", answer.remark);
    }

    /// UPDATE_AND_CREATE_TOPIC.
    pub fn create_topic(&mut self, topic: &str, queues: &str, perm: &str, attributes: &str) {
        let ext = [
            ("attributes", attributes),
            ("defaultTopic", "TBW102"),
            ("order", "false"),
            ("perm", perm),
            ("readQueueNums", queues),
            ("topic", topic),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("writeQueueNums", queues),
        ];
        let answer = self.call(0, code::UPDATE_AND_CREATE_TOPIC, &ext, b"");
        assert_eq!(answer.code, 0, "{}", answer.remark);
    }

    /// Runs turns until no core has anything left to do.
    pub fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_quiet = true;
            for core in 0..self.cores.len() {
                is_quiet &= !self.turn(core);
            }
            while let Some((from, to, letter)) = self.letters.pop_front() {
                is_quiet = false;
                self.deliver(from, to, letter);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the cores do not come to rest");
    }

    fn turn(&mut self, core: usize) -> bool {
        let CoreOfTest { broker, storage, disk, stuck } = &mut self.cores[core];
        broker.on_turn_end(self.now_ms);
        broker.shard.pump(self.now_ms);
        let mut is_active = broker.wants_turn();
        while let Some(command) = broker.shard.next_command() {
            stuck.push_back(command);
        }
        while *disk != Disk::Stuck
            && let Some(command) = stuck.pop_front()
        {
            is_active = true;
            match command.kind {
                CommandKind::Write { .. } if *disk == Disk::Broken => {
                    broker.shard.complete(command.id, Err(StorageError::IO));
                }
                _ => storage.carry_out(&mut broker.shard, command),
            }
        }
        let letters = &mut self.letters;
        broker.drain_letters(|to, letter| letters.push_back((core, to, letter)));
        if let Some(own) = broker.take_own_replies() {
            is_active = true;
            self.take_frames(&own);
        }
        is_active
    }

    fn deliver(&mut self, from: usize, to: usize, letter: Letter) {
        match letter {
            Letter::Replies(parcel) => self.take_frames(&parcel),
            Letter::Connection(_) | Letter::CloseConnection(_) => {}
            letter => self.cores[to].broker.on_letter(from, letter),
        }
    }

    fn take_frames(&mut self, parcel: &ReplyParcel) {
        let (mut start, mut slices) = (0, parcel.slices.iter());
        for item in &parcel.items {
            let end = start + item.bytes_count as usize;
            let mut bytes = parcel.bytes[start..end].to_vec();
            start = end;
            for slice in slices.by_ref().take(item.slices_count as usize) {
                bytes.extend_from_slice(slice.as_ref());
            }
            let frame = Frame::decode(&bytes).expect("the broker writes whole frames");
            let ext = frame.ext.iter().map(|(key, value)| (key.to_cow().into_owned(), value.to_cow().into_owned()));
            self.sent.push(Sent {
                is_request: !frame.is_response(),
                opaque: frame.opaque,
                code: frame.code,
                remark: frame.remark.as_ref().map(|text| text.to_cow().into_owned()).unwrap_or_default(),
                ext: ext.collect(),
                body: frame.body.to_vec(),
            });
        }
    }
}

#[test]
fn a_message_sent_through_any_core_is_pulled_through_any_other() {
    for count in [1, 2] {
        let mut cores = Cores::new(count);
        for queue_id in 0..4 {
            let sent = cores.send(queue_id as usize % count, "T", queue_id, &[("TAGS", "A")]);
            assert_eq!((sent.code, sent.ext("queueOffset")), (0, "0"), "{}", sent.remark);
            let queue = queue_id.to_string();
            let pulled = cores.call(count - 1, code::PULL_MESSAGE, &pull_fields(&queue, "0"), b"");
            assert_eq!((pulled.code, pulled.ext("nextBeginOffset")), (0, "1"), "{}", pulled.remark);
            assert!(pulled.body.windows(4).any(|window| window == b"body"));
        }
    }
}
