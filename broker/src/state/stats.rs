//! What flowed through the broker, per topic and group, in the windows RocketMQ's tools ask for.
//!
//! Every core counts into its own [`Counters`], plain integers behind `&mut`. A few times per
//! second each core [drains](Counters::drain) them and sends the difference to core 0, whose
//! [`BrokerStats`] adds it up and samples it: every 10 s for the last minute, every 10 min for the
//! last hour, hourly for the last day, and each second for the rates of `BrokerRuntimeInfo`.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::ops::AddAssign;
use std::sync::Arc;

use rmq_net::body::BrokerStatsData;
use rmq_net::body::stats::BrokerStatsItem;
use rustc_hash::FxHashMap;

/// Samples a window keeps, and the time between two.
const MINUTE: Window = Window { samples_max: 7, period_ms: 10_000 };
const HOUR: Window = Window { samples_max: 7, period_ms: 600_000 };
const DAY: Window = Window { samples_max: 25, period_ms: 3_600_000 };
/// Seconds the rates look back, and one sample more to subtract from.
const RATE_SAMPLES_MAX: usize = 601;
const RATE_PERIOD_MS: i64 = 1000;
const DAY_MS: i64 = 24 * 3_600_000;
/// Where the buckets of put latencies start, in ms, after the first, which is for 0 alone.
const PUT_BUCKET_BOUNDS_MS: [u32; 12] = [1, 10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10_000];
pub const PUT_BUCKETS: usize = PUT_BUCKET_BOUNDS_MS.len() + 1;

struct Window {
    samples_max: usize,
    period_ms: i64,
}

/// Calls, and the messages and bytes they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub calls: u64,
    pub messages: u64,
    pub bytes: u64,
}

impl Flow {
    fn of_call(messages: u64, bytes: u64) -> Self {
        Self { calls: 1, messages, bytes }
    }
}

impl AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// Counts over all topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub put: Flow,
    pub put_failed: u64,
    /// Reads that found messages, and what they handed out.
    pub get_found: Flow,
    /// Reads that found none.
    pub get_missed: u64,
    pub put_longest_ms: u32,
    pub get_longest_ms: u32,
    pub put_buckets: [u64; PUT_BUCKETS],
}

impl AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        self.put += other.put;
        self.put_failed += other.put_failed;
        self.get_found += other.get_found;
        self.get_missed += other.get_missed;
        self.put_longest_ms = self.put_longest_ms.max(other.put_longest_ms);
        self.get_longest_ms = self.get_longest_ms.max(other.get_longest_ms);
        for (sum, more) in self.put_buckets.iter_mut().zip(other.put_buckets) {
            *sum += more;
        }
    }
}

/// What one core counted since its last drain. No allocation for a topic or group counted before
/// in this or the previous drain period.
#[derive(Debug, Default)]
pub struct Counters {
    totals: Totals,
    /// The topic of the last send, whose messages seldom come alone, and what is not in `puts` yet.
    last_put: Option<(Arc<str>, Flow)>,
    puts: FxHashMap<Arc<str>, Flow>,
    gets: FxHashMap<Arc<str>, FxHashMap<Arc<str>, Flow>>,
    sent_back: FxHashMap<Arc<str>, FxHashMap<Arc<str>, Flow>>,
}

/// One core's counts between two drains.
#[derive(Debug, Default)]
pub struct CountersDelta {
    totals: Totals,
    flows: Vec<(StatsKey, Flow)>,
}

impl CountersDelta {
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.totals == Totals::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum StatsKey {
    Put(Arc<str>),
    Get { topic: Arc<str>, group: Arc<str> },
    SentBack { topic: Arc<str>, group: Arc<str> },
}

impl Counters {
    /// One send was appended.
    pub fn put(&mut self, topic: &str, messages: u64, bytes: u64) {
        let flow = Flow::of_call(messages, bytes);
        self.totals.put += flow;
        match &mut self.last_put {
            Some((last, sum)) if **last == *topic => *sum += flow,
            _ => self.put_to_other_topic(topic, flow),
        }
    }

    fn put_to_other_topic(&mut self, topic: &str, flow: Flow) {
        self.settle_last_put();
        let name = self.puts.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        self.last_put = Some((name, flow));
    }

    fn settle_last_put(&mut self) {
        if let Some((topic, flow)) = self.last_put.take() {
            *self.puts.entry(topic).or_default() += flow;
        }
    }

    /// One send failed in the store.
    pub fn put_failed(&mut self) {
        self.totals.put_failed += 1;
    }

    /// How long a send took from its arrival to its answer.
    pub fn put_took(&mut self, elapsed_ms: u32) {
        self.totals.put_longest_ms = self.totals.put_longest_ms.max(elapsed_ms);
        let index = PUT_BUCKET_BOUNDS_MS.partition_point(|bound| *bound <= elapsed_ms);
        if let Some(bucket) = self.totals.put_buckets.get_mut(index) {
            *bucket += 1;
        }
    }

