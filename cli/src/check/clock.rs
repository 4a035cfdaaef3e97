//! The clock source: whether reading the time costs a system call.

use super::{Finding, read_text};

const SUBJECT: &str = "clock";

pub fn finding() -> Finding {
    judge(&read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default())
}

fn judge(source: &str) -> Finding {
    match source {
        "hpet" | "acpi_pm" | "jiffies" | "pit" | "refined-jiffies" => Finding::warn(
            SUBJECT,
            format!("{source}: every reading of the time enters the kernel"),
            "boot with tsc=reliable if the processor's counter is steady, or ask the hypervisor for it",
        ),
        "" => Finding::ok(SUBJECT, "the kernel does not tell its source"),
        source => Finding::ok(SUBJECT, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn slow_sources_are_warned_about() {
        assert_eq!((judge("tsc").level, judge("hpet").level), (Level::Ok, Level::Warn));
    }
}
