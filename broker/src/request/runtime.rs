//! What tools ask about the running broker: GET_BROKER_RUNTIME_INFO (28), GET_BROKER_CONFIG (26),
//! VIEW_BROKER_STATS_DATA (315); DELETE_EXPIRED_COMMITLOG (329); and what there is nothing to do for (306, 316).

use rmq_net::body;
use rmq_net::codes::response;
use rmq_net::header::send::TimerEngineHeader;
use rmq_net::header::topic::StatsHeader;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::gather;
use crate::letter::Request;
use crate::retention::Disk;
use crate::state::runtime_info::{Health, RuntimeInput, runtime_info};

/// What each core adds.
struct Share {
    undurable_bytes: u64,
    end: i64,
    health: Health,
}

pub fn info(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let to = request.reply_address();
    let ask = |broker: &mut Broker| Share {
        undurable_bytes: broker.shard.appended().bytes() - broker.shard.durable().bytes(),
        end: broker.shard.durable().bytes() as i64,
        health: Health {
            poisoned_shards: u64::from(broker.shard.is_poisoned()),
            damaged_reads: broker.shard.counters().reads.damaged_records,
            scrub_damages: broker.scrub_state.damages(),
            scrubbed_bytes: broker.scrub_state.verified_bytes(),
        },
    };
    gather::gather(broker, ask, move |broker, shares: Vec<Share>| {
        let Some(system) = &broker.system else { return };
        let disk = Disk::of(&broker.config.store_path_root_dir);
        let input = RuntimeInput {
            now_ms: broker.now_ms,
            boot_ms: system.boot_ms,
            version_name: "V5_5_0",
            is_active: true,
            start_accept_send_ms: broker.config.start_accept_send_request_time_stamp,
            commit_log_path: broker.config.store_path_root_dir.clone(),
            commit_log_disk_ratio: disk.used_ratio(),
            consume_queue_disk_ratio: disk.used_ratio(),
            disk_total_bytes: disk.total_bytes,
            disk_free_bytes: disk.free_bytes,
            commit_log_max_offset: shares.iter().map(|share| share.end).sum(),
            health: shares.iter().map(|share| share.health).sum(),
            flush_behind_bytes: shares.iter().map(|share| share.undurable_bytes).sum(),
            ..RuntimeInput::default()
        };
        let json = body::encode(&runtime_info(&system.stats, &input));
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

/// DELETE_EXPIRED_COMMITLOG: every core looks for expired segments now, whatever the hour.
pub fn delete_expired(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let to = request.reply_address();
    let ask = |broker: &mut Broker| broker.retention.delete_expired_now();
    gather::gather(broker, ask, move |broker, _: Vec<()>| broker.reply_done(to));
    Ok(Handled::Taken)
}

/// SWITCH_TIMER_ENGINE: there is one, which stands for RocketMQ's file time wheel (since 5.3, 10.2).
pub fn switch_timer_engine(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = TimerEngineHeader::decode(&request.frame)?;
    let wanted = header.engine.as_ref().map(|engine| engine.to_cow()).unwrap_or_default();
    if wanted != "F" || !broker.config.timer_wheel_enable {
        let remark =
            format!("E_T={wanted}: this broker has one timer engine, F, and it is on while timerWheelEnable is true");
        return Err(Refusal::new(response::INVALID_PARAMETER, remark));
    }
    broker.reply_done(request.reply_address());
    Ok(Handled::Taken)
}

pub fn config(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let text = broker.config.settings.to_properties();
    // Settings do not change at run time, so their version is that of the start.
    let timestamp = broker.system.as_ref().map_or(0, |system| system.boot_ms);
    let version = body::encode(&body::DataVersion { timestamp, ..body::DataVersion::default() });
    let version = String::from_utf8_lossy(&version);
    broker.reply(request.reply_address(), response::SUCCESS, Body::Bytes(text.as_bytes()), |ext| {
        ext.text("version", &version);
    });
    Ok(Handled::Taken)
}

/// VIEW_BROKER_STATS_DATA: sums and rates of the last minute, hour and day.
pub fn statistic(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = StatsHeader::decode(&request.frame)?;
    let (name, key) = (header.stats_name.to_cow(), header.stats_key.to_cow());
    let found = broker.system.as_ref().and_then(|system| system.stats.view(&name, &key));
    let Some(found) = found else {
        return Err(Refusal::new(response::SYSTEM_ERROR, format!("The stats <{name}> <{key}> not exist")));
    };
    broker.reply_json(request.reply_address(), &body::encode(&found));
    Ok(Handled::Taken)
}

/// CLEAN_EXPIRED_CONSUMEQUEUE (306) and CLEAN_UNUSED_TOPIC (316). There is never anything left to clean: rows go with the
/// segments of their messages, and a topic's queues with the topic.
pub fn clean(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    broker.reply_done(request.reply_address());
    Ok(Handled::Taken)
}
