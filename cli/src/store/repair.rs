//! `rmq store repair`: cuts a damaged log off, or lets the index be made anew.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rmq_engine::inspect::{self, Ending};
use rmq_engine::repair::{self, Cut};
use rmq_engine::store_dir::StoreView;

use crate::arguments::StoreRepairArguments;
use crate::exit::Exit;
use crate::store::refuse;

/// Ranges of lost messages that are printed; `rmq store check --json` has more.
const LOST_LINES_MAX: usize = 20;

pub fn run(arguments: &StoreRepairArguments) -> Exit {
    let store = match StoreView::open_alone(&arguments.store) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    if arguments.rebuild_index {
        return rebuild_index(&store, arguments.yes);
    }
    let mut cuts = Vec::new();
    for shard in 0..store.manifest().shard_count {
        match repair::plan(&store, shard) {
            Ok(cut) => cuts.extend(cut),
            Err(error) => {
                eprintln!("rmq: shard {shard} cannot be repaired: {error}; nothing was changed");
                return Exit::Store;
            }
        }
    }
    if cuts.is_empty() {
        return crate::print("a broker starts on this store as it is: nothing to repair\n");
    }
    let reports = inspect::check(&store);
    for cut in &cuts {
        let ending = reports.iter().find(|report| report.shard == cut.shard).and_then(|report| report.ending.as_ref());
        if crate::print(&describe(&store, cut, ending)) != Exit::Success {
            return Exit::Runtime;
        }
    }
    if !arguments.yes {
        let kept = if arguments.no_save { "and is gone for good" } else { "and is kept in a folder of the store" };
        crate::print(&format!("\nnothing was changed. With --yes what is cut off goes {kept}\n"));
        return Exit::Damaged;
    }
    let saved = (!arguments.no_save).then(|| saved_folder(&store));
    for cut in &cuts {
        if let Err(error) = repair::carry_out(&store, cut, saved.as_deref()) {
            eprintln!("rmq: shard {}: {error}; run the repair again when this is mended", cut.shard);
            return Exit::Runtime;
        }
    }
    let kept = saved.map(|folder| format!("; what was cut off is in {}", folder.display()));
    crate::print(&format!("\ndone: a broker starts on this store{}\n", kept.unwrap_or_default()))
}

/// A name that was not used before, so that a second repair leaves what the first one kept.
fn saved_folder(store: &StoreView) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let names = (seconds..).map(|number| store.path().join(format!("repair-{number}")));
    names.into_iter().find(|folder| !folder.exists()).unwrap_or_else(|| store.path().join("repair"))
}

fn describe(store: &StoreView, cut: &Cut, ending: Option<&Ending>) -> String {
    let size = store.geometry().segment_bytes;
    let mut text = format!(
        "shard {}: {}\n  cut off     from position {} on: segment {:020}, byte {}\n",
        cut.shard,
        cut.reason,
        cut.position,
        cut.position / size * size,
        cut.position % size
    );
    if !cut.segments.is_empty() {
        text.push_str(&format!("  put away    {} later segments\n", cut.segments.len()));
    }
    if !cut.snapshots.is_empty() {
        text.push_str(&format!("  put away    {} snapshots that know more than is left\n", cut.snapshots.len()));
    }
    match ending {
        Some(Ending::Damaged(damage)) if damage.position == cut.position => {
            let behind = &damage.behind;
            text.push_str(&format!(
                "  lost        with the damaged ones: {} messages in {} intact batches behind\n",
                behind.messages, behind.batches
            ));
            for lost in behind.lost.iter().take(LOST_LINES_MAX) {
                let (first, last) = (lost.offsets.start, lost.offsets.end - 1);
                text.push_str(&format!(
                    "  damaged     {} queue {}: offsets {first} to {last}\n",
                    lost.topic, lost.queue_id
                ));
            }
        }
        _ => text.push_str("  lost        everything the log held behind\n"),
    }
    text.push_str(
        "  then        queues end earlier and give the lost offsets to new messages; topics, groups and committed \
         offsets are as they were at that point\n",
    );
    text
}

fn rebuild_index(store: &StoreView, is_wanted: bool) -> Exit {
    let shards = 0..store.manifest().shard_count;
    // All of them before any is touched.
    for shard in shards.clone() {
        if let Err(error) = repair::can_forget_index(store, shard) {
            eprintln!("rmq: {error}; nothing was changed");
            return Exit::Store;
        }
    }
    if !is_wanted {
        return crate::print(
            "nothing was changed. With --yes the index and the snapshots of every shard are removed; the next start reads \
             the whole log and makes them anew\n",
        );
    }
    for shard in shards {
        if let Err(error) = repair::forget_index(store, shard) {
            eprintln!("rmq: shard {shard}: {error}; run it again when this is mended");
            return Exit::Runtime;
        }
    }
    crate::print("done: the next start reads the whole log and makes the index anew\n")
}
