//! The answer to GET_BROKER_RUNTIME_INFO (28): a flat table of texts that mqadmin and dashboards
//! parse key by key. Every key RocketMQ writes is there, so no tool meets a gap.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter::Sum;

use rmq_net::body::KvTable;

use super::stats::{BrokerStats, Rates};

/// Names of the put latency buckets, in the order of [`super::stats::Totals::put_buckets`].
const PUT_BUCKET_NAMES: [&str; super::stats::PUT_BUCKETS] = [
    "<=0ms",
    "0~10ms",
    "10~50ms",
    "50~100ms",
    "100~200ms",
    "200~500ms",
    "500ms~1s",
    "1~2s",
    "2~3s",
    "3~4s",
    "4~5s",
    "5~10s",
    "10s~",
];

/// A worker queue of RocketMQ and the work of ours that stands for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkQueue {
    pub size: u64,
    pub capacity: u64,
    pub head_wait_ms: i64,
}

/// What an operator must look after when it is not 0, but for the last. RocketMQ has no keys for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Shards whose log cannot be written any more: they refuse messages until a restart.
    pub poisoned_shards: u64,
    /// Reads of messages that are not what was written.
    pub damaged_reads: u64,
    /// Damaged places the scrubber has met.
    pub scrub_damages: u64,
    /// Bytes of log the scrubber has found intact.
    pub scrubbed_bytes: u64,
}

impl Sum for Health {
    fn sum<I: Iterator<Item = Self>>(shards: I) -> Self {
        shards.fold(Self::default(), |sum, shard| Self {
            poisoned_shards: sum.poisoned_shards + shard.poisoned_shards,
            damaged_reads: sum.damaged_reads + shard.damaged_reads,
            scrub_damages: sum.scrub_damages + shard.scrub_damages,
            scrubbed_bytes: sum.scrubbed_bytes + shard.scrubbed_bytes,
        })
    }
}

/// What the table says besides the statistics.
#[derive(Clone, Debug, Default)]
pub struct RuntimeInput {
    pub now_ms: i64,
    /// When the store started, ms since 1970.
    pub boot_ms: i64,
    /// For example `V5_5_0`.
    pub version_name: &'static str,
    /// Do the services that only one broker of a set may run, run here?
    pub is_active: bool,
    pub start_accept_send_ms: i64,
    /// Folder of the commit log, and how full its disk is, 0.0 to 1.0.
    pub commit_log_path: String,
    pub commit_log_disk_ratio: f64,
    pub consume_queue_disk_ratio: f64,
    pub disk_total_bytes: u64,
    pub disk_free_bytes: u64,
    pub commit_log_min_offset: i64,
    pub commit_log_max_offset: i64,
    /// Store time of the oldest message, ms since 1970; none without messages.
    pub earliest_message_ms: Option<i64>,
    /// Bytes appended that no consumer can see yet.
    pub dispatch_behind_bytes: i64,
    /// Bytes appended that are not durable yet.
    pub flush_behind_bytes: u64,
    pub put_latency_p99_ms: f64,
    pub put_latency_p999_ms: f64,
    pub health: Health,
    pub send_queue: WorkQueue,
    pub pull_queue: WorkQueue,
    pub lite_pull_queue: WorkQueue,
    pub query_queue: WorkQueue,
    pub ack_queue: WorkQueue,
    pub end_transaction_queue: WorkQueue,
    /// By delay level: delivered and newest offset.
    pub schedule_offsets: BTreeMap<i32, (i64, i64)>,
}

/// All keys and values of the table.
pub fn runtime_info(stats: &BrokerStats, input: &RuntimeInput) -> KvTable {
    let mut table = Table(KvTable::default());
    put_counters(&mut table, stats, input);
    put_store(&mut table, input);
    put_queues(&mut table, input);
    put_timer(&mut table);
    put_health(&mut table, &input.health);
    table.0
}

struct Table(KvTable);

impl Table {
    fn put(&mut self, key: &str, value: impl ToString) {
        self.0.table.insert(key.to_owned(), value.to_string());
    }

    /// Doubles in Java's text form always have a fraction.
    fn put_double(&mut self, key: &str, value: f64) {
        self.0.table.insert(key.to_owned(), double(value));
    }

