//! The store's directory on a real file system.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rmq_engine::inspect::{self, Ending, LostRange, Problem, ShardReport};
use rmq_engine::repair;
use rmq_engine::store_dir::{DirectIo, ManifestError, ShardFiles, StoreDir, StoreError, StoreOptions, StoreView};
use rmq_engine::{
    CommandKind, Fetch, FetchRequest, Geometry, MessageDraft, MessageKeys, Record, Shard, ShardConfig, StorageDone,
    TagFilter, Ticket,
};

const OPTIONS: StoreOptions =
    StoreOptions { shard_count: 2, geometry: Geometry { segment_bytes: 128 * 1024, chunk_bytes: 16 * 1024 } };

fn open(path: &Path) -> Result<StoreDir, StoreError> {
    StoreDir::open(path, OPTIONS)
}

#[test]
fn a_store_keeps_what_it_was_created_with_and_counts_its_openings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new").join("store");
    assert_eq!(open(&path).unwrap().epoch(), 1);
    let again = StoreDir::open(&path, StoreOptions { shard_count: 7, geometry: Geometry::default() }).unwrap();
    assert_eq!((again.epoch(), again.shard_count(), again.geometry()), (2, 2, OPTIONS.geometry));
    assert!(path.join("shard-01").join("log").is_dir() && !path.join("probe").exists());
}

#[test]
fn a_store_in_use_is_refused_by_name_and_holder() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path()).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains(&dir.path().display().to_string()), "{message}");
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    drop(held);
    assert_eq!(open(dir.path()).unwrap().epoch(), 2);
}

#[test]
fn a_strange_manifest_is_refused_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let manifest = dir.path().join("manifest");
    fs::write(&manifest, "ringmq store\nformat = 99\n").unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(&refused, StoreError::Manifest { reason: ManifestError::UnknownFormat { .. }, .. }), "{refused}");
    fs::write(&manifest, "").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Manifest { reason: ManifestError::NotAManifest, .. })));
    fs::remove_file(&manifest).unwrap();
    fs::write(dir.path().join("shard-01/log").join("0".repeat(20)), "").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::ManifestMissing { .. })));
}

#[test]
fn a_first_start_that_was_killed_before_it_wrote_a_log_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::remove_file(dir.path().join("manifest")).unwrap();
    assert_eq!(open(dir.path()).unwrap().epoch(), 1);
}

#[test]
fn the_store_of_a_rocketmq_is_refused_and_left_as_it_is() {
    for found in ["commitlog/00000000000000000000", "consumequeue/T/0", "config/topics.json"] {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join(found);
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(&kept, "theirs").unwrap();
        fs::write(dir.path().join("lock"), "lock").unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(matches!(&refused, StoreError::ForeignStore { path } if path == dir.path()), "{found}: {refused}");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), "lock");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{found}: something was written");
    }
}

#[test]
fn a_store_of_ours_is_opened_whatever_else_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::create_dir(dir.path().join("commitlog")).unwrap();
    assert_eq!(open(dir.path()).unwrap().epoch(), 2);
}

#[test]
fn a_path_that_cannot_be_a_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = open(&file).unwrap_err().to_string();
    assert!(refused.contains(&file.display().to_string()), "{refused}");
    let none = StoreDir::open(dir.path(), StoreOptions { shard_count: 0, ..OPTIONS });
    assert!(matches!(none, Err(StoreError::BadOptions { .. })));
}

/// Carries out commands on the real files, one after the other.
fn settle(shard: &mut Shard, files: &ShardFiles, direct_io: DirectIo) {
    loop {
        shard.pump(1);
        let mut is_idle = true;
        while let Some(command) = shard.next_command() {
            is_idle = false;
            let done = match command.kind {
                CommandKind::RemoveSegment { .. } => unreachable!("nothing is retired"),
                CommandKind::PrepareSegment { segment_start, .. } => {
                    files.create_segment(segment_start, direct_io).unwrap();
                    StorageDone::SegmentReady
                }
                CommandKind::Write { segment_start, at, data, .. } => {
                    let file = files.open_segment(segment_start, DirectIo::Buffered).unwrap();
                    file.write_all_at(data.without_padding(), at).unwrap();
                    StorageDone::Written { bytes: data.len() as u64 }
                }
                CommandKind::Read { segment_start, at, len, mut into } => {
                    let file = files.open_segment(segment_start, direct_io).unwrap();
                    file.read_exact_at(&mut into.as_mut_slice()[..len as usize], at).unwrap();
                    StorageDone::Read { into, bytes: u64::from(len) }
                }
                CommandKind::WriteIndex { at, pages } => {
                    let file = files.open_index(direct_io).unwrap();
                    for (page, at) in pages.iter().zip((at..).step_by(4096)) {
                        file.write_all_at(page.as_slice(), at).unwrap();
                    }
                    StorageDone::IndexWritten
                }
                CommandKind::ReadIndex { at, mut into } => {
                    files.open_index(direct_io).unwrap().read_exact_at(into.as_mut_slice(), at).unwrap();
                    StorageDone::IndexRead { into }
                }
                CommandKind::WriteSnapshot { at, bytes, .. } => {
                    files.write_snapshot(at, &bytes).unwrap();
                    StorageDone::SnapshotWritten
                }
                CommandKind::PublishSnapshot { start, log, keep_from } => {
                    files.publish_snapshot(start, log, keep_from).unwrap();
                    StorageDone::SnapshotWritten
                }
            };
            shard.complete(command.id, Ok(done));
        }
        if is_idle {
            return;
        }
    }
}

