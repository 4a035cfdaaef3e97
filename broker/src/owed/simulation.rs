//! Whatever the order of sends, ends, stuck disks, crashes and time: what was acknowledged is delivered once and not before
//! it is due, and a half message is read by nobody until it is committed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rmq_net::codes::request as code;
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::record;

use crate::testing::{Cores, Disk, pull_fields};

const CORES: usize = 2;
const QUEUES: u32 = 4;
/// Longest delay there is below, and then some for the checks of half messages.
const REST_MS: i64 = 8000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Timer {
        queue_id: u32,
        delay_ms: i64,
    },
    /// Level 1, a second, or 2, five seconds.
    Level {
        queue_id: u32,
        level: i64,
    },
    Half {
        queue_id: u32,
    },
    /// Ends one of the half messages, each always in the same way.
    End {
        which: usize,
    },
    Pass {
        ms: i64,
    },
    Stuck {
        core: usize,
    },
    Works {
        core: usize,
    },
    /// So many of each core's commands still reach the disk.
    Crash {
        commands: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let queue_id = 0..QUEUES;
    prop_oneof![
        4 => (queue_id.clone(), 1..5000_i64).prop_map(|(queue_id, delay_ms)| Step::Timer { queue_id, delay_ms }),
        2 => (queue_id.clone(), 1..3_i64).prop_map(|(queue_id, level)| Step::Level { queue_id, level }),
        3 => queue_id.prop_map(|queue_id| Step::Half { queue_id }),
        3 => (0..8_usize).prop_map(|which| Step::End { which }),
        4 => (0..3000_i64).prop_map(|ms| Step::Pass { ms }),
        1 => (0..CORES).prop_map(|core| Step::Stuck { core }),
        2 => (0..CORES).prop_map(|core| Step::Works { core }),
        1 => (0..4_usize).prop_map(|commands| Step::Crash { commands }),
    ]
}

/// What a message's delivery depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delayed { due_ms: i64 },
    Open,
    Committed { is_acknowledged: bool },
    RolledBack,
}

struct Message {
    opaque: i32,
    is_acknowledged: bool,
    fate: Fate,
    /// Of a half message that was acknowledged: by what it is ended.
    named: Option<(String, String)>,
    end_opaque: Option<i32>,
}

struct World {
    cores: Cores,
    messages: Vec<Message>,
}

