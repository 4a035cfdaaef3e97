//! The body of REGISTER_BROKER: a broker's topics, as JSON or as one compressed stream.
//!
//! Only what the name server uses is read; other members are passed over. The bytes are untrusted: sizes
//! are checked before they are believed, and a compressed stream may not grow without bound.
//!
//! Compressed form, one zlib stream of (integers big-endian):
//!
//! | bytes | content |
//! |---|---|
//! | 4 + n | length, data version in JSON |
//! | 4 | number of topics |
//! | 4 + n each | length, `name readQueues writeQueues perm filterType [attributes]` separated by blanks |
//! | 4 + n | length, filter server list in JSON |
//! | 4, then 4 + n each | senders from version 413 (5.0): number of static topic mappings, each in JSON |

use std::collections::BTreeMap;
use std::io::Read;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::INFLATED_BYTES_MAX;
use crate::registration::{PERM_READ, PERM_WRITE, QueueData};

/// The version number (3.0.11) from which the body contains more than the topic table.
const FULL_BODY_VERSION_MIN: i32 = 37;
/// The version number (5.0.0) from which a compressed body contains mappings.
const MAPPING_VERSION_MIN: i32 = 413;

/// RocketMQ's default for a topic that does not say how many queues it has.
const QUEUE_NUMS_DEFAULT: i32 = 16;

/// Identifies one state of a broker's topic table; equal when all three are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    #[serde(deserialize_with = "null_as_default")]
    pub counter: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub state_version: i64,
    /// Milliseconds since 1970.
    #[serde(deserialize_with = "null_as_default")]
    pub timestamp: i64,
}

/// A static topic's logical queues on one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMapping {
    pub bname: Option<String>,
    /// Logical queue id to the broker's queue id.
    #[serde(deserialize_with = "null_as_default")]
    pub curr_id_map: BTreeMap<i64, i64>,
    #[serde(deserialize_with = "null_as_default")]
    pub dirty: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub epoch: i64,
    pub scope: Option<String>,
    pub topic: Option<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub total_queues: i64,
}

/// What a broker registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrationBody {
    pub data_version: DataVersion,
    /// Topic name and queues, in the sender's order.
    pub topics: Vec<(String, QueueData)>,
    /// Topic name and mapping.
    pub mappings: Vec<(String, TopicQueueMapping)>,
    pub filter_servers: Vec<String>,
}

