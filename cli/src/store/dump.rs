//! `rmq store dump`: the batches and records of a store, one line each.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;

use rmq_engine::commit_log::internal::InternalRecord;
use rmq_engine::in_flight::Take;
use rmq_engine::inspect::{Item, Stored, Walked, walk};
use rmq_engine::store_dir::StoreView;
use rmq_engine::{BatchHeader, Done, Record};
use serde_json::{Value, json};

use crate::arguments::StoreDumpArguments;
use crate::exit::Exit;
use crate::store::refuse;

pub fn run(arguments: &StoreDumpArguments) -> Exit {
    let store = match StoreView::open(&arguments.store) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    let shard_count = store.manifest().shard_count;
    if arguments.shard.is_some_and(|shard| shard_count <= shard) {
        eprintln!("rmq: the store has {shard_count} shards, 0 to {}", shard_count - 1);
        return Exit::Usage;
    }
    let shards = arguments.shard.map_or(0..shard_count, |shard| shard..shard + 1);
    let mut dump = Dump { arguments, out: BufWriter::new(io::stdout().lock()), left: arguments.limit, failure: None };
    for shard in shards {
        if let Err(error) = dump.shard(&store, shard) {
            // Whoever reads has seen enough.
            if error.kind() == ErrorKind::BrokenPipe {
                break;
            }
            eprintln!("rmq: shard {shard}: {error}");
            return Exit::Runtime;
        }
    }
    match dump.out.flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::Runtime,
        _ => Exit::Success,
    }
}

struct Dump<'a> {
    arguments: &'a StoreDumpArguments,
    out: BufWriter<io::StdoutLock<'static>>,
    /// Records that may still be printed.
    left: u64,
    failure: Option<io::Error>,
}