#[test]
fn a_shard_comes_back_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let body = [7; 700];
    let mut snapshots = Vec::new();
    for round in 0..4 {
        let store = open(dir.path()).unwrap();
        let mut files = store.shard_files(1);
        let mut config = ShardConfig::new(1, store.epoch());
        config.geometry = store.geometry();
        (config.tail_bytes_max, config.index_bytes_max) = (0, 0);
        let (mut shard, recovered) = Shard::recover(config, &mut files).unwrap();
        assert_eq!(recovered.messages, if round == 0 { 0 } else { 100 }, "what came after the snapshot is replayed");
        assert_eq!(shard.bounds("T", 0).max, round * 500);
        for sent in 0..500 {
            if sent == 400 {
                shard.want_snapshot();
                settle(&mut shard, &files, store.direct_io());
            }
            let draft = MessageDraft {
                topic: "T",
                queue_id: 0,
                flag: 0,
                sys_flag: 0,
                born_timestamp_ms: 0,
                born_host: "127.0.0.1:1".parse().unwrap(),
                store_host: "127.0.0.1:1".parse().unwrap(),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &body,
                properties: b"",
                keys: MessageKeys::default(),
            };
            shard.append(&draft, 1).unwrap();
            settle(&mut shard, &files, store.direct_io());
        }
        for offset in (0..shard.bounds("T", 0).max).step_by(37) {
            let request =
                FetchRequest { topic: "T", queue_id: 0, offset, count_max: 1, bytes_max: 1, filter: &TagFilter::All };
            let slices = loop {
                match shard.fetch(&request, Ticket(1)) {
                    Fetch::Pending => settle(&mut shard, &files, store.direct_io()),
                    Fetch::Found { slices, .. } => break slices,
                    other => panic!("{other:?}"),
                }
            };
            let record = Record::decode(slices[0].as_ref()).unwrap();
            assert_eq!((record.queue_offset, record.body), (offset, &body[..]));
        }
        let names = fs::read_dir(dir.path().join("shard-01")).unwrap().map(|entry| entry.unwrap().file_name());
        snapshots = names.filter(|name| name.to_string_lossy().starts_with("snapshot")).collect();
    }
    assert_eq!(snapshots.len(), 2, "the last two snapshots are kept: {snapshots:?}");
}

const WRITTEN: i64 = 400;

/// A store with messages of one queue in shard 1, each a batch of its own, a snapshot taken half-way, closed again.
fn written_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut files = store.shard_files(1);
    let mut config = ShardConfig::new(1, store.epoch());
    config.geometry = store.geometry();
    let (mut shard, _) = Shard::recover(config, &mut files).unwrap();
    for sent in 0..WRITTEN {
        if sent == WRITTEN / 2 {
            shard.want_snapshot();
        }
        let draft = MessageDraft {
            topic: "T",
            queue_id: 3,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host: "127.0.0.1:1".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &[7; 700],
            properties: b"",
            keys: MessageKeys::default(),
        };
        shard.append(&draft, 1000 + sent).unwrap();
        settle(&mut shard, &files, store.direct_io());
    }
    dir
}

