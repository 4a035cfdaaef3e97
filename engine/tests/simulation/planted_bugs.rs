//! The mutation check: every bug planted in the shard must be noticed by the simulation, or it proves nothing.
//! That nothing is noticed without one is the simulation's own test.
//! `cargo test -p rmq-engine --features planted-bugs --test simulation`

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use rmq_engine::planted::{Bug, plant};

use crate::world::World;

/// Each bug must show within so many seeds.
const SEEDS: u64 = 2000;

const BUGS: &[Bug] = &[
    Bug::AcknowledgeBeforeCompletion,
    Bug::DurableMarkOverHole,
    Bug::SyncFlagNotSet,
    Bug::PaddingNotZeroed,
    Bug::BlockRewrittenInFlight,
    Bug::ShortWriteTakenForWhole,
    Bug::FailedWriteIgnored,
    Bug::SegmentNotAwaited,
    Bug::RowsShownBeforeDurable,
    Bug::OffsetAcknowledgedEarly,
    Bug::RepeatedOffsetAcknowledgedEarly,
    Bug::ConsumedApart,
    Bug::RemovalNotLogged,
    Bug::BatchChecksumNotChecked,
    Bug::PositionNotChecked,
    Bug::ShardNotChecked,
    Bug::ChainNotChecked,
    Bug::EpochNotChecked,
    Bug::RecoveredNotMadeStable,
    Bug::DamageTakenForEnd,
    Bug::SnapshotAheadOfLog,
    Bug::SnapshotAheadOfPages,
    Bug::SeenRecordsFoldedAgain,
    Bug::SeenKeysAddedAgain,
    Bug::PageReusedAtOnce,
    Bug::PageChecksumNotChecked,
    Bug::ReadNotVerified,
    Bug::RecordChecksumNotChecked,
    Bug::SearchBeyondEnd,
];

#[test]
fn every_planted_bug_is_noticed() {
    let hook = take_hook();
    set_hook(Box::new(|_| {})); // Failing is what the runs are for.
    let found: Vec<_> = BUGS.iter().map(|bug| first_failure(*bug)).collect();
    set_hook(hook);
    let mut missed = Vec::new();
    for (bug, found) in BUGS.iter().zip(found) {
        match found {
            Some((seed, message)) => {
                println!("{bug:?}: seed {seed}: {}", message.lines().next().unwrap_or_default());
            }
            None => missed.push(format!("{bug:?} was not noticed in {SEEDS} seeds")),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

fn first_failure(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let failure = (0..SEEDS).find_map(|seed| {
        let panic = catch_unwind(AssertUnwindSafe(|| World::new(seed).run())).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some((seed, text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()))
    });
    plant(None);
    failure
}
