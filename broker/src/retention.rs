//! How long messages are kept, and what happens when the disk fills up (behaviour.md 16 of RocketMQ's rules).
//!
//! Each core looks after its own shard, every `cleanResourceInterval`. Whole segments go, oldest first: those whose last
//! message is older than `fileReservedTime`, in the hours of `deleteWhen` or when the disk is fuller than
//! `diskMaxUsedSpaceRatio`; and, fuller than `diskSpaceCleanForciblyRatio`, the oldest whatever its age. Above
//! `diskSpaceWarningLevelRatio` messages are refused until the disk is back under the forcible ratio; consumers go on.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rmq_engine::{LogPosition, OldSegment, Shard};
use rmq_net::codes::response;

use crate::broker::{Broker, Refusal};
use crate::config::BrokerConfig;
use crate::owed::Owed;

/// How full a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: u64,
    pub used_bytes: u64,
    /// What a process without special rights may still use; the rest is reserved.
    pub free_bytes: u64,
}

impl Disk {
    /// The disk that holds `folder`. One that cannot be looked at shows as empty; the log itself complains where it
    /// matters.
    pub fn of(folder: &str) -> Self {
        rustix::fs::statvfs(folder).map_or_else(
            |_| Self::default(),
            |found| Self {
                total_bytes: found.f_blocks * found.f_frsize,
                used_bytes: found.f_blocks.saturating_sub(found.f_bfree) * found.f_frsize,
                free_bytes: found.f_bavail * found.f_frsize,
            },
        )
    }

    /// 0 to 1, as RocketMQ and `df` count: of what can be used at all.
    pub fn used_ratio(self) -> f64 {
        let usable_bytes = self.used_bytes + self.free_bytes;
        if usable_bytes == 0 { 0.0 } else { self.used_bytes as f64 / usable_bytes as f64 }
    }

    fn used_percent(self) -> f64 {
        self.used_ratio() * 100.0
    }
}

/// What a core remembers between two looks.
#[derive(Default)]
pub struct Retention {
    next_ms: i64,
    /// How full the disk was, in percent, when messages began to be refused.
    refused_at: Option<f64>,
    /// Asked for by DELETE_EXPIRED_COMMITLOG: expired segments may go at any hour, so many more times.
    manual_looks: u32,
}

/// Looks that one DELETE_EXPIRED_COMMITLOG asks for.
const MANUAL_LOOKS: u32 = 20;

impl Retention {
    /// Why no message is taken, if so.
    pub fn refusal(&self, config: &BrokerConfig) -> Option<Refusal> {
        let percent = self.refused_at?;
        Some(Refusal::new(
            response::SERVICE_NOT_AVAILABLE,
            format!(
                "the disk of {} is {percent:.0} % full, more than diskSpaceWarningLevelRatio ({}) allows; messages are \
                 taken again below diskSpaceCleanForciblyRatio ({})",
                config.store_path_root_dir,
                config.disk_space_warning_level_ratio,
                config.disk_space_clean_forcibly_ratio
            ),
        ))
    }

    /// Expired segments may go now, whatever the hour.
    pub fn delete_expired_now(&mut self) {
        self.manual_looks = MANUAL_LOOKS;
        self.next_ms = 0;
    }

    fn look(&mut self, shard: &mut Shard, owed: &mut Owed, config: &BrokerConfig, disk: Disk, now_ms: i64) {
        let percent = disk.used_percent();
        self.note_fullness(config, percent);
        let is_manual = self.manual_looks > 0;
        self.manual_looks = self.manual_looks.saturating_sub(1);
        let is_disk_used = percent > f64::from(config.disk_max_used_space_ratio);
        let may_expire = is_manual || is_disk_used || is_hour(&config.delete_when, now_ms);
        let is_forced =
            config.clean_file_forcibly_enable && percent > f64::from(config.disk_space_clean_forcibly_ratio);
        let kept_ms = i64::from(config.file_reserved_time) * 3_600_000;
        for _ in 0..config.delete_file_batch_max {
            let Some(OldSegment { start, last_store_time_ms, is_free }) = shard.oldest_segment() else { return };
            let is_expired = now_ms.saturating_sub(last_store_time_ms) > kept_ms;
            if !(is_forced || may_expire && is_expired) {
                return;
            }
            if !is_free {
                // A restart would still need it. With a newer snapshot it will not, at one of the next looks.
                return shard.want_snapshot();
            }
            // What is owed moves out of it first.
            if !owed.is_clear_before(LogPosition::new(start.bytes() + shard.config().geometry.segment_bytes)) {
                return;
            }
            tracing::info!(
                shard = shard.config().shard,
                segment = start.bytes(),
                is_expired,
                disk_used_percent = percent as u32,
                "the oldest log segment goes"
            );
            shard.retire_oldest_segment();
        }
    }

    fn note_fullness(&mut self, config: &BrokerConfig, percent: f64) {
        if percent > f64::from(config.disk_space_warning_level_ratio) {
            if self.refused_at.is_none() {
                tracing::error!(
                    path = config.store_path_root_dir,
                    used_percent = percent as u32,
                    limit = config.disk_space_warning_level_ratio,
                    "the disk is too full: no messages are taken (diskSpaceWarningLevelRatio); consumers go on"
                );
            }
            self.refused_at = Some(percent);
        } else if percent <= f64::from(config.disk_space_clean_forcibly_ratio) && self.refused_at.take().is_some() {
            tracing::info!(used_percent = percent as u32, "the disk has room again: messages are taken");
        }
    }
}

