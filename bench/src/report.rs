//! Results: what one thread counted, what a run adds up to, and how it is printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::BenchError;
use crate::process::{Resident, Usage};

/// Longest latency the histogram tells apart: ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
const REMARK_CHARS_MAX: usize = 80;

/// Latencies in nanoseconds with three significant digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3);
        Self(histogram.expect("constant bounds are valid"))
    }

    pub fn record(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns);
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("histograms have the same bounds");
    }

    pub fn summary(&self) -> Option<LatencySummary> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        (!self.0.is_empty()).then(|| LatencySummary {
            count: self.0.len(),
            mean_us: self.0.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: self.0.max() as f64 / 1e3,
        })
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct LatencySummary {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

/// Error replies by response code and kind of remark.
#[derive(Clone, Debug, Default)]
pub struct Errors(BTreeMap<(i32, String), u64>);

impl Errors {
    /// Digits in the remark are made alike, so that remarks with numbers in them fall together.
    #[cold]
    pub fn count(&mut self, code: i32, remark: &str, messages: u64) {
        let mut kind = String::new();
        for character in remark.chars().take(REMARK_CHARS_MAX) {
            match character {
                '0'..='9' if kind.ends_with('#') => {}
                '0'..='9' => kind.push('#'),
                _ if character.is_control() => kind.push(' '),
                _ => kind.push(character),
            }
        }
        *self.0.entry((code, kind)).or_default() += messages;
    }

    pub fn add(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    fn rows(&self) -> Vec<ErrorRow> {
        let rows = self.0.iter().map(|((code, remark), count)| ErrorRow {
            code: *code,
            remark: remark.clone(),
            count: *count,
        });
        rows.collect()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct ErrorRow {
    pub code: i32,
    pub remark: String,
    pub count: u64,
}

/// What `--verify` found. All but `foreign` make the run fail.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Verdict {
    pub checked: u64,
    /// Bodies this tool did not write; they are not checked.
    pub foreign: u64,
    pub corrupt: u64,
    /// Queue offsets that do not follow the one before.
    pub offset_gaps: u64,
    /// Messages that arrived after one the same producer sent later.
    pub out_of_order: u64,
    pub duplicates: u64,
    /// Messages of a producer that are not in the queue although later ones are.
    pub missing: u64,
}

impl Verdict {
    pub fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.foreign += other.foreign;
        self.corrupt += other.corrupt;
        self.offset_gaps += other.offset_gaps;
        self.out_of_order += other.out_of_order;
        self.duplicates += other.duplicates;
        self.missing += other.missing;
    }

    pub fn is_clean(&self) -> bool {
        self.corrupt + self.offset_gaps + self.out_of_order + self.duplicates + self.missing == 0
    }
}

/// Counts of one thread, or of all of them after [`Tally::add`].
pub struct Tally {
    /// Messages and body bytes acknowledged or received inside the measured window.
    pub messages: u64,
    pub bytes: u64,
    /// Replies behind them: sends or pulls.
    pub replies: u64,
    pub latencies: Latencies,
    pub errors: Errors,
    /// Queue positions the replies of the measured window moved on by: with a filter, messages it was asked about.
    pub examined: u64,
    /// Messages that came before they were due, whole run.
    pub early: u64,
    pub closed_connections: u64,
    pub unanswered: u64,
    pub verdict: Option<Verdict>,
    /// Messages acknowledged inside the measured window, of each producer connection.
    pub by_connection: Vec<u64>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            replies: 0,
            latencies: Latencies::new(),
            errors: Errors::default(),
            examined: 0,
            early: 0,
            closed_connections: 0,
            unanswered: 0,
            verdict: None,
            by_connection: Vec::new(),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.replies += other.replies;
        self.latencies.add(&other.latencies);
        self.errors.add(other.errors);
        self.examined += other.examined;
        self.early += other.early;
        self.closed_connections += other.closed_connections;
        self.unanswered += other.unanswered;
        self.by_connection.extend(other.by_connection);
        if let Some(verdict) = other.verdict {
            self.verdict.get_or_insert_default().add(&verdict);
        }
    }
}

/// CPU and memory of the processes that were watched, over the measured window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    pub own: Usage,
    pub server: Option<(Usage, Resident)>,
}

#[derive(Debug, Serialize)]
pub struct CpuSummary {
    pub user_us_per_message: f64,
    pub system_us_per_message: f64,
    pub us_per_message: f64,
    pub cores: f64,
}

