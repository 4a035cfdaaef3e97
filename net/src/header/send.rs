//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320) and the replies of
//! request-reply, SEND_REPLY_MESSAGE (324) and its V2 (325).
#![forbid(unsafe_code)]

use super::{FieldValue, HeaderError, headers};
use crate::codes::request;
use crate::frame::Frame;
use crate::reply::ExtWriter;
use crate::text::Text;

/// A send request, from long names (10, 324) or one-letter names (310, 320, 325).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendHeader<'a> {
    pub producer_group: Text<'a>,
    pub topic: Text<'a>,
    /// Topic whose settings an automatically created topic inherits, normally `TBW102`.
    pub default_topic: Text<'a>,
    pub default_topic_queue_nums: i32,
    /// Negative: the broker picks a writable queue.
    pub queue_id: i32,
    pub sys_flag: i32,
    /// Producer's clock, ms since the epoch.
    pub born_timestamp: i64,
    /// The application's flag, passed through.
    pub flag: i32,
    pub properties: Option<Text<'a>>,
    pub reconsume_times: i32,
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
    /// The body is a batch body. This field decides, not the request code.
    pub batch: bool,
}

/// The fields while they are being collected.
#[derive(Default)]
struct Draft<'a> {
    producer_group: Option<Text<'a>>,
    topic: Option<Text<'a>>,
    default_topic: Option<Text<'a>>,
    default_topic_queue_nums: Option<i32>,
    queue_id: Option<i32>,
    sys_flag: Option<i32>,
    born_timestamp: Option<i64>,
    flag: Option<i32>,
    properties: Option<Text<'a>>,
    reconsume_times: Option<i32>,
    unit_mode: bool,
    max_reconsume_times: Option<i32>,
    batch: bool,
}

impl<'a> SendHeader<'a> {
    /// Cost: one pass over the ext fields, no allocation.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, HeaderError> {
        let mut draft = Draft::default();
        if matches!(frame.code, request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE) {
            for (key, value) in frame.ext.iter() {
                if let Some(name) = key.as_plain() {
                    draft.take_long(name, value)?;
                }
            }
        } else {
            for (key, value) in frame.ext.iter() {
                if let Some([letter]) = key.as_plain().map(str::as_bytes) {
                    draft.take_letter(*letter, value)?;
                }
            }
        }
        draft.finish()
    }

    /// Client side: writes one-letter names.
    pub fn encode_v2(&self, ext: &mut ExtWriter<'_>) {
        self.producer_group.write("a", ext);
        self.topic.write("b", ext);
        self.default_topic.write("c", ext);
        self.default_topic_queue_nums.write("d", ext);
        self.queue_id.write("e", ext);
        self.sys_flag.write("f", ext);
        self.born_timestamp.write("g", ext);
        self.flag.write("h", ext);
        if let Some(properties) = &self.properties {
            properties.write("i", ext);
        }
        self.reconsume_times.write("j", ext);
        self.unit_mode.write("k", ext);
        if let Some(times) = self.max_reconsume_times {
            times.write("l", ext);
        }
        self.batch.write("m", ext);
    }
}

fn strict<'a, T: FieldValue<'a>>(field: &'static str, value: Text<'a>) -> Result<Option<T>, HeaderError> {
    match T::parse(value) {
        Ok(value) => Ok(Some(value)),
        Err(value) => Err(HeaderError::malformed(field, &value)),
    }
}

impl<'a> Draft<'a> {
    /// Numbers are strict in this form.
    #[inline]
    fn take_letter(&mut self, letter: u8, value: Text<'a>) -> Result<(), HeaderError> {
        match letter {
            b'a' => self.producer_group = Some(value),
            b'b' => self.topic = Some(value),
            b'c' => self.default_topic = Some(value),
            b'd' => self.default_topic_queue_nums = strict("d", value)?,
            b'e' => self.queue_id = strict("e", value)?,
            b'f' => self.sys_flag = strict("f", value)?,
            b'g' => self.born_timestamp = strict("g", value)?,
            b'h' => self.flag = strict("h", value)?,
            b'i' => self.properties = Some(value),
            b'j' => self.reconsume_times = strict("j", value)?,
            b'k' => self.unit_mode = value.parse_bool(),
            b'l' => self.max_reconsume_times = strict("l", value)?,
            b'm' => self.batch = value.parse_bool(),
            _ => {}
        }
        Ok(())
    }

