//! CPU time and memory of a process, read from /proc.

use std::fs;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user_us: u64,
    pub system_us: u64,
}

impl Usage {
    /// `None` when there is no such process.
    pub fn of(process: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command name may hold blanks and brackets; the fields start after the last bracket.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let user: u64 = fields.nth(11)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second();
        Some(Self { user_us: user * tick_us, system_us: system * tick_us })
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(before.user_us),
            system_us: self.system_us.saturating_sub(before.system_us),
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { user_us: self.user_us + other.user_us, system_us: self.system_us + other.system_us }
    }
}

/// Resident memory in bytes: now, and the most the process ever had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    pub now_bytes: u64,
    pub peak_bytes: u64,
}

impl Resident {
    pub fn of(process: &str) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self { now_bytes: field("VmRSS:")?, peak_bytes: field("VmHWM:")? })
    }

    pub fn plus(self, other: Self) -> Self {
        Self { now_bytes: self.now_bytes + other.now_bytes, peak_bytes: self.peak_bytes + other.peak_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_none() {
        assert!(Resident::of("self").unwrap().now_bytes > 0);
        assert!(Usage::of("self").is_some());
        assert!(Usage::of("999999999").is_none());
    }
}
