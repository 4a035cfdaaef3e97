//! A name server under test: it owns the time, and its connections are numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rmq_namesrv::{Answered, NameServer, NamesrvConfig};
use rmq_net::codes::request;
use rmq_net::connection::ConnectionId;
use rmq_net::frame::{Frame, Language, Serialization};
use rmq_net::reply::{FrameHead, FrameWriter};
use tempfile::TempDir;

/// Where the clock starts.
pub const START_MS: i64 = 1_700_000_000_000;

pub struct World {
    pub server: NameServer,
    pub now_ms: i64,
    pub folder: TempDir,
}

/// A decoded reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: i32,
    pub remark: String,
    pub ext: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.remark.as_str()), (0, ""));
        self.body
    }

    /// Code and remark of a refusal.
    pub fn refused(&self) -> (i32, &str) {
        (self.code, &self.remark)
    }
}

/// A request in the making.
pub struct Ask<'a> {
    pub code: i32,
    pub ext: Vec<(&'static str, String)>,
    pub body: &'a [u8],
    pub version: i32,
    pub connection: u64,
    pub serialization: Serialization,
    pub is_oneway: bool,
}

impl<'a> Ask<'a> {
    pub fn new(code: i32, ext: &[(&'static str, &str)]) -> Self {
        let ext = ext.iter().map(|(key, value)| (*key, (*value).to_owned()));
        Self {
            code,
            ext: ext.collect(),
            body: b"",
            version: 513,
            connection: 1,
            serialization: Serialization::Json,
            is_oneway: false,
        }
    }

    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    pub fn on(mut self, connection: u64) -> Self {
        self.connection = connection;
        self
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let head = FrameHead {
            code: self.code,
            language: Language::Java,
            version: self.version,
            opaque: 77,
            flag: if self.is_oneway { 2 } else { 0 },
            remark: None,
        };
        FrameWriter::write(&mut frame, self.serialization, &head, self.body.len(), |out| {
            for (key, value) in &self.ext {
                out.text(key, value);
            }
        });
        frame.extend_from_slice(self.body);
        frame
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut NamesrvConfig)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let in_folder = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let mut config = NamesrvConfig {
            kv_config_path: in_folder("kvConfig.json"),
            config_store_path: in_folder("namesrv.properties"),
            ..NamesrvConfig::default()
        };
        change(&mut config);
        Self { server: NameServer::open(config, START_MS).expect("open"), now_ms: START_MS, folder }
    }

    /// Gives the server a request and lets it write no file.
    pub fn hand(&mut self, ask: &Ask<'_>) -> Answered {
        let bytes = ask.frame();
        let frame = Frame::decode(&bytes).expect("a whole frame");
        let addr = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let key = ConnectionId::from_key(ask.connection);
        self.server.handle(&frame, key, addr, self.now_ms, &mut Vec::new())
    }

    /// Everything `frame` makes the server write.
    pub fn feed(&mut self, frame: &[u8], connection: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let frame = Frame::decode(frame).expect("a whole frame");
        let addr = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let key = ConnectionId::from_key(connection);
        if self.server.handle(&frame, key, addr, self.now_ms, &mut out) == Answered::Later {
            assert!(out.is_empty());
            while let Some(write) = self.server.take_write() {
                self.server.on_written(write.run());
            }
            for reply in self.server.take_replies() {
                assert_eq!(reply.peer, key);
                out.extend_from_slice(&reply.frame);
            }
        }
        out
    }

    pub fn send(&mut self, ask: &Ask<'_>) -> Answer {
        let out = self.feed(&ask.frame(), ask.connection);
        let reply = Frame::decode(&out).expect("exactly one reply");
        assert!(reply.is_response());
        assert_eq!((reply.opaque, reply.serialization), (77, ask.serialization));
        let text = |text: &rmq_net::text::Text<'_>| text.to_cow().into_owned();
        Answer {
            code: reply.code,
            remark: reply.remark.as_ref().map(text).unwrap_or_default(),
            ext: reply.ext.iter().map(|(key, value)| (text(&key), text(&value))).collect(),
            body: String::from_utf8(reply.body.to_vec()).expect("UTF-8"),
        }
    }

    pub fn ask(&mut self, code: i32, ext: &[(&'static str, &str)]) -> Answer {
        self.send(&Ask::new(code, ext))
    }

    pub fn route(&mut self, topic: &str) -> Answer {
        self.ask(request::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)])
    }

    pub fn register(&mut self, broker: &Broker<'_>) -> Answer {
        let body = broker.body();
        self.send(&broker.ask(request::REGISTER_BROKER).body(body.as_bytes()).on(broker.connection))
    }

    /// Lets time pass second by second, as the turn loop does.
    pub fn pass(&mut self, span_ms: i64) {
        let end_ms = self.now_ms + span_ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + 1000);
            self.server.tick(self.now_ms);
        }
    }

    pub fn topics(&mut self) -> String {
        self.ask(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]).ok()
    }
}

