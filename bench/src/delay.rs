//! When consumers should have a message: at once, or after what `--delay-level` or `--timer-ms` ask for.

use crate::options::ProducerOptions;

/// RocketMQ: the default of `messageDelayLevel`, levels 1 to 18, in seconds.
const LEVEL_SECONDS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
/// Has no factor in common with powers of ten: its multiples visit every remainder, neighbours far apart.
const STRIDE: u64 = 7919;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    None,
    /// 1 to 18.
    Level(u32),
    /// Spread over the second half of this many milliseconds.
    Timer(u64),
}

impl Delay {
    pub fn new(options: &ProducerOptions) -> Self {
        match (options.delay_level, options.timer_ms) {
            (Some(level), _) => Self::Level(level),
            (None, Some(span_ms)) => Self::Timer(span_ms),
            (None, None) => Self::None,
        }
    }

    /// When message number `serial` is due, if it is sent at `sent_us`; both in microseconds since 1970.
    pub fn due_us(self, sent_us: u64, serial: u64) -> u64 {
        match self {
            Self::None => sent_us,
            Self::Level(level) => sent_us + LEVEL_SECONDS[level as usize - 1] * 1_000_000,
            Self::Timer(span_ms) => {
                let half_ms = span_ms / 2;
                (sent_us / 1_000 + span_ms - scattered(serial, half_ms)) * 1_000
            }
        }
    }
}

/// Each number below `count` in turn, in an order that has no runs in it.
pub fn scattered(serial: u64, count: u64) -> u64 {
    serial.wrapping_mul(STRIDE) % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_timers_say_when_a_message_is_due() {
        assert_eq!(Delay::None.due_us(7, 1), 7);
        assert_eq!(Delay::Level(2).due_us(7, 1), 5_000_007);
        for serial in 0..10_000 {
            let due_ms = Delay::Timer(5_000).due_us(1_000_999, serial) / 1_000;
            assert!((1_000 + 2_500 < due_ms) && (due_ms <= 1_000 + 5_000), "{due_ms}");
        }
    }

    #[test]
    fn scattered_numbers_come_once_each() {
        let mut seen: Vec<u64> = (0..10_000).map(|serial| scattered(serial, 10_000)).collect();
        assert_ne!(seen[1], seen[0] + 1);
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..10_000));
    }
}
