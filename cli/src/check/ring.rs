//! Whether this process may use io_uring, tried by setting up a ring.

use std::io;

use io_uring::IoUring;
use rustix::io::Errno;

use super::{Finding, read_text};

const SUBJECT: &str = "io_uring";
const ENTRIES: u32 = 64;

pub fn finding() -> Finding {
    // The turn loop's own flags. The ring is closed again at once.
    let outcome = IoUring::<io_uring::squeue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(ENTRIES)
        .map(drop);
    let disabled = read_text("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    judge(outcome, &disabled)
}

/// `disabled` is the text of the sysctl kernel.io_uring_disabled; empty on kernels without it.
fn judge(outcome: io::Result<()>, disabled: &str) -> Finding {
    let Err(error) = outcome else { return Finding::ok(SUBJECT, "a ring could be set up") };
    let found = format!("no ring could be set up: {error}");
    let remedy = match (Errno::from_io_error(&error), disabled) {
        (Some(Errno::PERM | Errno::ACCESS), "1" | "2") => "sysctl -w kernel.io_uring_disabled=0",
        (Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS), _) => {
            "in a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
        }
        (Some(Errno::NOMEM), _) => "raise the limit of locked memory: LimitMEMLOCK=infinity in the unit, or ulimit -l",
        (Some(Errno::INVAL), _) => "install Linux 6.1 or later",
        _ => "see the kernel's log (dmesg)",
    };
    Finding::fail(SUBJECT, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        for (errno, disabled, remedy) in [
            (Errno::PERM, "2", "sysctl"),
            (Errno::PERM, "0", "seccomp"),
            (Errno::NOSYS, "", "seccomp"),
            (Errno::NOMEM, "0", "locked memory"),
            (Errno::INVAL, "0", "Linux 6.1"),
        ] {
            let finding = judge(Err(errno.into()), disabled);
            assert!(finding.remedy.contains(remedy), "{finding}");
        }
    }
}
