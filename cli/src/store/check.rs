//! `rmq store check`: what is in a store, and whether it is intact.

use std::fmt::Write;

use rmq_engine::inspect::{self, Damage, Ending, ShardReport};
use rmq_engine::store_dir::{STORE_FORMAT_VERSION, StoreView};
use serde_json::{Value, json};

use crate::arguments::StoreCheckArguments;
use crate::exit::Exit;
use crate::store::refuse;

/// Lost ranges printed as text, per shard; `--json` has more.
const LOST_LINES_MAX: usize = 20;

pub fn run(arguments: &StoreCheckArguments) -> Exit {
    let store = match StoreView::open(&arguments.store) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    let reports = inspect::check(&store);
    let is_sound = reports.iter().all(ShardReport::is_sound);
    let shown = if arguments.json { format!("{}\n", as_json(&store, &reports)) } else { as_text(&store, &reports) };
    match crate::print(&shown) {
        Exit::Success if !is_sound => Exit::Damaged,
        exit => exit,
    }
}

fn as_text(store: &StoreView, reports: &[ShardReport]) -> String {
    let manifest = store.manifest();
    let mut text = format!(
        "store {}\n  format {STORE_FORMAT_VERSION}, {} shards, segments of {} bytes, opened {} times\n",
        store.path().display(),
        manifest.shard_count,
        manifest.geometry.segment_bytes,
        manifest.epoch
    );
    for report in reports {
        write_shard(&mut text, report).expect("writing to a string does not fail");
    }
    let bad: Vec<_> =
        reports.iter().filter(|report| !report.is_sound()).map(|report| report.shard.to_string()).collect();
    text.push_str(&match bad.len() {
        0 => "\nthe store is sound\n".to_owned(),
        _ => format!("\nDAMAGED: see shard {}\n", bad.join(", ")),
    });
    text
}

fn write_shard(text: &mut String, report: &ShardReport) -> std::fmt::Result {
    writeln!(text, "\nshard {}", report.shard)?;
    writeln!(text, "  segments    {}", report.segments.len())?;
    writeln!(text, "  log         position {} to {}", report.start, report.end)?;
    writeln!(text, "  batches     {}, {} bytes", report.batches, report.batch_bytes)?;
    writeln!(text, "  records     {}, of them {} messages", report.records, report.messages)?;
    if let (Some((first_ms, last_ms)), Some((first, last))) = (report.store_times_ms, report.epochs) {
        writeln!(text, "  store time  {first_ms} to {last_ms} (milliseconds since 1970)")?;
        writeln!(text, "  epochs      {first} to {last}")?;
    }
    for snapshot in &report.snapshots {
        match &snapshot.as_of {
            Ok(as_of) => {
                writeln!(text, "  snapshot    begun at {}, valid, knows the log up to {as_of}", snapshot.start)?
            }
            Err(reason) => {
                writeln!(text, "  SNAPSHOT    {} is damaged and not used: {reason}", snapshot.path.display())?
            }
        }
    }
    match &report.ending {
        None => writeln!(text, "  END         not reached")?,
        Some(Ending::Clean) => writeln!(text, "  end         clean")?,
        Some(Ending::Torn { position, reason }) => {
            writeln!(
                text,
                "  end         remains of an unfinished write at {position} ({reason}); none of it was acknowledged"
            )?;
        }
        Some(Ending::LostPower { durable }) => writeln!(
            text,
            "  end         a loss of power took messages acknowledged under ASYNC_FLUSH: the log was durable up to {durable}"
        )?,
        Some(Ending::Damaged(damage)) => write_damage(text, damage)?,
    }
    for problem in &report.problems {
        writeln!(text, "  PROBLEM     {problem}")?;
    }
    let told = report.problems.len() as u64;
    if told < report.problem_count {
        writeln!(text, "  PROBLEM     and {} more", report.problem_count - told)?;
    }
    Ok(())
}

fn write_damage(text: &mut String, damage: &Damage) -> std::fmt::Result {
    let behind = &damage.behind;
    writeln!(text, "  DAMAGE      {} at byte {}: {}", damage.path.display(), damage.at, damage.reason)?;
    if let Some((from, to)) = behind.range {
        writeln!(
            text,
            "              intact behind it, from position {from} to {to}: {} batches, {} messages, {} bytes",
            behind.batches, behind.messages, behind.batch_bytes
        )?;
    }
    for lost in behind.lost.iter().take(LOST_LINES_MAX) {
        let (first, last) = (lost.offsets.start, lost.offsets.end - 1);
        writeln!(text, "  LOST        {} queue {}: offsets {first} to {last}", lost.topic, lost.queue_id)?;
    }
    if LOST_LINES_MAX < behind.lost.len() {
        writeln!(text, "  LOST        and more, {} messages together", behind.lost_messages)?;
    }
    Ok(())
}

fn as_json(store: &StoreView, reports: &[ShardReport]) -> Value {
    let manifest = store.manifest();
    json!({
        "store": store.path().to_string_lossy(),
        "format": STORE_FORMAT_VERSION,
        "segmentBytes": manifest.geometry.segment_bytes,
        "epoch": manifest.epoch,
        "isSound": reports.iter().all(ShardReport::is_sound),
        "shards": reports.iter().map(shard_as_json).collect::<Vec<_>>(),
    })
}

fn shard_as_json(report: &ShardReport) -> Value {
    let snapshots = report.snapshots.iter().map(|snapshot| {
        json!({ "start": snapshot.start, "asOf": snapshot.as_of.as_ref().ok(), "damage": snapshot.as_of.as_ref().err() })
    });
    let ending = match &report.ending {
        None => Value::Null,
        Some(Ending::Clean) => json!({ "kind": "clean" }),
        Some(Ending::Torn { position, reason }) => {
            json!({ "kind": "torn", "position": position, "reason": reason.to_string() })
        }
        Some(Ending::LostPower { durable }) => json!({ "kind": "lostPower", "durable": durable }),
        Some(Ending::Damaged(damage)) => damage_as_json(damage),
    };
    json!({
        "shard": report.shard,
        "isSound": report.is_sound(),
        "segments": report.segments,
        "start": report.start,
        "end": report.end,
        "batches": report.batches,
        "batchBytes": report.batch_bytes,
        "records": report.records,
        "messages": report.messages,
        "storeTimesMs": report.store_times_ms,
        "epochs": report.epochs,
        "snapshots": snapshots.collect::<Vec<_>>(),
        "ending": ending,
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "problemCount": report.problem_count,
    })
}

fn damage_as_json(damage: &Damage) -> Value {
    let behind = &damage.behind;
    let lost = behind.lost.iter().map(|lost| {
        json!({ "topic": lost.topic, "queueId": lost.queue_id, "fromOffset": lost.offsets.start, "toOffset": lost.offsets.end - 1 })
    });
    json!({
        "kind": "damaged",
        "file": damage.path.to_string_lossy(),
        "at": damage.at,
        "position": damage.position,
        "reason": damage.reason.to_string(),
        "intactBehind": {
            "range": behind.range,
            "batches": behind.batches,
            "batchBytes": behind.batch_bytes,
            "messages": behind.messages,
        },
        "lost": lost.collect::<Vec<_>>(),
        "lostMessages": behind.lost_messages,
    })
}
