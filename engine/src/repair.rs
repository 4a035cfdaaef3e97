//! Cuts a damaged log off where the damage begins, so that the broker starts again. Offline.
//!
//! The plan is made by a start that changes nothing: whatever it refuses to read is cut off, and it is tried again on
//! what would be left, until it succeeds. So nothing is touched before it is certain to help.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::config::ShardConfig;
use crate::shard::restore::examine;
use crate::shard::{LogSource, RecoverError, SegmentSource, Shard};
use crate::store_dir::{ShardView, StoreView};

const PIECE_BYTES: usize = 1 << 20;

/// What has to go so that a shard can be opened.
#[derive(Debug)]
pub struct Cut {
    pub shard: u16,
    /// Where the log ends afterwards.
    pub position: u64,
    /// Why it is not opened as it is.
    pub reason: RecoverError,
    /// Segments behind that of `position`, in order.
    pub segments: Vec<u64>,
    /// Snapshots that know more of the log than will be left, in order.
    pub snapshots: Vec<u64>,
}

/// What is left is no shard either.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cutting the log off does not help: {0}")]
    Hopeless(RecoverError),
    #[error(
        "shard {shard}: the log begins at {log_start}; topics, offsets and queues from before that are only in the snapshots, so the index cannot be made anew"
    )]
    NoBeginning { shard: u16, log_start: u64 },
    #[error("shard {shard}: the log alone cannot be read, and the snapshots must stay: {reason}")]
    NotWithoutSnapshots { shard: u16, reason: RecoverError },
}

/// What has to go from a shard; `None` if a broker starts on it as it is.
pub fn plan(store: &StoreView, shard: u16) -> Result<Option<Cut>, RepairError> {
    let config = config_of(store, shard);
    let mut rest = Rest { view: store.shard(shard), end: u64::MAX, hidden: BTreeSet::new() };
    let mut first_reason = None;
    loop {
        let error = match Shard::recover(config.clone(), &mut rest) {
            Ok(_) => break,
            Err(error) => error,
        };
        let end = match error {
            RecoverError::Damaged { position, .. } => position,
            RecoverError::EndsBeforeSnapshot { end, .. } => end,
            RecoverError::MissingSegment { missing } => missing,
            RecoverError::Io(error) => return Err(RepairError::Io(error)),
            error => return Err(RepairError::Hopeless(error)),
        };
        let is_progress = end < rest.end || rest.knows_more_than(&config, end)?;
        if !is_progress {
            return Err(RepairError::Hopeless(error));
        }
        rest.end = rest.end.min(end);
        rest.hide_snapshots(&config)?;
        first_reason = first_reason.or(Some(error));
    }
    let Some(reason) = first_reason else { return Ok(None) };
    let mut segments = rest.view.segments()?;
    segments.sort_unstable();
    segments.retain(|start| rest.end < *start);
    let snapshots = rest.hidden.into_iter().collect();
    Ok(Some(Cut { shard, position: rest.end, reason, segments, snapshots }))
}

/// As the next start of a broker has it.
fn config_of(store: &StoreView, shard: u16) -> ShardConfig {
    ShardConfig {
        geometry: store.geometry(),
        powered_since: store.powered_since(),
        ..ShardConfig::new(shard, store.manifest().epoch + 1)
    }
}

/// What would be left of a shard. Nothing of it is changed.
struct Rest {
    view: ShardView,
    /// Zeros are behind it.
    end: u64,
    hidden: BTreeSet<u64>,
}

impl Rest {
    fn too_new(&mut self, config: &ShardConfig, end: u64) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for start in self.snapshots()? {
            let view = &mut self.view;
            let known = examine(config, start, |at, into| view.read_snapshot(start, at, into));
            if known.is_ok_and(|(_, as_of)| end < as_of) {
                found.push(start);
            }
        }
        Ok(found)
    }

    fn knows_more_than(&mut self, config: &ShardConfig, end: u64) -> io::Result<bool> {
        Ok(!self.too_new(config, end)?.is_empty())
    }

    fn hide_snapshots(&mut self, config: &ShardConfig) -> io::Result<()> {
        let found = self.too_new(config, self.end)?;
        self.hidden.extend(found);
        Ok(())
    }
}

impl SegmentSource for Rest {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut segments = self.view.segments()?;
        segments.retain(|start| *start <= self.end);
        Ok(segments)
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let got = self.view.read(segment_start, at, into)?;
        let kept = self.end.saturating_sub(segment_start + at).min(got as u64) as usize;
        into[kept..got].fill(0);
        Ok(got)
    }
}