impl Dump<'_> {
    fn shard(&mut self, store: &StoreView, shard: u16) -> io::Result<()> {
        let walked = walk(store, shard, self.arguments.from, &mut |item| {
            if self.left == 0 {
                return ControlFlow::Break(());
            }
            match self.item(shard, item) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    self.failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if let Walked::ToTheEnd { position, reason } = walked {
            let reason = reason.to_string();
            self.line(
                || json!({ "kind": "end", "shard": shard, "position": position, "reason": reason }),
                || format!("shard {shard}  {position:>14}  end      {reason}"),
            )?;
        }
        Ok(())
    }

    fn item(&mut self, shard: u16, item: Item<'_>) -> io::Result<()> {
        match item {
            Item::Batch(_) if self.arguments.topic.is_some() => Ok(()),
            Item::Batch(header) => self.line(|| batch_as_json(&header), || batch_as_text(&header)),
            Item::Record { position, stored: Ok(Stored::Message(record)) } => {
                let is_wanted = self.arguments.topic.as_ref().is_none_or(|topic| topic == record.topic)
                    && self.arguments.queue.is_none_or(|queue| queue == record.queue_id);
                if !is_wanted {
                    return Ok(());
                }
                self.left -= 1;
                let bodies = self.arguments.bodies;
                self.line(
                    || message_as_json(shard, position, &record, bodies),
                    || message_as_text(shard, position, &record, bodies),
                )
            }
            Item::Record { .. } if self.arguments.topic.is_some() => Ok(()),
            Item::Record { position, stored: Ok(Stored::Internal(record)) } => {
                self.left -= 1;
                self.line(
                    || internal_as_json(shard, position, &record),
                    || format!("shard {shard}  {position:>14}  {}", internal_as_text(&record)),
                )
            }
            Item::Record { position, stored: Err(reason) } => self.line(
                || json!({ "kind": "unreadable", "shard": shard, "position": position, "reason": reason.to_string() }),
                || format!("shard {shard}  {position:>14}  UNREADABLE: {reason}"),
            ),
        }
    }

    fn line(&mut self, as_json: impl FnOnce() -> Value, as_text: impl FnOnce() -> String) -> io::Result<()> {
        if self.arguments.json { writeln!(self.out, "{}", as_json()) } else { writeln!(self.out, "{}", as_text()) }
    }
}

fn batch_as_json(header: &BatchHeader) -> Value {
    json!({
        "kind": "batch",
        "shard": header.shard,
        "position": header.position.bytes(),
        "bytes": header.total_bytes,
        "records": header.record_count,
        "epoch": header.epoch,
        "storeTimeMs": header.store_time_ms,
        "durable": header.durable.bytes(),
        "stable": header.stable.bytes(),
    })
}

fn batch_as_text(header: &BatchHeader) -> String {
    format!(
        "shard {}  {:>14}  batch    {} records, {} bytes, epoch {}, stored at {}",
        header.shard,
        header.position.bytes(),
        header.record_count,
        header.total_bytes,
        header.epoch,
        header.store_time_ms
    )
}

fn properties(record: &Record<'_>) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(record.properties);
    let pairs = text.split('\u{2}').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('\u{1}').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn message_as_json(shard: u16, position: u64, record: &Record<'_>, bodies: bool) -> Value {
    let mut value = json!({
        "kind": "message",
        "shard": shard,
        "position": position,
        "bytes": record.size_bytes,
        "physicalOffset": record.physical_offset,
        "topic": record.topic,
        "queueId": record.queue_id,
        "queueOffset": record.queue_offset,
        "storeTimeMs": record.store_timestamp_ms,
        "bornTimeMs": record.born_timestamp_ms,
        "bornHost": record.born_host.to_string(),
        "storeHost": record.store_host.to_string(),
        "flag": record.flag,
        "sysFlag": record.sys_flag,
        "reconsumeTimes": record.reconsume_times,
        "bodyBytes": record.body.len(),
        "properties": Value::Object(properties(record).into_iter().map(|(key, value)| (key, value.into())).collect()),
    });
    if bodies {
        // A body that is no text is shown with its bytes escaped, as in the table.
        value["body"] = record.body.escape_ascii().to_string().into();
    }
    value
}

fn message_as_text(shard: u16, position: u64, record: &Record<'_>, bodies: bool) -> String {
    let properties: Vec<_> = properties(record).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!(
        "shard {shard}  {position:>14}  message  {} queue {} offset {}, body of {} bytes, stored at {}, from {}",
        record.topic.escape_debug(),
        record.queue_id,
        record.queue_offset,
        record.body.len(),
        record.store_timestamp_ms,
        record.born_host
    );
    if !properties.is_empty() {
        text.push_str(", ");
        text.extend(properties.join(" ").escape_debug());
    }
    if bodies {
        text.push_str(&format!("\n  {}", record.body.escape_ascii()));
    }
    text
}

fn internal_as_json(shard: u16, position: u64, record: &InternalRecord<'_>) -> Value {
    let mut value = match *record {
        InternalRecord::Offset { group, topic, queue_id, offset } => {
            json!({ "kind": "offset", "group": group, "topic": topic, "queueId": queue_id, "offset": offset })
        }
        InternalRecord::GroupOffsetsRemoved { group } => json!({ "kind": "groupOffsetsRemoved", "group": group }),
        InternalRecord::TopicRemoved { topic } => json!({ "kind": "topicRemoved", "topic": topic }),
        InternalRecord::Setting { kind, key, value } => {
            json!({ "kind": "setting", "of": kind, "key": key, "value": value.escape_ascii().to_string() })
        }
        InternalRecord::SettingRemoved { kind, key } => json!({ "kind": "settingRemoved", "of": kind, "key": key }),
        InternalRecord::Done { group, topic, queue_id, first, bits } => {
            let offsets: Vec<_> = Done { group, topic, queue_id, first, bits }.offsets().collect();
            json!({ "kind": "done", "group": group, "topic": topic, "queueId": queue_id, "offsets": offsets })
        }
        InternalRecord::Taken(take) => json!({
            "kind": "taken",
            "group": take.group,
            "topic": take.topic,
            "queueId": take.queue_id,
            "offsets": take.offsets().collect::<Vec<_>>(),
            "first": take.first,
            "next": take.next,
            "takenMs": take.taken_ms,
            "untilMs": take.until_ms,
            "how": take.how as u8,
            "attempt": take.attempt,
        }),
    };
    value["shard"] = shard.into();
    value["position"] = position.into();
    value
}

fn internal_as_text(record: &InternalRecord<'_>) -> String {
    match *record {
        InternalRecord::Offset { group, topic, queue_id, offset } => {
            let (group, topic) = (group.escape_debug(), topic.escape_debug());
            format!("offset   {group} has consumed {topic} queue {queue_id} up to {offset}")
        }
        InternalRecord::GroupOffsetsRemoved { group } => {
            format!("offset   all of {} are removed", group.escape_debug())
        }
        InternalRecord::TopicRemoved { topic } => format!("topic    {} is removed", topic.escape_debug()),
        InternalRecord::Setting { kind, key, value } => {
            format!("setting  {} {} = {}", setting_kind(kind), key.escape_debug(), value.escape_ascii())
        }
        InternalRecord::SettingRemoved { kind, key } => {
            format!("setting  {} {} is removed", setting_kind(kind), key.escape_debug())
        }
        InternalRecord::Done { group, topic, queue_id, first, bits } => {
            let offsets: Vec<_> = Done { group, topic, queue_id, first, bits }.offsets().collect();
            let (group, topic) = (group.escape_debug(), topic.escape_debug());
            format!("done     {group} is done with {topic} queue {queue_id} offsets {offsets:?}")
        }
        InternalRecord::Taken(take) => {
            let offsets: Vec<_> = take.offsets().collect();
            let (group, topic) = (take.group.escape_debug(), take.topic.escape_debug());
            let Take { queue_id, first, next, taken_ms, until_ms, .. } = take;
            format!(
                "taken    {group} took {topic} queue {queue_id} offsets {offsets:?} of {first} to {next} at {taken_ms} until {until_ms}"
            )
        }
    }
}

/// As the broker numbers them.
fn setting_kind(kind: u8) -> String {
    use rmq_broker::state::settings::SettingKind;
    let known = [
        (SettingKind::Topic, "topic"),
        (SettingKind::Group, "group"),
        (SettingKind::Forbidden, "forbidden"),
        (SettingKind::RequestMode, "request mode"),
    ];
    let name = known.into_iter().find(|(known, _)| known.byte() == kind);
    name.map_or_else(|| format!("kind {kind}"), |(_, name)| name.to_owned())
}
