//! How many new connections the kernel keeps until they are accepted.

use super::{Finding, read_text};

const SUBJECT: &str = "backlog";
/// Default of serverSocketBacklog; the kernel cuts it to its own limit without saying so.
const BACKLOG: u32 = 1024;

pub fn finding() -> Finding {
    judge(read_text("/proc/sys/net/core/somaxconn").and_then(|text| text.parse().ok()))
}

fn judge(limit: Option<u32>) -> Finding {
    match limit {
        Some(limit) if limit < BACKLOG => Finding::warn(
            SUBJECT,
            format!("{limit} connections: when many clients come back at once, some wait for a retry"),
            "sysctl -w net.core.somaxconn=4096",
        ),
        Some(limit) => Finding::ok(SUBJECT, format!("up to {limit} connections")),
        None => Finding::ok(SUBJECT, "the kernel does not tell its limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_short_backlog_is_warned_about() {
        assert_eq!((judge(Some(128)).level, judge(Some(4096)).level), (Level::Warn, Level::Ok));
    }
}
