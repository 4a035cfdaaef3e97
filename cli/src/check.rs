//! `rmq check`: what of this host helps or hinders RingMQ, and what to do about it.
//!
//! One file per subject. Each reads its facts and judges them apart, so that the judging is tested without the host.
//! Nothing here needs privileges, and nothing is left behind on the disk.

mod clock;
mod device;
mod filesystem;
mod kernel;
mod limits;
mod network;
mod processor;
mod ring;
mod space;

use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// RingMQ runs, but slower or less safely than it could.
    Warn,
    /// RingMQ cannot run.
    Fail,
}

/// One fact about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    pub found: String,
    /// What to do, in one line; empty when there is nothing to do.
    pub remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, found: found.into(), remedy: String::new() }
    }

    fn warn(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, subject, found: found.into(), remedy: remedy.into() }
    }

    fn fail(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, subject, found: found.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(out, "{level:<5} {:<14} {}", self.subject, self.found)?;
        if !self.remedy.is_empty() {
            write!(out, "\n      {:<14} -> {}", "", self.remedy)?;
        }
        Ok(())
    }
}

/// All findings for `core_count` cores and, if this is about a broker, its store, which need not exist yet.
pub fn findings(store: Option<&Path>, core_count: usize) -> Vec<Finding> {
    let mut findings = vec![kernel::finding(), ring::finding()];
    findings.extend(limits::findings(core_count));
    if let Some(store) = store {
        let folder = existing_folder(store);
        findings.extend(filesystem::findings(&folder));
        findings.extend(device::findings(&folder));
        findings.push(space::finding(&folder, core_count));
    }
    findings.extend([clock::finding(), processor::cores(core_count), processor::governor(), network::finding()]);
    findings
}

/// The store's folder or, before it is made, the nearest one above it that exists.
fn existing_folder(store: &Path) -> PathBuf {
    let absolute = std::path::absolute(store).unwrap_or_else(|_| store.to_path_buf());
    let existing = absolute.ancestors().find(|folder| folder.is_dir());
    existing.map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

/// The trimmed text of a small file of /proc or /sys; `None` if it cannot be read.
fn read_text(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Bytes for people: `12.3 GiB`.
fn size(size_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = size_bytes as f64 / 1024.0;
    for unit in UNITS {
        if scaled < 1024.0 || unit == "TiB" {
            return format!("{scaled:.1} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{size_bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_remedy_below() {
        assert_eq!(Finding::ok("kernel", "Linux 6.8").to_string(), "ok    kernel         Linux 6.8");
        let shown = Finding::fail("kernel", "Linux 5.4", "upgrade").to_string();
        assert_eq!(shown, "FAIL  kernel         Linux 5.4\n                     -> upgrade");
    }

    #[test]
    fn the_store_need_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing_folder(&folder.path().join("not/yet")), folder.path());
    }

    #[test]
    fn a_check_of_this_host_has_a_finding_for_every_subject_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let findings = findings(Some(folder.path()), 2);
        for subject in ["kernel", "io_uring", "locked memory", "open files", "filesystem", "direct I/O", "free space"] {
            assert!(findings.iter().any(|finding| finding.subject == subject), "{subject}: {findings:?}");
        }
        assert!(findings.iter().all(|finding| (finding.level == Level::Ok) == finding.remedy.is_empty()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!((size(512), size(8 << 20), size(3 << 40)), ("0.5 KiB".into(), "8.0 MiB".into(), "3.0 TiB".into()));
    }
}
