//! A real broker that is killed under load, and one whose disk loses power: what it promised is kept.
//!
//! A test goes through *lives* of a broker on one store: start, compare everything with what producers were told,
//! load, crash. Ten lives share a store, then a new one begins. Crashes come at any time, starts included.
//!
//! `RMQ_TEST_CRASHES` crashes per test (15); `RMQ_TEST_CRASH_SEED` repeats the choices of a failed store, which its
//! failure names. Threads and the kernel are no part of the seed: a repeated run meets the same places, not the same
//! instants.

mod broker;
mod image;
mod ledger;
mod load;
mod volume;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use broker::{Broker, Flush};
use ledger::Ledger;
use load::Load;
use rmq_tests::remoting::Connection;
use rmq_tests::{Folder, attached, await_condition, is_for_ringmq, skip};
use volume::{Trigger, Volume};

const CRASHES: u64 = 15;
const CRASHES_PER_STORE: u64 = 10;
/// A store that once lost messages: a process was killed while it made a segment, the next one filled that, and with the
/// power its name went. Its seed, and the crashes until then.
const KNOWN: (u64, u64) = (1_895_852_326, 4);
/// Changes of the volume within which the crash of a start comes, and one under load.
const START_CHANGES: u64 = 60;
const LOAD_CHANGES: u64 = 800;
/// Acknowledgements of one producer within which a crash under load comes, on a real disk.
const LOAD_ACKNOWLEDGED: u64 = 600;
const START_KILL_MS: u64 = 150;

#[test]
fn sync_flush_loses_nothing_acknowledged_to_a_power_cut() {
    lose_power("sync_flush_loses_nothing_acknowledged_to_a_power_cut", Flush::Sync);
}

#[test]
fn async_flush_loses_only_an_end_of_each_queue_to_a_power_cut() {
    lose_power("async_flush_loses_only_an_end_of_each_queue_to_a_power_cut", Flush::Async);
}

#[test]
fn kill_9_loses_nothing_acknowledged_with_sync_flush() {
    kill("kill_9_loses_nothing_acknowledged_with_sync_flush", Flush::Sync);
}

#[test]
fn kill_9_loses_nothing_acknowledged_with_async_flush() {
    kill("kill_9_loses_nothing_acknowledged_with_async_flush", Flush::Async);
}

fn lose_power(test: &'static str, flush: Flush) {
    if is_not_for_here() {
        return;
    }
    match Volume::missing() {
        Some(reason) => skip(reason),
        None => for_each_store(test, |seed, crashes| {
            let volume = Volume::mount(seed).expect("a volume");
            let store = volume.path().join("store");
            run_lives(&store, Some(&volume), flush, seed, crashes)
        }),
    }
}

fn kill(test: &'static str, flush: Flush) {
    if !is_not_for_here() {
        for_each_store(test, |seed, crashes| {
            let folder = Folder::new();
            run_lives(&folder.path().join("store"), None, flush, seed, crashes)
        });
    }
}

fn is_not_for_here() -> bool {
    if attached().is_some() {
        skip("a broker to be killed must be this test's own");
        return true;
    }
    !is_for_ringmq()
}

/// How a failed store is repeated.
struct Replay {
    test: &'static str,
    seed: u64,
    crashes: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, crashes } = self;
            println!("again: RMQ_TEST_CRASH_SEED={seed} RMQ_TEST_CRASHES={crashes} tests/run --test crash {test}");
        }
    }
}

/// A power cut ends the kernel too: lets the store believe that it was last opened before the machine started.
fn forget_boot(store: &Path) {
    let path = store.join("manifest");
    let Ok(manifest) = fs::read_to_string(&path) else { return };
    let (text, _) = manifest.rsplit_once("checksum = ").expect("a manifest ends with its checksum");
    let lines = text
        .lines()
        .map(|line| if line.starts_with("boot = ") { "boot = 00000000000000000000000000000001" } else { line });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let file = File::create(&path).expect("the manifest");
    (&file)
        .write_all(format!("{text}checksum = {:08x}\n", crc32fast::hash(text.as_bytes())).as_bytes())
        .expect("written");
    file.sync_all().expect("stable");
}

/// What the broker had to say when a check failed.
struct LogOfFailure<'a>(&'a Broker);

impl Drop for LogOfFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the broker's log:\n{}", self.0.log_tail());
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

/// Runs `lives` with the seed of each store and the crashes it gets.
fn for_each_store(test: &'static str, lives: impl Fn(u64, u64) -> Ledger) {
    let began = Instant::now();
    let total = number("RMQ_TEST_CRASHES").unwrap_or(CRASHES);
    let first_seed = number("RMQ_TEST_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (mut acknowledged, mut lost) = (0, 0);
    let drawn = (0..total)
        .step_by(CRASHES_PER_STORE as usize)
        .enumerate()
        .map(|(store, done)| (first_seed + store as u64, CRASHES_PER_STORE.min(total - done)));
    for (seed, crashes) in std::iter::once(KNOWN).chain(drawn) {
        let _replay = Replay { test, seed, crashes };
        let ledger = lives(seed, crashes);
        acknowledged += ledger.acknowledged_count;
        lost += ledger.lost_count;
    }
    println!(
        "{test}: {total} crashes, {acknowledged} acknowledged, {lost} of them lost where that is allowed, {} s",
        began.elapsed().as_secs()
    );
}

/// Lives of one store, each but the last ended by a crash. On a volume, most crashes are power cuts.
fn run_lives(store: &Path, volume: Option<&Volume>, flush: Flush, seed: u64, crashes: u64) -> Ledger {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut ledger = Ledger::default();
    let mut must_keep_all = true;
    for life in 0..=crashes {
        let is_last = life == crashes;
        let is_cut = volume.is_some() && rng.u8(..5) > 0;
        let trigger = if is_cut { Trigger::PowerCut } else { Trigger::Notice };
        let is_in_start = !is_last && rng.u8(..5) == 0;
        if let Some(volume) = volume.filter(|_| is_in_start) {
            volume.arm(trigger, rng.u64(1..START_CHANGES));
        }
        let broker = Broker::start(store, flush);
        let _log = LogOfFailure(&broker);
        let mut is_crashed = false;
        match volume {
            _ if !is_in_start => {}
            Some(volume) => {
                broker.await_listening(|| volume.has_triggered());
                volume.disarm();
                is_crashed = volume.has_triggered();
            }
            None => {
                // Anywhere in the start, or shortly after it.
                std::thread::sleep(Duration::from_millis(rng.u64(..START_KILL_MS)));
                is_crashed = true;
            }
        }
        let mut accounts = Vec::new();
        if !is_crashed {
            assert!(broker.await_listening(|| false), "life {life}: the broker does not start:\n{}", broker.log_tail());
            ledger.check(&mut Connection::open(broker.address()), must_keep_all);
            must_keep_all = true;
            if is_last {
                break;
            }
            let load = Load::start(broker.address(), life, &mut rng);
            match volume {
                Some(volume) => {
                    volume.arm(trigger, rng.u64(1..LOAD_CHANGES));
                    await_condition("the crash", || volume.has_triggered());
                }
                None => {
                    let goal = rng.u64(..LOAD_ACKNOWLEDGED);
                    await_condition("acknowledgements", || goal <= load.acknowledged());
                }
            }
            broker.kill();
            accounts = load.accounts();
        } else {
            broker.kill();
        }
        if is_cut {
            must_keep_all &= flush == Flush::Sync;
            volume.inspect(|volume| volume.restore_power());
            forget_boot(store);
        }
        ledger.add(accounts);
    }
    ledger
}
