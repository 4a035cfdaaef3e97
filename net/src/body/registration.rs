//! REGISTER_BROKER (103): what a broker tells its name servers.
#![forbid(unsafe_code)]

use super::topic::{TopicConfig, TopicConfigSerializeWrapper, TopicQueueMappingInfo};
use super::{BodyError, decode, encode_legacy};
use serde::{Deserialize, Serialize};
use std::io::Read;

/// Largest registration a compressed body may unfold to. A topic takes some 200 bytes, so this is
/// room for 300 000 of them; without a bound a few kilobytes could claim all memory.
pub const INFLATED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// First release that sends this body; before, only the wrapper.
const VERSION_WITH_BODY: i32 = 37;
/// First release whose compressed body has a mapping section.
const VERSION_WITH_MAPPINGS: i32 = 413;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    pub filter_server_list: Vec<String>,
    pub topic_config_serialize_wrapper: TopicConfigSerializeWrapper,
}

impl RegisterBrokerBody {
    /// `compressed` is the request's ext field, `version` that of its frame. No body reads as an
    /// empty registration.
    pub fn decode(body: &[u8], compressed: bool, version: i32) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if version < VERSION_WITH_BODY {
            return Ok(Self { filter_server_list: Vec::new(), topic_config_serialize_wrapper: decode(body)? });
        }
        if compressed { decode_compressed(body, version) } else { decode(body) }
    }

    /// The plain form, as a Java broker writes it.
    pub fn encode(&self) -> Vec<u8> {
        encode_legacy(self)
    }
}

fn shape(what: &str) -> BodyError {
    BodyError::Shape(what.to_owned())
}

/// One zlib stream of: version JSON; i32 count and that many topic lines; filter servers JSON; and
/// since 5.0 i32 count and that many mapping JSONs. Every text has an i32 length before it.
fn decode_compressed(body: &[u8], version: i32) -> Result<RegisterBrokerBody, BodyError> {
    let mut inflated = Vec::new();
    let mut stream = flate2::read::ZlibDecoder::new(body).take(INFLATED_BYTES_MAX as u64 + 1);
    stream.read_to_end(&mut inflated).map_err(|error| BodyError::Shape(format!("zlib: {error}")))?;
    if INFLATED_BYTES_MAX < inflated.len() {
        return Err(shape("the inflated registration is too large"));
    }
    let mut reader = Sections(&inflated);
    let mut wrapper = TopicConfigSerializeWrapper { data_version: decode(reader.text()?)?, ..Default::default() };
    for _ in 0..reader.number()? {
        let line = String::from_utf8_lossy(reader.text()?);
        let config = TopicConfig::from_line(&line).ok_or_else(|| shape("a topic line is malformed"))?;
        wrapper.topic_config_table.insert(config.topic_name.clone(), config);
    }
    let filter_server_list = decode(reader.text()?)?;
    if VERSION_WITH_MAPPINGS <= version {
        for _ in 0..reader.number()? {
            let mapping: TopicQueueMappingInfo = decode(reader.text()?)?;
            let topic = mapping.topic.clone().unwrap_or_default();
            wrapper.topic_queue_mapping_info_map.insert(topic, mapping);
        }
    }
    Ok(RegisterBrokerBody { filter_server_list, topic_config_serialize_wrapper: wrapper })
}

struct Sections<'a>(&'a [u8]);

impl<'a> Sections<'a> {
    fn number(&mut self) -> Result<i32, BodyError> {
        let (number, rest) = self.0.split_first_chunk::<4>().ok_or_else(|| shape("the registration is cut short"))?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*number))
    }

    fn text(&mut self) -> Result<&'a [u8], BodyError> {
        let len = usize::try_from(self.number()?).map_err(|_negative| shape("a length is negative"))?;
        let (text, rest) = self.0.split_at_checked(len).ok_or_else(|| shape("the registration is cut short"))?;
        self.0 = rest;
        Ok(text)
    }
}