    fn put_rates(&mut self, key: &str, rates: Rates) {
        self.0.table.insert(key.to_owned(), rates.map(double).join(" "));
    }
}

fn double(value: f64) -> String {
    format!("{value:?}")
}

fn put_counters(table: &mut Table, stats: &BrokerStats, input: &RuntimeInput) {
    let totals = stats.totals();
    table.put("bootTimestamp", input.boot_ms);
    table.put("runtime", runtime_text(input.now_ms - input.boot_ms));
    table.put("putMessageEntireTimeMax", totals.put_longest_ms);
    let put_times = totals.put.messages.max(1);
    table.put("putMessageTimesTotal", put_times);
    table.put("putMessageFailedTimes", totals.put_failed);
    table.put("putMessageSizeTotal", totals.put.bytes);
    table.put("putMessageDistributeTime", distribution_text(&totals.put_buckets));
    table.put_double("putMessageAverageSize", totals.put.bytes as f64 / put_times as f64);
    table.put("getMessageEntireTimeMax", totals.get_longest_ms);
    let rates = stats.rates();
    table.put_rates("putTps", rates.put);
    table.put_rates("getFoundTps", rates.get_found);
    table.put_rates("getMissTps", rates.get_miss);
    table.put_rates("getTotalTps", rates.get_total);
    table.put_rates("getTransferredTps", rates.get_transferred);
    // The spelling of every 4.x tool.
    table.put_rates("getTransferedTps", rates.get_transferred);
    table.put("putLatency99", format!("{:.2}", input.put_latency_p99_ms));
    table.put("putLatency999", format!("{:.2}", input.put_latency_p999_ms));
    let (put, get) = stats.daily();
    for (prefix, daily) in [("msgPut", put), ("msgGet", get)] {
        table.put(&format!("{prefix}TotalYesterdayMorning"), daily.yesterday_morning);
        table.put(&format!("{prefix}TotalTodayMorning"), daily.today_morning);
        table.put(&format!("{prefix}TotalTodayNow"), daily.now);
    }
}

fn put_store(table: &mut Table, input: &RuntimeInput) {
    table.put("brokerVersionDesc", input.version_name);
    table.put("brokerActive", input.is_active);
    table.put("startAcceptSendRequestTimeStamp", input.start_accept_send_ms);
    let ratio_of_path = format!("commitLogDiskRatio_{}", input.commit_log_path);
    table.put_double(&ratio_of_path, input.commit_log_disk_ratio);
    table.put_double("commitLogDiskRatio", input.commit_log_disk_ratio);
    table.put_double("consumeQueueDiskRatio", input.consume_queue_disk_ratio);
    let capacity =
        format!("Total : {}, Free : {}.", bytes_text(input.disk_total_bytes), bytes_text(input.disk_free_bytes));
    table.put("commitLogDirCapacity", capacity);
    table.put("commitLogMinOffset", input.commit_log_min_offset);
    table.put("commitLogMaxOffset", input.commit_log_max_offset);
    table.put("earliestMessageTimeStamp", input.earliest_message_ms.unwrap_or(-1));
    table.put("dispatchMaxBuffer", 0);
    table.put("dispatchBehindBytes", input.dispatch_behind_bytes);
    table.put("remainHowManyDataToFlush", bytes_text(input.flush_behind_bytes));
    // We have no page-cache lock and no transient buffer pool: the values of a broker without.
    table.put("pageCacheLockTimeMills", 0);
    table.put("remainTransientStoreBufferNumbs", i32::MAX);
    for (level, (delivered, newest)) in &input.schedule_offsets {
        table.put(&format!("scheduleMessageOffset_{level}"), format!("{delivered},{newest}"));
    }
}

fn put_queues(table: &mut Table, input: &RuntimeInput) {
    for (name, queue) in [
        ("send", input.send_queue),
        ("pull", input.pull_queue),
        ("litePull", input.lite_pull_queue),
        ("query", input.query_queue),
        ("ack", input.ack_queue),
    ] {
        table.put(&format!("{name}ThreadPoolQueueSize"), queue.size);
        table.put(&format!("{name}ThreadPoolQueueCapacity"), queue.capacity);
        table.put(&format!("{name}ThreadPoolQueueHeadWaitTimeMills"), queue.head_wait_ms);
    }
    table.put("EndTransactionQueueSize", input.end_transaction_queue.size);
    table.put("EndTransactionThreadPoolQueueCapacity", input.end_transaction_queue.capacity);
}