    /// One read handed out messages.
    pub fn get_found(&mut self, topic: &str, group: &str, messages: u64, bytes: u64) {
        let flow = Flow::of_call(messages, bytes);
        self.totals.get_found += flow;
        add_pair(&mut self.gets, topic, group, flow);
    }

    /// One read found nothing.
    pub fn get_missed(&mut self) {
        self.totals.get_missed += 1;
    }

    /// How long a read took.
    pub fn get_took(&mut self, elapsed_ms: u32) {
        self.totals.get_longest_ms = self.totals.get_longest_ms.max(elapsed_ms);
    }

    /// A consumer sent one message back to its group's retry topic.
    pub fn sent_back(&mut self, topic: &str, group: &str) {
        add_pair(&mut self.sent_back, topic, group, Flow::of_call(1, 0));
    }

    /// Takes the counts out. Names counted stay for the next period, idle ones are forgotten.
    pub fn drain(&mut self) -> CountersDelta {
        self.settle_last_put();
        let mut delta = CountersDelta { totals: std::mem::take(&mut self.totals), flows: Vec::new() };
        let flows = &mut delta.flows;
        self.puts.retain(|topic, flow| {
            take(flow).map(|flow| flows.push((StatsKey::Put(Arc::clone(topic)), flow))).is_some()
        });
        drain_pairs(&mut self.gets, |topic, group, flow| {
            flows.push((StatsKey::Get { topic, group }, flow));
        });
        drain_pairs(&mut self.sent_back, |topic, group, flow| {
            flows.push((StatsKey::SentBack { topic, group }, flow));
        });
        delta
    }
}

fn add(map: &mut FxHashMap<Arc<str>, Flow>, name: &str, flow: Flow) {
    match map.get_mut(name) {
        Some(sum) => *sum += flow,
        None => {
            map.insert(Arc::from(name), flow);
        }
    }
}

fn add_pair(map: &mut FxHashMap<Arc<str>, FxHashMap<Arc<str>, Flow>>, topic: &str, group: &str, flow: Flow) {
    match map.get_mut(topic) {
        Some(groups) => add(groups, group, flow),
        None => add(map.entry(Arc::from(topic)).or_default(), group, flow),
    }
}

/// The flow if there was any, leaving zero.
fn take(flow: &mut Flow) -> Option<Flow> {
    Some(std::mem::take(flow)).filter(|flow| *flow != Flow::default())
}

fn drain_pairs(
    map: &mut FxHashMap<Arc<str>, FxHashMap<Arc<str>, Flow>>,
    mut emit: impl FnMut(Arc<str>, Arc<str>, Flow),
) {
    map.retain(|topic, groups| {
        groups.retain(|group, flow| take(flow).map(|flow| emit(Arc::clone(topic), Arc::clone(group), flow)).is_some());
        !groups.is_empty()
    });
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ms: i64,
    flow: Flow,
}

/// One statistic: its sum since it was first counted and the samples of its three windows. Each
/// window starts with a sample of zero, so that a burst is seen from its first message on.
#[derive(Debug)]
struct Item {
    sum: Flow,
    minute: VecDeque<Sample>,
    hour: VecDeque<Sample>,
    day: VecDeque<Sample>,
}

impl Item {
    fn new(now_ms: i64) -> Self {
        let zero = VecDeque::from([Sample { at_ms: now_ms, flow: Flow::default() }]);
        Self { sum: Flow::default(), minute: zero.clone(), hour: zero.clone(), day: zero }
    }

    fn is_idle(&self) -> bool {
        DAY.samples_max <= self.day.len() && self.day.front().is_some_and(|oldest| oldest.flow == self.sum)
    }
}

fn sample(samples: &mut VecDeque<Sample>, window: &Window, flow: Flow, now_ms: i64) {
    samples.push_back(Sample { at_ms: now_ms, flow });
    while window.samples_max < samples.len() {
        samples.pop_front();
    }
}

/// Counted since the start, and as of the last two local midnights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyTotals {
    pub yesterday_morning: u64,
    pub today_morning: u64,
    pub now: u64,
}

/// Rates per second over the last 10, 60 and 600 s, or since the start while that is shorter.
pub type Rates = [f64; 3];
const RATE_WINDOWS_S: [usize; 3] = [10, 60, 600];

/// The rates of `BrokerRuntimeInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuntimeRates {
    /// Messages appended.
    pub put: Rates,
    /// Reads that found, that did not find, and both.
    pub get_found: Rates,
    pub get_miss: Rates,
    pub get_total: Rates,
    /// Messages handed out.
    pub get_transferred: Rates,
}