impl LogSource for Rest {
    fn write_index(&mut self, _at: u64, _pages: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn make_stable(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn snapshots(&mut self) -> io::Result<Vec<u64>> {
        let mut snapshots = self.view.snapshots()?;
        snapshots.retain(|start| !self.hidden.contains(start));
        Ok(snapshots)
    }

    fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.view.read_snapshot(start, at, into)
    }

    /// The broker's start removes damaged ones itself.
    fn remove_snapshot(&mut self, _start: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Does what was planned. What goes is moved into `saved`, a folder of the same file system, or without one removed.
///
/// May be interrupted anywhere and repeated: the segments go last to first, so the log never has a gap, and until all
/// that proves the damage is gone a broker refuses to start. A start in between, when only zeroing is left to do, is
/// what a start after a crash is.
pub fn carry_out(store: &StoreView, cut: &Cut, saved: Option<&Path>) -> io::Result<()> {
    let view = store.shard(cut.shard);
    let geometry = store.geometry();
    let segment_start = geometry.segment_of(cut.position);
    let damaged = view.segment_path(segment_start);
    let saved = saved.map(|folder| folder.join(format!("shard-{:02}", cut.shard)));
    if let Some(folder) = &saved {
        fs::create_dir_all(folder)?;
        // Its names must last before what they hold goes from where it was.
        folder.ancestors().take(3).try_for_each(|folder| File::open(folder)?.sync_all())?;
    }
    let put_away = |path: &Path| match (&saved, path.file_name()) {
        (Some(folder), Some(name)) => fs::rename(path, folder.join(name)),
        _ => fs::remove_file(path),
    };
    let sync = |path: &Path| File::open(path)?.sync_all();
    if damaged.exists() {
        let file = OpenOptions::new().read(true).write(true).open(&damaged)?;
        let from = cut.position - segment_start;
        if let Some(folder) = &saved {
            save_tail(&file, from, &folder.join(format!("{segment_start:020}-from-{from}")))?;
            sync(folder)?;
        }
        remove_behind(&view, cut, &put_away)?;
        zero(&file, from)?;
        file.sync_all()?;
    } else {
        remove_behind(&view, cut, &put_away)?;
    }
    if let Some(folder) = &saved {
        sync(folder)?;
    }
    sync(&store.shard_path(cut.shard))
}

fn remove_behind(view: &ShardView, cut: &Cut, put_away: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for snapshot in cut.snapshots.iter().rev() {
        put_away(&view.snapshot_path(*snapshot))?;
    }
    for segment in cut.segments.iter().rev() {
        put_away(&view.segment_path(*segment))?;
        File::open(view.log_path())?.sync_all()?;
    }
    Ok(())
}

/// Whether the next start could make the index and the snapshots of a shard anew: it must be able to read the log from
/// its very beginning, of which a start with a snapshot reads only the end.
pub fn can_forget_index(store: &StoreView, shard: u16) -> Result<(), RepairError> {
    let mut view = store.shard(shard);
    let log_start = view.segments()?.into_iter().min().unwrap_or(0);
    if log_start > 0 {
        return Err(RepairError::NoBeginning { shard, log_start });
    }
    let hidden = view.snapshots()?.into_iter().collect();
    let mut log_alone = Rest { view, end: u64::MAX, hidden };
    match Shard::recover(config_of(store, shard), &mut log_alone) {
        Ok(_) => Ok(()),
        Err(RecoverError::Io(error)) => Err(error.into()),
        Err(reason) => Err(RepairError::NotWithoutSnapshots { shard, reason }),
    }
}

/// Removes the index and the snapshots of a shard, all of which the next start makes anew from the log: after
/// [`can_forget_index`].
pub fn forget_index(store: &StoreView, shard: u16) -> io::Result<()> {
    let mut view = store.shard(shard);
    // Snapshots first: they must not name pages that are gone.
    let mut snapshots = view.snapshots()?;
    snapshots.sort_unstable();
    for start in snapshots.into_iter().rev() {
        fs::remove_file(view.snapshot_path(start))?;
    }
    let folder = store.shard_path(shard);
    File::open(&folder)?.sync_all()?;
    match fs::remove_file(view.index_path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(&folder)?.sync_all(),
    }
}

/// Copies a file from `from` on, leaving out what is zero.
fn save_tail(file: &File, from: u64, to: &Path) -> io::Result<()> {
    let copy = File::create(to)?;
    let len = file.metadata()?.len();
    copy.set_len(len.saturating_sub(from))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = from;
    while at < len {
        let count = (len - at).min(PIECE_BYTES as u64) as usize;
        file.read_exact_at(&mut piece[..count], at)?;
        if piece[..count].iter().any(|byte| *byte != 0) {
            copy.write_all_at(&piece[..count], at - from)?;
        }
        at += count as u64;
    }
    copy.sync_all()
}

/// Real zeros, not a hole: the broker relies on segments it finds having been written once.
fn zero(file: &File, from: u64) -> io::Result<()> {
    let len = file.metadata()?.len();
    let zeroes = vec![0; PIECE_BYTES];
    let mut at = from;
    while at < len {
        let count = (len - at).min(PIECE_BYTES as u64) as usize;
        file.write_all_at(&zeroes[..count], at)?;
        at += count as u64;
    }
    Ok(())
}
