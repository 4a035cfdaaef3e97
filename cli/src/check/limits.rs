//! Limits of this process: locked memory and open files.

use rustix::process::{Resource, getrlimit};

use super::{Finding, size};

/// What the rings of one core may lock. The kernel charges them to this limit where memory cgroups do not.
const LOCKED_BYTES_PER_CORE: u64 = 512 * 1024;
/// Below this, a few thousand clients use up the descriptors.
const FILES_WANTED: u64 = 65_536;
/// Below this not even a small installation starts: segments, rings and event descriptors of all cores.
const FILES_MIN: u64 = 1024;

pub fn findings(core_count: usize) -> [Finding; 2] {
    let locked = getrlimit(Resource::Memlock).current;
    let files = getrlimit(Resource::Nofile).current;
    [judge_locked(locked, core_count), judge_files(files)]
}

/// `None` is no limit.
fn judge_locked(limit_bytes: Option<u64>, core_count: usize) -> Finding {
    const SUBJECT: &str = "locked memory";
    let wanted_bytes = LOCKED_BYTES_PER_CORE * core_count as u64;
    match limit_bytes {
        None => Finding::ok(SUBJECT, "no limit"),
        Some(limit_bytes) if wanted_bytes <= limit_bytes => Finding::ok(SUBJECT, size(limit_bytes)),
        Some(limit_bytes) => Finding::fail(
            SUBJECT,
            format!("{}, the rings of {core_count} cores may need {}", size(limit_bytes), size(wanted_bytes)),
            "LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited, or --ulimit memlock=-1 for a container",
        ),
    }
}

/// `None` is no limit.
fn judge_files(limit: Option<u64>) -> Finding {
    const SUBJECT: &str = "open files";
    const REMEDY: &str = "LimitNOFILE=1048576 in the systemd unit, or ulimit -n 1048576";
    let found = limit.map_or("no limit".into(), |limit| format!("{limit}: one is needed for each client"));
    match limit {
        Some(limit) if limit < FILES_MIN => Finding::fail(SUBJECT, found, REMEDY),
        Some(limit) if limit < FILES_WANTED => Finding::warn(SUBJECT, found, REMEDY),
        _ => Finding::ok(SUBJECT, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn limits_are_judged_by_what_the_cores_need() {
        assert_eq!(judge_locked(Some(8 << 20), 2).level, Level::Ok);
        assert_eq!(judge_locked(Some(8 << 20), 64).level, Level::Fail);
        assert_eq!(judge_locked(None, 64).level, Level::Ok);
        assert_eq!(judge_files(Some(256)).level, Level::Fail);
        assert_eq!(judge_files(Some(1024)).level, Level::Warn);
        assert_eq!(judge_files(None).level, Level::Ok);
    }
}
