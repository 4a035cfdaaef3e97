//! Reads all messages of the store once a day, slowly, to find what has rotted before a consumer asks for it.
//!
//! One service thread with files of its own, so no core has any part in it. A core only says, once a second, how much
//! of its log there is; the thread only counts what it finds, and logs it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rmq_engine::scrub::{Rotten, scrub};
use rmq_engine::store_dir::ShardView;
use rmq_engine::{Geometry, SegmentSource, Shard};

/// Bytes read at once: what a log write may have to wait for.
const PIECE_BYTES: usize = 256 << 10;

/// When and how fast the log is read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the start to the first pass: a start has verified what it read, and has other things to do.
    pub first_after: Duration,
    /// From the start of one pass to that of the next, if that is longer than a pass takes.
    pub every: Duration,
    pub bytes_per_second: u64,
}

impl Default for Pace {
    /// 16 MiB/s, one hundredth of what a good disk reads: a terabyte a day.
    fn default() -> Self {
        let every = Duration::from_secs(24 * 3600);
        Self { first_after: Duration::from_secs(600), every, bytes_per_second: 16 << 20 }
    }
}

/// What a shard's core and the scrubber tell each other.
#[derive(Debug, Default)]
pub struct ScrubState {
    log_start: AtomicU64,
    durable: AtomicU64,
    verified_bytes: AtomicU64,
    damages: AtomicU64,
}

impl ScrubState {
    /// From the core: what there is to verify.
    pub fn note(&self, shard: &Shard) {
        self.log_start.store(shard.log_start().bytes(), Ordering::Relaxed);
        self.durable.store(shard.durable().bytes(), Ordering::Relaxed);
    }

    /// Bytes found intact since the start, by all passes that came to their end.
    pub fn verified_bytes(&self) -> u64 {
        self.verified_bytes.load(Ordering::Relaxed)
    }

    /// Damaged places found since the start; one that is found again counts again.
    pub fn damages(&self) -> u64 {
        self.damages.load(Ordering::Relaxed)
    }
}

/// One shard's log as the scrubber sees it.
pub struct ScrubbedShard {
    pub shard: u16,
    pub geometry: Geometry,
    pub files: ShardView,
    pub state: Arc<ScrubState>,
}

/// The running thread.
pub struct Scrubber {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Scrubber {
    pub fn start(mut shards: Vec<ScrubbedShard>, pace: Pace) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let work = move || {
            let mut wait = pace.first_after;
            while is_running(&stopped, wait) {
                let began = Instant::now();
                for shard in &mut shards {
                    shard.pass(&stopped, pace.bytes_per_second);
                }
                wait = pace.every.saturating_sub(began.elapsed());
            }
        };
        let thread = std::thread::Builder::new().name("rmq-scrubber".into()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread and waits for it: as long as one small read takes.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the scrubber had panicked");
        }
    }
}

/// Waits; false once the process stops.
fn is_running(stopped: &Receiver<()>, wait: Duration) -> bool {
    matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}

impl ScrubbedShard {
    /// Verifies what there is of the log now. Where retention is faster than the scrubber, it begins again with what is
    /// the oldest then.
    fn pass(&mut self, stopped: &Receiver<()>, bytes_per_second: u64) {
        loop {
            let log = self.state.log_start.load(Ordering::Relaxed)..self.state.durable.load(Ordering::Relaxed);
            let log_start = log.start;
            let is_overtaken = self.verify(log, stopped, bytes_per_second);
            if !is_overtaken || self.state.log_start.load(Ordering::Relaxed) == log_start {
                return;
            }
        }
    }

    /// True if a segment was gone when it was to be read.
    fn verify(&mut self, log: Range<u64>, stopped: &Receiver<()>, bytes_per_second: u64) -> bool {
        let Self { shard, geometry, files, state } = self;
        let log_folder = files.log_path();
        let mut source = Paced { files, stopped, bytes_per_second };
        let verified = scrub(&mut source, *shard, *geometry, log, &mut |rotten| {
            // The segment was retired meanwhile, and its file is another one's now.
            if rotten.range.start < state.log_start.load(Ordering::Relaxed) {
                return;
            }
            state.damages.fetch_add(1, Ordering::Relaxed);
            report(*shard, &log_folder, &rotten);
        });
        match verified {
            Ok(bytes) => {
                state.verified_bytes.fetch_add(bytes, Ordering::Relaxed);
                tracing::info!(shard, bytes, "all messages were read and verified");
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // The process stops.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) => {
                tracing::error!(shard, %error, "the log cannot be verified: reading it failed");
                false
            }
        }
    }
}

