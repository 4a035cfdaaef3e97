use super::*;

fn counted(count: impl FnOnce(&mut Counters)) -> CountersDelta {
    let mut counters = Counters::default();
    count(&mut counters);
    counters.drain()
}

fn stats() -> BrokerStats {
    BrokerStats::new("c", 0, 0)
}

#[test]
fn draining_hands_each_count_out_once_and_forgets_idle_names() {
    let mut counters = Counters::default();
    counters.put("t", 2, 100);
    counters.put("t", 1, 50);
    counters.get_found("t", "g", 3, 150);
    counters.sent_back("t", "g");
    let delta = counters.drain();
    assert_eq!(delta.flows.len(), 3);
    let put = delta.flows.iter().find(|(key, _flow)| *key == StatsKey::Put("t".into()));
    assert_eq!(put.map(|(_key, flow)| *flow), Some(Flow { calls: 2, messages: 3, bytes: 150 }));
    assert_eq!(counters.puts.len(), 1);
    assert!(counters.drain().is_empty());
    assert!(counters.puts.is_empty() && counters.gets.is_empty() && counters.sent_back.is_empty());
}

#[test]
fn windows_are_the_difference_of_their_samples() {
    let mut stats = stats();
    stats.absorb(counted(|counters| counters.put("t", 30, 3000)), 0);
    assert_eq!(stats.view("TOPIC_PUT_NUMS", "t"), Some(BrokerStatsData::default()), "not sampled yet");
    stats.tick(10_000);
    let minute = stats.view("TOPIC_PUT_NUMS", "t").expect("counted").stats_minute;
    assert_eq!(minute, BrokerStatsItem { sum: 30, tps: 3.0, avgpt: 30.0 });
    let bytes = stats.view("TOPIC_PUT_SIZE", "t").expect("counted").stats_minute;
    assert_eq!((bytes.sum, bytes.tps), (3000, 300.0));
    assert_eq!(stats.topic_put_tps("t"), 3.0);
    for tick in 2..=7 {
        stats.tick(tick * 10_000);
    }
    let minute = stats.view("TOPIC_PUT_NUMS", "t").expect("counted").stats_minute;
    assert_eq!(minute.sum, 0, "the burst left the window of seven samples");
    stats.tick(600_000);
    assert_eq!(stats.view("TOPIC_PUT_NUMS", "t").expect("counted").stats_hour.sum, 30);
    stats.tick(3_600_000);
    assert_eq!(stats.view("TOPIC_PUT_NUMS", "t").expect("counted").stats_day.sum, 30);
}

#[test]
fn names_and_keys_select_the_statistic() {
    let mut stats = stats();
    stats.absorb(
        counted(|counters| {
            counters.put("t", 1, 10);
            counters.get_found("t", "g", 2, 20);
            counters.sent_back("t", "g");
        }),
        0,
    );
    stats.tick(10_000);
    let sum = |name: &str, key: &str| stats.view(name, key).map(|view| view.stats_minute.sum);
    for (name, key, expected) in [
        ("TOPIC_PUT_NUMS", "t", Some(1)),
        ("TOPIC_PUT_NUMS", "u", None),
        ("GROUP_GET_NUMS", "t@g", Some(2)),
        ("GROUP_GET_SIZE", "t@g", Some(20)),
        ("GROUP_GET_NUMS", "t", None),
        ("SNDBCK_PUT_NUMS", "t@g", Some(1)),
        ("BROKER_PUT_NUMS", "c", Some(1)),
        ("BROKER_GET_NUMS", "c", Some(2)),
        ("BROKER_GET_NUMS", "d", None),
        ("NEVER_HEARD_OF", "t", None),
    ] {
        assert_eq!(sum(name, key), expected, "{name} {key}");
    }
    assert!(stats.group_get_tps("t", "g") > 0.0);
}

#[test]
fn removed_and_idle_names_leave_nothing_behind() {
    let mut stats = stats();
    let delta = || {
        counted(|counters| {
            counters.put("t", 1, 1);
            counters.get_found("t", "g", 1, 1);
            counters.get_found("u", "g", 1, 1);
        })
    };
    stats.absorb(delta(), 0);
    stats.remove_topic("t");
    assert_eq!(stats.items.len(), 1);
    stats.remove_group("g");
    assert!(stats.items.is_empty());
    stats.absorb(delta(), 0);
    for hour in 1..=DAY.samples_max as i64 {
        assert!(!stats.items.is_empty(), "hour {hour}");
        stats.tick(hour * 3_600_000);
    }
    assert!(stats.items.is_empty(), "nothing was counted for a day");
}

#[test]
fn rates_cover_their_windows_or_the_time_since_start() {
    let mut stats = stats();
    assert_eq!(stats.rates(), RuntimeRates::default());
    for second in 1..=700 {
        let delta = counted(|counters| {
            counters.put("t", 5, 50);
            counters.get_missed();
            if second > 690 {
                counters.get_found("t", "g", 2, 20);
            }
        });
        stats.absorb(delta, second * 1000);
        stats.tick(second * 1000);
        if second == 5 {
            assert_eq!(stats.rates().put, [5.0, 5.0, 5.0]);
        }
    }
    let rates = stats.rates();
    assert_eq!(rates.put, [5.0, 5.0, 5.0]);
    assert_eq!(rates.get_found, [1.0, 10.0 / 60.0, 10.0 / 600.0]);
    assert_eq!(rates.get_transferred[0], 2.0);
    assert_eq!(rates.get_total[0], 2.0);
    assert_eq!(stats.rates.len(), RATE_SAMPLES_MAX);
}

#[test]
fn totals_shift_at_local_midnight() {
    let hour = 3_600_000;
    let mut stats = BrokerStats::new("c", 2 * hour, 0);
    stats.absorb(counted(|counters| counters.put("t", 4, 4)), 0);
    stats.tick(22 * hour - 1);
    assert_eq!(stats.daily().0, DailyTotals { yesterday_morning: 0, today_morning: 0, now: 4 });
    stats.tick(22 * hour);
    assert_eq!(stats.daily().0, DailyTotals { yesterday_morning: 0, today_morning: 4, now: 4 });
    stats.absorb(counted(|counters| counters.get_found("t", "g", 3, 3)), 23 * hour);
    stats.tick(46 * hour);
    let (put, get) = stats.daily();
    assert_eq!(put, DailyTotals { yesterday_morning: 4, today_morning: 4, now: 4 });
    assert_eq!(get, DailyTotals { yesterday_morning: 0, today_morning: 3, now: 3 });
}

#[test]
fn latencies_fall_into_their_buckets() {
    let delta = counted(|counters| {
        for elapsed_ms in [0, 1, 9, 10, 9999, 10_000, u32::MAX] {
            counters.put_took(elapsed_ms);
        }
    });
    assert_eq!(delta.totals.put_buckets, [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(delta.totals.put_longest_ms, u32::MAX);
}