/// The values of a broker whose timer wheel is off: this one has none yet.
fn put_timer(table: &mut Table) {
    for key in ["timerReadBehind", "timerOffsetBehind", "timerCongestNum"] {
        table.put(key, 0);
    }
    for key in ["timerEnqueueTps", "timerDequeueTps"] {
        table.put_double(key, 0.0);
    }
}

fn put_health(table: &mut Table, health: &Health) {
    table.put("ringmqPoisonedShards", health.poisoned_shards);
    table.put("ringmqDamagedReads", health.damaged_reads);
    table.put("ringmqScrubDamages", health.scrub_damages);
    table.put("ringmqScrubbedBytes", health.scrubbed_bytes);
}

fn runtime_text(elapsed_ms: i64) -> String {
    let seconds = elapsed_ms.max(0) / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("[ {} days, {} hours, {} minutes, {} seconds ]", hours / 24, hours % 24, minutes % 60, seconds % 60)
}

fn distribution_text(buckets: &[u64; super::stats::PUT_BUCKETS]) -> String {
    let mut text = String::new();
    for (name, count) in PUT_BUCKET_NAMES.iter().zip(buckets) {
        // Writing to a String cannot fail.
        let _ = write!(text, "[{name}]:{count} ");
    }
    text.truncate(text.trim_end().len());
    text
}

/// `0 B`, `1.5 KiB`, `2.0 GiB`.
fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> BTreeMap<String, String> {
        let stats = BrokerStats::new("c", 0, 0);
        let input = RuntimeInput {
            now_ms: 1000 * (((2 * 24 + 3) * 60 + 4) * 60 + 5),
            version_name: "V5_5_0",
            is_active: true,
            commit_log_path: "/store".to_owned(),
            commit_log_disk_ratio: 0.5,
            schedule_offsets: [(3, (4, 9))].into(),
            ..RuntimeInput::default()
        };
        runtime_info(&stats, &input).table
    }

    #[test]
    fn every_key_the_tools_read_has_a_value_they_can_parse() {
        let table = table();
        for (key, value) in [
            ("bootTimestamp", "0"),
            ("runtime", "[ 2 days, 3 hours, 4 minutes, 5 seconds ]"),
            ("putTps", "0.0 0.0 0.0"),
            ("getTotalTps", "0.0 0.0 0.0"),
            ("getTransferredTps", "0.0 0.0 0.0"),
            ("getTransferedTps", "0.0 0.0 0.0"),
            ("putMessageTimesTotal", "1"),
            ("putMessageAverageSize", "0.0"),
            ("putLatency99", "0.00"),
            ("brokerVersionDesc", "V5_5_0"),
            ("brokerActive", "true"),
            ("commitLogDiskRatio", "0.5"),
            ("commitLogDiskRatio_/store", "0.5"),
            ("earliestMessageTimeStamp", "-1"),
            ("pageCacheLockTimeMills", "0"),
            ("remainHowManyDataToFlush", "0 B"),
            ("commitLogDirCapacity", "Total : 0 B, Free : 0 B."),
            ("scheduleMessageOffset_3", "4,9"),
            ("sendThreadPoolQueueSize", "0"),
            ("ackThreadPoolQueueHeadWaitTimeMills", "0"),
            ("EndTransactionQueueSize", "0"),
            ("timerReadBehind", "0"),
            ("timerDequeueTps", "0.0"),
            ("msgPutTotalYesterdayMorning", "0"),
            ("msgGetTotalTodayNow", "0"),
            ("ringmqPoisonedShards", "0"),
        ] {
            assert_eq!(table.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(table.len(), 65);
    }

    #[test]
    fn numbers_become_the_texts_of_the_reference() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (3 * 1024 * 1024 * 1024, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        let mut buckets = [0; super::super::stats::PUT_BUCKETS];
        buckets[12] = 7;
        let text = distribution_text(&buckets);
        assert!(text.starts_with("[<=0ms]:0 [0~10ms]:0 ") && text.ends_with(" [10s~]:7"), "{text}");
    }
}
