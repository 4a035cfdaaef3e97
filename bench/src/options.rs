//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::BenchError;
use crate::frame::Serialization;
use crate::stamp::{Filler, STAMP_BYTES};

/// Load generator for RocketMQ brokers: RingMQ and Apache alike.
#[derive(Debug, Parser)]
#[command(name = "rmq-bench", version)]
pub struct Options {
    #[command(subcommand)]
    pub work: Work,
}

#[derive(Debug, Subcommand)]
pub enum Work {
    /// Send messages and measure how long their acknowledgement takes.
    Producer(ProducerOptions),
    /// Pull messages and check that they are whole and in order.
    Consumer(ConsumerOptions),
}

#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    /// Name server, host:port. Several may be given separated by `;`, the first that answers is used.
    #[arg(short, long, env = "NAMESRV_ADDR", default_value = "127.0.0.1:9876")]
    pub namesrv: String,
    /// Broker, host:port: skips the name server.
    #[arg(long)]
    pub broker: Option<String>,
    /// Topic; with --topics N the names are TOPIC-0 to TOPIC-(N-1).
    #[arg(long, default_value = "RmqBench")]
    pub topic: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub topics: u32,
    /// Queues used per topic [default: those of the route, 4 where there is none].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: Option<u32>,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Threads of this tool; connections are dealt over them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: u32,
    /// How long to measure, in seconds, after the warm-up [default: 10 unless --count or --drain is given].
    #[arg(long, value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Stop after this many messages.
    #[arg(long)]
    pub count: Option<u64>,
    /// Seconds of load before the measurement starts.
    #[arg(long, default_value = "0", value_parser = seconds)]
    pub warmup: Duration,
    /// How request headers are written.
    #[arg(long, value_enum, default_value_t = Serialization::Json)]
    pub header: Serialization,
    /// Process whose CPU time and memory are reported; may be repeated.
    #[arg(long)]
    pub server_pid: Vec<u32>,
    /// Write the result as JSON to this file, `-` for stdout (the text then goes to stderr).
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Free text that is copied into the JSON result, such as the server's flush mode.
    #[arg(long, default_value = "")]
    pub label: String,
}

#[derive(Args, Clone, Debug)]
pub struct ProducerOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Create the topic (request 17) on every broker before sending.
    #[arg(long)]
    pub create_topic: bool,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub in_flight: u32,
    /// Body of one message, in bytes.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// Messages per request; above 1 the request is a batch (320).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Open loop: messages per second in all, latency counted from the intended send time.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Give every message a key of its own.
    #[arg(long)]
    pub keys: bool,
    /// Tags dealt over the messages, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Delay level of every message, of RocketMQ's 18 default ones: 1 is one second, 18 two hours.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=18))]
    pub delay_level: Option<u32>,
    /// Timer messages (TIMER_DELIVER_MS), due between half of this many milliseconds from their sending and all of it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..), conflicts_with = "delay_level")]
    pub timer_ms: Option<u64>,
    /// Send half messages and commit each: a message counts when its commit is acknowledged.
    #[arg(long, conflicts_with_all = ["delay_level", "timer_ms"])]
    pub transaction: bool,
    /// Send the half messages of --transaction only, and end none of them.
    #[arg(long, requires = "transaction")]
    pub leave_open: bool,
    /// Give every message a property `number`: each of 0 to 9999 once in ten thousand messages of a connection.
    #[arg(long)]
    pub number: bool,
    /// What the body is filled with behind its stamp.
    #[arg(long, value_enum, default_value_t = Filler::Random)]
    pub body: Filler,
    #[arg(long, default_value = "rmq_bench_producer")]
    pub group: String,
}

#[derive(Args, Clone, Debug)]
pub struct ConsumerOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Messages asked for per pull.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Where to start.
    #[arg(long, value_enum, default_value_t = From::Begin)]
    pub from: From,
    /// Check bodies, and how they follow one another in each queue.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "order")]
    pub verify: Option<Verify>,
    /// Let the broker hold a pull until a message arrives (long polling).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub suspend: bool,
    /// Stop when every queue has been read to its end; implies --suspend=false.
    #[arg(long)]
    pub drain: bool,
    /// Stop when nothing has arrived for this many seconds.
    #[arg(long, value_parser = seconds)]
    pub idle: Option<Duration>,
    /// Filter expression of tags, such as `A || B`.
    #[arg(long, default_value = "*")]
    pub subscription: String,
    /// SQL92 filter expression, such as `number < 100`.
    #[arg(long, conflicts_with = "subscription")]
    pub sql: Option<String>,
    /// Consume in order as stock orderly consumers do: lock the queues, and commit each batch with the next pull.
    #[arg(long)]
    pub orderly: bool,
    /// Pop instead of pull, one pop in flight per connection, and acknowledge each message: it counts when its
    /// acknowledgement is answered.
    #[arg(long, conflicts_with_all = ["orderly", "sql", "subscription", "from", "suspend"])]
    pub pop: bool,
    #[arg(long, default_value = "rmq_bench_consumer")]
    pub group: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    Begin,
    End,
}

/// How much of the messages is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Every body is as it was sent, queue offsets follow each other.
    Integrity,
    /// Also: each producer connection's messages are in order in each queue, none missing, none twice.
    Order,
    /// As `order`, but in whatever order they come: none missing, none twice.
    Once,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl CommonOptions {
    pub fn topic_names(&self) -> Vec<String> {
        if self.topics == 1 {
            return vec![self.topic.clone()];
        }
        (0..self.topics).map(|index| format!("{}-{index}", self.topic)).collect()
    }

    /// When to stop measuring by the clock, if at all; `ends_by_itself` when the work has an end.
    pub fn duration(&self, ends_by_itself: bool) -> Option<Duration> {
        match self.duration {
            None if self.count.is_none() && !ends_by_itself => Some(Duration::from_secs(10)),
            duration => duration,
        }
    }
}

impl ConsumerOptions {
    pub fn check(&self) -> Result<(), BenchError> {
        let reason = match self.verify {
            Some(Verify::Order) if self.pop => "--pop knows no order: use --verify=once",
            Some(_) if self.pop && self.common.threads > 1 => "--pop with --verify needs --threads 1",
            _ if self.pop && self.common.broker.is_some() => "--pop needs the name server: handles name the broker",
            _ if self.pop && self.common.header == Serialization::Binary => {
                "--pop needs --header json: binary headers have 16 bits for the request code"
            }
            _ => return Ok(()),
        };
        Err(BenchError::Usage(reason.to_owned()))
    }
}

impl ProducerOptions {
    pub fn check(&self) -> Result<(), BenchError> {
        if self.size < STAMP_BYTES {
            return Err(BenchError::Usage(format!(
                "--size must be at least {STAMP_BYTES}: the body carries a stamp of that size"
            )));
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(BenchError::Usage("--rate must be above 0".to_owned()));
        }
        let is_single = self.delay_level.is_some() || self.timer_ms.is_some() || self.transaction;
        if is_single && self.batch > 1 {
            return Err(BenchError::Usage(
                "--batch goes with ordinary messages only: brokers refuse it with delays and transactions".to_owned(),
            ));
        }
        Ok(())
    }
}