/// The body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is not the JSON of a registration: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the compressed body ends inside {0}")]
    Truncated(&'static str),
    #[error("the compressed body does not inflate: {0}")]
    Inflate(std::io::Error),
    #[error("the compressed body inflates to more than {INFLATED_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the compressed body has a malformed {0}")]
    Malformed(&'static str),
}

impl RegistrationBody {
    /// `version` is the sender's, from the frame. An empty body is a broker without topics.
    pub fn decode(body: &[u8], is_compressed: bool, version: i32) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if version < FULL_BODY_VERSION_MIN {
            return Ok(Self::of(lenient::<WrapperJson>(body)?, Vec::new()));
        }
        if is_compressed {
            return decode_compressed(body, version);
        }
        let full: BodyJson = lenient(body)?;
        let wrapper = full.topic_config_serialize_wrapper.unwrap_or_default();
        Ok(Self::of(
            wrapper,
            full.filter_server_list.unwrap_or_default(),
        ))
    }

    fn of(wrapper: WrapperJson, filter_servers: Vec<String>) -> Self {
        let topics = wrapper.topic_config_table.0.into_iter();
        Self {
            data_version: wrapper.data_version.unwrap_or_default(),
            topics: topics.map(|(key, topic)| topic.named(key)).collect(),
            mappings: wrapper.topic_queue_mapping_info_map.0,
            filter_servers,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BodyJson {
    filter_server_list: Option<Vec<String>>,
    topic_config_serialize_wrapper: Option<WrapperJson>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrapperJson {
    data_version: Option<DataVersion>,
    #[serde(deserialize_with = "null_as_default")]
    topic_config_table: Members<TopicJson>,
    #[serde(deserialize_with = "null_as_default")]
    topic_queue_mapping_info_map: Members<TopicQueueMapping>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TopicJson {
    topic_name: Option<String>,
    read_queue_nums: Option<i32>,
    write_queue_nums: Option<i32>,
    perm: Option<i32>,
    topic_sys_flag: Option<i32>,
}

impl TopicJson {
    /// The topic's own name counts, the key of the table only when there is none.
    fn named(self, key: String) -> (String, QueueData) {
        let queues = QueueData {
            read_queue_nums: self.read_queue_nums.unwrap_or(QUEUE_NUMS_DEFAULT),
            write_queue_nums: self.write_queue_nums.unwrap_or(QUEUE_NUMS_DEFAULT),
            perm: self.perm.unwrap_or(PERM_READ | PERM_WRITE),
            topic_sys_flag: self.topic_sys_flag.unwrap_or(0),
        };
        (self.topic_name.unwrap_or(key), queues)
    }
}

/// A JSON object as a list: the tables are walked once, so no map is built.
struct Members<T>(Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Walk<T> {
            type Value = Members<T>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Option<T>>()? {
                    members.extend(value.map(|value| (key, value)));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Walk(std::marker::PhantomData))
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads standard JSON, or the dialect of Java peers in which integer keys have no quotes.
pub fn lenient<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(_) => serde_json::from_slice(&quote_integer_keys(text)), // the second error is the one reported
    }
}

/// Puts quotes around integers that stand where a key must be. Anything else stays as it is.
fn quote_integer_keys(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + text.len() / 8);
    let mut rest = text;
    let mut is_key_place = false;
    while let Some((&byte, after)) = rest.split_first() {
        let taken = match byte {
            b'"' => string_size(rest),
            b'-' | b'0'..=b'9' if is_key_place => {
                let digits = after
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                1 + digits
            }
            _ => 1,
        };
        let (token, after) = rest.split_at(taken);
        let is_quoted_now = is_key_place
            && matches!(byte, b'-' | b'0'..=b'9')
            && after.trim_ascii_start().first() == Some(&b':');
        if is_quoted_now {
            quoted.push(b'"');
        }
        quoted.extend_from_slice(token);
        if is_quoted_now {
            quoted.push(b'"');
        }
        if !byte.is_ascii_whitespace() {
            is_key_place = matches!(byte, b'{' | b',');
        }
        rest = after;
    }
    quoted
}

/// Bytes of the string that `text` starts with, both quotes included, or all of an unfinished one.
fn string_size(text: &[u8]) -> usize {
    let mut is_escaped = false;
    let inside = text.iter().skip(1).position(|byte| {
        let ends = !is_escaped && *byte == b'"';
        is_escaped = !is_escaped && *byte == b'\\';
        ends
    });
    inside.map_or(text.len(), |position| position + 2)
}

fn decode_compressed(body: &[u8], version: i32) -> Result<RegistrationBody, BodyError> {
    let mut inflated = Vec::new();
    let bound = INFLATED_BYTES_MAX as u64 + 1;
    let inflater = flate2::read::ZlibDecoder::new(body);
    inflater
        .take(bound)
        .read_to_end(&mut inflated)
        .map_err(BodyError::Inflate)?;
    if inflated.len() > INFLATED_BYTES_MAX {
        return Err(BodyError::TooLarge);
    }
    let mut rest = Cursor(&inflated);
    let data_version = lenient(rest.text("the data version")?)?;
    let mut topics = Vec::new();
    for _ in 0..rest.count("the number of topics")? {
        topics.push(topic_of_text(rest.text("a topic")?)?);
    }
    let filter_servers: Option<Vec<String>> = lenient(rest.text("the filter server list")?)?;
    let mut mappings = Vec::new();
    if version >= MAPPING_VERSION_MIN {
        for _ in 0..rest.count("the number of mappings")? {
            let mapping: TopicQueueMapping = lenient(rest.text("a mapping")?)?;
            let topic = mapping.topic.clone();
            mappings.push((
                topic.ok_or(BodyError::Malformed("mapping: it has no topic"))?,
                mapping,
            ));
        }
    }
    Ok(RegistrationBody {
        data_version,
        topics,
        mappings,
        filter_servers: filter_servers.unwrap_or_default(),
    })
}

/// The rest of the inflated stream.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// A count is only believed item by item, so it needs no bound of its own.
    fn count(&mut self, what: &'static str) -> Result<u32, BodyError> {
        let (count, rest) = self
            .0
            .split_first_chunk()
            .ok_or(BodyError::Truncated(what))?;
        self.0 = rest;
        u32::try_from(i32::from_be_bytes(*count)).map_err(|_| BodyError::Malformed(what))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a [u8], BodyError> {
        let size = self.count(what)? as usize;
        let (text, rest) = self
            .0
            .split_at_checked(size)
            .ok_or(BodyError::Truncated(what))?;
        self.0 = rest;
        Ok(text)
    }
}

/// `name readQueues writeQueues perm filterType [attributes]`; the attributes may contain blanks.
fn topic_of_text(text: &[u8]) -> Result<(String, QueueData), BodyError> {
    const MALFORMED: BodyError = BodyError::Malformed("topic");
    let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
    let mut parts = text.splitn(6, ' ');
    let name = parts
        .next()
        .filter(|name| !name.is_empty())
        .ok_or(MALFORMED)?;
    let mut number = || parts.next()?.parse::<i32>().ok();
    let queues = QueueData {
        read_queue_nums: number().ok_or(MALFORMED)?,
        write_queue_nums: number().ok_or(MALFORMED)?,
        perm: number().ok_or(MALFORMED)?,
        topic_sys_flag: 0, // the compressed form has no room for it
    };
    parts.next().ok_or(MALFORMED)?; // the filter type
    Ok((name.to_owned(), queues))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn queues(read: i32, write: i32, perm: i32, flag: i32) -> QueueData {
        QueueData {
            read_queue_nums: read,
            write_queue_nums: write,
            perm,
            topic_sys_flag: flag,
        }
    }

    const STATIC_TOPIC: &str = r#"{"bname":"broker-a","currIdMap":{0:0,1:7},"dirty":false,"epoch":7,"scope":"__global__","topic":"S","totalQueues":4}"#;

    fn mapping() -> TopicQueueMapping {
        TopicQueueMapping {
            bname: Some("broker-a".to_owned()),
            curr_id_map: BTreeMap::from([(0, 0), (1, 7)]),
            dirty: false,
            epoch: 7,
            scope: Some("__global__".to_owned()),
            topic: Some("S".to_owned()),
            total_queues: 4,
        }
    }

    fn compressed(parts: &[&[u8]]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        for part in parts {
            encoder.write_all(part).expect("write to memory");
        }
        encoder.finish().expect("finish")
    }

    fn sized(text: &str) -> Vec<u8> {
        let mut part = u32::try_from(text.len())
            .expect("small")
            .to_be_bytes()
            .to_vec();
        part.extend_from_slice(text.as_bytes());
        part
    }

    #[test]
    fn the_body_of_an_apache_broker_with_static_topics() {
        let body = format!(
            r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":5,"stateVersion":2,"timestamp":1700000000000}},"mappingDataVersion":{{"$ref":"$.topicConfigSerializeWrapper.dataVersion"}},"topicConfigTable":{{"T":{{"attributes":{{"+a":"1,2:{{3:4"}},"order":false,"perm":7,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":1,"writeQueueNums":3}},"bare":{{}}}},"topicQueueMappingDetailMap":{{}},"topicQueueMappingInfoMap":{{"S":{STATIC_TOPIC}}}}}}}"#
        );
        let decoded = RegistrationBody::decode(body.as_bytes(), false, 513).expect("decode");
        let expected = RegistrationBody {
            data_version: DataVersion {
                counter: 5,
                state_version: 2,
                timestamp: 1_700_000_000_000,
            },
            topics: vec![
                ("T".to_owned(), queues(4, 3, 7, 1)),
                ("bare".to_owned(), queues(16, 16, 6, 0)),
            ],
            mappings: vec![("S".to_owned(), mapping())],
            filter_servers: Vec::new(),
        };
        assert_eq!(decoded, expected);
    }

    #[test]
    fn a_sender_before_3_0_11_sends_the_topic_table_alone() {
        let body = br#"{"dataVersion":{"counter":1,"timestamp":2},"topicConfigTable":{"T":{"perm":6,"readQueueNums":1,"topicName":"T","writeQueueNums":1}}}"#;
        let decoded = RegistrationBody::decode(body, false, 36).expect("decode");
        assert_eq!(decoded.topics, [("T".to_owned(), queues(1, 1, 6, 0))]);
        assert_eq!(decoded.data_version.counter, 1);
    }

    #[test]
    fn the_compressed_form_with_and_without_mappings() {
        let parts = [
            sized(r#"{"counter":5,"stateVersion":0,"timestamp":9}"#),
            2_u32.to_be_bytes().to_vec(),
            sized(r#"T 4 3 6 SINGLE_TAG {"message.type":"FIFO AND MORE"}"#),
            sized("U 1 1 7 MULTI_TAG"),
            sized(r#"["10.0.0.1:1"]"#),
            1_u32.to_be_bytes().to_vec(),
            sized(STATIC_TOPIC),
        ];
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let new = RegistrationBody::decode(&compressed(&parts), true, 413).expect("new");
        assert_eq!(
            new.topics,
            [
                ("T".to_owned(), queues(4, 3, 6, 0)),
                ("U".to_owned(), queues(1, 1, 7, 0))
            ]
        );
        assert_eq!(new.filter_servers, ["10.0.0.1:1"]);
        assert_eq!(new.mappings, [("S".to_owned(), mapping())]);
        let old = RegistrationBody::decode(&compressed(&parts[..5]), true, 412).expect("old");
        assert!(old.mappings.is_empty());
        let cut = RegistrationBody::decode(&compressed(&parts[..5]), true, 413);
        assert!(matches!(
            cut,
            Err(BodyError::Truncated("the number of mappings"))
        ));
    }

    #[test]
    fn a_stream_that_grows_without_bound_is_refused() {
        let zeros = vec![0_u8; INFLATED_BYTES_MAX + 1];
        let refused = RegistrationBody::decode(&compressed(&[&zeros]), true, 513);
        assert!(matches!(refused, Err(BodyError::TooLarge)));
    }

    #[test]
    fn only_integer_keys_get_quotes() {
        let table = [
            (
                r#"{0:"a", 1 :-2,"x":[3,4],-5:{6:7}}"#,
                r#"{"0":"a", "1" :-2,"x":[3,4],"-5":{"6":7}}"#,
            ),
            (r#"{"a\",1:2":"{3:"}"#, r#"{"a\",1:2":"{3:"}"#),
            (r#"{"unfinished"#, r#"{"unfinished"#),
        ];
        for (text, expected) in table {
            let quoted = quote_integer_keys(text.as_bytes());
            assert_eq!(String::from_utf8(quoted).expect("text"), expected);
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(
            junk in proptest::collection::vec(any::<u8>(), 0..200),
            text in "[{}\\[\\]\":,0-9a-z\\\\ -]{0,80}",
            version in prop_oneof![Just(0), Just(412), Just(513)],
        ) {
            for body in [junk.as_slice(), text.as_bytes(), &compressed(&[&junk])] {
                for is_compressed in [false, true] {
                    drop(RegistrationBody::decode(body, is_compressed, version)); // any outcome but a panic
                }
            }
        }
    }
}