fn check(dir: &Path) -> ShardReport {
    inspect::check(&StoreView::open(dir).unwrap()).remove(1)
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn segment(dir: &Path, index: u64) -> std::path::PathBuf {
    dir.join(format!("shard-01/log/{:020}", index * OPTIONS.geometry.segment_bytes))
}

#[test]
fn a_sound_store_is_counted_and_not_changed() {
    let dir = written_store();
    let manifest = fs::read(dir.path().join("manifest")).unwrap();
    let report = check(dir.path());
    assert!(report.is_sound() && matches!(report.ending, Some(Ending::Clean)), "{report:?}");
    assert_eq!((report.messages, report.batches, report.start), (400, 400, 0));
    assert_eq!((report.snapshots.len(), report.epochs), (1, Some((1, 1))));
    assert_eq!(fs::read(dir.path().join("manifest")).unwrap(), manifest, "the opening was counted");
    let _other_reader = StoreView::open(dir.path()).unwrap();
    assert!(check(dir.path()).is_sound(), "readers do not shut each other out");
}

#[test]
fn a_store_in_use_is_not_looked_at() {
    let dir = written_store();
    let _held = open(dir.path()).unwrap();
    let refused = StoreView::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{refused}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(StoreView::open(empty.path()), Err(StoreError::NoStore { .. })));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn damage_is_told_with_its_place_and_what_it_costs() {
    let dir = written_store();
    flip(&segment(dir.path(), 0), 10_000);
    let report = check(dir.path());
    let Some(Ending::Damaged(damage)) = &report.ending else { panic!("{report:?}") };
    assert!(!report.is_sound());
    assert_eq!((&damage.path, damage.position), (&segment(dir.path(), 0), damage.at));
    assert!(damage.at <= 10_000 && 9_000 < damage.at, "{damage:?}");
    let before = report.messages as i64;
    let offsets = before..before + 1;
    assert_eq!(damage.behind.lost, [LostRange { topic: "T".to_owned(), queue_id: 3, offsets }]);
    assert_eq!(before + 1 + damage.behind.messages as i64, WRITTEN);
    assert!(report.problems.iter().any(|problem| matches!(problem, Problem::EndsBeforeSnapshot { .. })), "{report:?}");
}

#[test]
fn an_unfinished_last_write_is_no_damage() {
    let dir = written_store();
    let whole = check(dir.path());
    let last = segment(dir.path(), whole.end / OPTIONS.geometry.segment_bytes);
    flip(&last, whole.end % OPTIONS.geometry.segment_bytes - 10);
    let report = check(dir.path());
    assert!(report.is_sound() && matches!(report.ending, Some(Ending::Torn { .. })), "{report:?}");
    assert_eq!(report.messages, whole.messages - 1);
}

#[test]
fn a_damaged_snapshot_is_named() {
    let dir = written_store();
    let path = check(dir.path()).snapshots.remove(0).path;
    flip(&path, fs::metadata(&path).unwrap().len() / 2);
    let report = check(dir.path());
    assert!(!report.is_sound() && report.snapshots[0].as_of.is_err(), "{report:?}");
}

#[test]
fn a_log_whose_beginning_was_removed_is_sound_while_a_snapshot_knows_it() {
    let dir = written_store();
    fs::remove_file(segment(dir.path(), 0)).unwrap();
    let mut report = check(dir.path());
    assert!(report.is_sound() && report.start == OPTIONS.geometry.segment_bytes, "{report:?}");
    fs::remove_file(report.snapshots.remove(0).path).unwrap();
    let report = check(dir.path());
    assert_eq!(report.problems, [Problem::NoSnapshot { start: OPTIONS.geometry.segment_bytes }]);
}

/// Opens shard 1 as a broker does and reads all messages back; `None` if it is refused.
fn reopened(dir: &Path) -> Option<i64> {
    let store = open(dir).unwrap();
    let mut files = store.shard_files(1);
    let mut config = ShardConfig::new(1, store.epoch());
    (config.geometry, config.tail_bytes_max) = (store.geometry(), 0);
    config.powered_since = store.powered_since();
    let (mut shard, _) = Shard::recover(config, &mut files).ok()?;
    let max = shard.bounds("T", 3).max;
    for offset in 0..max {
        let request =
            FetchRequest { topic: "T", queue_id: 3, offset, count_max: 1, bytes_max: 1, filter: &TagFilter::All };
        loop {
            match shard.fetch(&request, Ticket(1)) {
                Fetch::Pending => settle(&mut shard, &files, store.direct_io()),
                Fetch::Found { .. } => break,
                other => panic!("{offset}: {other:?}"),
            }
        }
    }
    Some(max)
}

fn repaired(dir: &Path) -> Option<repair::Cut> {
    let store = StoreView::open_alone(dir).unwrap();
    let cut = repair::plan(&store, 1).unwrap()?;
    repair::carry_out(&store, &cut, Some(&dir.join("saved"))).unwrap();
    assert!(repair::plan(&store, 1).unwrap().is_none(), "once is enough");
    Some(cut)
}

#[test]
fn a_sound_store_needs_no_repair_and_one_in_use_gets_none() {
    let dir = written_store();
    assert!(repaired(dir.path()).is_none());
    assert_eq!(reopened(dir.path()), Some(WRITTEN));
    let _held = open(dir.path()).unwrap();
    assert!(matches!(StoreView::open_alone(dir.path()), Err(StoreError::Locked { .. })));
}

#[test]
fn a_log_is_cut_off_where_the_damage_begins_and_what_goes_is_kept() {
    // Before the snapshot was taken nobody notices; behind it, in the first and in the last segment there.
    let whole = check(written_store().path());
    for position in [whole.snapshots[0].start + 1000, whole.end - 40_000] {
        let dir = written_store();
        let size = OPTIONS.geometry.segment_bytes;
        flip(&segment(dir.path(), position / size), position % size);
        assert_eq!(reopened(dir.path()), None, "the start is refused");
        let kept = check(dir.path()).messages as i64;
        let cut = repaired(dir.path()).unwrap();
        assert!(cut.position <= position && position - 2000 < cut.position, "{cut:?}");
        assert_eq!(reopened(dir.path()), Some(kept));
        let tail = format!("{:020}-from-{}", position / size * size, cut.position % size);
        assert!(dir.path().join("saved/shard-01").join(tail).exists());
        assert!(cut.segments.iter().all(|start| dir.path().join(format!("saved/shard-01/{start:020}")).exists()));
        assert!(check(dir.path()).is_sound());
    }
}

#[test]
fn a_snapshot_that_knows_more_than_is_left_goes_too() {
    let dir = written_store();
    flip(&segment(dir.path(), 0), 10_000);
    assert_eq!(reopened(dir.path()), Some(WRITTEN), "a start with a snapshot does not read so far back");
    fs::remove_file(check(dir.path()).snapshots.remove(0).path).unwrap();
    let kept = check(dir.path()).messages as i64;
    assert!(repaired(dir.path()).is_some());
    assert_eq!(reopened(dir.path()), Some(kept));

    // The log ends before the snapshot's: files were lost.
    let dir = written_store();
    let as_of = *check(dir.path()).snapshots[0].as_of.as_ref().unwrap();
    let last = as_of / OPTIONS.geometry.segment_bytes;
    for index in (last..).take_while(|index| segment(dir.path(), *index).exists()) {
        fs::remove_file(segment(dir.path(), index)).unwrap();
    }
    assert_eq!(reopened(dir.path()), None);
    let cut = repaired(dir.path()).unwrap();
    assert_eq!(cut.snapshots.len(), 1);
    assert!(reopened(dir.path()).is_some_and(|max| 0 < max && max < WRITTEN));
}

#[test]
fn a_repair_that_was_interrupted_is_finished_by_the_next() {
    let position = check(written_store().path()).snapshots[0].start + 1000;
    let size = OPTIONS.geometry.segment_bytes;
    let damaged = || {
        let dir = written_store();
        flip(&segment(dir.path(), position / size), position % size);
        dir
    };
    let dir = damaged();
    let kept = check(dir.path()).messages as i64;
    let cut = repaired(dir.path()).unwrap();
    assert!(!cut.segments.is_empty());
    // Segments go last to first.
    for gone in 0..=cut.segments.len() {
        let dir = damaged();
        for start in cut.segments.iter().rev().take(gone) {
            fs::remove_file(segment(dir.path(), start / size)).unwrap();
        }
        let started = reopened(dir.path());
        assert!(started.is_none_or(|max| max == kept), "{gone} segments gone: {started:?}");
        repaired(dir.path());
        assert_eq!(reopened(dir.path()), Some(kept), "{gone} segments were gone");
    }
}

#[test]
fn the_index_is_made_anew_from_the_log() {
    let dir = written_store();
    let index = dir.path().join("shard-01/index");
    flip(&index, 100);
    let store = StoreView::open_alone(dir.path()).unwrap();
    repair::can_forget_index(&store, 1).unwrap();
    repair::forget_index(&store, 1).unwrap();
    drop(store);
    assert!(!index.exists());
    assert_eq!(reopened(dir.path()), Some(WRITTEN));
    fs::remove_file(segment(dir.path(), 0)).unwrap();
    let refused = repair::can_forget_index(&StoreView::open_alone(dir.path()).unwrap(), 1).unwrap_err();
    assert!(matches!(refused, repair::RepairError::NoBeginning { shard: 1, .. }), "{refused}");
}

#[test]
fn snapshots_stay_where_the_log_alone_cannot_be_read() {
    let dir = written_store();
    flip(&segment(dir.path(), 0), 10_000);
    assert_eq!(reopened(dir.path()), Some(WRITTEN), "a start with a snapshot does not read so far back");
    let refused = repair::can_forget_index(&StoreView::open_alone(dir.path()).unwrap(), 1).unwrap_err();
    assert!(matches!(refused, repair::RepairError::NotWithoutSnapshots { shard: 1, .. }), "{refused}");
}
