//! The kernel's version.

use super::Finding;

const SUBJECT: &str = "kernel";
/// First release with all of io_uring that the turn loop uses: single issuer, deferred task run, and multishot receive.
const VERSION_MIN: (u32, u32) = (6, 1);

pub fn finding() -> Finding {
    judge(&rustix::system::uname().release().to_string_lossy())
}

fn judge(release: &str) -> Finding {
    let found = format!("Linux {release}");
    match version(release) {
        Some(version) if version >= VERSION_MIN => Finding::ok(SUBJECT, found),
        Some(_) => Finding::fail(SUBJECT, found, "install Linux 6.1 or later"),
        None => Finding::warn(SUBJECT, found, "the version cannot be read; RingMQ needs Linux 6.1 or later"),
    }
}

/// Major and minor number of `6.8.0-45-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn old_kernels_fail() {
        for (release, level) in [
            ("6.18.44-fc", Level::Ok),
            ("6.1.0", Level::Ok),
            ("10.0", Level::Ok),
            ("6.0.19", Level::Fail),
            ("5.15.0-91-generic", Level::Fail),
            ("unknown", Level::Warn),
        ] {
            assert_eq!(judge(release).level, level, "{release}");
        }
    }
}
