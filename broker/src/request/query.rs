//! QUERY_MESSAGE (12): the messages of a topic that have a key, a unique key or a tag: the newest of them, in the order
//! they were stored.
//!
//! Every core looks into the index of its own shard; the core that received the request merges what they found.

use std::cmp::Reverse;
use std::sync::Arc;

use rmq_engine::{FoundByKey, KeyKind, KeyQueried, KeyQuery, PhysicalOffset, StorageError};
use rmq_net::codes::response;
use rmq_net::header::offset::{QueryMessageHeader, QueryMessageReply};

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::gather::{self, Asked};
use crate::letter::Request;
use crate::request::Job;

/// Most bytes of messages in an answer; the first message is there whatever its size. A client takes no frame of more
/// than 16 MiB.
const ANSWER_BYTES_MAX: usize = 12 << 20;

/// What a client wants to find.
pub struct Wanted {
    topic: String,
    kind: KeyKind,
    key: String,
    times_ms: (i64, i64),
    count_max: usize,
}

/// One core's part of a query, while it waits for the disk.
pub struct Search {
    asked: Asked,
    query: KeyQuery,
}

/// What one core has found.
struct Part {
    found: Result<Vec<FoundByKey>, StorageError>,
    newest: Option<(i64, PhysicalOffset)>,
}

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = QueryMessageHeader::decode(&request.frame)?;
    let is_unique = header.unique_key_query.as_ref().is_some_and(|text| text.parse_bool());
    let kind = match header.index_type.as_ref().map(|kind| kind.to_cow()).as_deref() {
        _ if is_unique => KeyKind::Unique,
        Some("T") => KeyKind::Tag,
        Some("U") => KeyKind::Unique,
        _ => KeyKind::Key,
    };
    let asked = if is_unique { broker.config.default_query_max_num } else { i64::from(header.max_num) };
    let wanted = Wanted {
        topic: header.topic.to_cow().into_owned(),
        kind,
        key: header.key.to_cow().into_owned(),
        times_ms: (header.begin_timestamp, header.end_timestamp),
        count_max: usize::try_from(asked.min(broker.config.max_msgs_num_batch)).unwrap_or(0),
    };
    let (to, count_max) = (request.reply_address(), wanted.count_max);
    let wanted = Arc::new(wanted);
    gather::gather_later(
        broker,
        move |broker, asked| begin(broker, asked, &wanted),
        move |broker, parts: Vec<Part>| match merge(parts, count_max) {
            Ok(answer) => {
                let slices = answer.found.into_iter().map(|found| found.record).collect();
                broker.reply(to, response::SUCCESS, Body::Slices(slices), |ext| answer.header.encode(ext));
            }
            Err(refusal) => broker.refuse_later(to, &refusal),
        },
    );
    Ok(Handled::Taken)
}

fn begin(broker: &mut Broker, asked: Asked, wanted: &Wanted) {
    let Wanted { topic, kind, key, times_ms, count_max } = wanted;
    resume(broker, Search { asked, query: KeyQuery::new(topic, *kind, key, *times_ms, *count_max, ANSWER_BYTES_MAX) });
}

pub fn resume(broker: &mut Broker, mut search: Search) {
    let ticket = broker.new_ticket();
    let result = match broker.shard.query_key(&mut search.query, ticket) {
        KeyQueried::Pending => return broker.keep_job(ticket, Job::Search(search)),
        KeyQueried::Done => Ok(()),
        KeyQueried::Failed(error) => Err(error),
    };
    let part = Part { found: result.map(|()| search.query.into_found()), newest: broker.shard.newest_key() };
    search.asked.answer(broker, part);
}

struct Answer {
    found: Vec<FoundByKey>,
    header: QueryMessageReply,
}

/// The newest of what all cores have found. If one could not look, nobody knows what is missing.
fn merge(parts: Vec<Part>, count_max: usize) -> Result<Answer, Refusal> {
    let newest = parts.iter().filter_map(|part| part.newest).max();
    let (store_time_ms, at) = newest.map_or((0, 0), |(store_time_ms, at)| (store_time_ms, at.to_wire()));
    let mut found = Vec::new();
    for part in parts {
        found.extend(part.found.map_err(|error| super::read_failed(&error))?);
    }
    found.sort_unstable_by_key(|found| Reverse((found.store_time_ms, found.physical_offset)));
    found.truncate(count_max);
    let mut bytes = 0;
    let fitting = found.iter().take_while(|found| {
        bytes += found.record.as_ref().len();
        bytes <= ANSWER_BYTES_MAX
    });
    found.truncate(fitting.count().max(1));
    if found.is_empty() {
        return Err(Refusal::new(response::QUERY_NOT_FOUND, "can not find message, maybe time range not correct"));
    }
    found.reverse();
    let header = QueryMessageReply { index_last_update_timestamp: store_time_ms, index_last_update_phyoffset: at };
    Ok(Answer { found, header })
}