#[derive(Clone, Copy, Debug)]
struct RateSample {
    at_ms: i64,
    put: u64,
    get_found: u64,
    get_missed: u64,
    get_transferred: u64,
}

/// See the module. Owned by core 0.
#[derive(Debug)]
pub struct BrokerStats {
    cluster_name: String,
    utc_offset_ms: i64,
    totals: Totals,
    items: FxHashMap<StatsKey, Item>,
    /// `BROKER_PUT_NUMS` and `BROKER_GET_NUMS`, whose key is the cluster.
    broker_put: Item,
    broker_get: Item,
    rates: VecDeque<RateSample>,
    next_minute_ms: i64,
    next_hour_ms: i64,
    next_day_ms: i64,
    /// Days since 1970 in local time.
    today: i64,
    put_daily: DailyTotals,
    get_daily: DailyTotals,
}

impl BrokerStats {
    /// `utc_offset_ms`: local time minus UTC, for the totals "as of this morning".
    pub fn new(cluster_name: &str, utc_offset_ms: i64, now_ms: i64) -> Self {
        let mut stats = Self {
            cluster_name: cluster_name.to_owned(),
            utc_offset_ms,
            totals: Totals::default(),
            items: FxHashMap::default(),
            broker_put: Item::new(now_ms),
            broker_get: Item::new(now_ms),
            rates: VecDeque::new(),
            next_minute_ms: now_ms + MINUTE.period_ms,
            next_hour_ms: now_ms + HOUR.period_ms,
            next_day_ms: now_ms + DAY.period_ms,
            today: (now_ms + utc_offset_ms).div_euclid(DAY_MS),
            put_daily: DailyTotals::default(),
            get_daily: DailyTotals::default(),
        };
        stats.sample_rates(now_ms);
        stats
    }

    /// Adds what one core counted.
    pub fn absorb(&mut self, delta: CountersDelta, now_ms: i64) {
        self.totals += &delta.totals;
        self.broker_put.sum += delta.totals.put;
        self.broker_get.sum += delta.totals.get_found;
        for (key, flow) in delta.flows {
            let item = match self.items.entry(key) {
                Entry::Occupied(occupied) => occupied.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(Item::new(now_ms)),
            };
            item.sum += flow;
        }
    }

    /// Takes the samples that are due. To be called about once per second; a late call delays a
    /// sample and never repeats it.
    pub fn tick(&mut self, now_ms: i64) {
        let is_due = self.rates.back().is_none_or(|last| RATE_PERIOD_MS <= now_ms - last.at_ms);
        if is_due {
            self.sample_rates(now_ms);
        }
        if is_past(&mut self.next_minute_ms, &MINUTE, now_ms) {
            self.each_item(|item| sample(&mut item.minute, &MINUTE, item.sum, now_ms));
        }
        if is_past(&mut self.next_hour_ms, &HOUR, now_ms) {
            self.each_item(|item| sample(&mut item.hour, &HOUR, item.sum, now_ms));
        }
        if is_past(&mut self.next_day_ms, &DAY, now_ms) {
            self.each_item(|item| sample(&mut item.day, &DAY, item.sum, now_ms));
            self.items.retain(|_key, item| !item.is_idle());
        }
        let today = (now_ms + self.utc_offset_ms).div_euclid(DAY_MS);
        if today != self.today {
            self.today = today;
            for (daily, total) in
                [(&mut self.put_daily, self.totals.put.messages), (&mut self.get_daily, self.totals.get_found.messages)]
            {
                daily.yesterday_morning = daily.today_morning;
                daily.today_morning = total;
            }
        }
    }

    fn each_item(&mut self, change: impl FnMut(&mut Item)) {
        [&mut self.broker_put, &mut self.broker_get].into_iter().chain(self.items.values_mut()).for_each(change);
    }

    fn sample_rates(&mut self, now_ms: i64) {
        self.rates.push_back(RateSample {
            at_ms: now_ms,
            put: self.totals.put.messages,
            get_found: self.totals.get_found.calls,
            get_missed: self.totals.get_missed,
            get_transferred: self.totals.get_found.messages,
        });
        while RATE_SAMPLES_MAX < self.rates.len() {
            self.rates.pop_front();
        }
    }

