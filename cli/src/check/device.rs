//! The block device below the store: its scheduler and its write cache.

use std::path::{Path, PathBuf};

use super::{Finding, read_text};

const SCHEDULER: &str = "I/O scheduler";
const CACHE: &str = "write cache";

pub fn findings(folder: &Path) -> Vec<Finding> {
    let Some(device) = device_of(folder) else {
        return vec![Finding::ok("device", "not a local block device, nothing to tune")];
    };
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = |file: &str| read_text(device.join("queue").join(file)).unwrap_or_default();
    vec![judge_scheduler(&read("scheduler"), &name), judge_cache(&read("write_cache"), &name)]
}

/// The device's folder in /sys; for a partition that of its whole disk.
fn device_of(folder: &Path) -> Option<PathBuf> {
    let device = rustix::fs::stat(folder).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let folder = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    folder.ancestors().take(2).find(|folder| folder.join("queue").is_dir()).map(Path::to_path_buf)
}

/// `schedulers` as in /sys: `none [mq-deadline] bfq`.
fn judge_scheduler(schedulers: &str, name: &str) -> Finding {
    let chosen = schedulers.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    match chosen.unwrap_or(schedulers) {
        "" => Finding::ok(SCHEDULER, format!("{name} has none")),
        slow @ ("bfq" | "cfq") => Finding::warn(
            SCHEDULER,
            format!("{slow} on {name} orders requests that the log has ordered already"),
            format!("echo none > /sys/block/{name}/queue/scheduler"),
        ),
        chosen => Finding::ok(SCHEDULER, format!("{chosen} on {name}")),
    }
}

/// `cache` as in /sys: `write back` or `write through`.
fn judge_cache(cache: &str, name: &str) -> Finding {
    match cache {
        "write back" => Finding::ok(
            CACHE,
            format!("{name} has one: against power loss use SYNC_FLUSH, or a cache that is protected against it"),
        ),
        "write through" => Finding::ok(CACHE, format!("{name} has none, or a protected one")),
        _ => Finding::ok(CACHE, format!("{name} does not tell")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn schedulers_that_reorder_by_process_are_warned_about() {
        for (schedulers, level) in [
            ("none [mq-deadline] kyber bfq", Level::Ok),
            ("[none] mq-deadline", Level::Ok),
            ("none", Level::Ok),
            ("", Level::Ok),
            ("none mq-deadline [bfq]", Level::Warn),
        ] {
            assert_eq!(judge_scheduler(schedulers, "vda").level, level, "{schedulers}");
        }
    }
}