/// A broker as it registers.
#[derive(Clone)]
pub struct Broker<'a> {
    pub cluster: &'a str,
    pub name: &'a str,
    pub addr: &'a str,
    pub id: i64,
    pub connection: u64,
    /// Name, queues for reading and for writing, permission.
    pub topics: Vec<(&'a str, i32, i32, i32)>,
    /// Counter of the data version.
    pub version: i64,
    pub state_version: i64,
    pub acting_master: Option<bool>,
    pub zone: Option<&'a str>,
    pub timeout_ms: Option<i64>,
}

impl<'a> Broker<'a> {
    /// A master with the topics every test needs two of: T (4 queues) and TBW102 (8, inherited).
    pub fn master(name: &'a str, addr: &'a str) -> Self {
        Self {
            cluster: "DefaultCluster",
            name,
            addr,
            id: 0,
            connection: 1,
            topics: vec![("T", 4, 4, 6), ("TBW102", 8, 8, 7)],
            version: 1,
            state_version: 0,
            acting_master: Some(false),
            zone: None,
            timeout_ms: None,
        }
    }

    pub fn slave(name: &'a str, addr: &'a str, id: i64) -> Self {
        Self { id, connection: 2, ..Self::master(name, addr) }
    }

    pub fn body(&self) -> String {
        let topics: Vec<String> = self
            .topics
            .iter()
            .map(|(name, read, write, perm)| {
                format!(
                    r#""{name}":{{"attributes":{{}},"order":false,"perm":{perm},"readQueueNums":{read},"topicFilterType":"SINGLE_TAG","topicName":"{name}","topicSysFlag":0,"writeQueueNums":{write}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{},"mappingDataVersion":{{"counter":0,"stateVersion":0,"timestamp":0}},"topicConfigTable":{{{}}},"topicQueueMappingDetailMap":{{}},"topicQueueMappingInfoMap":{{}}}}}}"#,
            self.data_version(),
            topics.join(",")
        )
    }

    pub fn data_version(&self) -> String {
        format!(r#"{{"counter":{},"stateVersion":{},"timestamp":7}}"#, self.version, self.state_version)
    }

    /// A request that names this broker.
    pub fn ask(&self, code: i32) -> Ask<'static> {
        let mut ask = Ask::new(
            code,
            &[
                ("brokerAddr", self.addr),
                ("brokerId", &self.id.to_string()),
                ("brokerName", self.name),
                ("clusterName", self.cluster),
                ("compressed", "false"),
                ("haServerAddr", &format!("ha-{}", self.addr)),
            ],
        );
        if let Some(acting) = self.acting_master {
            ask.ext.push(("enableActingMaster", acting.to_string()));
        }
        if let Some(timeout_ms) = self.timeout_ms {
            ask.ext.push(("heartbeatTimeoutMillis", timeout_ms.to_string()));
        }
        if let Some(zone) = self.zone {
            ask.ext.push(("__ZONE_NAME", zone.to_owned()));
        }
        ask
    }
}
