//! The shard on a simulated disk: one seed decides what is sent, how the disk behaves, and when the power goes.
//!
//! `RMQ_SIM_SEED=<seed>` replays one seed, `RMQ_SIM_SEEDS=<count>` runs more of them than usual.

mod disk;
mod model;
#[cfg(feature = "planted-bugs")]
mod planted_bugs;
mod promises;
mod random;
mod world;

use world::World;

const SEEDS: u64 = 2000;
/// Runs with followers: each recovers thousands of times.
const FOLLOWED_SEEDS: u64 = 200;

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: RMQ_SIM_SEED={} cargo test -p rmq-engine --test simulation", self.0);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn acknowledged_messages_survive_and_nothing_else_appears() {
    let seeds = match setting("RMQ_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("RMQ_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = world::Summary::default();
    for seed in seeds.clone() {
        let _replay = Replay(seed);
        total.add(&World::new(seed).run());
    }
    println!("{} seeds: {total:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= SEEDS {
        // A simulation that never gets where it hurts proves nothing.
        assert!(total.kills > 1000 && total.power_cuts > 1000 && total.crashes_in_recovery > 100, "{total:?}");
        assert!(total.lost_unacknowledged > 100 && total.lost_in_async_power_cut > 10, "{total:?}");
        assert!(total.snapshots_published > 1000 && total.snapshots_damaged > 50, "{total:?}");
        assert!(
            total.segments_retired > 500 && total.segments_renamed > 200 && total.segments_removed > 50,
            "{total:?}"
        );
        assert!(total.restarts_from_snapshot > 500 && total.clean_stops > 100, "{total:?}");
        assert!(total.poisoned > 50 && total.segments_recycled > 100, "{total:?}");
        assert!(total.damages_refused > 500, "{total:?}");
        assert!(total.cold_reads > 1000 && total.index_reads > 100 && total.writes_beside_others > 1000, "{total:?}");
    }
}

#[test]
fn a_follower_holds_what_it_was_sent_wherever_that_is_cut_off() {
    let seeds = match setting("RMQ_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..FOLLOWED_SEEDS,
    };
    let mut total = world::Summary::default();
    for seed in seeds.clone() {
        let _replay = Replay(seed);
        total.add(&World::new(seed).with_followers().run());
    }
    println!("{} seeds: {} cuts, {} diverged", seeds.end - seeds.start, total.follower_cuts, total.followers_diverged);
    if seeds.end - seeds.start >= FOLLOWED_SEEDS {
        assert!(total.follower_cuts > 1000 && total.followers_diverged > 5, "{total:?}");
    }
}