impl World {
    fn send(&mut self, queue_id: u32, properties: &[(&str, &str)], flags: &[(&'static str, &str)], fate: Fate) {
        let number = self.messages.len();
        let body = number.to_string();
        let opaque = self.cores.post_send(number % CORES, "T", queue_id, properties, flags, body.as_bytes());
        self.messages.push(Message { opaque, is_acknowledged: false, fate, named: None, end_opaque: None });
    }

    fn end(&mut self, which: usize) {
        let mut halves = self.messages.iter_mut().enumerate().filter(|(_, message)| message.named.is_some());
        let Some((number, message)) = halves.nth(which) else { return };
        if message.end_opaque.is_some() {
            return;
        }
        // Each number has its own end, so that a repeated one says the same.
        let is_commit = number % 3 != 0;
        message.fate = match message.fate {
            Fate::Open if is_commit => Fate::Committed { is_acknowledged: false },
            Fate::Open => Fate::RolledBack,
            other => other,
        };
        let Some((queue_offset, physical_offset)) = message.named.clone() else { return };
        let ext = [
            ("commitLogOffset", physical_offset.as_str()),
            ("commitOrRollback", if is_commit { "8" } else { "12" }),
            ("fromTransactionCheck", "true"),
            ("msgId", "KEY"),
            ("producerGroup", "p"),
            ("tranStateTableOffset", queue_offset.as_str()),
        ];
        let opaque = self.cores.post(number % CORES, code::END_TRANSACTION, &ext, b"");
        self.messages[number].end_opaque = Some(opaque);
    }

    fn take_answers(&mut self) {
        for message in &mut self.messages {
            for answer in self.cores.answers_to(message.opaque) {
                assert_eq!(answer.code, 0, "{}", answer.remark);
                message.is_acknowledged = true;
                if message.fate == Fate::Open {
                    let id = OffsetMessageId::parse(answer.ext("msgId")).expect("a message id");
                    message.named = Some((answer.ext("queueOffset").to_owned(), id.physical_offset.to_string()));
                }
            }
            let Some(opaque) = message.end_opaque else { continue };
            for answer in self.cores.answers_to(opaque) {
                // Refused, it can be ended again.
                message.end_opaque = None;
                if let Fate::Committed { is_acknowledged } = &mut message.fate {
                    *is_acknowledged |= answer.code == 0;
                }
            }
        }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Timer { queue_id, delay_ms } => {
                let fate = Fate::Delayed { due_ms: self.cores.now_ms + delay_ms };
                self.send(queue_id, &[("TIMER_DELAY_MS", &delay_ms.to_string())], &[], fate);
            }
            Step::Level { queue_id, level } => {
                let delay_ms = if level == 1 { 1000 } else { 5000 };
                let fate = Fate::Delayed { due_ms: self.cores.now_ms + delay_ms };
                self.send(queue_id, &[("DELAY", &level.to_string())], &[], fate);
            }
            Step::Half { queue_id } => {
                self.send(
                    queue_id,
                    &[("TRAN_MSG", "true"), ("PGROUP", "p"), ("UNIQ_KEY", "KEY")],
                    &[("f", "4")],
                    Fate::Open,
                );
            }
            Step::End { which } => self.end(which),
            Step::Pass { ms } => {
                self.cores.now_ms += ms;
                self.cores.run();
            }
            Step::Stuck { core } => self.cores.set_disk(core, Disk::Stuck),
            Step::Works { core } => {
                self.cores.set_disk(core, Disk::Works);
                self.cores.run();
            }
            Step::Crash { commands } => {
                self.take_answers();
                self.cores.crash(commands);
                // Who asked before gets no answer any more, and asks again.
                self.messages.iter_mut().for_each(|message| message.end_opaque = None);
                self.cores.run();
            }
        }
        self.take_answers();
    }

    /// When each body was stored where consumers read it.
    fn delivered(&mut self) -> BTreeMap<usize, Vec<i64>> {
        let mut delivered = BTreeMap::<_, Vec<i64>>::new();
        for queue_id in 0..QUEUES {
            let owner = self.cores.broker(0).owner("T", queue_id);
            let end = self.cores.broker(owner).shard.bounds("T", queue_id).max;
            let mut offset = 0;
            while offset < end {
                let (queue, from) = (queue_id.to_string(), offset.to_string());
                let mut fields = pull_fields(&queue, &from);
                fields[7].1 = "*";
                let pulled = self.cores.call(0, code::PULL_MESSAGE, &fields, b"");
                assert_eq!(pulled.code, 0, "{}", pulled.remark);
                for message in record::iter(&pulled.body).map(|message| message.expect("a record")) {
                    let number = str::from_utf8(message.body).expect("a number").parse().expect("a number");
                    delivered.entry(number).or_default().push(message.store_timestamp);
                    offset = message.queue_offset + 1;
                }
            }
        }
        delivered
    }

    fn check(&mut self) {
        let delivered = self.delivered();
        for (number, message) in self.messages.iter().enumerate() {
            let times = delivered.get(&number).map_or(&[][..], Vec::as_slice);
            let must = match message.fate {
                Fate::Delayed { .. } => message.is_acknowledged,
                Fate::Committed { is_acknowledged } => is_acknowledged,
                Fate::Open | Fate::RolledBack => false,
            };
            let may = matches!(message.fate, Fate::Delayed { .. } | Fate::Committed { .. });
            let (least, most) = (usize::from(must), usize::from(may));
            assert!((least..=most).contains(&times.len()), "{number}: {:?} came {} times", message.fate, times.len());
            if let Fate::Delayed { due_ms } = message.fate {
                assert!(times.iter().all(|at_ms| due_ms <= *at_ms), "{number} came before {due_ms}: {times:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_owed_is_delivered_once_and_in_time(steps in prop::collection::vec(step(), 1..80)) {
        let checks = [("transactionTimeOut", "1000"), ("transactionCheckInterval", "1000"), ("transactionCheckMax", "1000")];
        let mut world = World { cores: Cores::with_config(CORES, &checks), messages: Vec::new() };
        // Made while all disks work.
        world.cores.send(0, "T", 0, &[("DELAY", "18")]);
        for step in steps {
            world.play(step);
        }
        (0..CORES).for_each(|core| world.play(Step::Works { core }));
        for _ in 0..REST_MS / 100 {
            world.play(Step::Pass { ms: 100 });
        }
        world.check();
    }
}
