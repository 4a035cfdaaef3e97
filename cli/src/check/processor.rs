//! Cores, and how the kernel sets their frequency.

use super::{Finding, read_text};

pub fn cores(core_count: usize) -> Finding {
    judge_cores(core_count, std::thread::available_parallelism().map_or(1, usize::from))
}

/// `available` is what affinity and cgroup quota leave to this process.
fn judge_cores(core_count: usize, available: usize) -> Finding {
    const SUBJECT: &str = "cores";
    if available < core_count {
        let found = format!("{core_count} threads for {available} cores");
        return Finding::warn(SUBJECT, found, format!("use --cores {available}"));
    }
    Finding::ok(SUBJECT, format!("{core_count} of {available}"))
}

pub fn governor() -> Finding {
    judge_governor(&read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_default())
}

fn judge_governor(governor: &str) -> Finding {
    const SUBJECT: &str = "frequency";
    match governor {
        "powersave" | "conservative" => Finding::warn(
            SUBJECT,
            format!("governor {governor}: cores that sleep often stay slow"),
            "cpupower frequency-set -g performance",
        ),
        "" => Finding::ok(SUBJECT, "set by the firmware or the hypervisor"),
        governor => Finding::ok(SUBJECT, format!("governor {governor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn more_threads_than_cores_are_warned_about() {
        assert_eq!((judge_cores(2, 2).level, judge_cores(4, 2).level), (Level::Ok, Level::Warn));
    }

    #[test]
    fn saving_power_is_warned_about() {
        assert_eq!((judge_governor("performance").level, judge_governor("powersave").level), (Level::Ok, Level::Warn));
    }
}
