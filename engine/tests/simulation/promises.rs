//! What callers were told to wait for, kept apart from what the shard then makes of it.

use rmq_engine::LogPosition;

/// The acknowledgements of one life of the shard.
#[derive(Debug, Default)]
pub struct Promises {
    /// May be acknowledged at, needs the log up to.
    made: Vec<(LogPosition, LogPosition)>,
}

impl Promises {
    /// The caller may be answered once the log is durable up to `promised`; the answer is true while it holds all up
    /// to `needed`.
    pub fn make(&mut self, promised: LogPosition, needed: LogPosition) {
        self.made.push((promised, needed));
    }

    /// How far the log must reach for every answer given at `durable` to be true.
    pub fn kept(&self, durable: LogPosition) -> u64 {
        let given = self.made.iter().filter(|(promised, _)| *promised <= durable);
        given.map(|(_, needed)| needed.bytes()).max().unwrap_or(0)
    }

    /// A new life: what is there now has been shown, and what was promised before has been compared with it.
    pub fn forget_all(&mut self) {
        self.made.clear();
    }
}