    /// Here an unparsable optional number counts as absent.
    #[inline]
    fn take_long(&mut self, name: &str, value: Text<'a>) -> Result<(), HeaderError> {
        match name {
            "producerGroup" => self.producer_group = Some(value),
            "topic" => self.topic = Some(value),
            "defaultTopic" => self.default_topic = Some(value),
            "defaultTopicQueueNums" => self.default_topic_queue_nums = strict("defaultTopicQueueNums", value)?,
            "queueId" => self.queue_id = strict("queueId", value)?,
            "sysFlag" => self.sys_flag = strict("sysFlag", value)?,
            "bornTimestamp" => self.born_timestamp = strict("bornTimestamp", value)?,
            "flag" => self.flag = strict("flag", value)?,
            "properties" => self.properties = Some(value),
            "reconsumeTimes" => self.reconsume_times = value.parse_i32(),
            "unitMode" => self.unit_mode = value.parse_bool(),
            "maxReconsumeTimes" => self.max_reconsume_times = value.parse_i32(),
            "batch" => self.batch = value.parse_bool(),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<SendHeader<'a>, HeaderError> {
        fn need<T>(field: &'static str, value: Option<T>) -> Result<T, HeaderError> {
            value.ok_or(HeaderError::Missing { field })
        }
        Ok(SendHeader {
            producer_group: need("producerGroup", self.producer_group)?,
            topic: need("topic", self.topic)?,
            default_topic: need("defaultTopic", self.default_topic)?,
            default_topic_queue_nums: need("defaultTopicQueueNums", self.default_topic_queue_nums)?,
            queue_id: need("queueId", self.queue_id)?,
            sys_flag: need("sysFlag", self.sys_flag)?,
            born_timestamp: need("bornTimestamp", self.born_timestamp)?,
            flag: need("flag", self.flag)?,
            properties: self.properties,
            reconsume_times: self.reconsume_times.unwrap_or(0),
            unit_mode: self.unit_mode,
            max_reconsume_times: self.max_reconsume_times,
            batch: self.batch,
        })
    }
}

headers! {
    /// Reply to a send (codes 0, 10, 11, 12).
    SendReply<'a> {
        /// Offset message id; comma-joined list for a batch.
        msg_id: required Text<'a> = "msgId";
        queue_id: required i32 = "queueId";
        /// Queue offset of the stored record; of the first one for a batch.
        queue_offset: required i64 = "queueOffset";
        /// The message's UNIQ_KEY.
        transaction_id: optional Text<'a> = "transactionId";
        batch_uniq_id: optional Text<'a> = "batchUniqId";
        recall_handle: optional Text<'a> = "recallHandle";
        /// Always written by a broker; the Java client needs at least one ext field.
        region_id: optional Text<'a> = "MSG_REGION";
        trace_on: optional bool = "TRACE_ON";
    }

    /// RECALL_MESSAGE (370).
    RecallHeader<'a> {
        producer_group: optional Text<'a> = "producerGroup";
        topic: required Text<'a> = "topic";
        recall_handle: optional Text<'a> = "recallHandle";
    }

    /// SWITCH_TIMER_ENGINE (5001).
    TimerEngineHeader<'a> {
        /// `F`: the time wheel in files; `R`: RocksDB.
        engine: optional Text<'a> = "E_T";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Serialization;
    use crate::reply::FrameWriter;

    const LONG: [&str; 13] = [
        "producerGroup",
        "topic",
        "defaultTopic",
        "defaultTopicQueueNums",
        "queueId",
        "sysFlag",
        "bornTimestamp",
        "flag",
        "properties",
        "reconsumeTimes",
        "unitMode",
        "maxReconsumeTimes",
        "batch",
    ];

    fn header() -> SendHeader<'static> {
        SendHeader {
            producer_group: Text::plain("pg"),
            topic: Text::plain("T"),
            default_topic: Text::plain("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: -1,
            sys_flag: 1,
            born_timestamp: 1_700_000_000_000,
            flag: 5,
            properties: Some(Text::plain("KEYS\u{1}k\u{2}")),
            reconsume_times: 2,
            unit_mode: true,
            max_reconsume_times: Some(16),
            batch: true,
        }
    }

    #[test]
    fn both_name_forms_give_the_same_header() {
        for serialization in [Serialization::Json, Serialization::Binary] {
            let mut out = Vec::new();
            FrameWriter::request(&mut out, serialization, 310, 1, false, 0, |ext| header().encode_v2(ext));
            let frame = Frame::decode(&out).unwrap();
            assert_eq!(SendHeader::decode(&frame), Ok(header()));
            let long = frame
                .ext
                .iter()
                .map(|(key, value)| (LONG[(key.to_string().as_bytes()[0] - b'a') as usize], value.to_string()));
            let ext = crate::ext::ExtFields::owned(long);
            assert_eq!(SendHeader::decode(&Frame { code: 10, ext, ..frame.clone() }), Ok(header()));
        }
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let mut out = Vec::new();
        FrameWriter::request(&mut out, Serialization::Json, 310, 1, false, 0, |ext| {
            header().encode_v2(ext);
            ext.text("g", "soon");
        });
        let error = SendHeader::decode(&Frame::decode(&out).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the custom field <g> is not a number: soon");
        out.clear();
        FrameWriter::request(&mut out, Serialization::Json, 310, 1, false, 0, |_| {});
        let error = SendHeader::decode(&Frame::decode(&out).unwrap()).unwrap_err();
        assert_eq!(error, HeaderError::Missing { field: "producerGroup" });
    }
}