fn report(shard: u16, log_folder: &Path, rotten: &Rotten) {
    let Rotten { range, reason, messages, is_exact } = rotten;
    let names = messages.iter().map(|lost| {
        let (first, last) = (lost.offsets.start, lost.offsets.end - 1);
        format!("topic {} queue {} offsets {first} to {last}", lost.topic, lost.queue_id)
    });
    let names = names.collect::<Vec<_>>().join("; ");
    let what = match (messages.is_empty(), is_exact) {
        (true, _) => "which messages stand there cannot be read any more",
        (false, true) => "these messages are lost",
        (false, false) => "one or more of these messages is lost",
    };
    tracing::error!(
        shard, log_folder = %log_folder.display(), from = range.start, to = range.end, %reason, messages = names,
        "the log has rotted: {what}; consumers pass over them. Look after the disk; `rmq store check` on the stopped \
         broker says more"
    );
}

/// The files of a shard, read in small pieces with pauses. A read fails with `Interrupted` once the process stops.
struct Paced<'a> {
    files: &'a mut ShardView,
    stopped: &'a Receiver<()>,
    bytes_per_second: u64,
}

impl SegmentSource for Paced<'_> {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.files.segments()
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        for piece in into.chunks_mut(PIECE_BYTES) {
            let len = piece.len();
            let got = self.files.read(segment_start, at + filled as u64, piece)?;
            filled += got;
            if !is_running(self.stopped, Duration::from_secs_f64(got as f64 / self.bytes_per_second as f64)) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if got < len {
                break;
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use rmq_engine::memory::MemoryStorage;
    use rmq_engine::store_dir::{StoreDir, StoreOptions};
    use rmq_engine::{MessageDraft, MessageKeys, ShardConfig};

    use super::*;

    const GEOMETRY: Geometry = Geometry { segment_bytes: 16 << 20, chunk_bytes: 1 << 16 };
    const AT_ONCE: Pace =
        Pace { first_after: Duration::ZERO, every: Duration::from_millis(1), bytes_per_second: 1 << 30 };

    /// A store on disk with 2 MiB of messages in its first segment, one byte of which is changed.
    fn store_with_flipped_byte(at: Option<usize>) -> (tempfile::TempDir, StoreDir, Shard) {
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            StoreDir::open(folder.path(), StoreOptions { shard_count: 1, geometry: GEOMETRY }).expect("a store");
        let mut storage = MemoryStorage::new();
        let config = ShardConfig { geometry: GEOMETRY, ..ShardConfig::new(0, store.epoch()) };
        let mut shard = storage.open(config).expect("an empty shard");
        let host = "127.0.0.1:1".parse().expect("an address");
        for _ in 0..2000 {
            let draft = MessageDraft {
                topic: "T",
                queue_id: 0,
                flag: 0,
                sys_flag: 0,
                born_timestamp_ms: 0,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &[7; 1000],
                properties: b"",
                keys: MessageKeys::default(),
            };
            shard.append(&draft, 1).expect("there is room");
            storage.settle(&mut shard, 1);
        }
        let bytes = storage.segment_mut(0).expect("the first segment");
        if let Some(at) = at {
            bytes[at] ^= 1;
        }
        std::fs::write(store.shard_files(0).segment_path(0), bytes).expect("a file");
        (folder, store, shard)
    }

    fn start(store: &StoreDir, shard: &Shard) -> (Arc<ScrubState>, Scrubber) {
        let state = Arc::new(ScrubState::default());
        state.note(shard);
        let scrubbed = ScrubbedShard { shard: 0, geometry: GEOMETRY, files: store.shard_view(0), state: state.clone() };
        (state, Scrubber::start(vec![scrubbed], AT_ONCE).expect("a thread"))
    }

    fn wait_for(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} does not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_sound_log_is_verified_and_nothing_reported() {
        let (_folder, store, shard) = store_with_flipped_byte(None);
        let (state, scrubber) = start(&store, &shard);
        wait_for("a pass", || state.verified_bytes() > 2_000_000);
        scrubber.stop();
        assert_eq!(state.damages(), 0);
    }

    #[test]
    fn a_rotten_byte_is_counted_by_every_pass() {
        let (_folder, store, shard) = store_with_flipped_byte(Some(700_000));
        let (state, scrubber) = start(&store, &shard);
        wait_for("a second pass", || state.damages() >= 2);
        scrubber.stop();
    }
}