/// Whether one of the hours (`00` to `23`, local time) is now.
fn is_hour(hours: &[String], now_ms: i64) -> bool {
    let Ok(now) = Timestamp::from_millisecond(now_ms) else { return false };
    let hour = now.to_zoned_datetime(TimeZone::system()).hour();
    hours.iter().any(|at| at.parse() == Ok(hour))
}

/// Looks after the shard of this core, when it is time to.
pub fn tick(broker: &mut Broker) {
    if broker.now_ms < broker.retention.next_ms {
        return;
    }
    broker.retention.next_ms = broker.now_ms.saturating_add(broker.config.clean_resource_interval);
    let disk = Disk::of(&broker.config.store_path_root_dir);
    broker.retention.look(&mut broker.shard, &mut broker.owed, &broker.config, disk, broker.now_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cores;

    const HOUR_MS: i64 = 3_600_000;

    fn disk(used_percent: u64) -> Disk {
        Disk { total_bytes: 110, used_bytes: used_percent, free_bytes: 100 - used_percent }
    }

    /// A broker with about eight segments of messages that may expire at any hour but this one.
    fn filled() -> Cores {
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let later = (now.to_zoned_datetime(TimeZone::system()).hour() + 2) % 24;
        // The broker itself must not look at the real disk meanwhile.
        let hour = format!("{later:02}");
        let mut cores = Cores::with_config(1, &[("deleteWhen", &hour), ("cleanResourceInterval", "86400000")]);
        for _ in 0..64 {
            assert_eq!(cores.send_with(0, "T", 0, &[], &[], &vec![7; 2 << 20]).code, 0);
        }
        cores
    }

    /// Looks as often as it takes for snapshots to follow; returns how many bytes of log are gone.
    fn look(cores: &mut Cores, used_percent: u64, hours_later: i64) -> u64 {
        for _ in 0..6 {
            cores.now_ms += 10_000;
            let now_ms = cores.now_ms + hours_later * HOUR_MS;
            let broker = cores.broker(0);
            broker.retention.look(&mut broker.shard, &mut broker.owed, &broker.config, disk(used_percent), now_ms);
            cores.send(0, "T", 0, &[]);
        }
        cores.broker(0).shard.log_start().bytes()
    }

    #[test]
    fn expired_segments_go_in_their_hour_or_when_the_disk_is_used() {
        let mut cores = filled();
        assert_eq!(look(&mut cores, 50, 73), 0, "expired, but it is not the hour");
        assert_eq!(look(&mut cores, 80, 1), 0, "the disk is used, but nothing is expired");
        assert!(look(&mut cores, 50, 74) > 0, "the hour has come");
        let (gone, min) = (cores.broker(0).shard.log_start(), cores.broker(0).shard.bounds("T", 0).min);
        assert!(min > 0, "what is gone is gone from the queue");
        assert_eq!(look(&mut cores, 50, 1), gone.bytes());

        let mut cores = filled();
        assert!(look(&mut cores, 80, 73) > 0, "the disk is used");

        let mut cores = filled();
        cores.call(0, rmq_net::codes::request::DELETE_EXPIRED_COMMITLOG, &[], &[]);
        assert!(look(&mut cores, 50, 73) > 0, "somebody asked for it");
    }

    #[test]
    fn what_is_owed_moves_out_of_a_segment_before_it_goes() {
        let mut cores = Cores::with_config(1, &[("cleanResourceInterval", "86400000")]);
        let start_ms = cores.now_ms;
        let deliver_ms = start_ms + 48 * HOUR_MS;
        for number in 0..200 {
            let asked = (deliver_ms + number).to_string();
            assert_eq!(cores.send(0, "T", 0, &[("TIMER_DELIVER_MS", &asked)]).code, 0);
        }
        for _ in 0..64 {
            assert_eq!(cores.send_with(0, "T", 0, &[], &[], &vec![7; 2 << 20]).code, 0);
        }
        let gone = (0..10).map(|_| look(&mut cores, 86, 0)).max();
        assert!(gone > Some(16 << 20), "the first segments have gone: {gone:?}");
        cores.restart();
        let max = cores.broker(0).shard.bounds("T", 0).max;
        cores.now_ms = deliver_ms + 1000;
        cores.run();
        assert_eq!(cores.broker(0).shard.bounds("T", 0).max, max + 200, "each is delivered once");
    }

    #[test]
    fn a_disk_nearly_full_takes_the_oldest_and_then_no_messages_until_there_is_room() {
        let mut cores = filled();
        assert!(look(&mut cores, 86, 0) > 0, "fuller than diskSpaceCleanForciblyRatio");
        look(&mut cores, 91, 0);
        let refused = cores.send(0, "T", 0, &[]);
        assert_eq!(refused.code, response::SERVICE_NOT_AVAILABLE);
        assert!(refused.remark.contains("diskSpaceWarningLevelRatio (90)"), "{}", refused.remark);
        let max = cores.broker(0).shard.bounds("T", 0).max;
        look(&mut cores, 87, 0);
        assert_eq!(cores.broker(0).shard.bounds("T", 0).max, max, "between the two ratios nothing changes");
        look(&mut cores, 84, 0);
        assert_eq!(cores.send(0, "T", 0, &[]).code, 0);
    }
}
