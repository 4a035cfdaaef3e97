//! Room for the log.

use std::path::Path;

use super::{Finding, size};

const SUBJECT: &str = "free space";
/// Segments are preallocated, one ahead: two of the default size for each shard.
const WANTED_BYTES_PER_SHARD: u64 = 2 << 30;
/// Less than this and the first segments do not fit, whatever their size.
const BYTES_MIN: u64 = 64 << 20;

pub fn finding(folder: &Path, core_count: usize) -> Finding {
    match rustix::fs::statvfs(folder) {
        Ok(facts) => judge(facts.f_bavail.saturating_mul(facts.f_frsize), core_count),
        Err(error) => Finding::fail(SUBJECT, format!("{}: {error}", folder.display()), "give --store a usable folder"),
    }
}

fn judge(free_bytes: u64, core_count: usize) -> Finding {
    let wanted_bytes = WANTED_BYTES_PER_SHARD * core_count as u64;
    if free_bytes < BYTES_MIN {
        return Finding::fail(SUBJECT, size(free_bytes), "free some space or choose another disk");
    }
    if free_bytes < wanted_bytes {
        let found = format!("{}, {core_count} shards begin with {}", size(free_bytes), size(wanted_bytes));
        return Finding::warn(SUBJECT, found, "free some space, or make mappedFileSizeCommitLog smaller");
    }
    Finding::ok(SUBJECT, size(free_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn space_is_judged_by_the_first_segments() {
        assert_eq!(judge(1 << 20, 1).level, Level::Fail);
        assert_eq!(judge(3 << 30, 2).level, Level::Warn);
        assert_eq!(judge(5 << 30, 2).level, Level::Ok);
    }
}