impl CpuSummary {
    fn new(usage: Usage, messages: u64, seconds: f64) -> Self {
        let messages = messages.max(1) as f64;
        let total_us = (usage.user_us + usage.system_us) as f64;
        Self {
            user_us_per_message: usage.user_us as f64 / messages,
            system_us_per_message: usage.system_us as f64 / messages,
            us_per_message: total_us / messages,
            cores: total_us / 1e6 / seconds,
        }
    }
}

/// How evenly the server served the connections of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fairness {
    pub connections: usize,
    /// Messages acknowledged on the slowest connection, and on all of them by their number.
    pub slowest: u64,
    pub mean: f64,
    /// `slowest / mean`: 1 is even, 0 is a connection that got nothing.
    pub slowest_to_mean: f64,
}

impl Fairness {
    fn of(by_connection: &[u64]) -> Option<Self> {
        let (connections, slowest) = (by_connection.len(), *by_connection.iter().min()?);
        let mean = by_connection.iter().sum::<u64>() as f64 / connections as f64;
        Some(Self { connections, slowest, mean, slowest_to_mean: slowest as f64 / mean.max(1.0) })
    }
}

/// The result of a run, as it is printed and written.
#[derive(Debug, Serialize)]
pub struct Report {
    pub work: &'static str,
    pub label: String,
    pub command: String,
    pub seconds: f64,
    pub messages: u64,
    pub replies: u64,
    /// Warm-up included.
    pub messages_in_all: u64,
    pub messages_per_second: f64,
    pub megabytes_per_second: f64,
    /// Consumer with a filter: messages the broker compared with it.
    pub examined_per_second: Option<f64>,
    /// Producer: from the intended send time to the acknowledgement, of the commit in a transaction. Consumer: from the
    /// intended send time, or when a delayed message was due, to the arrival here, of messages due while it ran.
    pub latency: Option<LatencySummary>,
    /// Consumer: messages that arrived before they were due.
    pub early: u64,
    pub error_count: u64,
    pub errors: Vec<ErrorRow>,
    pub closed_connections: u64,
    pub unanswered: u64,
    pub verify: Option<Verdict>,
    pub fairness: Option<Fairness>,
    pub own_cpu: CpuSummary,
    pub server_cpu: Option<CpuSummary>,
    pub server_rss_bytes: Option<u64>,
    pub server_rss_peak_bytes: Option<u64>,
}

impl Report {
    pub fn new(
        work: &'static str,
        label: &str,
        window: Duration,
        tally: Tally,
        watched: Watched,
        messages_watched: u64,
        messages_in_all: u64,
    ) -> Self {
        let seconds = window.as_secs_f64().max(1e-9);
        let cpu = |usage| CpuSummary::new(usage, messages_watched, seconds);
        Self {
            work,
            label: label.to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            seconds,
            messages: tally.messages,
            replies: tally.replies,
            messages_in_all,
            messages_per_second: tally.messages as f64 / seconds,
            megabytes_per_second: tally.bytes as f64 / 1e6 / seconds,
            examined_per_second: (tally.examined > tally.messages).then(|| tally.examined as f64 / seconds),
            latency: tally.latencies.summary(),
            early: tally.early,
            error_count: tally.errors.total(),
            errors: tally.errors.rows(),
            closed_connections: tally.closed_connections,
            unanswered: tally.unanswered,
            verify: tally.verdict,
            fairness: Fairness::of(&tally.by_connection),
            own_cpu: cpu(watched.own),
            server_cpu: watched.server.map(|(usage, _)| cpu(usage)),
            server_rss_bytes: watched.server.map(|(_, resident)| resident.now_bytes),
            server_rss_peak_bytes: watched.server.map(|(_, resident)| resident.peak_bytes),
        }
    }

    /// Nothing got through, or what got through was wrong.
    pub fn is_failure(&self) -> bool {
        self.messages == 0 || self.verify.is_some_and(|verdict| !verdict.is_clean())
    }

