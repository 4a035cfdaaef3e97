//! What a node holds in memory at most: every bound in one place, for the start-up block of the log.

use std::fmt;

use rmq_engine::ShardMemory;
use rmq_net::connection::ConnectionMemory;

use crate::broker;
use crate::filter::FILTERS_BYTES_MAX;
use crate::owed::soon;
use crate::request::assignment::WAITING_BYTES_MAX;
use crate::request::relay::RELAYED_BYTES_MAX;
use crate::request::reply::PUSHED_BYTES_MAX;

const MIB: u64 = 1 << 20;
/// The program itself, stacks, rings, settings, and what the allocator keeps for itself. An idle standalone node has 17 MB
/// resident.
const PROGRAM_BYTES: u64 = 64 * MIB;

/// Bytes by what they are for, all cores together.
///
/// What grows with the number of connections, queues, topics, groups, registered brokers and pending messages is not in
/// it: no small constant bounds them. [`PER_UNIT`] says what one of each costs. Sockets' buffers in the kernel are not in
/// it either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBounds {
    pub program: u64,
    /// The end of the log: kept for readers, or not durable yet.
    pub log: u64,
    pub read_cache: u64,
    pub index: u64,
    /// Buffers kept for their next use.
    pub spare: u64,
    /// Receive buffers, and large frames that are not whole yet.
    pub requests: u64,
    /// Replies not yet taken by their clients.
    pub replies: u64,
    /// What sends whose write is under way need to be answered.
    pub parked: u64,
    /// Requests on their way between cores.
    pub forwarded: u64,
    /// Replies to requests whose requesters have not taken them yet.
    pub pushed: u64,
    /// Compiled filters of pulls that bring their own.
    pub filters: u64,
    /// Copies of delayed messages that are due within seconds.
    pub due_soon: u64,
}

/// What comes on top of [`MemoryBounds`], for people.
pub const PER_UNIT: &str = "1 KiB per connection (64 KiB more in the middle of a request), 5 KiB per queue and 24 bytes per \
                            128 messages kept, 1 KiB per topic, group and held pull, 32 times its text per SQL92 \
                            expression of a group, 200 bytes per topic and broker at the name server, 60 bytes per \
                            message that is not due yet or half, 100 bytes per popped message that is not acknowledged, and \
                            the pieces of the log (1 MiB) that slow readers hold";

impl MemoryBounds {
    /// The bounds of `cores` cores, each with such connections and, on a broker, such a shard.
    pub fn of(cores: usize, connections: ConnectionMemory, shard: Option<(ShardMemory, u64)>) -> Self {
        let cores = cores as u64;
        let mut bounds = Self {
            program: PROGRAM_BYTES,
            requests: cores * connections.received,
            replies: cores * connections.replies,
            ..Self::default()
        };
        if let Some((shard, undurable_bytes_max)) = shard {
            bounds.log = cores * shard.log;
            bounds.read_cache = cores * shard.read;
            bounds.index = cores * shard.index;
            bounds.spare = cores * (shard.spare + broker::SPARE_PARCEL_BYTES);
            bounds.parked = cores * broker::parked_bytes_max(undurable_bytes_max);
            bounds.forwarded = cores * (cores - 1) * broker::FORWARDED_BYTES_MAX as u64;
            bounds.pushed = (PUSHED_BYTES_MAX + RELAYED_BYTES_MAX + WAITING_BYTES_MAX) as u64;
            bounds.filters = cores * FILTERS_BYTES_MAX;
            bounds.due_soon = cores * soon::BYTES_MAX as u64;
        }
        bounds
    }

    fn parts(&self) -> [(&'static str, u64); 12] {
        let Self {
            program,
            log,
            read_cache,
            index,
            spare,
            requests,
            replies,
            parked,
            forwarded,
            pushed,
            filters,
            due_soon,
        } = *self;
        [
            ("program", program),
            ("log tail", log),
            ("read cache", read_cache),
            ("index", index),
            ("spare buffers", spare),
            ("requests", requests),
            ("replies", replies),
            ("parked sends", parked),
            ("between cores", forwarded),
            ("asked of clients", pushed),
            ("filters", filters),
            ("due soon", due_soon),
        ]
    }

    pub fn sum(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl fmt::Display for MemoryBounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at most {} MiB:", self.sum().div_ceil(MIB))?;
        let parts = self.parts();
        let named = parts.iter().filter(|(_, bytes)| *bytes > 0);
        for (number, (name, bytes)) in named.enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(out, "{comma} {name} {} MiB", bytes.div_ceil(MIB))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rmq_engine::ShardConfig;
    use rmq_net::connection::Limits;

    use super::*;

    #[test]
    fn the_printed_parts_add_up_and_grow_with_the_cores() {
        let config = ShardConfig::new(0, 1);
        let bounds = |cores| {
            MemoryBounds::of(cores, Limits::default().memory(), Some((config.memory(), config.undurable_bytes_max)))
        };
        let text = bounds(1).to_string();
        let numbers: Vec<u64> =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        let (sum, parts) = numbers.split_first().unwrap();
        assert!(parts.iter().sum::<u64>().abs_diff(*sum) <= parts.len() as u64, "{text}");
        assert!(!text.contains("between cores"), "one core has nobody to forward to: {text}");
        assert!(
            bounds(3).sum() > 3 * (bounds(1).sum() - PROGRAM_BYTES - (PUSHED_BYTES_MAX + RELAYED_BYTES_MAX) as u64),
            "{}",
            bounds(3)
        );
        assert!(MemoryBounds::of(1, Limits::default().memory(), None).sum() < bounds(1).sum());
    }
}