#[cfg(test)]
mod tests {
    use rmq_engine::Record;
    use rmq_net::codes::{request as code, response};

    use crate::testing::{Cores, Sent};

    const ALWAYS: (&str, &str) = ("0", "9223372036854775807");

    fn query(cores: &mut Cores, key: &str, max: &str, times: (&str, &str), ext: &[(&'static str, &str)]) -> Sent {
        let mut fields = vec![("topic", "T"), ("key", key), ("maxNum", max)];
        fields.extend([("beginTimestamp", times.0), ("endTimestamp", times.1)]);
        fields.extend(ext);
        cores.call(1, code::QUERY_MESSAGE, &fields, b"")
    }

    fn bodies(answer: &Sent) -> Vec<String> {
        let (mut rest, mut bodies) = (&answer.body[..], Vec::new());
        while let Ok(record) = Record::decode(rest) {
            bodies.push(String::from_utf8_lossy(record.body).into_owned());
            rest = &rest[record.size_bytes as usize..];
        }
        assert!(rest.is_empty(), "whole records");
        bodies
    }

    /// Six messages on both cores, a second apart.
    fn filled(properties: &[(&str, &str)]) -> Cores {
        let mut cores = Cores::with_config(2, properties);
        let queues = [cores.queue_on(0, "T"), cores.queue_on(1, "T")];
        for number in 0..6 {
            cores.now_ms += 1000;
            let (unique, own) = (format!("u{number}"), format!("all  own{number}"));
            let properties = [("KEYS", &*own), ("UNIQ_KEY", &*unique), ("TAGS", if number < 2 { "A" } else { "B" })];
            let body = number.to_string();
            let sent = cores.send_with(0, "T", queues[number % 2], &properties, &[], body.as_bytes());
            assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
        }
        cores
    }

    #[test]
    fn the_newest_messages_are_found_by_key_unique_key_and_tag() {
        let mut cores = filled(&[]);
        let all = query(&mut cores, "all", "64", ALWAYS, &[]);
        assert_eq!((all.code, bodies(&all).join("")), (response::SUCCESS, "012345".to_owned()));
        assert_eq!(all.ext("indexLastUpdateTimestamp"), cores.now_ms.to_string());
        assert!(!all.ext("indexLastUpdatePhyoffset").is_empty());
        assert_eq!(bodies(&query(&mut cores, "all", "2", ALWAYS, &[])), ["4", "5"]);
        assert_eq!(bodies(&query(&mut cores, "own3", "64", ALWAYS, &[("indexType", "K")])), ["3"]);
        let unique = ("_UNIQUE_KEY_QUERY", "true");
        assert_eq!(bodies(&query(&mut cores, "u4", "0", ALWAYS, &[unique])), ["4"]);
        assert_eq!(bodies(&query(&mut cores, "u4", "1", ALWAYS, &[("indexType", "U")])), ["4"]);
        assert_eq!(bodies(&query(&mut cores, "A", "64", ALWAYS, &[("indexType", "T"), ("lastKey", "x")])), ["0", "1"]);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let mut cores = filled(&[]);
        for (key, max, ext) in
            [("other", "64", &[][..]), ("A", "64", &[]), ("all", "64", &[("indexType", "T")]), ("all", "0", &[])]
        {
            let answer = query(&mut cores, key, max, ALWAYS, ext);
            assert_eq!((answer.code, answer.body.len()), (response::QUERY_NOT_FOUND, 0), "{key}");
        }
        assert_eq!(query(&mut cores, "all", "many", ALWAYS, &[]).code, response::SYSTEM_ERROR);
    }

    #[test]
    fn only_messages_stored_between_the_times_are_found() {
        let mut cores = filled(&[]);
        let (third, fourth) = ((cores.now_ms - 3000).to_string(), (cores.now_ms - 2000).to_string());
        assert_eq!(bodies(&query(&mut cores, "all", "64", (&third, &fourth), &[])), ["2", "3"]);
        assert_eq!(query(&mut cores, "all", "64", (&fourth, &third), &[]).code, response::QUERY_NOT_FOUND);
    }

    #[test]
    fn settings_bound_the_number_of_messages_found() {
        let mut cores = filled(&[("maxMsgsNumBatch", "3"), ("defaultQueryMaxNum", "1")]);
        assert_eq!(bodies(&query(&mut cores, "all", "64", ALWAYS, &[])), ["3", "4", "5"]);
        assert_eq!(bodies(&query(&mut cores, "all", "64", ALWAYS, &[("_UNIQUE_KEY_QUERY", "TRUE")])), ["5"]);
    }

    #[test]
    fn without_an_index_nothing_is_found() {
        let mut cores = filled(&[("messageIndexEnable", "false")]);
        assert_eq!(query(&mut cores, "all", "64", ALWAYS, &[]).code, response::QUERY_NOT_FOUND);
    }
}