    /// The answer to VIEW_BROKER_STATS_DATA (315). `None`: no such statistic, or nothing counted
    /// under the key yet; RocketMQ answers 1.
    pub fn view(&self, stats_name: &str, stats_key: &str) -> Option<BrokerStatsData> {
        let of_group = || stats_key.split_once('@').map(|(topic, group)| (topic.into(), group.into()));
        let (key, measure): (StatsKey, fn(&Flow) -> u64) = match stats_name {
            "TOPIC_PUT_NUMS" => (StatsKey::Put(stats_key.into()), |flow| flow.messages),
            "TOPIC_PUT_SIZE" => (StatsKey::Put(stats_key.into()), |flow| flow.bytes),
            "GROUP_GET_NUMS" | "GROUP_GET_SIZE" | "SNDBCK_PUT_NUMS" => {
                let (topic, group) = of_group()?;
                match stats_name {
                    "GROUP_GET_NUMS" => (StatsKey::Get { topic, group }, |flow| flow.messages),
                    "GROUP_GET_SIZE" => (StatsKey::Get { topic, group }, |flow| flow.bytes),
                    _ => (StatsKey::SentBack { topic, group }, |flow| flow.messages),
                }
            }
            "BROKER_PUT_NUMS" if stats_key == self.cluster_name => {
                return Some(view_of(&self.broker_put, |flow| flow.messages));
            }
            "BROKER_GET_NUMS" if stats_key == self.cluster_name => {
                return Some(view_of(&self.broker_get, |flow| flow.messages));
            }
            _ => return None,
        };
        self.items.get(&key).map(|item| view_of(item, measure))
    }

    /// Messages per second over the last minute, for `topicPutTps` (202).
    pub fn topic_put_tps(&self, topic: &str) -> f64 {
        self.view("TOPIC_PUT_NUMS", topic).map_or(0.0, |view| view.stats_minute.tps)
    }

    /// Messages per second over the last minute, for `consumeTps` (208).
    pub fn group_get_tps(&self, topic: &str, group: &str) -> f64 {
        let key = StatsKey::Get { topic: topic.into(), group: group.into() };
        self.items.get(&key).map_or(0.0, |item| view_of(item, |flow| flow.messages).stats_minute.tps)
    }

    /// The topic is deleted: forget what it counted.
    pub fn remove_topic(&mut self, name: &str) {
        self.items.retain(|key, _item| match key {
            StatsKey::Put(topic) | StatsKey::Get { topic, .. } | StatsKey::SentBack { topic, .. } => &**topic != name,
        });
    }

    /// The group is deleted: forget what it counted.
    pub fn remove_group(&mut self, name: &str) {
        self.items.retain(|key, _item| match key {
            StatsKey::Put(_topic) => true,
            StatsKey::Get { group, .. } | StatsKey::SentBack { group, .. } => &**group != name,
        });
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Messages appended and messages handed out, by day.
    pub fn daily(&self) -> (DailyTotals, DailyTotals) {
        let put = DailyTotals { now: self.totals.put.messages, ..self.put_daily };
        let get = DailyTotals { now: self.totals.get_found.messages, ..self.get_daily };
        (put, get)
    }

    pub fn rates(&self) -> RuntimeRates {
        RuntimeRates {
            put: self.rates_of(|sample| sample.put),
            get_found: self.rates_of(|sample| sample.get_found),
            get_miss: self.rates_of(|sample| sample.get_missed),
            get_total: self.rates_of(|sample| sample.get_found + sample.get_missed),
            get_transferred: self.rates_of(|sample| sample.get_transferred),
        }
    }

    fn rates_of(&self, measure: fn(&RateSample) -> u64) -> Rates {
        RATE_WINDOWS_S.map(|seconds| {
            let Some(last) = self.rates.back() else {
                return 0.0;
            };
            let first_index = self.rates.len().saturating_sub(seconds + 1);
            let first = self.rates.get(first_index).unwrap_or(last);
            per_second(measure(last) - measure(first), last.at_ms - first.at_ms)
        })
    }
}

fn is_past(next_ms: &mut i64, window: &Window, now_ms: i64) -> bool {
    if now_ms < *next_ms {
        return false;
    }
    *next_ms = now_ms + window.period_ms;
    true
}

fn view_of(item: &Item, measure: fn(&Flow) -> u64) -> BrokerStatsData {
    let window = |samples: &VecDeque<Sample>| {
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return BrokerStatsItem::default();
        };
        let sum = measure(&last.flow) - measure(&first.flow);
        let calls = last.flow.calls - first.flow.calls;
        BrokerStatsItem {
            sum: i64::try_from(sum).unwrap_or(i64::MAX),
            tps: per_second(sum, last.at_ms - first.at_ms),
            avgpt: if calls == 0 { 0.0 } else { sum as f64 / calls as f64 },
        }
    };
    BrokerStatsData { stats_minute: window(&item.minute), stats_hour: window(&item.hour), stats_day: window(&item.day) }
}

fn per_second(count: u64, elapsed_ms: i64) -> f64 {
    if elapsed_ms <= 0 { 0.0 } else { count as f64 * 1000.0 / elapsed_ms as f64 }
}

#[cfg(test)]
mod tests;