    pub fn write_text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{}: {:.0} messages/s, {:.1} MB/s ({} messages in {} replies, {:.2} s)",
            self.work, self.messages_per_second, self.megabytes_per_second, self.messages, self.replies, self.seconds
        )?;
        if let Some(examined) = self.examined_per_second {
            writeln!(out, "examined: {examined:.0} messages/s")?;
        }
        if let Some(latency) = &self.latency {
            writeln!(
                out,
                "latency us: mean {:.0}  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  max {:.0}  ({} samples)",
                latency.mean_us,
                latency.p50_us,
                latency.p90_us,
                latency.p99_us,
                latency.p99_9_us,
                latency.p99_99_us,
                latency.max_us,
                latency.count
            )?;
        }
        if self.early > 0 {
            writeln!(out, "before they were due: {} messages", self.early)?;
        }
        if let Some(fairness) = self.fairness.filter(|fairness| fairness.connections > 1) {
            writeln!(
                out,
                "fairness: {:.2} (slowest of {} connections {} messages, mean {:.0})",
                fairness.slowest_to_mean, fairness.connections, fairness.slowest, fairness.mean
            )?;
        }
        if self.messages > 0 {
            write_cpu(out, "own cpu", &self.own_cpu)?;
        }
        if let (Some(cpu), true) = (&self.server_cpu, self.messages > 0) {
            write_cpu(out, "server cpu", cpu)?;
        }
        if let (Some(now), Some(peak)) = (self.server_rss_bytes, self.server_rss_peak_bytes) {
            let (now, peak) = (now as f64 / 1e6, peak as f64 / 1e6);
            writeln!(out, "server memory: {now:.0} MB resident, peak {peak:.0} MB")?;
        }
        if let Some(verdict) = &self.verify {
            writeln!(
                out,
                "verify: {} checked, {} corrupt, {} offset gaps, {} out of order, {} duplicates, {} missing, {} foreign",
                verdict.checked,
                verdict.corrupt,
                verdict.offset_gaps,
                verdict.out_of_order,
                verdict.duplicates,
                verdict.missing,
                verdict.foreign
            )?;
        }
        for row in &self.errors {
            writeln!(out, "error code {}: {} x {}", row.code, row.count, row.remark)?;
        }
        if self.closed_connections + self.unanswered > 0 {
            writeln!(
                out,
                "connections closed by the server: {}, requests without an answer: {}",
                self.closed_connections, self.unanswered
            )?;
        }
        Ok(())
    }

    pub fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        let mut json = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        json.push('\n');
        if path == Path::new("-") {
            std::io::stdout().write_all(json.as_bytes())?;
        } else {
            std::fs::write(path, json)?;
        }
        Ok(())
    }
}

fn write_cpu(out: &mut dyn Write, name: &str, cpu: &CpuSummary) -> std::io::Result<()> {
    writeln!(
        out,
        "{name}: {:.2} us per message ({:.2} user, {:.2} system), {:.2} cores",
        cpu.us_per_message, cpu.user_us_per_message, cpu.system_us_per_message, cpu.cores
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_that_differ_in_numbers_fall_together() {
        let mut errors = Errors::default();
        errors.count(2, "[TIMEOUT]busy, 210ms, 14", 1);
        errors.count(2, "[TIMEOUT]busy, 9ms, 2", 1);
        errors.count(1, "[TIMEOUT]busy, 9ms, 2", 1);
        assert_eq!(errors.total(), 3);
        assert_eq!(errors.rows().len(), 2);
        assert_eq!(errors.rows()[1].remark, "[TIMEOUT]busy, #ms, #");
    }

    #[test]
    fn a_connection_that_starves_is_seen() {
        let ratio = |counts: &[u64]| Fairness::of(counts).map(|fairness| fairness.slowest_to_mean);
        assert_eq!(ratio(&[5, 5, 5]), Some(1.0));
        assert_eq!(ratio(&[10, 0, 20]), Some(0.0));
        assert_eq!(ratio(&[1, 2, 3]), Some(0.5));
        assert_eq!(ratio(&[0, 0]), Some(0.0));
        assert_eq!(ratio(&[]), None);
    }

    #[test]
    fn a_run_fails_without_messages_or_with_wrong_ones() {
        let report = |messages, verdict| {
            let mut tally = Tally::new();
            tally.messages = messages;
            tally.verdict = verdict;
            Report::new("test", "", Duration::from_secs(1), tally, Watched::default(), messages, messages)
        };
        assert!(report(0, None).is_failure());
        assert!(!report(1, Some(Verdict::default())).is_failure());
        let corrupt = Verdict { corrupt: 1, ..Verdict::default() };
        assert!(report(1, Some(corrupt)).is_failure());
    }
}
