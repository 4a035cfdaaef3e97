//! Bugs planted on purpose, to prove that the crash simulator notices them (`tests/simulation/planted_bugs.rs`).
//!
//! Without the feature `planted-bugs` [`is`] is `false` at compile time and nothing of this is in the program. With
//! it, a test thread plants one bug for itself with `plant`.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("the feature planted-bugs is for the simulator's own check and never part of a release build");

/// A mistake somebody could make in the shard, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Writer: what was sealed counts as durable before its write has completed.
    AcknowledgeBeforeCompletion,
    /// Writer: the durable mark moves to the last completed write, over one that is still in flight.
    DurableMarkOverHole,
    /// Writer: writes are not synchronous although the shard is.
    SyncFlagNotSet,
    /// Writer: what follows a batch in its last block is not zeroed.
    PaddingNotZeroed,
    /// Writer: a batch shares its first block with one whose write is in flight.
    BlockRewrittenInFlight,
    /// Writer: a short write is taken for a whole one.
    ShortWriteTakenForWhole,
    /// Writer: a failed write is taken for a completed one instead of poisoning the shard.
    FailedWriteIgnored,
    /// Writer: writes go to a segment before it is there.
    SegmentNotAwaited,
    /// Append: rows are shown to readers before their records are durable.
    RowsShownBeforeDurable,
    /// Append: a changed consumer offset may be acknowledged at once.
    OffsetAcknowledgedEarly,
    /// Append: an offset committed again may be acknowledged although its first record is not durable.
    RepeatedOffsetAcknowledgedEarly,
    /// Append: a message and the mark that it took another one's place may be torn apart.
    ConsumedApart,
    /// Append: removing a group's offsets changes memory and not the log.
    RemovalNotLogged,
    /// Recovery and reads: a batch is not compared with its checksum.
    BatchChecksumNotChecked,
    /// Recovery and reads: a batch may stand anywhere.
    PositionNotChecked,
    /// Recovery and reads: a batch may be another shard's.
    ShardNotChecked,
    /// Recovery: a batch need not carry its predecessor's checksum.
    ChainNotChecked,
    /// Recovery: a batch may be older than its predecessor.
    EpochNotChecked,
    /// Recovery: what is believed and shown is not made stable first.
    RecoveredNotMadeStable,
    /// Recovery: nobody looks for intact batches behind the end.
    DamageTakenForEnd,
    /// Snapshots: one counts before the log is durable up to where it has seen it.
    SnapshotAheadOfLog,
    /// Snapshots: one counts before the pages it names are in the index file.
    SnapshotAheadOfPages,
    /// Snapshots: queues fold records they have seen once more.
    SeenRecordsFoldedAgain,
    /// Key index: rows that a snapshot has told are added once more.
    SeenKeysAddedAgain,
    /// Index: the place of a page that is not used any more is used again at once.
    PageReusedAtOnce,
    /// Index: a page read back is not compared with its checksum.
    PageChecksumNotChecked,
    /// Reads: what was read back from the disk is passed on unchecked.
    ReadNotVerified,
    /// Reads: a record whose batch cannot be checked as a whole is not checked at all.
    RecordChecksumNotChecked,
    /// Reads: a search by time does not stop at the last readable message.
    SearchBeyondEnd,
}

/// Whether this thread runs with the bug.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

/// Whether this thread runs with the bug.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug for this thread, in place of the one before.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
